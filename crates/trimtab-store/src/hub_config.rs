//! Settings of the connection to the model hub.

use std::path::PathBuf;
use std::time::Duration;

use hf_hub::Cache;

/// How to reach the model hub.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Base address; `None` is the public hub. A mirror with the same paths serves as well.
    pub endpoint: Option<String>,
    /// Access token for private and gated models.
    pub token: Option<String>,
    /// The hub's own cache folder (`.../huggingface/hub`); files found there are copied instead of downloaded.
    pub cache_dir: Option<PathBuf>,
    /// Limit for resolving a name and for connecting, each. Default: 4 seconds, so that a machine without a way to
    /// the hub goes on to the next source at once.
    pub connect_timeout: Duration,
    /// Limit for the start of an answer and for each read of it. Default: 30 seconds.
    pub read_timeout: Duration,
    /// Attempts in a row that bring no new byte before giving up, once the hub has answered. Default: 4.
    pub max_fruitless_attempts: u32,
    /// Pause between attempts. Default: 1 second.
    pub retry_pause: Duration,
}

impl Default for HubConfig {
    /// The public hub, without a token or a cache.
    fn default() -> Self {
        Self {
            endpoint: None,
            token: None,
            cache_dir: None,
            connect_timeout: Duration::from_secs(4),
            read_timeout: Duration::from_secs(30),
            max_fruitless_attempts: 4,
            retry_pause: Duration::from_secs(1),
        }
    }
}

impl HubConfig {
    /// The user's settings as the hub's own tools read them: `HF_ENDPOINT`, `HF_TOKEN` or the token file that a
    /// login leaves, and the cache below `HF_HOME` or the home folder.
    pub fn from_env() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "settings of the hub's own tools, which users have set for all of them"
        )]
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        // The library's default cache panics where there is no home folder.
        let has_folder = variable("HF_HOME").is_some() || dirs::home_dir().is_some();
        let cache = has_folder.then(Cache::from_env);
        Self {
            endpoint: variable("HF_ENDPOINT").map(|url| url.trim_end_matches('/').to_owned()),
            token: variable("HF_TOKEN").or_else(|| cache.as_ref().and_then(Cache::token)),
            cache_dir: cache.map(|cache| cache.path().clone()),
            ..Self::default()
        }
    }
}
