//! What a frontier run is, as users write it. Knows no model and no results.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use trimtab_decode::{DecodeSpec, Sampling};
use trimtab_reward::RewardSpec;

use crate::args::parse_precision;
use crate::prompts;

/// A configuration with every field, for help texts; a test parses it.
pub(crate) const EXAMPLE_CONFIG: &str = r#"model = "smollm2-135m-instruct"      # alias, org/name of the hub, or a path
prompts = "builtin:quickstart"       # or a file: .jsonl with a "prompt" field, or one prompt a line
reward = "length"                    # see below; weighted sums as "json + length*-0.1"
methods = ["sample", "bon:4", "bon:16"]
seed = 0
max_new_tokens = 128                 # most tokens of an answer
reference_samples = 4                # independent reference answers per prompt that methods are compared with
precision = "int8"                   # int8, int8-wide, int4, bf16 or f32
# num_prompts = 100                  # only the first so many
# stop = ["\n\n"]                    # texts that end an answer
# system = "You are terse."          # system message
# raw = true                         # no chat template
"#;

/// A frontier run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FrontierConfig {
    /// Alias, `org/name` of the hub, or a path. Default `smollm2-135m-instruct`.
    #[serde(default = "default_model")]
    pub(crate) model: String,
    /// `builtin:quickstart` (default), `-`, or a file; see [`prompts::read_prompts`].
    #[serde(default = "default_prompts")]
    pub(crate) prompts: String,
    /// The reward; higher is better.
    pub(crate) reward: RewardSpec,
    /// Decoding methods, at least one.
    pub(crate) methods: Vec<DecodeSpec>,
    /// Seed of everything random. Default 0.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Most tokens of an answer, at least 1. Default 128.
    #[serde(default = "default_max_new_tokens")]
    pub(crate) max_new_tokens: usize,
    /// Independent reference answers per prompt that methods are compared with, at least 1. Default 4.
    #[serde(default = "default_reference_samples")]
    pub(crate) reference_samples: usize,
    /// Precision of weights and activations. Default `int8`.
    #[serde(default = "default_precision")]
    pub(crate) precision: String,
    /// Only the first so many prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) num_prompts: Option<usize>,
    /// Texts that end an answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) stop: Vec<String>,
    /// System message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) system: Option<String>,
    /// Continue prompts as they are, without the chat template. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) raw: bool,
}

fn default_model() -> String {
    "smollm2-135m-instruct".to_owned()
}

fn default_prompts() -> String {
    prompts::BUILTIN.to_owned()
}

fn default_max_new_tokens() -> usize {
    128
}

fn default_reference_samples() -> usize {
    4
}

fn default_precision() -> String {
    "int8".to_owned()
}

impl FrontierConfig {
    /// The run behind `trimtab quickstart`.
    pub(crate) fn quickstart(seed: u64, precision: &str) -> Self {
        let drawn = |num_candidates| DecodeSpec::BestOfN {
            num_candidates,
            sampling: Sampling::REFERENCE,
        };
        let length = trimtab_reward::RewardTerm {
            kind: trimtab_reward::RewardKind::Length {
                max_tokens: trimtab_reward::Length::DEFAULT_MAX_TOKENS,
            },
            weight: 1.0,
        };
        Self {
            model: default_model(),
            prompts: default_prompts(),
            reward: RewardSpec::new(vec![length]).expect("one term with a finite weight"),
            methods: vec![
                DecodeSpec::Sample {
                    sampling: Sampling::REFERENCE,
                },
                drawn(4),
                drawn(16),
            ],
            seed,
            max_new_tokens: default_max_new_tokens(),
            reference_samples: default_reference_samples(),
            precision: precision.to_owned(),
            num_prompts: None,
            stop: Vec::new(),
            system: None,
            raw: false,
        }
    }

    /// Reads and checks a configuration. A relative path of prompts is looked up beside the file.
    ///
    /// # Errors
    /// The file, line and field at fault.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut config = Self::parse(&text).with_context(|| path.display().to_string())?;
        let is_file = config.prompts != prompts::BUILTIN && config.prompts != "-";
        if is_file && Path::new(&config.prompts).is_relative() {
            let beside = path.parent().unwrap_or(Path::new("")).join(&config.prompts);
            if beside.exists() {
                config.prompts = beside.display().to_string();
            }
        }
        Ok(config)
    }

    /// Parses and checks a configuration.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text)?;
        if config.methods.is_empty() {
            bail!(
                "methods is empty; expected at least one decoding method, e.g. methods = [\"sample\", \"bon:4\"]"
            );
        }
        for (idx, method) in config.methods.iter().enumerate() {
            if config.methods[..idx].contains(method) {
                bail!("methods names {method} twice; remove one");
            }
        }
        let at_least_one = [
            ("max_new_tokens", Some(config.max_new_tokens)),
            ("reference_samples", Some(config.reference_samples)),
            ("num_prompts", config.num_prompts),
        ];
        for (field, value) in at_least_one {
            if value == Some(0) {
                bail!("{field} is 0, expected at least 1");
            }
        }
        if config.raw && config.system.is_some() {
            bail!("raw = true leaves out the chat template, so system cannot be given; remove one");
        }
        parse_precision(&config.precision).map_err(|problem| anyhow::anyhow!("precision: {problem}"))?;
        Ok(config)
    }

    /// The configuration as a file that [`Self::open`] reads back.
    pub(crate) fn to_toml(&self) -> Result<String> {
        toml::to_string(self).context("cannot serialise the configuration")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_the_quickstart_and_reads_back() {
        let example = FrontierConfig::parse(EXAMPLE_CONFIG).unwrap();
        assert_eq!(example, FrontierConfig::quickstart(0, "int8"));
        assert_eq!(
            FrontierConfig::parse(&example.to_toml().unwrap()).unwrap(),
            example
        );
    }

    #[test]
    fn bad_configurations_are_refused_by_field() {
        let check = |text: &str, expect: &str| {
            let message = format!("{:#}", FrontierConfig::parse(text).expect_err("must be refused"));
            assert!(message.contains(expect), "{message:?} lacks {expect:?}");
        };
        let good = "reward = \"length\"\nmethods = [\"sample\"]\n";
        assert!(FrontierConfig::parse(good).is_ok());
        check("methods = [\"sample\"]", "reward");
        check("reward = \"length\"\nmethods = []", "methods is empty");
        check(
            "reward = \"lenght\"\nmethods = [\"sample\"]",
            "did you mean `length`",
        );
        check("reward = \"length\"\nmethods = [\"bom:4\"]", "bon");
        check("reward = \"length\"\nmethods = [\"bon:4\", \"bon:n=4\"]", "twice");
        check(&format!("{good}max_new_tokens = 0"), "max_new_tokens is 0");
        check(&format!("{good}reference_samples = 0"), "reference_samples is 0");
        check(&format!("{good}precision = \"int7\""), "int7");
        check(&format!("{good}temprature = 1"), "temprature");
        check(&format!("{good}raw = true\nsystem = \"x\""), "remove one");
    }
}
