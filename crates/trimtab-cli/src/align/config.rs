//! What aligning a policy is, as users write it. Knows no model and no data.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use trimtab_infalign::{Procedure, Transform};
use trimtab_reward::RewardSpec;
use trimtab_train::policy::{PolicyObjective, PolicyTrainConfig};

use super::config_parts::{CalibrationConfig, RolloutsConfig, SamplesConfig};
use super::formats::PolicyFormat;
use crate::args::{DrawArgs, PrecisionName, RolloutArgs, RunArgs, Source, parse_precision};
use crate::prompts::{BUILTIN, BUILTIN_TRAINING, without_bom};
use crate::rollout;

/// A configuration with every field, for help texts; a test parses it.
pub(crate) const EXAMPLE_CONFIG: &str = r#"model = "stories15m"              # the reference: where the policy starts and what its KL is from
prompts = "openings.txt"          # as `trimtab rollout` takes them; relative paths are looked up beside this file
raw = true                        # prompts without the model's chat template
reward = "head:sentiment"         # any reward
watch = ["length"]                # further rewards that are only looked at: does the policy cheat?
procedure = "bon:4"               # what the policy is meant for: sample, bon:N, won:N; sft and bonbon learn from winners of bon:N
transform = "exp:10"              # of calibrated rewards: identity, log, exp:T, ...; raw: rewards as they are
objective = "rl"                  # or dpo, ipo, sft (best-of-N winners), bonbon; or { kind = "rl", advantage = "group" }
beta = [0.1]                      # KL weights; several give a run each
seed = 0
precision = "int8"                # of the engine that draws responses
max_new_tokens = 64
formats = ["base"]                # what the policy is written as: base (the reference's own), hf, gguf; the first opens
# skip = 100                      # prompts to pass over
# num_prompts = 500               # most prompts to take after those
# stop = ["\n"]                   # texts that end a response
# system = "Be brief."            # system message before each prompt
# dialogue = true                 # whole dialogues as prompts, not their first turn alone
# drop_long = true                # leave out prompts that do not fit the context

[calibration]
folder = "cal"                    # made by `calibrate`, or made now; beside this file, or below the run's folder if not given
per_prompt = 100                  # K; at least N of bon:N for sft and bonbon, and 2 for whatever else learns from the samples
seed = 0
interpolated = false              # true: lines between samples instead of steps; not invariant to the reward's scale

[rollouts]                        # of objective rl, and of the probe that measures the KL of the others
prompts_per_round = 16
per_prompt = 8
# warm_start_from_calibration = 20 # rounds at the beginning that take the calibration's samples, which cost nothing

[samples]                         # of the objectives that learn from the calibration's samples
per_prompt = 8                    # most pairs or winners of a prompt
pairs = "best-worst"              # of N samples, N as in procedure; or "random": two of them, which the optimum of IPO is for

[train]
epochs = 50                       # rounds of rl; passes of the others
depth = "lora"                    # or "full"
device = "cpu"                    # or "cuda", "cuda:N", in a binary that was built for it; responses are drawn on the CPU
keep_at_kl_nats = [0.5, 1.0, 2.0] # keep weights where the KL first gets there: one run, a whole frontier
kl_stop_nats = 5.0                # stop there
optim = { learning_rate = 1e-4 }
"#;

/// Rewards as they are, in place of a transform.
pub(crate) const RAW: &str = "raw";

/// Training of one policy, or of one for each beta.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AlignConfig {
    /// Alias, `org/name` of the hub, or a path. Default `smollm2-135m-instruct`.
    #[serde(default = "default_model")]
    pub(crate) model: String,
    /// Prompts, as `rollout` takes them.
    pub(crate) prompts: String,
    /// The reward.
    pub(crate) reward: RewardSpec,
    /// Rewards that are looked at and not trained on. Default none.
    #[serde(default)]
    pub(crate) watch: Vec<RewardSpec>,
    /// What the policy is meant for: one of those that `eval winrate` applies to samples. Default `sample`.
    #[serde(default = "default_procedure")]
    pub(crate) procedure: Procedure,
    /// A transform, or `raw`. Default `identity`.
    #[serde(default = "default_transform")]
    pub(crate) transform: String,
    /// What is minimised. Default `rl`.
    #[serde(default = "default_objective")]
    pub(crate) objective: Objective,
    /// KL weights. Default 0.1 for objectives that have one.
    #[serde(default)]
    pub(crate) beta: Vec<f64>,
    /// Seed of everything random but the calibration. Default 0.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Precision of the engine. Default `int8`.
    #[serde(default = "default_precision")]
    pub(crate) precision: String,
    /// What policies are written as. Weights kept on the way are written as the first only. Default the reference's format.
    #[serde(default = "default_formats")]
    pub(crate) formats: Vec<PolicyFormat>,
    /// Most tokens of a response; 256, or half of the context.
    #[serde(default)]
    pub(crate) max_new_tokens: Option<usize>,
    /// Prompts without the chat template.
    #[serde(default)]
    pub(crate) raw: bool,
    /// System message.
    #[serde(default)]
    pub(crate) system: Option<String>,
    /// Texts that end a response.
    #[serde(default)]
    pub(crate) stop: Vec<String>,
    /// Whole dialogues as prompts.
    #[serde(default)]
    pub(crate) dialogue: bool,
    /// Prompts to pass over.
    #[serde(default)]
    pub(crate) skip: u64,
    /// Most prompts to take after those.
    #[serde(default)]
    pub(crate) num_prompts: Option<u64>,
    /// Leave out prompts that do not fit.
    #[serde(default)]
    pub(crate) drop_long: bool,
    /// Samples of the reference.
    #[serde(default)]
    pub(crate) calibration: CalibrationConfig,
    /// Responses of the policy.
    #[serde(default)]
    pub(crate) rollouts: RolloutsConfig,
    /// What is made of the calibration's samples where they are trained on.
    #[serde(default)]
    pub(crate) samples: SamplesConfig,
    /// Everything about the optimisation, see [`PolicyTrainConfig`].
    #[serde(default)]
    pub(crate) train: toml::Table,
}

/// An objective by name, or with its settings; `beta` stands at the top.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Objective {
    /// As in `objective = "rl"`.
    Name(String),
    /// As in `objective = { kind = "rl", clip = 0.2 }`.
    Table(toml::Table),
}

/// One run of a configuration: a beta, where the objective has one.
#[derive(Debug, Clone)]
pub(crate) struct OneRun {
    /// KL weight.
    pub(crate) beta: Option<f64>,
    /// The transform; `None` for rewards as they are.
    pub(crate) transform: Option<Transform>,
    /// The training crate's part.
    pub(crate) training: PolicyTrainConfig,
}

fn default_model() -> String {
    "smollm2-135m-instruct".to_owned()
}

fn default_procedure() -> Procedure {
    Procedure::Sample
}

fn default_transform() -> String {
    "identity".to_owned()
}

fn default_objective() -> Objective {
    Objective::Name("rl".to_owned())
}

fn default_formats() -> Vec<PolicyFormat> {
    vec![PolicyFormat::Base]
}

fn default_precision() -> String {
    "int8".to_owned()
}

impl AlignConfig {
    /// Reads and checks a configuration. Relative paths of prompts, calibration, heads and tables are looked up beside the
    /// file.
    ///
    /// # Errors
    /// The file and field at fault.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut config = Self::parse(&text).with_context(|| path.display().to_string())?;
        config.locate(path.parent().unwrap_or(Path::new("")))?;
        Ok(config)
    }

    /// Parses and checks a configuration.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(without_bom(text))?;
        config.precision()?;
        let counts = [
            ("calibration.per_prompt", config.calibration.per_prompt, 1),
            ("rollouts.prompts_per_round", config.rollouts.prompts_per_round, 1),
            (
                "rollouts.per_prompt",
                config.rollouts.per_prompt,
                config.fewest_per_prompt(),
            ),
            ("samples.per_prompt", config.samples.per_prompt, 1),
            ("max_new_tokens", config.max_new_tokens.unwrap_or(1), 1),
        ];
        for (field, value, least) in counts {
            if value < least {
                bail!("{field} is {value}, expected at least {least}");
            }
        }
        if config.formats.is_empty() {
            bail!("formats is empty, expected one or more of base, hf, gguf");
        }
        if config.num_prompts == Some(0) {
            bail!("num_prompts is 0, expected at least 1");
        }
        if config.raw && config.system.is_some() {
            bail!("system stands beside raw = true; a raw prompt has no system message");
        }
        if config.stop.iter().any(String::is_empty) {
            bail!("stop holds an empty text, which would end every response at once");
        }
        config.runs()?;
        Ok(config)
    }

    fn locate(&mut self, beside: &Path) -> Result<()> {
        if ![BUILTIN, BUILTIN_TRAINING, "-"].contains(&self.prompts.as_str()) {
            self.prompts = look_beside(beside, Path::new(&self.prompts))
                .display()
                .to_string();
        }
        if let Some(folder) = self.calibration.folder.take() {
            // It may not be there yet.
            self.calibration.folder = Some(plain(&beside.join(folder)));
        }
        self.reward = with_heads_beside(&self.reward, beside)?;
        for watched in &mut self.watch {
            *watched = with_heads_beside(watched, beside)?;
        }
        if let Some(file) = self.transform.strip_prefix("table:") {
            let file = look_beside(beside, Path::new(file));
            self.transform = format!("table:{}", file.display());
        }
        let local = look_beside(beside, Path::new(&self.model));
        if self.model.starts_with('.') && local.exists() {
            self.model = local.display().to_string();
        }
        Ok(())
    }

    /// Every run of the configuration, in the order of its betas.
    ///
    /// # Errors
    /// A transform, objective or beta that cannot be.
    pub(crate) fn runs(&self) -> Result<Vec<OneRun>> {
        let transform = (self.transform != RAW)
            .then(|| self.transform.parse::<Transform>())
            .transpose()
            .with_context(|| format!("transform {:?}; `raw` takes rewards as they are", self.transform))?;
        let betas: Vec<Option<f64>> = match (self.has_beta()?, self.beta.as_slice()) {
            (true, []) => vec![Some(0.1)],
            (true, betas) => betas.iter().copied().map(Some).collect(),
            (false, []) => vec![None],
            (false, _) => bail!(
                "objective {} has no beta: the strength of winners is N of procedure",
                self.objective_name()
            ),
        };
        self.check_procedure()?;
        self.check_samples()?;
        for (idx, beta) in betas.iter().enumerate() {
            let depends = transform.as_ref().is_some_and(Transform::depends_on_beta);
            if depends && *beta == Some(0.0) {
                bail!(
                    "beta holds 0, and transform {} is another one at each beta, with none at 0; take a positive beta, or \
                     a transform that does not depend on it, such as exp:10",
                    self.transform
                );
            }
            if betas[..idx].contains(beta) {
                bail!("beta holds {} twice", beta.unwrap_or_default());
            }
        }
        let run = |beta: Option<f64>| {
            let training = self.training(beta)?;
            training.validate()?;
            Ok(OneRun {
                beta,
                transform: transform.clone(),
                training,
            })
        };
        betas.into_iter().map(run).collect()
    }

    pub(super) fn objective_name(&self) -> &str {
        match &self.objective {
            Objective::Name(name) => name,
            Objective::Table(table) => table
                .get("kind")
                .and_then(toml::Value::as_str)
                .unwrap_or("without kind"),
        }
    }

    /// Responses to a prompt without which it has no baseline.
    fn fewest_per_prompt(&self) -> usize {
        let over_round =
            |table: &toml::Table| table.get("advantage").and_then(toml::Value::as_str) == Some("round");
        match &self.objective {
            Objective::Table(table) if over_round(table) => 1,
            _ => 2,
        }
    }

    fn has_beta(&self) -> Result<bool> {
        match self.objective_name() {
            "rl" | "dpo" | "ipo" => Ok(true),
            "sft" | "bonbon" => Ok(false),
            other => bail!("objective {other:?}, expected one of rl, dpo, ipo, sft, bonbon"),
        }
    }

    /// N of the procedure; 4 where it has none.
    pub(crate) fn num_candidates(&self) -> usize {
        match self.procedure {
            Procedure::BestOf { n } | Procedure::WorstOf { n } => (n as usize).max(2),
            _ => 4,
        }
    }

    fn training(&self, beta: Option<f64>) -> Result<PolicyTrainConfig> {
        let mut table = self.train.clone();
        for field in ["objective", "seed", "beta"] {
            if table.contains_key(field) {
                bail!("{field} stands in [train]; move it to the top of the file");
            }
        }
        table.remove("objective");
        let mut training: PolicyTrainConfig = toml::Value::Table(table).try_into().context("[train]")?;
        training.objective = self.policy_objective(beta)?;
        training.seed = self.seed;
        Ok(training)
    }

    fn policy_objective(&self, beta: Option<f64>) -> Result<PolicyObjective> {
        let mut table = match &self.objective {
            Objective::Name(kind) => toml::Table::from_iter([("kind".to_owned(), kind.clone().into())]),
            Objective::Table(table) => table.clone(),
        };
        if table.contains_key("beta") {
            bail!("beta stands in objective; move it to the top of the file");
        }
        if let Some(beta) = beta {
            table.insert("beta".to_owned(), beta.into());
        }
        let kind = self.objective_name();
        if (kind == "sft" || kind == "bonbon") && table.contains_key("num_candidates") {
            bail!("objective has num_candidates; N is that of procedure");
        }
        if kind == "sft" {
            // The responses that it is given are winners already.
            table.insert("num_candidates".to_owned(), 1.into());
        }
        if kind == "bonbon" {
            table.insert("num_candidates".to_owned(), (self.num_candidates() as i64).into());
        }
        toml::Value::Table(table).try_into().context("objective")
    }

    /// Whether rewards are compared with samples of the reference, or these are trained on.
    pub(crate) fn needs_calibration(&self) -> bool {
        let takes_samples = self.rollouts.warm_start_from_calibration > 0;
        self.transform != RAW || self.objective_name() != "rl" || takes_samples
    }

    fn precision(&self) -> Result<PrecisionName> {
        parse_precision(&self.precision).map_err(|problem| anyhow::anyhow!("precision: {problem}"))
    }

    /// The configuration's prompts and sampling as rollouts of the reference: what calibrates.
    pub(crate) fn calibration_args(
        &self,
        out: PathBuf,
        (threads, kv_memory, source): (Option<u16>, u32, Source),
    ) -> Result<RolloutArgs> {
        Ok(RolloutArgs {
            model: self.model.clone(),
            prompts: self.prompts.clone(),
            responses: None,
            draw: DrawArgs {
                dialogue: self.dialogue,
                skip: self.skip,
                num_prompts: self.num_prompts,
                drop_long: self.drop_long,
                max_new_tokens: self.max_new_tokens,
                stop: self.stop.clone(),
                seed: self.calibration.seed,
                system: self.system.clone(),
                raw: self.raw,
            },
            per_prompt: self.calibration.per_prompt,
            decode: rollout::reference(),
            reward: vec![self.reward.clone()],
            out,
            rows_per_shard: rollout::ROWS_PER_SHARD,
            json: false,
            run: RunArgs {
                precision: self.precision()?,
                threads,
                kv_memory,
                source,
            },
        })
    }
}

/// A relative path that is there beside the file is meant so.
fn look_beside(beside: &Path, path: &Path) -> PathBuf {
    let there = beside.join(path);
    if path.is_relative() && there.exists() {
        plain(&there)
    } else {
        path.to_owned()
    }
}

/// A path without `.` and `..` as far as that can be told from its text, so that one folder has one name.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if plain.file_name().is_some() => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

/// The reward with heads beside the file where they are there.
fn with_heads_beside(spec: &RewardSpec, beside: &Path) -> Result<RewardSpec> {
    let mut text = spec.to_string();
    for folder in spec.head_folders() {
        // Behind a `#` or `@` stand a head's name and a model's.
        let (path, rest) = folder.split_at(folder.find(['#', '@']).unwrap_or(folder.len()));
        let there = look_beside(beside, Path::new(path));
        text = text.replace(
            &format!("head:{folder}"),
            &format!("head:{}{rest}", there.display()),
        );
    }
    Ok(text.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "prompts = \"p.txt\"\nreward = \"length\"\n";

    fn parse(more: &str) -> Result<AlignConfig> {
        AlignConfig::parse(&format!("{GOOD}{more}"))
    }

    #[test]
    fn the_example_is_understood() {
        let example = AlignConfig::parse(EXAMPLE_CONFIG).unwrap();
        assert_eq!(example.procedure, Procedure::BestOf { n: 4 });
        let runs = example.runs().unwrap();
        assert_eq!((runs.len(), runs[0].beta), (1, Some(0.1)));
        assert_eq!(runs[0].training.keep_at_kl_nats, [0.5, 1.0, 2.0]);
        assert_eq!(example.calibration.folder.as_deref(), Some(Path::new("cal")));
    }

    #[test]
    fn several_betas_are_several_runs() {
        let config = parse("beta = [0.05, 0.2]\nseed = 3").unwrap();
        let runs = config.runs().unwrap();
        let objectives: Vec<&PolicyObjective> = runs.iter().map(|run| &run.training.objective).collect();
        let betas: Vec<f64> = objectives
            .iter()
            .map(|objective| match objective {
                PolicyObjective::Rl { beta, .. } => *beta,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(betas, [0.05, 0.2]);
        assert_eq!(runs[0].training.seed, 3);
    }

    #[test]
    fn the_strength_of_winners_is_that_of_the_procedure() {
        let objective = |text: &str| parse(text).unwrap().runs().unwrap()[0].training.objective.clone();
        assert_eq!(
            objective("objective = \"sft\"\nprocedure = \"bon:8\""),
            PolicyObjective::Sft { num_candidates: 1 }
        );
        let PolicyObjective::BonBon { num_candidates, .. } =
            objective("objective = \"bonbon\"\nprocedure = \"bon:8\"")
        else {
            panic!("bonbon");
        };
        assert_eq!(num_candidates, 8);
        assert_eq!(parse("procedure = \"won:6\"").unwrap().num_candidates(), 6);
        assert_eq!(parse("").unwrap().num_candidates(), 4);
    }

    #[test]
    fn a_policy_may_be_trained_without_a_kl_penalty() {
        let runs = parse("beta = [0.0]\ntransform = \"exp:10\"")
            .unwrap()
            .runs()
            .unwrap();
        assert_eq!(runs[0].beta, Some(0.0));
    }

    #[test]
    fn raw_rewards_of_rl_need_no_calibration() {
        let needs = |text: &str| parse(text).unwrap().needs_calibration();
        assert!(needs("transform = \"exp:10\""));
        assert!(!needs("transform = \"raw\""));
        assert!(needs("transform = \"raw\"\nobjective = \"dpo\""));
    }

    #[test]
    fn paths_are_told_in_one_way() {
        assert_eq!(plain(Path::new("runs/a/../../out/./b")), Path::new("out/b"));
        assert_eq!(plain(Path::new("../x/../y")), Path::new("../y"));
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("kind")).unwrap();
        let spec: RewardSpec = "head:kind*2 + length".parse().unwrap();
        let moved = with_heads_beside(&spec, folder.path()).unwrap().to_string();
        assert!(
            moved.contains(&folder.path().join("kind").display().to_string()),
            "{moved}"
        );
        let away: RewardSpec = "head:elsewhere".parse().unwrap();
        assert_eq!(with_heads_beside(&away, folder.path()).unwrap(), away);
    }

    #[test]
    fn bad_configurations_are_refused_by_field() {
        let check = |text: &str, expect: &str| {
            let message = format!("{:#}", parse(text).expect_err("must be refused"));
            assert!(message.contains(expect), "{message:?} lacks {expect:?}");
        };
        check("typo = 1", "typo");
        check("objective = \"ppo\"", "rl, dpo, ipo, sft, bonbon");
        check("objective = { kind = \"rl\", beta = 1.0 }", "move it to the top");
        check("transform = \"exp\"", "raw");
        check("beta = [0.1, 0.1]", "twice");
        check("beta = [-0.1]", "beta");
        check("beta = [0.5, 0.0]\ntransform = \"bon_fp:4\"", "beta holds 0");
        check("beta = [0.0]\nobjective = \"ipo\"", "beta");
        check("procedure = \"rewind:0.5\"", "sample, bon:N or won:N");
        check("procedure = \"weight:g.csv\"", "sample, bon:N or won:N");
        check("objective = \"sft\"", "set procedure = \"bon:4\"");
        check(
            "objective = \"bonbon\"\nprocedure = \"won:4\"",
            "procedure is won:4",
        );
        check("objective = \"sft\"\nprocedure = \"bon:1\"", "procedure is bon:1");
        let few = |lines: &str| format!("{lines}\n[calibration]\nper_prompt = 3");
        check(
            &few("objective = \"sft\"\nprocedure = \"bon:4\""),
            "per_prompt is 3, expected at least 4",
        );
        check(
            "objective = \"dpo\"\n[calibration]\nper_prompt = 1",
            "at least 2 to be paired",
        );
        check(
            "[calibration]\nper_prompt = 1\n[rollouts]\nwarm_start_from_calibration = 1",
            "at least 2 for a sample",
        );
        check(
            "objective = \"sft\"\nprocedure = \"bon:4\"\nbeta = [0.1]",
            "has no beta",
        );
        check("[train]\nseed = 3", "move it to the top");
        check("[train]\nepoch = 3", "epoch");
        check("[rollouts]\nper_prompt = 1", "rollouts.per_prompt is 1");
        check("raw = true\nsystem = \"x\"", "system");
        check("stop = [\"\"]", "empty text");
        check("precision = \"int7\"", "int7");
    }
}
