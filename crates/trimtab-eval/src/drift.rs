//! Drift of a single answer's law from the reference, for a run of one prompt. Knows one outcome, no frontier.

use trimtab_decode::{DecodeSpec, Outcome, Sampling};

use crate::frontier::KlRule;
use crate::kl::{KlKind, best_of_n_bound_nats, best_of_n_kl_estimate_nats, selection_bound_nats};
use crate::reward_sample::RewardSample;

/// KL divergence of the answer's law from the reference in nats, and what kind of number it is.
///
/// A single draw has the exact sum of its steps. A policy that is certain of its answer has exactly what the reference
/// thinks of that answer, whatever is chosen among equal draws. A choice among reference draws, and so a response of
/// chosen blocks, has a bound. A choice among draws from another policy has an estimate: the log-ratio of the chosen one,
/// plus what the choice adds by the ties among the candidates' rewards or by blocks drawn for the purpose.
///
/// # Panics
/// If the outcome's choice is none of its candidates.
pub fn drift_nats(decode: &DecodeSpec, outcome: &Outcome) -> (f64, KlKind) {
    let chosen = &outcome.candidates[outcome.chosen];
    let rule = KlRule::of_spec(decode);
    let (bound, estimate) = match rule {
        KlRule::Deterministic => return (-chosen.reference_log_prob, KlKind::Exact),
        KlRule::BestOfN { num_candidates } | KlRule::WorstOfN { num_candidates } => (
            best_of_n_bound_nats(num_candidates),
            choice_estimate(rule, outcome, num_candidates),
        ),
        KlRule::Selection { num_candidates } => (selection_bound_nats(num_candidates), None),
        KlRule::Blockwise => block_bound_and_estimate(outcome),
        KlRule::TokenwiseSum | KlRule::GuidedSum | KlRule::LogRatio => {
            // At least zero but for rounding.
            return (chosen.kl_nats.max(0.0), KlKind::Exact);
        }
    };
    if decode.sampling() == Sampling::REFERENCE {
        (bound, KlKind::Bound)
    } else {
        let log_ratio = chosen.log_prob - chosen.reference_log_prob;
        // One log-ratio may be negative; no divergence is.
        let kl_nats = (estimate.unwrap_or(bound) + log_ratio).max(0.0);
        (kl_nats, KlKind::Estimate)
    }
}

/// Bound of all choices among blocks, and their estimate where blocks were drawn for it. An outcome that says nothing of
/// its choices has made none.
fn block_bound_and_estimate(outcome: &Outcome) -> (f64, Option<f64>) {
    outcome
        .block_kl
        .map_or((0.0, None), |blocks| (blocks.bound_nats, blocks.estimate_nats))
}

/// What the choice adds by the ties among rewards; `None` for rewards that are missing or not finite.
fn choice_estimate(rule: KlRule, outcome: &Outcome, num_candidates: u32) -> Option<f64> {
    let rewards: Option<Vec<f64>> = outcome
        .candidates
        .iter()
        .map(|candidate| candidate.reward)
        .collect();
    let sample = RewardSample::try_new(&rewards?).ok()?;
    let is_worst = matches!(rule, KlRule::WorstOfN { .. });
    let pool = if is_worst { sample.negated() } else { sample };
    best_of_n_kl_estimate_nats(&[pool], num_candidates)
}

#[cfg(test)]
mod tests {
    use trimtab_base::TokenId;
    use trimtab_decode::{BlockKl, Candidate, FinishReason};

    use super::*;

    /// An outcome with a candidate for each reward: 3 nats under its policy, 5 under the reference.
    fn outcome(rewards: &[f64], chosen: usize) -> Outcome {
        let candidate = |(idx, &reward): (usize, &f64)| Candidate {
            candidate_idx: idx as u64,
            token_ids: vec![TokenId(1)],
            text: String::new(),
            log_prob: -3.0,
            reference_log_prob: -5.0,
            kl_nats: 0.25,
            finish: FinishReason::StopToken,
            reward: Some(reward),
            token_log_probs: Vec::new(),
        };
        Outcome::unsteered(
            rewards.iter().enumerate().map(candidate).collect(),
            chosen,
            rewards.len() as u64,
        )
    }

    #[test]
    fn a_number_called_a_bound_is_one() {
        let check = |decode: &str, rewards: &[f64], expect: (f64, KlKind)| {
            let (kl_nats, kind) = drift_nats(&decode.parse().unwrap(), &outcome(rewards, 0));
            assert_eq!(kind, expect.1, "{decode}");
            assert!((kl_nats - expect.0).abs() < 1e-12, "{decode}: {kl_nats}");
        };
        let bound = best_of_n_bound_nats(4);
        check("sample:t=0.7", &[1.0], (0.25, KlKind::Exact));
        check("bon:1", &[1.0], (0.25, KlKind::Exact));
        check("bon:4", &[1.0; 4], (bound, KlKind::Bound));
        check("won:4", &[1.0, 2.0, 3.0, 4.0], (bound, KlKind::Bound));
        check("majority:4", &[1.0; 4], (4.0_f64.ln(), KlKind::Bound));
        // All tie: the choice adds nothing to the log-ratio.
        check("bon:n=4,t=0.7", &[1.0; 4], (2.0, KlKind::Estimate));
        check(
            "majority:n=4,t=0.7",
            &[1.0; 4],
            (4.0_f64.ln() + 2.0, KlKind::Estimate),
        );
        // One answer only, whatever its reward: exactly what the reference thinks of it.
        for decode in [
            "bon:n=4,t=0",
            "majority:n=4,t=0",
            "won:n=4,top_k=1",
            "beam:4",
            "greedy",
        ] {
            check(decode, &[1.0; 4], (5.0, KlKind::Exact));
        }
    }

    #[test]
    fn chosen_blocks_have_the_bound_of_the_choices_made() {
        let check = |decode: &str, estimate_nats: Option<f64>, expect: (f64, KlKind)| {
            let mut outcome = outcome(&[1.0], 0);
            outcome.block_kl = Some(BlockKl {
                num_choices: 3,
                bound_nats: 2.5,
                estimate_nats,
            });
            assert_eq!(drift_nats(&decode.parse().unwrap(), &outcome), expect, "{decode}");
        };
        check("cd-block:k=6,m=16", None, (2.5, KlKind::Bound));
        check("cd-block:k=6,m=16", Some(0.5), (2.5, KlKind::Bound));
        // Log-ratio of 2 nats.
        check("cd-block:k=6,m=16,t=0.7", None, (4.5, KlKind::Estimate));
        check("cd-block:k=6,m=16,t=0.7", Some(0.5), (2.5, KlKind::Estimate));
        check("cd-token:weight=4", None, (0.25, KlKind::Exact));
        check("cd-block:k=6,m=16,t=0", None, (5.0, KlKind::Exact));
    }

    #[test]
    fn the_worst_ties_as_the_best_of_negated_rewards() {
        let drift =
            |decode: &str, rewards: &[f64]| drift_nats(&decode.parse().unwrap(), &outcome(rewards, 0)).0;
        let rewards = [0.0, 0.0, 0.0, 0.0, 0.0, 5.0];
        let worst = drift("won:n=6,t=0.7", &rewards);
        assert_eq!(worst, drift("bon:n=6,t=0.7", &rewards.map(|reward| -reward)));
        assert_ne!(worst, drift("bon:n=6,t=0.7", &rewards));
    }
}
