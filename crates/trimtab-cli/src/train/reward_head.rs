//! `train reward-head`: from preferences to a reward, a classifier on the model's state at the end of a response.
//!
//! The model is not changed, so training takes minutes; a reward so made is `head:DIR` wherever rewards are named.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use trimtab_data::RowRange;
use trimtab_runtime::{LOG_PROBABILITY, LOGIT};
use trimtab_scorer::{FORMAT_VERSION, ScorerBase, ScorerCard, write_scorer};
use trimtab_train::{ClassifierTrainConfig, PairedStates, RunDir, TrainedScorer, train_classifier};

use super::pairs::{PairSource, final_states};
use super::report::TrainReport;
use super::run::{TrainOptions, show_event};
use crate::args::parse_precision;
use crate::prompts::without_bom;
use crate::resolve::ReadyModel;

/// A configuration with every field of the first level, for help texts; a test parses it.
pub(crate) const EXAMPLE_CONFIG: &str = r#"model = "smollm2-135m-instruct"   # whose states are read
pairs = "harmless.jsonl.gz"       # rows with `chosen` and `rejected`, plain or as in HH-RLHF; looked up beside this file
output = "logit"                  # or "log-probability": log sigmoid(logit), in nats
seed = 0
precision = "int8"                # of the model
# name = "harmless"               # what reports call it; the last part of its folder if not given
# skip = 0                        # pairs to pass over
# limit = 4000                    # most pairs to take after those
# drop_long = true                # leave out what does not fit the context, instead of refusing it

[train]
epochs = 20
trunk_len = 64                    # width of the hidden layer; 0 reads the state linearly
eval_fraction = 0.1               # share of prompts that judge it
optim = { batch_len = 256, learning_rate = 1e-3 }
"#;

/// Training of one reward head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RewardHeadConfig {
    /// Alias, `org/name` of the hub, or a path. Default `smollm2-135m-instruct`.
    #[serde(default = "super::config::default_model")]
    pub(crate) model: String,
    /// Preferences: a file of pairs.
    pub(crate) pairs: PathBuf,
    /// What the reward is. Default the logit.
    #[serde(default)]
    pub(crate) output: Output,
    /// Seed of everything random. Default 0.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Precision of weights and activations. Default `int8`.
    #[serde(default = "super::config::default_precision")]
    pub(crate) precision: String,
    /// What reports call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Pairs to pass over.
    #[serde(default)]
    pub(crate) skip: u64,
    /// Most pairs to take after those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u64>,
    /// Leave out what does not fit the context. Default false: it is refused.
    #[serde(default)]
    pub(crate) drop_long: bool,
    /// Everything about the optimisation, see [`ClassifierTrainConfig`].
    #[serde(default)]
    train: toml::Table,
}

/// What a head's reward is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Output {
    /// Differences are log-odds of a preference.
    #[default]
    Logit,
    /// `log sigmoid(logit)`, bounded above by 0, as the paper's reward (CD section 4).
    LogProbability,
}

impl RewardHeadConfig {
    /// Reads and checks a configuration. A relative path of pairs is looked up beside the file first.
    ///
    /// # Errors
    /// The file, line and field at fault.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut config = Self::parse(&text).with_context(|| path.display().to_string())?;
        let beside = path.parent().unwrap_or(Path::new("")).join(&config.pairs);
        if config.pairs.is_relative() && beside.exists() {
            config.pairs = beside;
        }
        Ok(config)
    }

    /// Parses and checks a configuration.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(without_bom(text))?;
        if config.limit == Some(0) {
            bail!("limit is 0, expected at least 1");
        }
        parse_precision(&config.precision).map_err(|problem| anyhow::anyhow!("precision: {problem}"))?;
        config.training()?.validate()?;
        Ok(config)
    }

    fn training(&self) -> Result<ClassifierTrainConfig> {
        if self.train.contains_key("seed") {
            bail!("seed stands in [train]; move it to the top of the file");
        }
        let table = toml::Value::Table(self.train.clone());
        let mut training: ClassifierTrainConfig = table.try_into().context("[train]")?;
        training.seed = self.seed;
        Ok(training)
    }
}

/// Trains the reward of `config` and writes it.
///
/// # Errors
/// Pairs that cannot be used, a run folder of another configuration, a loss that is not finite. States that were read and
/// steps that were made are kept; the reward's files appear when they are whole.
pub(crate) fn train_reward_head(config: &RewardHeadConfig, options: &TrainOptions) -> Result<TrainReport> {
    let training = config.training()?;
    let precision = parse_precision(&config.precision).map_err(anyhow::Error::msg)?;
    let source = PairSource {
        path: &config.pairs,
        range: RowRange {
            skip: config.skip,
            limit: config.limit,
        },
        drop_long: config.drop_long,
        precision: &config.precision,
    };
    let (states, base) = {
        // The model's memory is free again before training begins.
        let model = ReadyModel::open(&config.model, options.source, precision.plan, options.threads)?;
        let base = ScorerBase {
            name: model.stored.name.clone(),
            sha256: model.sha256(),
            hidden_len: model.loaded.config().hidden_len,
            vocab_len: model.loaded.config().vocab_len,
            precision: config.precision.clone(),
        };
        (final_states(&source, &model)?, base)
    };
    let run_dir = RunDir::new(&options.out, env!("CARGO_PKG_VERSION"));
    let mut progress = None;
    let trained = train_classifier(&training, &states, &run_dir, &mut |event| {
        show_event(&mut progress, &event);
        ControlFlow::Continue(())
    });
    if let Some(progress) = &progress {
        progress.finish();
    }
    let trained = trained?;
    let card = card(config, &options.out, (base, &states), &trained)?;
    let card = write_scorer(&options.out, &card, &trained.weights)
        .with_context(|| format!("cannot write the reward in {}", options.out.display()))?;
    let use_it = format!(
        "trimtab generate \"...\" --decode bon:16 --reward head:{}",
        options.out.display()
    );
    Ok(TrainReport::new(&options.out, card, trained.best_step, use_it))
}

fn card(
    config: &RewardHeadConfig,
    out: &Path,
    (base, states): (ScorerBase, &PairedStates),
    trained: &TrainedScorer,
) -> Result<ScorerCard> {
    let unit = match config.output {
        Output::Logit => LOGIT,
        Output::LogProbability => LOG_PROBABILITY,
    };
    Ok(ScorerCard {
        format_version: FORMAT_VERSION,
        name: super::run::scorer_name(config.name.as_ref(), out)?,
        objective: "classifier".to_owned(),
        reward: "preference".to_owned(),
        reward_unit: unit.to_owned(),
        base,
        data_sha256: trimtab_train::classifier::ClassifierData::content_sha256(states),
        num_prefixes: 2 * states.keys.len() as u64,
        metrics: finite(&trained.metrics),
        seed: config.seed,
        source_revision: env!("CARGO_PKG_VERSION").to_owned(),
        weights_sha256: String::new(),
        model: None,
    })
}

/// Metrics that are numbers: JSON has no word for others, and one that is none says nothing.
pub(super) fn finite(metrics: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let numbers = metrics.iter().filter(|(_, value)| value.is_finite());
    numbers.map(|(name, &value)| (name.clone(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_understood_and_says_the_defaults() {
        let example = RewardHeadConfig::parse(EXAMPLE_CONFIG).unwrap();
        let short = RewardHeadConfig::parse("pairs = \"p.jsonl\"").unwrap();
        assert_eq!(example.training().unwrap(), short.training().unwrap());
        assert_eq!(example.output, Output::Logit);
    }

    #[test]
    fn bad_configurations_are_refused_by_field() {
        let check = |text: &str, expect: &str| {
            let message = format!(
                "{:#}",
                RewardHeadConfig::parse(text).expect_err("must be refused")
            );
            assert!(message.contains(expect), "{message:?} lacks {expect:?}");
        };
        let good = "pairs = \"p.jsonl\"\n";
        check("seed = 1", "pairs");
        check(&format!("{good}output = \"odds\""), "log-probability");
        check(&format!("{good}limit = 0"), "limit is 0");
        check(&format!("{good}[train]\nepoch = 3"), "epoch");
        check(&format!("{good}[train]\nseed = 3"), "move it to the top");
    }
}
