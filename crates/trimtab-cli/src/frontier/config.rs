//! What a frontier run is, as users write it. Knows no model and no results.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use trimtab_decode::{DecodeSpec, Sampling};
use trimtab_reward::{ExternalLimits, RewardSpec};
use trimtab_store::ModelRef;

use super::identity::Fields;
use super::methods::{Method, MethodEntry, MethodTable, SEED, SweepValue, expand, filled};
use crate::args::parse_precision;
use crate::prompts::{self, Duplicates};
use crate::resolve::model_ref;

/// A configuration with every field, for help texts; a test parses it.
pub(crate) const EXAMPLE_CONFIG: &str = r#"model = "smollm2-135m-instruct"      # alias, org/name of the hub, or a path
prompts = "builtin:quickstart"       # or a file: .jsonl with a "prompt" field, or one prompt a line
reward = "length"                    # see below; weighted sums as "json + length*-0.1"
methods = ["sample", "bon:4", "bon:16"]
seed = 0
max_new_tokens = 128                 # most tokens of an answer
reference_samples = 4                # independent reference answers per prompt that methods are compared with
precision = "int8"                   # int8, int8-wide, int4, bf16 or f32
# A method can be a table: with scorers of `trimtab train scorer`, DIR*WEIGHT or DIR@MODEL*WEIGHT, and as a sweep:
#   { decode = "cd-block:k={k},m=16", k = [2, 4, 6], scorers = ["runs/length"], series = "blockwise", label = "K = {k}" },
#   { decode = "cd-token:weight=4", scorers = ["runs/help*0.8", "runs/length*{w}"], w = [-0.5, -1.0], floor = "help>=0.5" }
# num_prompts = 100                  # only the first so many
# skip = 1000                        # leave out the first so many, e.g. those that a scorer was trained on
# duplicates = "first"               # of records with one prompt take the first: "first", or "refuse" if they differ
# seeds = [0, 1, 2]                  # in place of seed: each method with each, means over all; {seed} in a path is each
# share_prompts = true               # each seed answers its share of the prompts, at a fraction of the cost
# rewards_also = ["json"]            # further rewards that are reported, and no method chooses by
# x_axis = "k"                       # a further figure over this variable of the sweeps
# stop = ["\n\n"]                    # texts that end an answer
# system = "You are terse."          # system message
# raw = true                         # no chat template
# reward_batch = 256                 # for cmd: and http: rewards: most responses in one request,
# reward_timeout_s = 120             # most seconds for one request,
# reward_retries = 2                 # further attempts after a failed one
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
    pub(crate) methods: Vec<MethodEntry>,
    /// Seed of everything random. Default 0.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Several seeds in place of one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) seeds: Vec<u64>,
    /// Whether prompts are shared out among the seeds, prompt `i` of `n` seeds to seed `i mod n`. Default false: every seed
    /// answers every prompt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) share_prompts: bool,
    /// Further rewards of the answers, which no method chooses by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) rewards_also: Vec<RewardSpec>,
    /// The variable of the sweeps that a figure has on its axis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) x_axis: Option<String>,
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
    /// Leave out the first so many distinct prompts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) skip: usize,
    /// What becomes of records with one prompt and different other fields. By default they are refused, but for
    /// transcripts, of which only the first turn is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) duplicates: Option<Duplicates>,
    /// Texts that end an answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) stop: Vec<String>,
    /// System message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) system: Option<String>,
    /// Continue prompts as they are, without the chat template. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) raw: bool,
    /// Most items sent to an external reward at once, 1 to 65,536. Default 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reward_batch: Option<usize>,
    /// Most seconds that an external reward may take for one batch, 1 to 86,400. Default 120.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reward_timeout_s: Option<u64>,
    /// Further attempts after one that failed, 0 to 16. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reward_retries: Option<u32>,
}

/// How external rewards are asked: no part of a run's identity.
const LIMIT_FIELDS: [&str; 3] = ["reward_batch", "reward_timeout_s", "reward_retries"];

/// Where prompts and weights are found, whose content counts instead, and how results are shown.
const PLACE_FIELDS: [&str; 6] = ["model", "prompts", "num_prompts", "skip", "duplicates", "x_axis"];

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(value: &usize) -> bool {
    *value == 0
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
            methods: [
                DecodeSpec::Sample {
                    sampling: Sampling::REFERENCE,
                },
                drawn(4),
                drawn(16),
            ]
            .map(MethodEntry::Text)
            .to_vec(),
            seed,
            seeds: Vec::new(),
            share_prompts: false,
            rewards_also: Vec::new(),
            x_axis: None,
            max_new_tokens: default_max_new_tokens(),
            reference_samples: default_reference_samples(),
            precision: precision.to_owned(),
            num_prompts: None,
            skip: 0,
            duplicates: None,
            stop: Vec::new(),
            system: None,
            raw: false,
            reward_batch: None,
            reward_timeout_s: None,
            reward_retries: None,
        }
    }

    /// The run with blocks chosen by a scorer beside its methods.
    ///
    /// # Errors
    /// A path that is no text.
    pub(crate) fn with_scorer(mut self, scorer: &Path) -> Result<Self> {
        let scorer = scorer
            .to_str()
            .context("the folder's name is not UTF-8; choose another --out")?;
        self.methods.push(MethodEntry::Table(MethodTable {
            decode: "cd-block:k=4,m=16".to_owned(),
            scorers: vec![scorer.to_owned()],
            floor: None,
            series: None,
            label: Some("cd-block:k=4".to_owned()),
            variables: BTreeMap::new(),
        }));
        self.methods()?;
        Ok(self)
    }

    /// Reads and checks a configuration. Relative paths of prompts and scorers are looked up beside the file.
    ///
    /// # Errors
    /// The file, line and field at fault.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut config = Self::parse(&text).with_context(|| path.display().to_string())?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let beside = |place: &str, example: &str| {
            let example = without_model(example);
            let is_beside = Path::new(example).is_relative() && folder.join(example).exists();
            is_beside.then(|| folder.join(place).display().to_string())
        };
        if config.reads_prompt_file()
            && let Some(prompts) = beside(&config.prompts, &config.prompts)
        {
            config.prompts = prompts;
        }
        config.replace_scorer_places(beside);
        Ok(config)
    }

    /// Replaces the paths of scorers for which `replace` gives another, being told the path as it is written, and with
    /// the first values of its variables in their places.
    fn replace_scorer_places(&mut self, replace: impl Fn(&str, &str) -> Option<String>) {
        let first_seed = self.all_seeds()[0].to_string();
        for entry in &mut self.methods {
            let MethodEntry::Table(table) = entry else {
                continue;
            };
            let first = |(name, values): (&String, &Vec<SweepValue>)| {
                Some((name.clone(), values.first()?.to_string()))
            };
            let firsts = table.variables.iter().filter_map(first).collect();
            for scorer in &mut table.scorers {
                let (place, weight) = scorer
                    .rsplit_once('*')
                    .map_or((scorer.as_str(), None), |(place, weight)| (place, Some(weight)));
                let example = filled(place.trim(), &firsts).replace(SEED, &first_seed);
                if let Some(place) = replace(place.trim(), &example) {
                    *scorer = weight.map_or(place.clone(), |weight| format!("{place}*{weight}"));
                }
            }
        }
    }

    /// Every seed of the run; at least one.
    pub(crate) fn all_seeds(&self) -> &[u64] {
        if self.seeds.is_empty() {
            std::slice::from_ref(&self.seed)
        } else {
            &self.seeds
        }
    }

    /// Every method of the run; [`Self::parse`] has seen that they can be written out.
    pub(crate) fn methods(&self) -> Result<Vec<Method>> {
        expand(&self.methods)
    }

    fn reads_prompt_file(&self) -> bool {
        ![prompts::BUILTIN, prompts::BUILTIN_TRAINING, "-"].contains(&self.prompts.as_str())
    }

    /// Makes the paths of files absolute, and looks the model's name up without fetching it.
    ///
    /// # Errors
    /// A name that nothing has, a path without a model.
    pub(crate) fn locate(mut self) -> Result<Self> {
        if self.reads_prompt_file() && Path::new(&self.prompts).exists() {
            self.prompts = absolute(Path::new(&self.prompts), &self.prompts);
        }
        self.replace_scorer_places(|place, example| {
            Path::new(without_model(example))
                .exists()
                .then(|| absolute(Path::new(place), place))
        });
        if let ModelRef::Local { path, .. } = model_ref(&self.model)? {
            self.model = absolute(&path, &self.model);
        }
        Ok(self)
    }

    /// The model's name for reports: of a path only the last part, so that moving files changes no report.
    pub(crate) fn model_label(&self) -> String {
        let path = Path::new(&self.model);
        let last = path.file_name().filter(|_| path.is_absolute());
        last.map_or_else(|| self.model.clone(), |name| name.to_string_lossy().into_owned())
    }

    /// Limits of external rewards.
    pub(crate) fn reward_limits(&self) -> ExternalLimits {
        let default = ExternalLimits::default();
        ExternalLimits {
            batch_len: self.reward_batch.unwrap_or(default.batch_len),
            timeout_ms: self
                .reward_timeout_s
                .map_or(default.timeout_ms, |seconds| seconds.saturating_mul(1000)),
            num_retries: self.reward_retries.unwrap_or(default.num_retries),
            ..default
        }
    }

    /// The fields that say what the run is: all but the limits of external rewards.
    pub(super) fn described_fields(&self) -> Result<Fields> {
        let all = serde_json::to_value(self).context("cannot serialise the configuration")?;
        let mut fields = super::identity::fields_of(&all);
        fields.retain(|name, _| !LIMIT_FIELDS.contains(&name.as_str()));
        Ok(fields)
    }

    /// The fields that results depend on, given the content of prompts and weights.
    pub(super) fn result_fields(&self) -> Result<Fields> {
        let mut fields = self.described_fields()?;
        fields.retain(|name, _| !PLACE_FIELDS.contains(&name.as_str()));
        // Without paths and labels: scorers count by their content, and labels are how results are shown.
        let names: Vec<String> = self.methods()?.into_iter().map(|method| method.name).collect();
        fields.insert("methods".to_owned(), names.into());
        Ok(fields)
    }

    /// Parses and checks a configuration.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(prompts::without_bom(text))?;
        if config.methods.is_empty() {
            bail!(
                "methods is empty; expected at least one decoding method, e.g. methods = [\"sample\", \"bon:4\"]"
            );
        }
        let methods = config.methods()?;
        if let Some(variable) = &config.x_axis
            && !methods
                .iter()
                .any(|method| method.shown_as.variables.contains_key(variable))
        {
            bail!("x_axis is {variable:?}, which is no variable of a sweep in methods");
        }
        config.check_seeds()?;
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
        let within = [
            (
                "reward_batch",
                config.reward_batch.map(|len| len as u64),
                1..=65_536,
            ),
            ("reward_timeout_s", config.reward_timeout_s, 1..=86_400),
            ("reward_retries", config.reward_retries.map(u64::from), 0..=16),
        ];
        for (field, value, range) in within {
            if let Some(value) = value.filter(|value| !range.contains(value)) {
                bail!(
                    "{field} is {value}, expected {} to {}",
                    range.start(),
                    range.end()
                );
            }
        }
        if config.raw && config.system.is_some() {
            bail!("raw = true leaves out the chat template, so system cannot be given; remove one");
        }
        parse_precision(&config.precision).map_err(|problem| anyhow::anyhow!("precision: {problem}"))?;
        Ok(config)
    }

    fn check_seeds(&self) -> Result<()> {
        if self.seed != 0 && !self.seeds.is_empty() {
            bail!("seed and seeds are both given; remove one");
        }
        if self.share_prompts && self.seeds.len() < 2 {
            bail!("share_prompts needs at least two seeds to share prompts among, e.g. seeds = [0, 1, 2]");
        }
        let mut sorted = self.seeds.clone();
        sorted.sort_unstable();
        match sorted.array_windows().find(|[one, next]| one == next) {
            Some([twice, _]) => bail!("seeds names {twice} twice; remove one"),
            None => Ok(()),
        }
    }

    /// The configuration as a file that [`Self::open`] reads back.
    pub(crate) fn to_toml(&self) -> Result<String> {
        toml::to_string(self).context("cannot serialise the configuration")
    }
}

/// The folder of a scorer that is written `DIR@MODEL`.
fn without_model(place: &str) -> &str {
    place.rsplit_once('@').map_or(place, |(folder, _)| folder)
}

/// `path` from the root; `text` if it cannot be written in a configuration.
fn absolute(path: &Path, text: &str) -> String {
    let absolute = std::path::absolute(path).ok();
    let absolute = absolute.as_deref().and_then(Path::to_str);
    absolute.unwrap_or(text).to_owned()
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
    fn scorers_are_looked_up_beside_the_file_also_for_another_model() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("length_0")).unwrap();
        let path = folder.path().join("run.toml");
        let check = |scorer: &str, is_beside: bool| {
            let method = format!("{{ decode = \"cd-block:k=2,m=8\", scorers = [{scorer:?}] }}");
            std::fs::write(&path, format!("reward = \"length\"\nmethods = [{method}]\n")).unwrap();
            let methods = FrontierConfig::open(&path).unwrap().methods().unwrap();
            let expect = if is_beside {
                let scorer = scorer.replace(SEED, "0");
                folder.path().join(scorer).display().to_string()
            } else {
                scorer.to_owned()
            };
            assert_eq!(methods[0].scorers_of(0)[0].place, expect);
        };
        check("length_{seed}", true);
        check("length_0@stories15m", true);
        check("elsewhere@stories15m", false);
    }

    #[test]
    fn bad_configurations_are_refused_by_field() {
        let check = |text: &str, expect: &str| {
            let message = format!("{:#}", FrontierConfig::parse(text).expect_err("must be refused"));
            assert!(message.contains(expect), "{message:?} lacks {expect:?}");
        };
        // Editors on Windows write both.
        assert!(FrontierConfig::parse("\u{feff}reward = \"length\"\r\nmethods = [\"sample\"]\r\n").is_ok());
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
        check(
            &format!("{good}reward_batch = 0"),
            "reward_batch is 0, expected 1 to",
        );
        check(&format!("{good}reward_timeout_s = 0"), "reward_timeout_s is 0");
        check(
            &format!("{good}reward_timeout_s = 86401"),
            "reward_timeout_s is 86401",
        );
        check(&format!("{good}reward_retries = 17"), "reward_retries is 17");
        check(&format!("{good}temprature = 1"), "temprature");
        check(&format!("{good}seeds = [1, 2, 1]"), "seeds names 1 twice");
        check(&format!("{good}seed = 3\nseeds = [1, 2]"), "both given");
        check(&format!("{good}share_prompts = true"), "at least two seeds");
        check(&format!("{good}x_axis = \"k\""), "no variable of a sweep");
        check(&format!("{good}duplicates = \"last\""), "refuse");
        check(&format!("{good}raw = true\nsystem = \"x\""), "remove one");
    }
}
