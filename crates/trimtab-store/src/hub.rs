//! The model hub over HTTP: what a repository holds, and its files, resumed and checked.
//!
//! `hf-hub` knows the hub's addresses, token file and cache layout. The transfer is ours, because the library's
//! own appends whatever a server sends (also a whole file in answer to a range request), has no time limits, and
//! does not compare hashes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

use crate::error::SourceError;
use crate::hash::FileHash;
use crate::hub_config::HubConfig;
use crate::part::{AppendError, FileSpec, PartFile, Stage};
use crate::progress::{Event, Progress};

/// Bytes that a path in an address must not carry as they are.
const NOT_IN_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// A description of a repository with hundreds of thousands of files would be larger than this.
const MAX_LISTING_BYTES: u64 = 32 << 20;

/// What the hub says about a repository at one commit.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Listing {
    /// The commit.
    pub(crate) sha: String,
    pub(crate) siblings: Vec<RemoteFile>,
}

/// A file of a repository.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RemoteFile {
    /// Path inside the repository.
    #[serde(rename = "rfilename")]
    pub(crate) path: String,
    pub(crate) size: Option<u64>,
    pub(crate) lfs: Option<LargeFile>,
}

/// The record of a file that the hub keeps outside git.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct LargeFile {
    pub(crate) sha256: Option<String>,
}

/// A connection to the hub.
pub(crate) struct Hub {
    config: HubConfig,
    api: Api,
    agent: Agent,
}

impl Hub {
    pub(crate) fn new(config: HubConfig) -> Result<Self, SourceError> {
        // The cache is given in any case: the builder's default would look for a home folder and panic without.
        let cache = Cache::new(config.cache_dir.clone().unwrap_or_default());
        let mut builder = ApiBuilder::from_cache(cache)
            .with_progress(false)
            .with_token(config.token.clone());
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder
            .build()
            .map_err(|error: ApiError| SourceError::Unreachable {
                url: config.endpoint.clone().unwrap_or_default(),
                reason: error.to_string(),
            })?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_resolve(Some(config.connect_timeout))
            .timeout_connect(Some(config.connect_timeout))
            .timeout_recv_response(Some(config.read_timeout))
            .timeout_per_read(Some(config.read_timeout))
            // A compressed answer could not be resumed by its byte offset.
            .accept_encoding("identity")
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("trimtab/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Self { config, api, agent })
    }

    /// The files of a repository at a revision, with sizes and hashes.
    pub(crate) fn listing(&self, repo: &str, revision: &str) -> Result<Listing, SourceError> {
        let api_repo = self.api.repo(model_repo(repo, revision));
        let url = format!("hub {repo}@{revision}");
        let request = api_repo
            .info_request()
            .query("blobs", "true")
            .config()
            .http_status_as_error(false)
            .timeout_resolve(Some(self.config.connect_timeout))
            .timeout_connect(Some(self.config.connect_timeout))
            .timeout_recv_response(Some(self.config.read_timeout))
            .timeout_per_read(Some(self.config.read_timeout))
            .build();
        let mut response = request.call().map_err(|error| unreachable(&url, &error))?;
        check_status(&url, response.status().as_u16())?;
        let body = response
            .body_mut()
            .with_config()
            .limit(MAX_LISTING_BYTES)
            .read_to_vec();
        let body = body.map_err(|error| unreachable(&url, &error))?;
        serde_json::from_slice(&body).map_err(|error| SourceError::BadAnswer {
            url,
            reason: format!("no description of a model: {error}"),
        })
    }

    fn url(&self, repo: &str, revision: &str, path: &str) -> String {
        let path = utf8_percent_encode(path, NOT_IN_PATH).to_string();
        self.api.repo(model_repo(repo, revision)).url(&path)
    }
}

fn model_repo(repo: &str, revision: &str) -> Repo {
    Repo::with_revision(repo.to_owned(), RepoType::Model, revision.to_owned())
}

/// Files to bring from one repository.
pub(crate) struct HubFetch<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) stage: &'a Stage,
    pub(crate) repo: &'a str,
    pub(crate) revision: &'a str,
    pub(crate) files: &'a [FileSpec],
    /// For each file, its path in the repository.
    pub(crate) paths: &'a [String],
}

impl HubFetch<'_> {
    /// Brings all files to the stage's folder of whole files.
    pub(crate) fn run(&self, progress: &mut dyn Progress) -> Result<(), SourceError> {
        for (file, path) in self.files.iter().zip(self.paths) {
            if self.stage.is_whole(file)? {
                continue;
            }
            progress.event(Event::Started {
                what: &file.name,
                total_bytes: file.size_bytes,
            });
            self.fetch(file, path, progress)?;
            progress.event(Event::Finished);
        }
        Ok(())
    }

    fn fetch(&self, file: &FileSpec, path: &str, progress: &mut dyn Progress) -> Result<(), SourceError> {
        let mut on_bytes = |done_bytes| progress.event(Event::Advanced { done_bytes });
        if let Some(cached) = self.cached(file, path) {
            let mut part = PartFile::resume(self.stage, file)?;
            if copy_if_right(&cached, &mut part, file, &mut on_bytes)? {
                return part.finish(self.stage, file).map(drop);
            }
        }
        let transfer = Transfer {
            hub: self.hub,
            url: self.hub.url(self.repo, self.revision, path),
            file,
        };
        transfer.probe()?;
        let mut part = PartFile::resume(self.stage, file)?;
        transfer.to_end(&mut part, &mut on_bytes)?;
        part.finish(self.stage, file).map(drop)
    }

    /// The file in the cache of the hub's own tools, if the revision is a commit and the size agrees.
    fn cached(&self, file: &FileSpec, path: &str) -> Option<PathBuf> {
        // Without a hash nothing would tell a file that was edited there.
        file.sha256?;
        let cache = Cache::new(self.hub.config.cache_dir.clone()?);
        let cached = cache
            .repo(model_repo(self.repo, self.revision))
            .pointer_path(self.revision)
            .join(path);
        fs::metadata(&cached)
            .is_ok_and(|found| found.is_file() && found.len() == file.size_bytes)
            .then_some(cached)
    }
}

/// Copies `source` to `part`; `false`, with `part` empty, if its content is not what `file` promises.
fn copy_if_right(
    source: &Path,
    part: &mut PartFile,
    file: &FileSpec,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<bool, SourceError> {
    part.restart()?;
    let Ok(mut reader) = File::open(source) else {
        return Ok(false);
    };
    match part.append(&mut reader, file.size_bytes, on_bytes) {
        Ok((_, got)) if Some(got) == file.sha256 => Ok(true),
        Ok(_) | Err(AppendError::Source(_)) => part.restart().map(|()| false),
        Err(AppendError::Disk(error)) => Err(error),
    }
}

/// One file on its way.
struct Transfer<'a> {
    hub: &'a Hub,
    url: String,
    file: &'a FileSpec,
}

/// How one attempt ended.
enum Attempt {
    /// The body ended, early or not.
    Ended,
    /// The connection failed in a way that another attempt may mend.
    Broken(SourceError),
}

impl Transfer<'_> {
    /// Asks about the file without following the redirection to the storage: one request, tried once. Learns
    /// before the first byte if the hub's file is another than the one promised.
    fn probe(&self) -> Result<(), SourceError> {
        let mut request = self.hub.agent.head(&self.url);
        if let Some(token) = &self.hub.config.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        // A hub that connects but does not answer is not worth the patience of a transfer.
        let answer_within = self
            .hub
            .config
            .read_timeout
            .min(2 * self.hub.config.connect_timeout);
        let request = request
            .config()
            .max_redirects(0)
            .timeout_recv_response(Some(answer_within))
            .build();
        let response = request.call().map_err(|error| unreachable(&self.url, &error))?;
        // A mirror that does not answer HEAD is asked again by GET.
        if !matches!(response.status().as_u16(), 200..400 | 405 | 501) {
            check_status(&self.url, response.status().as_u16())?;
        }
        let offered =
            header(response.headers(), "x-linked-etag").and_then(|etag| etag.trim_matches('"').parse().ok());
        match (offered, self.file.sha256) {
            (Some::<FileHash>(offered), Some(expected)) if offered != expected => {
                Err(SourceError::BadAnswer {
                    url: self.url.clone(),
                    reason: format!("expected a file with sha256 {expected}, the hub has {offered}"),
                })
            }
            _ => Ok(()),
        }
    }

    /// Attempts until the file is whole, each from where the last one stopped, as long as bytes keep coming.
    fn to_end(&self, part: &mut PartFile, on_bytes: &mut dyn FnMut(u64)) -> Result<(), SourceError> {
        on_bytes(part.len_bytes());
        let mut most_bytes = part.len_bytes();
        let mut fruitless_attempts = 0;
        while part.missing_bytes() > 0 {
            let attempt = self.attempt(part, on_bytes)?;
            if part.missing_bytes() == 0 {
                break;
            }
            // The high-water mark, not growth: a server that restarts from zero each time must not loop for ever.
            fruitless_attempts = if part.len_bytes() > most_bytes {
                0
            } else {
                fruitless_attempts + 1
            };
            most_bytes = most_bytes.max(part.len_bytes());
            if fruitless_attempts >= self.hub.config.max_fruitless_attempts.max(1) {
                return Err(match attempt {
                    Attempt::Broken(error) => error,
                    Attempt::Ended => self.cut_short(part),
                });
            }
            thread::sleep(self.hub.config.retry_pause);
        }
        Ok(())
    }

    fn cut_short(&self, part: &PartFile) -> SourceError {
        let reason = format!(
            "the transfer ended after {} of {} bytes",
            part.len_bytes(),
            self.file.size_bytes
        );
        SourceError::Unreachable {
            url: self.url.clone(),
            reason,
        }
    }

    fn attempt(&self, part: &mut PartFile, on_bytes: &mut dyn FnMut(u64)) -> Result<Attempt, SourceError> {
        let mut response = match self.request(part.len_bytes()) {
            Ok(response) => response,
            Err(error) => return Ok(Attempt::Broken(unreachable(&self.url, &error))),
        };
        let status = response.status().as_u16();
        if let Err(error) = check_status(&self.url, status) {
            // Too many requests and server faults pass; other refusals do not.
            return if matches!(status, 408 | 429 | 500..) {
                Ok(Attempt::Broken(error))
            } else {
                Err(error)
            };
        }
        let start_bytes = self.check_extent(&response, part.len_bytes())?;
        if start_bytes != part.len_bytes() {
            // The server ignored the range and sends the whole.
            part.restart()?;
        }
        let limit_bytes = part.missing_bytes();
        match part.append(&mut response.body_mut().as_reader(), limit_bytes, on_bytes) {
            Ok(_) => Ok(Attempt::Ended),
            Err(AppendError::Source(error)) => {
                let reason = error.to_string();
                Ok(Attempt::Broken(SourceError::Unreachable {
                    url: self.url.clone(),
                    reason,
                }))
            }
            Err(AppendError::Disk(error)) => Err(error),
        }
    }

    fn request(&self, start_bytes: u64) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.hub.agent.get(&self.url);
        if let Some(token) = &self.hub.config.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if start_bytes > 0 {
            request = request.header("range", format!("bytes={start_bytes}-"));
        }
        request.call()
    }

    /// Checks that the answer belongs to a file of the promised size; gives the offset of its first byte, which is
    /// either the one asked for or zero.
    fn check_extent(&self, response: &Response<Body>, asked_bytes: u64) -> Result<u64, SourceError> {
        let bad = |reason: String| SourceError::BadAnswer {
            url: self.url.clone(),
            reason,
        };
        let (start_bytes, total_bytes) = if response.status().as_u16() == 206 {
            let text = header(response.headers(), "content-range").unwrap_or_default();
            let (start, total) =
                parse_content_range(text).ok_or_else(|| bad(format!("content-range {text:?}")))?;
            if start != asked_bytes && start != 0 {
                return Err(bad(format!(
                    "asked for bytes from {asked_bytes}, got content-range {text:?}"
                )));
            }
            (start, Some(total))
        } else {
            (0, response.body().content_length())
        };
        match total_bytes {
            Some(got_bytes) if got_bytes != self.file.size_bytes => Err(SourceError::SizeMismatch {
                file: self.file.name.clone(),
                expected_bytes: self.file.size_bytes,
                got_bytes,
            }),
            _ => Ok(start_bytes),
        }
    }
}

/// Reads `bytes START-END/TOTAL`.
fn parse_content_range(text: &str) -> Option<(u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()?))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn check_status(url: &str, status: u16) -> Result<(), SourceError> {
    if (200..400).contains(&status) {
        Ok(())
    } else {
        Err(SourceError::Refused {
            url: url.to_owned(),
            status,
        })
    }
}

fn unreachable(url: &str, error: &ureq::Error) -> SourceError {
    SourceError::Unreachable {
        url: url.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_range_parses() {
        for (text, expect) in [
            ("bytes 5-9/10", Some((5, 10))),
            ("bytes 0-0/1", Some((0, 1))),
            ("bytes */10", None),
            ("5-9/10", None),
            ("bytes 5-9/*", None),
            ("", None),
        ] {
            assert_eq!(parse_content_range(text), expect, "for {text:?}");
        }
    }

    #[test]
    fn addresses_are_escaped_and_pinned() {
        let config = HubConfig {
            endpoint: Some("http://127.0.0.1:9".to_owned()),
            ..HubConfig::default()
        };
        let hub = Hub::new(config).unwrap();
        let url = hub.url("o/n", "refs/pr/1", "a b/c#d.gguf");
        assert_eq!(
            url,
            "http://127.0.0.1:9/o/n/resolve/refs%2Fpr%2F1/a%20b/c%23d.gguf"
        );
    }
}
