//! Arguments of `calibrate` and `export rewards`. Knows words and their defaults.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use trimtab_infalign::{TRANSFORMS, Transform};
use trimtab_reward::RewardSpec;

use super::{DrawArgs, RunArgs, count, parse_reward};

/// Arguments of `calibrate`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
A reward's number means something only beside what else the model says to the same prompt. Calibration draws K responses
of the reference to each prompt and scores them; the calibrated reward of any response is then the share of these that
it beats, ties half: 0.5 is as good as the reference usually is, 1 better than all K. It does not change when the reward
is put through any increasing function. Its error is sqrt(u (1 - u) / K), 0.041 on average with K = 100.

The folder is a rollout folder (`train scorer` and others read it too) with calibration.json beside it. A run that was
killed goes on where it stopped and ends in the same bytes.

Examples:
  trimtab calibrate --model stories15m --raw --prompts openings.txt --reward length --per-prompt 100 --out cal
  trimtab calibrate --prompts hh.jsonl.gz --num-prompts 500 --reward head:harmless --out cal --learn cal/quantile
  trimtab export rewards cal --transform exp:10 --for trl > rewards.jsonl")]
pub(crate) struct CalibrateArgs {
    /// The reference: alias, `org/name` of the hub, or a path.
    #[arg(long, short, default_value = "smollm2-135m-instruct")]
    pub(crate) model: String,
    /// The reward; `head:DIR` for one that `train reward` left.
    #[arg(long, short, value_name = "REWARD", value_parser = parse_reward)]
    pub(crate) reward: RewardSpec,
    /// Prompts, as `rollout` takes them.
    #[arg(long, short, value_name = "FILE", help_heading = "Data")]
    pub(crate) prompts: String,
    /// K, responses of the reference to each prompt.
    #[arg(long, value_name = "K", default_value_t = 100, value_parser = count(1), help_heading = "Sampling")]
    pub(crate) per_prompt: usize,
    /// Folder for responses and calibration; a run that was stopped goes on there.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Extension: also train a head on the reference's states that predicts calibrated rewards for prompts that were
    /// never sampled, in this folder; it is compared with the empirical ones on held-out prompts, and usable as head:DIR.
    #[arg(long, value_name = "DIR")]
    pub(crate) learn: Option<PathBuf>,
    /// Print the summary as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) draw: DrawArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Whom an export is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Trainer {
    /// Rows of `prompt` and `completion` with rewards, as TRL's trainers read data sets.
    Trl,
    /// Rows of `prompt`, `data_source`, `reward_model` and `extra_info`, as verl's data sets have them.
    Verl,
    /// A table.
    Csv,
}

/// Arguments of `export rewards`.
#[derive(Debug, Args)]
#[command(after_help = rewards_help())]
pub(crate) struct ExportRewardsArgs {
    /// Folder that `calibrate` left.
    pub(crate) calibration: PathBuf,
    /// What is made of calibrated rewards, see below.
    #[arg(long, default_value = "identity")]
    pub(crate) transform: Transform,
    /// KL weight, for transforms that depend on it (`bon_fp`, `won_fp`).
    #[arg(long, value_name = "BETA")]
    pub(crate) beta: Option<f64>,
    /// Lines between samples instead of steps: a smoother variant that is not invariant to the reward's scale.
    #[arg(long)]
    pub(crate) interpolated: bool,
    /// Whom it is for.
    #[arg(long = "for", value_enum)]
    pub(crate) trainer: Trainer,
    /// Which of the folder's rewards, if it has several.
    #[arg(long, short, value_name = "REWARD")]
    pub(crate) reward: Option<String>,
    /// File to write; standard output if not given.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

fn rewards_help() -> String {
    let transforms: Vec<String> = TRANSFORMS
        .iter()
        .map(|(form, meaning)| format!("  {form:<12} {meaning}"))
        .collect();
    format!(
        "\
One row a response, the rows of a prompt together. `calibrated_reward` is the share of the *other* samples of its prompt
that a response beats, ties half; `transformed_reward` is the transform of that. A prompt needs two samples at least.

  trl   JSON lines: prompt, completion (texts for raw prompts, else lists of messages), reward, calibrated_reward,
        transformed_reward, reference_rewards (ascending, for calibrating new responses in a reward function)
  verl  JSON lines: data_source, prompt (messages), ability, reward_model {{style, ground_truth}}, responses, extra_info
        {{index, sample, reward, calibrated_reward, transformed_reward, reference_rewards}}; verl reads Parquet:
        pandas.read_json(\"rewards.jsonl\", lines=True).to_parquet(\"rewards.parquet\")
        It puts prompts into the model's chat template; for raw prompts, which the reference read without one, set
        actor_rollout_ref.model.custom_chat_template=\"{{{{ messages[0]['content'] }}}}\"
  csv   prompt_idx, sample_idx, prompt, response, reward, calibrated_reward, transformed_reward

Transforms of the calibrated reward u:
{}

Example:
  trimtab export rewards cal --transform exp:10 --for trl --out rewards.jsonl",
        transforms.join("\n")
    )
}
