//! Arguments of `rollout`. Knows words and their defaults.

use std::path::PathBuf;

use clap::Args;
use trimtab_decode::DecodeSpec;
use trimtab_reward::{REWARDS, RewardSpec};

use super::{RunArgs, count, parse_decode, parse_reward, parse_stop};

/// Which prompts are taken and how responses to them end: what commands that draw responses share.
#[derive(Debug, Clone, Args)]
pub(crate) struct DrawArgs {
    /// Take dialogues up to their last answer as prompts, not their first turn alone.
    #[arg(long, help_heading = "Data")]
    pub(crate) dialogue: bool,
    /// Distinct prompts to pass over, e.g. those of a training set.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Data")]
    pub(crate) skip: u64,
    /// Most prompts to take after those; all if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Data")]
    pub(crate) num_prompts: Option<u64>,
    /// Leave out what does not fit the model's context, instead of refusing it; they are counted.
    #[arg(long, help_heading = "Data")]
    pub(crate) drop_long: bool,
    /// Most tokens of a response; 256, or half of the model's context if that is less. With --responses: cut there.
    #[arg(long, short = 'n', value_name = "N", value_parser = count(1), help_heading = "Sampling")]
    pub(crate) max_new_tokens: Option<usize>,
    /// Text that ends a response; may be given several times.
    #[arg(long, value_name = "TEXT", value_parser = parse_stop, help_heading = "Sampling")]
    pub(crate) stop: Vec<String>,
    /// Seed of everything random.
    #[arg(long, default_value_t = 0, help_heading = "Sampling")]
    pub(crate) seed: u64,
    /// System message before each prompt.
    #[arg(long, conflicts_with = "raw", help_heading = "Sampling")]
    pub(crate) system: Option<String>,
    /// Continue the prompts as they are, without the model's chat template.
    #[arg(long, help_heading = "Sampling")]
    pub(crate) raw: bool,
}

/// Arguments of `rollout`.
#[derive(Debug, Clone, Args)]
#[command(after_help = help())]
pub(crate) struct RolloutArgs {
    /// The model: alias, `org/name` of the hub, or a path.
    #[arg(long, short, default_value = "smollm2-135m-instruct")]
    pub(crate) model: String,
    /// Prompts, see below: a file, `-` for standard input, or `builtin:quickstart`.
    #[arg(
        long,
        short,
        default_value = "builtin:quickstart",
        value_name = "FILE",
        help_heading = "Data"
    )]
    pub(crate) prompts: String,
    /// Take the responses of this data set instead of sampling: a rollout folder, .jsonl, .parquet.
    #[arg(long, value_name = "DATA", conflicts_with_all = ["prompts", "per_prompt", "decode", "stop", "dialogue"], help_heading = "Data")]
    pub(crate) responses: Option<PathBuf>,
    /// Responses to draw for each prompt.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = count(1), help_heading = "Sampling")]
    pub(crate) per_prompt: usize,
    /// Policy to draw from, e.g. sample:t=0.7; `sample` is the model as it is.
    #[arg(long, short, default_value = "sample", value_parser = parse_sampling, help_heading = "Sampling")]
    pub(crate) decode: DecodeSpec,
    /// Reward to score every response with, once; may be given several times, each becomes a column.
    #[arg(long, short, value_name = "REWARD", value_parser = parse_reward)]
    pub(crate) reward: Vec<RewardSpec>,
    /// Folder for the rollouts; a run that was stopped goes on there.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Rows of a shard, about.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = count(1))]
    pub(crate) rows_per_shard: usize,
    /// Print the summary as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) draw: DrawArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// A method that draws one response from a sampling policy.
fn parse_sampling(text: &str) -> Result<DecodeSpec, String> {
    let spec = parse_decode(text)?;
    match spec {
        DecodeSpec::Sample { .. } => Ok(spec),
        other => Err(format!(
            "expected `sample` with its options (as in sample:t=0.7), got {other}; --per-prompt says how many are \
             drawn, and each is kept"
        )),
    }
}

fn help() -> String {
    let rewards: Vec<String> = REWARDS
        .iter()
        .map(|(_, form, meaning)| format!("  {form:<34} {meaning}"))
        .collect();
    format!(
        "\
Rollouts are what prefix scorers and reward models are trained on: prompts, responses, tokens, log-probabilities and
rewards, in Parquet shards with a manifest. A run that was killed goes on where it stopped and ends in the same bytes.

Prompts come from .jsonl or .parquet (each also as the hubs have them, .jsonl also .gz or .zst) with a column `prompt`,
`messages`, or `chosen` (transcripts as in HH-RLHF); other files have one prompt a line. Of equal prompts the first is
kept. --skip and --num-prompts count distinct prompts, so that two splits have none in common.

Examples:
  trimtab rollout --prompts hh.jsonl.gz --num-prompts 500 --per-prompt 4 --reward length --out rollouts/train
  trimtab rollout --prompts hh.jsonl.gz --skip 500 --num-prompts 100 --reward length --out rollouts/held-out
  trimtab rollout --responses rollouts/train --reward 'keywords:sorry' --out rollouts/two-rewards
  trimtab rollout --responses answers.parquet --drop-long --out rollouts/off-policy

Rewards (higher is better):
{}
",
        rewards.join("\n")
    )
}
