//! A run from its arguments to its summary: model, rewards, limits, identity. Knows both kinds of runs, no details.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use trimtab_base::TokenId;
use trimtab_data::{Manifest, Message, RewardColumn, RolloutWriter, RunIdentity, WriterConfig};
use trimtab_runtime::{Job, PromptStyle};

use super::rewards::Rewards;
use super::summary::{Dropped, Summary};
use super::{given, sample};
use crate::args::RolloutArgs;
use crate::resolve::ReadyModel;
use crate::steering::Models;

/// Most new tokens where nothing else is asked for and the context is long enough.
const DEFAULT_NEW_TOKENS: usize = 256;

/// What both kinds of runs need.
pub(super) struct Setup<'a> {
    pub(super) args: &'a RolloutArgs,
    pub(super) model: &'a ReadyModel,
    pub(super) style: PromptStyle,
    pub(super) rewards: &'a Rewards,
}

/// What the first pass over the data finds.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Prompts that will have rollouts.
    pub(super) num_prompts: u64,
    /// What is left out.
    pub(super) dropped: Dropped,
    /// Hash of everything that was read and is used.
    pub(super) hasher: Sha256,
}

impl Scan {
    /// SHA-256 of what is used, in hexadecimal.
    fn sha256(&self) -> String {
        hex::encode(self.hasher.clone().finalize())
    }
}

/// Runs `trimtab rollout`.
pub(crate) fn run(args: &RolloutArgs) -> Result<Summary> {
    // Mistakes show before a model is fetched.
    Rewards::check(&args.reward)?;
    Input::of(args)?;
    let (policy, run) = (args.run.source.into(), &args.run);
    let model = ReadyModel::open(&args.model, policy, run.precision.plan, run.threads)?;
    let style = style_of(args);
    let models = Models {
        generator: &model,
        policy,
        plan: run.precision.plan,
        threads: run.threads,
        style: &style,
    };
    let rewards = Rewards::new(&args.reward, &models)?;
    run_on(args, &model, &rewards)
}

/// [`run`] with a model and rewards that are open: rewards may read another model's states than those of the policy that
/// is drawn from.
pub(crate) fn run_on(args: &RolloutArgs, model: &ReadyModel, rewards: &Rewards) -> Result<Summary> {
    let input = Input::of(args)?;
    let setup = Setup {
        args,
        model,
        style: style_of(args),
        rewards,
    };
    let (manifest, dropped) = match input {
        Input::Responses(source) => given::run(&setup, &source)?,
        Input::Prompts(source) => sample::run(&setup, &source)?,
    };
    Summary::of(args, &manifest, dropped)
}

/// The prompts of a run as jobs, all of them in memory: for those who draw from many policies.
///
/// # Errors
/// A prompt that cannot be used.
pub(crate) fn jobs(args: &RolloutArgs, model: &ReadyModel, rewards: &Rewards) -> Result<Vec<Job>> {
    let source = super::prompts::PromptSource::new(&args.prompts, &args.draw)?;
    let setup = Setup {
        args,
        model,
        style: style_of(args),
        rewards,
    };
    sample::jobs(&setup, &source)
}

fn style_of(args: &RolloutArgs) -> PromptStyle {
    PromptStyle {
        raw: args.draw.raw,
        system: args.draw.system.clone(),
    }
}

enum Input {
    Prompts(super::prompts::PromptSource),
    Responses(given::Source),
}

impl Input {
    /// What the arguments name; reads its first row, or what is wrong with it.
    fn of(args: &RolloutArgs) -> Result<Self> {
        if let Some(path) = &args.responses {
            return Ok(Self::Responses(given::Source::new(path, args)?));
        }
        let prompts = super::prompts::PromptSource::new(&args.prompts, &args.draw)?;
        prompts.read()?.next().transpose()?;
        Ok(Self::Prompts(prompts))
    }
}

impl Setup<'_> {
    /// Positions of the model.
    pub(super) fn context_len(&self) -> usize {
        self.model.loaded.config().context_len
    }

    /// Most tokens of a response that is drawn.
    pub(super) fn max_new_tokens(&self) -> usize {
        let default = DEFAULT_NEW_TOKENS.min(self.context_len() / 2).max(1);
        self.args.draw.max_new_tokens.unwrap_or(default)
    }

    /// Token ids of a prompt; `label` is what errors call it.
    pub(super) fn encode(&self, turns: &[Message], label: impl Fn() -> String) -> Result<Vec<TokenId>> {
        let tokenizer = self.model.loaded.tokenizer();
        let takes_dialogues = !self.style.raw && tokenizer.chat_template().is_some();
        if !takes_dialogues && turns.len() != 1 {
            bail!(
                "{}: the prompt is a dialogue of {} turns, and without a chat template a model takes one text; leave \
                 out --dialogue and --raw, or take another model",
                label(),
                turns.len()
            );
        }
        let turns = turns
            .iter()
            .map(|turn| (turn.role.as_str(), turn.content.as_str()));
        self.style
            .encode_turns(tokenizer, &turns.collect::<Vec<_>>())
            .with_context(label)
    }

    /// Opens the folder for this run.
    pub(super) fn writer(
        &self,
        scan: &Scan,
        settings: BTreeMap<String, Value>,
        rewards: Vec<RewardColumn>,
    ) -> Result<RolloutWriter> {
        let mut config = settings;
        let common = [
            ("version", json!(env!("CARGO_PKG_VERSION"))),
            ("precision", json!(self.args.run.precision.name)),
            ("raw", json!(self.style.raw)),
            ("system", json!(self.style.system)),
            ("num_prompts", json!(scan.num_prompts)),
            ("data_sha256", json!(scan.sha256())),
        ];
        config.extend(common.map(|(name, value)| (name.to_owned(), value)));
        let config = WriterConfig {
            identity: RunIdentity {
                model_sha256: self.model.sha256(),
                seed: self.args.draw.seed,
                config,
            },
            rewards,
            rows_per_shard: self.args.rows_per_shard,
        };
        Ok(RolloutWriter::open(&self.args.out, config)?)
    }

    /// The error of a run that stopped, with what is kept.
    pub(super) fn stopped(&self, done: u64, total: u64) -> String {
        format!(
            "stopped after {done} of {total} prompts; what is finished is kept in {}",
            self.args.out.display()
        )
    }
}

/// What a run leaves: its manifest, and what it left out.
pub(super) type Ran = Result<(Manifest, Dropped)>;
