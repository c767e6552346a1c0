//! What training rewards left, for people and programs. Knows cards and agreements, no training.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use trimtab_scorer::ScorerCard;

use super::evaluate::{Agreement, with_interval};
use super::spurious::PhraseWorth;
use super::texts::Dropped;
use crate::output;

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct RewardReport {
    /// One a reward.
    pub(crate) heads: Vec<HeadReport>,
}

/// One reward.
#[derive(Debug, Serialize)]
pub(crate) struct HeadReport {
    /// Its folder.
    pub(crate) scorer: PathBuf,
    /// How it is named where rewards are.
    pub(crate) reward: String,
    /// The step whose weights are kept.
    pub(crate) best_step: u64,
    pub(crate) card: ScorerCard,
    /// What was read.
    pub(crate) data: DataReport,
    /// On judgements that training never saw.
    pub(crate) held_out: HeldOutReport,
}

/// What was read.
#[derive(Debug, Serialize)]
pub(crate) struct DataReport {
    /// Judgements that were trained on.
    pub(crate) num_train: u64,
    /// Judgements that chose the weights.
    pub(crate) num_eval: u64,
    /// Rows that were left out of training and evaluation.
    pub(crate) dropped: Dropped,
}

/// How good it is.
#[derive(Debug, Serialize)]
pub(crate) struct HeldOutReport {
    /// Whether the same judgements chose the weights, which favours them a little.
    pub(crate) chose_the_weights: bool,
    /// Rows of the test that were left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dropped: Option<Dropped>,
    /// The numbers.
    pub(crate) agreement: Agreement,
    /// What a planted phrase is worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) phrase: Option<PhraseWorth>,
}

impl RewardReport {
    /// For people: what it is, how good, and how to use it.
    pub(crate) fn show(&self) -> Result<()> {
        for head in &self.heads {
            let card = &head.card;
            let which = if head.held_out.chose_the_weights {
                "held-out judgements, which also chose the weights"
            } else {
                "held-out judgements"
            };
            output::line(&format!(
                "{}: {} on the states of {} ({}), {}, from {} judgements\n\n{which}\n{}\n",
                head.scorer.display(),
                card.reward,
                card.base.name,
                card.base.precision,
                card.reward_unit,
                head.data.num_train,
                head.held_out.agreement.to_text()
            ))?;
            if let Some(phrase) = &head.held_out.phrase {
                output::line(&phrase.to_text())?;
            }
            output::note(&format!(
                "use it: trimtab generate \"...\" --decode bon:16 --reward {}",
                head.reward
            ));
        }
        Ok(())
    }
}

impl PhraseWorth {
    fn to_text(&self) -> String {
        let judged = self.worth_of_judgement.map_or_else(String::new, |worth| {
            format!("; better and worse texts are {worth:.3} apart without it")
        });
        format!(
            "planted phrase {:?} in {} of {} training texts: worth {} nats alone, over {} held-out texts{judged}\n",
            self.phrase,
            self.planted.planted,
            self.planted.texts,
            with_interval(self.worth, self.ci),
            self.num_texts
        )
    }
}
