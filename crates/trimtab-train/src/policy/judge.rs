//! Numbers of a policy besides its steps: loss on held-out units, and KL and reward of its own draws. Knows no decoder.

use super::kl_goals::KlGoals;
use super::model::PolicyModule;
use super::objective::{PolicyBatch, PolicyLoss, numbers_of};
use super::pieces::pieces;
use super::source::{DrawResponses, units_by_prompt};
use super::step_numbers::StepNumbers;
use crate::error::TrainError;
use crate::events::Metrics;
use crate::policy::config::Advantage;
use crate::trainer::{Judge, Verdict};

/// Looks at a policy between steps.
pub struct PolicyJudge<'a, M> {
    /// Held-out units, and the loss to judge them by.
    pub held_out: Option<(PolicyBatch, PolicyLoss<M>)>,
    /// Draws from the policy.
    pub probe: Option<&'a mut dyn DrawResponses<M>>,
    /// Off the tape.
    pub reference: M,
    /// What the probe's KL brings about.
    pub goals: KlGoals,
    /// Positions whose logits exist at once.
    pub rows: usize,
    /// Tokens of a piece.
    pub piece_tokens: usize,
}

impl<M: PolicyModule> PolicyJudge<'_, M> {
    fn probe(&mut self, module: &M, step: u64) -> Result<Metrics, TrainError> {
        let Some(probe) = &mut self.probe else {
            return Ok(Metrics::new());
        };
        let responses = probe.look(module, step)?;
        let mut numbers = StepNumbers::default();
        for piece in pieces(units_by_prompt(responses, Advantage::None), self.piece_tokens) {
            let of_piece = numbers_of(module, &self.reference, &piece, self.rows);
            numbers.add_piece(&piece, &of_piece, "kl_nats");
        }
        Ok(numbers.take())
    }
}

impl<M: PolicyModule> Judge<M> for PolicyJudge<'_, M> {
    fn num_items(&self) -> u64 {
        let held_out = self.held_out.iter().flat_map(|(batch, _)| batch);
        held_out.map(|piece| piece.units.len() as u64).sum()
    }

    fn evaluate(&mut self, module: &M, step: u64) -> Result<Metrics, TrainError> {
        let mut metrics = self.probe(module, step)?;
        if let Some((batch, loss)) = &mut self.held_out {
            let held_out = loss.evaluate(module, batch);
            metrics.extend(
                held_out
                    .into_iter()
                    .map(|(name, value)| (format!("held_out_{name}"), value)),
            );
        }
        Ok(metrics)
    }

    /// The last: what is wanted is a policy of a certain KL, and the loss on others' responses does not see that.
    fn selects_by(&self) -> Option<&'static str> {
        None
    }

    fn verdict(&mut self, metrics: &Metrics) -> Verdict {
        self.goals.verdict(metrics.clone())
    }

    fn restore_kept(&mut self, names: &[String]) {
        self.goals.restore(names);
    }
}
