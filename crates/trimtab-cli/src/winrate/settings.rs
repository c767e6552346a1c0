//! What an evaluation is: its arguments, and what the cards of its policies say where these are silent. Knows cards and
//! the identities of prompts, no model.

use anyhow::{Context, Result, bail};
use trimtab_reward::RewardSpec;

use super::procedure::EvalProcedure;
use super::sides::Side;
use super::training::Training;
use crate::args::{DrawArgs, EvalWinrateArgs, Sides};
use crate::output;
use crate::policy_card::{PolicyCard, TrainedOn};
use crate::rollout::prompt_keys;

/// An evaluation of which everything is decided.
pub(super) struct Settings<'a> {
    pub(super) args: &'a EvalWinrateArgs,
    /// Each once.
    pub(super) procedures: Vec<EvalProcedure>,
    /// The reward that procedures choose by.
    pub(super) reward: RewardSpec,
    pub(super) prompts: String,
    pub(super) draw: DrawArgs,
    /// A policy each; `None` for models that are none of ours.
    pub(super) cards: Vec<Option<PolicyCard>>,
}

impl<'a> Settings<'a> {
    /// Fills up the arguments from the first policy that has a card, and says so.
    ///
    /// # Errors
    /// What is missing and in no card; procedures that cannot be.
    pub(super) fn of(args: &'a EvalWinrateArgs) -> Result<Self> {
        let procedures = procedures(args)?;
        let cards = args.policy.iter().map(|policy| PolicyCard::of(policy));
        let cards = cards.collect::<Result<Vec<_>>>()?;
        let mut named = args.policy.iter().zip(&cards);
        let first = named.find_map(|(policy, card)| Some((policy.as_str(), card.as_ref()?)));
        let first = first.filter(|_| !args.ignore_card);
        let mut taken = Vec::new();
        let reward = reward(args, first, &mut taken)?;
        let trained_on = first.and_then(|(policy, card)| Some((policy, card.trained_on.as_ref()?)));
        let mut draw = args.draw.clone();
        if let Some((_, trained_on)) = trained_on {
            sampling(&mut draw, trained_on, &mut taken);
        }
        let prompts = prompts(args, trained_on, &mut draw, &mut taken)?;
        if let Some((policy, _)) = first.filter(|_| !taken.is_empty()) {
            output::note(&format!("as {policy} was trained: {}", taken.join(", ")));
        }
        Ok(Self {
            args,
            procedures,
            reward,
            prompts,
            draw,
            cards,
        })
    }

    /// Notes on standard error: policies that were trained otherwise than they are measured, or on the same prompts.
    ///
    /// # Errors
    /// The evaluation's own prompts if they cannot be read.
    pub(super) fn compare_with_trainings(&self) -> Result<()> {
        let trainings: Vec<Training<'_>> = self
            .args
            .policy
            .iter()
            .zip(&self.cards)
            .filter_map(|(policy, card)| card.as_ref().map(|card| Training { policy, card }))
            .collect();
        super::training::compare(self, &trainings)
    }

    /// Samples of a side to each prompt.
    pub(super) fn per_prompt(&self, side: Side) -> usize {
        let of_reference = self.args.reference_per_prompt.filter(|_| side == Side::Reference);
        of_reference.unwrap_or(self.args.per_prompt)
    }

    /// Whether the reference answers as it is, whatever is done to policies.
    pub(super) fn leaves_reference(&self) -> bool {
        self.args.apply_to == Sides::Policy
    }
}

/// The procedures, each once, and samples enough for them.
fn procedures(args: &EvalWinrateArgs) -> Result<Vec<EvalProcedure>> {
    let mut procedures: Vec<EvalProcedure> = Vec::new();
    for procedure in args.procedure.iter().flat_map(|list| &list.0) {
        if procedures.contains(procedure) {
            continue;
        }
        enough_samples(args, procedure)?;
        if procedure.is_steered() && args.scorer.is_empty() {
            bail!("procedure {procedure} needs --scorer DIR, which steers");
        }
        procedures.push(procedure.clone());
    }
    Ok(procedures)
}

/// Whether the sides that a procedure is applied to have samples enough for it.
fn enough_samples(args: &EvalWinrateArgs, procedure: &EvalProcedure) -> Result<()> {
    let reference = args.reference_per_prompt.filter(|_| args.apply_to == Sides::Both);
    let given = [
        ("--per-prompt", Some(args.per_prompt)),
        ("--reference-per-prompt", reference),
    ];
    for (option, num_samples) in given {
        if let Some(num_samples) = num_samples.filter(|&num| num < procedure.num_samples()) {
            bail!(
                "{procedure} needs {} samples of each side to each prompt, and {option} is {num_samples}",
                procedure.num_samples()
            );
        }
    }
    Ok(())
}

fn reward(
    args: &EvalWinrateArgs,
    first: Option<(&str, &PolicyCard)>,
    taken: &mut Vec<String>,
) -> Result<RewardSpec> {
    if let Some(reward) = &args.reward {
        return Ok(reward.clone());
    }
    let Some((policy, card)) = first else {
        bail!(
            "--reward is missing, and no card of a policy says what it was trained for; give --reward REWARD"
        );
    };
    taken.push(format!("--reward {}", card.reward));
    let reward = card.reward.parse::<RewardSpec>();
    reward.with_context(|| format!("reward in the card of {policy}; give --reward REWARD"))
}

/// How responses are drawn, where the arguments do not say.
fn sampling(draw: &mut DrawArgs, trained_on: &TrainedOn, taken: &mut Vec<String>) {
    if trained_on.raw && !draw.raw && draw.system.is_none() {
        draw.raw = true;
        taken.push("--raw".to_owned());
    }
    let system = trained_on.system.as_ref();
    if let Some(system) = system.filter(|_| !draw.raw && draw.system.is_none()) {
        draw.system = Some(system.clone());
        taken.push(format!("--system {system:?}"));
    }
    if draw.stop.is_empty() {
        draw.stop.clone_from(&trained_on.stop);
        taken.extend(draw.stop.iter().map(|stop| format!("--stop {stop:?}")));
    }
    if let (None, Some(num)) = (draw.max_new_tokens, trained_on.max_new_tokens) {
        draw.max_new_tokens = Some(num);
        taken.push(format!("--max-new-tokens {num}"));
    }
}

/// The prompts; where none are given those of the training's file that training has not come to.
fn prompts(
    args: &EvalWinrateArgs,
    trained_on: Option<(&str, &TrainedOn)>,
    draw: &mut DrawArgs,
    taken: &mut Vec<String>,
) -> Result<String> {
    let is_stream = |prompts: &str| prompts == "-";
    if let Some(prompts) = &args.prompts {
        if is_stream(prompts) {
            bail!(
                "each side reads the prompts anew, which standard input cannot give; write them to a file for --prompts"
            );
        }
        return Ok(prompts.clone());
    }
    let Some((policy, trained_on)) = trained_on else {
        bail!(
            "--prompts is missing, and no card of a policy says what it was trained on; give --prompts FILE"
        );
    };
    let file = &trained_on.prompts;
    if is_stream(file) {
        bail!("{policy} was trained on prompts from standard input; give --prompts FILE with others");
    }
    draw.dialogue |= trained_on.dialogue;
    draw.drop_long |= trained_on.drop_long;
    let used_up = || {
        format!(
            "{policy} was trained on all prompts of {file}; give --prompts FILE with others, or --prompts {file} to measure on \
             the same"
        )
    };
    if draw.skip == 0 {
        let num_prompts = trained_on.num_prompts.with_context(used_up)?;
        draw.skip = trained_on.skip.saturating_add(num_prompts);
    }
    // The rest of a data set may be a hundred thousand prompts.
    draw.num_prompts = draw.num_prompts.or(trained_on.num_prompts);
    let left = prompt_keys(file, draw)
        .with_context(|| format!("the prompts of the training of {policy}; give --prompts FILE"))?;
    if left.is_empty() {
        bail!(used_up());
    }
    let limit = draw
        .num_prompts
        .map_or_else(String::new, |num| format!(" --num-prompts {num}"));
    taken.push(format!("--prompts {file} --skip {}{limit}", draw.skip));
    Ok(file.clone())
}
