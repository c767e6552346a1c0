//! Arguments of `eval winrate`. Knows words and their defaults.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use trimtab_reward::RewardSpec;

use super::{DrawArgs, RunArgs, count, parse_reward};
use crate::steering::ScorerTerm;
use crate::winrate::EvalProcedure;

/// Arguments of `eval winrate`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Inference-time win rate: the procedure is applied to the policy AND to the reference, and what comes out is compared by
the reward, ties half. 0.5 is no better than the reference under the same procedure. All procedures of one policy are
computed from one set of samples, without resampling: every subset of N of them counts (an unbiased estimator), so N may
be anything up to the samples of either side. Intervals are over prompts, 95%, and paired: with several policies the
difference from the first has one too; where runs of several seeds are given, methods are compared with the first policy's
at equal KL, paired by seed. The KL is KL(policy || reference) in nats for a response: the full sum over the vocabulary at
each token, averaged over --kl-per-prompt responses of the policy.

Procedures:
  sample             one response: the standard win rate
  bon:N              the best of N by the reward
  won:N              the worst of N by the reward: a jailbreak that tries N times
  cd-block:k=K,m=M   blockwise controlled decoding with --scorer. Its KL is at most the policy's and the bound of its
                     choices among blocks together
With --apply-to policy the reference answers as it is: what tuning and the procedure are worth together.

What is not given is taken from the card that `train align` left in the first policy: the reward, --raw, --system, --stop,
--max-new-tokens, and without --prompts the prompts of the training's file behind those that were trained on, as many as
these unless --num-prompts says how many. A note says what was taken, and what differs from a policy's training.

Examples:
  trimtab eval winrate --policy runs/ctrl_bon4 --reference stories15m --procedure bon:4,won:4,sample --reward head:sentiment
  trimtab eval winrate --policy runs/raw runs/ctrl_bon4 --reference stories15m --procedure bon:4 --reward head:sentiment --judge length --prompts openings.txt --raw --out out/winrate
  trimtab eval winrate --policy runs/dpo/kl_1 runs/dpo/kl_2 --reference stories15m --procedure cd-block:k=4,m=16 --scorer runs/cdq --apply-to policy --out out/dpo_cd")]
pub(crate) struct EvalWinrateArgs {
    /// Policies: folders that `train align` left, or any models with the reference's vocabulary.
    #[arg(long, required = true, num_args = 1.., value_name = "DIR")]
    pub(crate) policy: Vec<String>,
    /// The model that they are compared with.
    #[arg(long, value_name = "MODEL")]
    pub(crate) reference: String,
    /// Procedures, see below; several separated by commas, or given several times.
    #[arg(long, required = true, num_args = 1, value_name = "PROCEDURES")]
    pub(crate) procedure: Vec<ProcedureList>,
    /// The reward that procedures choose by and win rates are of; that of the first policy's training if not given.
    #[arg(long, short, value_name = "REWARD", value_parser = parse_reward)]
    pub(crate) reward: Option<RewardSpec>,
    /// A second reward, which neither training nor procedures have seen: win rates by it are shown beside; may be given
    /// several times.
    #[arg(long, value_name = "REWARD", value_parser = parse_reward)]
    pub(crate) judge: Vec<RewardSpec>,
    /// Prompts, as `rollout` takes them, but from a file; ones that training has not seen. If not given, those of the first
    /// policy's training that come after the ones it was trained on.
    #[arg(long, short, value_name = "FILE", help_heading = "Data")]
    pub(crate) prompts: Option<String>,
    /// Take nothing from the cards of policies.
    #[arg(long)]
    pub(crate) ignore_card: bool,
    /// Responses of each side to each prompt; at least the greatest N of the procedures.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = count(1), help_heading = "Sampling")]
    pub(crate) per_prompt: usize,
    /// Responses of the reference to each prompt, if other than --per-prompt. Its draw is a part of every win rate measured
    /// against it, and is made once: with several policies, a larger one costs little.
    #[arg(long, value_name = "N", value_parser = count(1), help_heading = "Sampling")]
    pub(crate) reference_per_prompt: Option<usize>,
    /// Of its responses, those of the policy along which its KL is measured.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count(1), help_heading = "Sampling")]
    pub(crate) kl_per_prompt: usize,
    /// Responses of each side to each prompt by cd-block.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count(1), help_heading = "Sampling")]
    pub(crate) steered_per_prompt: usize,
    /// Prefix scorer for cd-block, trained on the reference; steers policies tuned from it as well.
    #[arg(long, value_name = "DIR[*WEIGHT]", value_parser = super::steering::parse_scorer)]
    pub(crate) scorer: Vec<ScorerTerm>,
    /// Which sides procedures are applied to.
    #[arg(long, value_enum, default_value_t, value_name = "SIDES")]
    pub(crate) apply_to: Sides,
    /// Folder for samples and the report; a run that was stopped goes on there. A temporary one if not given.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Print the list of results as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) draw: DrawArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Sides that procedures are applied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Sides {
    /// The policy and the reference: is the policy better under the same procedure?
    #[default]
    Both,
    /// The policy alone, against samples of the reference as it is: what tuning and procedure are worth together.
    Policy,
}

/// Procedures as typed in one argument. Commas separate them, and stand inside those of blocks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ProcedureList(pub(crate) Vec<EvalProcedure>);

impl std::str::FromStr for ProcedureList {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, anyhow::Error> {
        let mut parts: Vec<String> = Vec::new();
        for part in text.split(',') {
            // A setting such as `m=16` belongs to what stands before it.
            match parts.last_mut() {
                Some(last) if part.contains('=') && !part.contains(':') => {
                    last.push(',');
                    last.push_str(part);
                }
                _ => parts.push(part.to_owned()),
            }
        }
        parts
            .iter()
            .map(|part| part.parse())
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_inside_blocks_are_theirs() {
        let names = |text: &str| -> Vec<String> {
            let list: ProcedureList = text.parse().unwrap();
            list.0.iter().map(ToString::to_string).collect()
        };
        assert_eq!(names("bon:4,won:4,sample"), ["bon:4", "won:4", "sample"]);
        assert_eq!(names("sample,cd-block:k=4,m=16,bon:2")[2], "bon:2");
        assert!("bon:4,,sample".parse::<ProcedureList>().is_err());
        assert!("bon:0".parse::<ProcedureList>().is_err());
        assert!("majority:n=3".parse::<ProcedureList>().is_err());
    }
}
