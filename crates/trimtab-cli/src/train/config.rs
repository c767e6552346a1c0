//! What training a scorer is, as users write it. Knows no model and no data.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use trimtab_reward::{RewardSpec, RewardSpecError};
use trimtab_train::{ScorerObjective, ScorerTrainConfig};

use super::config_file::{RunConfig, check_limit, look_beside, open, table, training};

/// A configuration with every field of the first level, for help texts; a test parses it.
pub(crate) const EXAMPLE_CONFIG: &str = r#"model = "smollm2-135m-instruct"   # whose states the scorer reads: the model to be steered
rollouts = "rollouts"             # a folder of `trimtab rollout`; a relative path is looked up beside this file
reward = "length"                 # a column of the rollouts, or any reward, which then scores them now
objective = "cd-q"                # cd-fudge, cd-q, or { kind = "cd-q", num_steps = 4 }
seed = 0
precision = "int8"                # of the model: the one that it will be steered in
features_len = 64                 # token features that values of next tokens are made of
# name = "length"                 # what reports call the scorer; the last part of its folder if not given
# skip = 1000                     # rollouts to pass over
# limit = 4000                    # most rollouts to take after those

[train]
epochs = 10
trunk_len = 512                   # width of the hidden layer of each head; 0 for linear heads
depth = "head"                    # or "lora", "full": weights of its own, which steer by text and take hours on a CPU
device = "cpu"                    # or "cuda", "cuda:N", in a binary that was built for it
action_head = true                # false for a scorer that steers by blocks only
eval_fraction = 0.1               # share of prompts that judge the scorer
optim = { batch_len = 1024, learning_rate = 1e-3, weight_decay = 0.01, warmup_fraction = 0.03 }
"#;

/// Training of one scorer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScorerConfig {
    /// What every training is told.
    #[serde(skip)]
    pub(crate) run: RunConfig,
    /// Rollouts: a folder, or a file of one shard.
    pub(crate) rollouts: PathBuf,
    /// What the scorer is to foresee: a column of the rollouts, or a reward.
    pub(crate) reward: String,
    /// How it is trained. Default `cd-fudge`.
    #[serde(default = "default_objective")]
    pub(crate) objective: Objective,
    /// Length of a row of token features, at least 2. Default 64.
    #[serde(default = "default_features_len")]
    pub(crate) features_len: usize,
    /// Rollouts to pass over.
    #[serde(default)]
    pub(crate) skip: u64,
    /// Most rollouts to take after those.
    #[serde(default)]
    pub(crate) limit: Option<u64>,
    /// Everything about the optimisation, see [`ScorerTrainConfig`].
    #[serde(default)]
    pub(crate) train: toml::Table,
}

/// An objective by name, or with its settings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Objective {
    /// As in `objective = "cd-q"`.
    Name(String),
    /// As in `objective = { kind = "cd-q", lambda = 0.5 }`.
    Table(toml::Table),
}

fn default_objective() -> Objective {
    Objective::Name(ScorerObjective::default().name().to_owned())
}

fn default_features_len() -> usize {
    64
}

impl ScorerConfig {
    /// Reads and checks a configuration. A relative path of rollouts is looked up beside the file first.
    ///
    /// # Errors
    /// The file and the field at fault.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut config = open(path, Self::parse)?;
        look_beside(path, &mut config.rollouts);
        config.run.locate_model()?;
        Ok(config)
    }

    /// Parses and checks a configuration.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut table = table(text)?;
        let run = RunConfig::take(&mut table)?;
        let config = Self {
            run,
            ..toml::Value::Table(table).try_into()?
        };
        if config.features_len < 2 {
            bail!("features_len is {}, expected at least 2", config.features_len);
        }
        check_limit("limit", config.limit)?;
        config.training()?.validate()?;
        Ok(config)
    }

    /// The reward as a specification, if it is one; other names can only be columns.
    pub(crate) fn reward_spec(&self) -> Result<RewardSpec, RewardSpecError> {
        self.reward.parse()
    }

    /// What rollouts call the reward's column.
    pub(crate) fn reward_name(&self) -> String {
        self.reward_spec()
            .map_or_else(|_| self.reward.clone(), |spec| spec.to_string())
    }

    /// The training crate's part, objective and seed included.
    ///
    /// # Errors
    /// A field that it does not know, or that stands in the wrong place.
    pub(crate) fn training(&self) -> Result<ScorerTrainConfig> {
        let mut training: ScorerTrainConfig = training(&self.train, &["objective", "seed"])?;
        let objective = match &self.objective {
            Objective::Name(kind) => toml::Table::from_iter([("kind".to_owned(), kind.clone().into())]),
            Objective::Table(table) => table.clone(),
        };
        // Apart from the rest, so that an error says where it belongs.
        training.objective = toml::Value::Table(objective).try_into().context("objective")?;
        training.seed = self.run.seed;
        Ok(training)
    }
}

#[cfg(test)]
mod tests {
    use trimtab_train::TrainDevice;

    use super::*;
    use crate::train::set_device;

    const GOOD: &str = "rollouts = \"r\"\nreward = \"length\"\n";

    #[test]
    fn the_example_is_understood_and_says_the_defaults() {
        let example = ScorerConfig::parse(EXAMPLE_CONFIG).unwrap();
        let short = ScorerConfig::parse(&format!("{GOOD}objective = \"cd-q\"")).unwrap();
        assert_eq!(example.training().unwrap(), short.training().unwrap());
        assert_eq!(example.training().unwrap().objective.name(), "cd-q");
        assert_eq!(
            (example.features_len, example.run.precision.as_str()),
            (64, "int8")
        );
    }

    #[test]
    fn objectives_have_names_and_settings() {
        let objective = |text: &str| {
            let config = ScorerConfig::parse(&format!("{GOOD}seed = 7\nobjective = {text}")).unwrap();
            assert_eq!(config.training().unwrap().seed, 7);
            config.training().unwrap().objective
        };
        assert_eq!(objective("\"cd-fudge\""), ScorerObjective::CdFudge {});
        let ScorerObjective::CdQ { num_steps, .. } = objective("{ kind = \"cd-q\", num_steps = 4 }") else {
            panic!("cd-q");
        };
        assert_eq!(num_steps, 4);
    }

    #[test]
    fn the_device_is_the_files_until_the_command_says_another() {
        let mut config = ScorerConfig::parse(&format!("{GOOD}[train]\ndevice = \"cuda:1\"")).unwrap();
        let device = |config: &ScorerConfig| config.training().unwrap().device.to_string();
        assert_eq!(device(&config), "cuda:1");
        set_device(&mut config.train, Some(TrainDevice::Cpu));
        assert_eq!(device(&config), "cpu");
    }

    #[test]
    fn rewards_have_one_name_and_columns_any() {
        let name = |reward: &str| {
            let text = format!("rollouts = \"r\"\nreward = {reward:?}");
            ScorerConfig::parse(&text).unwrap().reward_name()
        };
        assert_eq!(name("length:1024"), "length");
        assert_eq!(name("json*0.50 + length"), "json*0.5 + length");
        assert_eq!(name("human rating"), "human rating");
    }

    #[test]
    fn bad_configurations_are_refused_by_field() {
        let check = |text: &str, expect: &str| {
            let message = format!("{:#}", ScorerConfig::parse(text).expect_err("must be refused"));
            assert!(message.contains(expect), "{message:?} lacks {expect:?}");
        };
        check("reward = \"length\"", "rollouts");
        check("rollouts = \"r\"", "reward");
        check(&format!("{GOOD}objective = \"cd-x\""), "cd-fudge");
        check(
            &format!("{GOOD}objective = {{ kind = \"cd-q\", steps = 2 }}"),
            "steps",
        );
        check(&format!("{GOOD}precision = \"int7\""), "int7");
        check(&format!("{GOOD}features_len = 1"), "features_len is 1");
        check(&format!("{GOOD}limit = 0"), "limit is 0");
        check(&format!("{GOOD}[train]\nepoch = 3"), "epoch");
        check(&format!("{GOOD}[train]\nepochs = 0"), "epochs");
        check(&format!("{GOOD}[train]\ndevice = \"gpu\""), "cpu, cuda or cuda:N");
        check(&format!("{GOOD}[train]\nseed = 3"), "move it to the top");
        check(&format!("{GOOD}typo = 3"), "typo");
    }
}
