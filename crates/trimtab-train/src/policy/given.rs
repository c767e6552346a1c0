//! Given responses and pairs as units of a loss: checked, weighted, divided. Knows no loop and no weights of a model.

use trimtab_base::Seed;
use trimtab_model::ModelConfig;

use super::best_of_n::{best_and_worst_pairs, best_of_n_weights};
use super::config::{PolicyObjective, PolicyTrainConfig};
use super::data::{PolicyResponse, PreferenceTokens, Problem, Skipped, problem_of, problem_of_tokens};
use super::pieces::PolicyItem;
use super::run::PolicyBase;
use super::source::{Unit, units_by_prompt};
use crate::error::TrainError;
use crate::files::sha256_hex;
use crate::prefix_batches::is_held_out;

/// Units to learn from.
pub(super) struct Given {
    pub(super) train: Vec<Unit>,
    pub(super) held_out: Vec<Unit>,
    /// Of everything that was given.
    pub(super) sha256: String,
}

/// A unit and the key of its prompt.
type Keyed = (u64, Unit);

/// What the objective looks at together, from responses or from pairs.
///
/// Pairs of an objective that wants them come from responses as best and worst of N (of two for `dpo` and `ipo`).
pub(super) fn given_units(
    config: &PolicyTrainConfig,
    base: &PolicyBase,
    responses: &[PolicyResponse],
    pairs: &[PreferenceTokens],
    skipped: &mut Skipped,
) -> Result<Given, TrainError> {
    let sha256 = content_sha256(responses, pairs);
    let responses = usable(responses.to_vec(), &base.config, skipped)?;
    let mut pairs = pairs.to_vec();
    if config.objective.wants_pairs() && !responses.is_empty() {
        let num_candidates = match config.objective {
            PolicyObjective::BonBon { num_candidates, .. } => num_candidates,
            _ => 2,
        };
        pairs.extend(best_and_worst_pairs(&responses, num_candidates));
        let mean = pairs.iter().map(|pair| pair.weight).sum::<f64>() / pairs.len().max(1) as f64;
        for pair in &mut pairs {
            pair.weight /= mean;
        }
    }
    let keyed: Vec<Keyed> = match config.objective {
        PolicyObjective::Rl { advantage, .. } => {
            let mut keys: Vec<u64> = responses.iter().map(|response| response.key).collect();
            keys.sort_unstable();
            keys.dedup();
            // Both are in the order of keys.
            keys.into_iter()
                .zip(units_by_prompt(responses, advantage))
                .collect()
        }
        PolicyObjective::Sft { num_candidates } => winners(responses, num_candidates, skipped),
        _ => pair_units(pairs, &base.config, skipped)?,
    };
    let seed = Seed(config.seed);
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    for (key, unit) in keyed {
        if config.eval_fraction > 0.0 && is_held_out(key, config.eval_fraction, seed) {
            held_out.push(unit);
        } else {
            train.push(unit);
        }
    }
    if train.is_empty() {
        let problem = format!("nothing is left to learn from; left out: {skipped:?}");
        return Err(TrainError::BadData { problem });
    }
    Ok(Given {
        train,
        held_out,
        sha256,
    })
}

/// Those that can be learned from; the others are counted.
///
/// # Errors
/// The first response that whoever made it got wrong.
pub(super) fn usable(
    responses: Vec<PolicyResponse>,
    model: &ModelConfig,
    skipped: &mut Skipped,
) -> Result<Vec<PolicyResponse>, TrainError> {
    let mut usable = Vec::with_capacity(responses.len());
    for (response_idx, response) in (0..).zip(responses) {
        match problem_of(&response, model) {
            None => usable.push(response),
            Some(problem) => count(problem, response_idx, skipped)?,
        }
    }
    Ok(usable)
}

fn count(problem: Problem, response_idx: u64, skipped: &mut Skipped) -> Result<(), TrainError> {
    match problem {
        Problem::Skip(reason) => {
            *skipped.entry(reason).or_default() += 1;
            Ok(())
        }
        Problem::Bad(problem) => Err(TrainError::BadResponse {
            response_idx,
            problem,
        }),
    }
}

/// Responses with the weights of best-of-N; a prompt's weights have the mean 1.
fn winners(responses: Vec<PolicyResponse>, num_candidates: usize, skipped: &mut Skipped) -> Vec<Keyed> {
    let mut responses = responses;
    responses.sort_by_key(|response| response.key);
    let mut keyed = Vec::new();
    for group in responses.chunk_by(|a, b| a.key == b.key) {
        let rewards: Vec<f64> = group.iter().map(|response| response.reward).collect();
        for (response, weight) in group.iter().zip(best_of_n_weights(&rewards, num_candidates)) {
            if weight == 0.0 {
                *skipped.entry("never the best of N").or_default() += 1;
                continue;
            }
            let item = PolicyItem {
                prompt_token_ids: response.prompt_token_ids.clone(),
                token_ids: response.token_ids.clone(),
                reward: response.reward,
                weight: response.weight * weight * group.len() as f64,
                ..PolicyItem::default()
            };
            keyed.push((response.key, vec![item]));
        }
    }
    keyed
}

fn pair_units(
    pairs: Vec<PreferenceTokens>,
    model: &ModelConfig,
    skipped: &mut Skipped,
) -> Result<Vec<Keyed>, TrainError> {
    let mut keyed = Vec::with_capacity(pairs.len());
    for (pair_idx, pair) in (0..).zip(pairs) {
        let of_side = |side: &[u32]| problem_of_tokens(&pair.prompt_token_ids, side, model);
        let weight = pair.weight;
        let problem = if pair.chosen == pair.rejected {
            Some(Problem::Skip("pair of identical sides"))
        } else if !(weight.is_finite() && weight >= 0.0) {
            Some(Problem::Bad(format!(
                "weight {weight}, expected a finite number of at least 0"
            )))
        } else {
            of_side(&pair.chosen).or_else(|| of_side(&pair.rejected))
        };
        if let Some(problem) = problem {
            count(problem, pair_idx, skipped)?;
            continue;
        }
        let side = |token_ids: Vec<u32>, reward: f64| PolicyItem {
            prompt_token_ids: pair.prompt_token_ids.clone(),
            token_ids,
            reward,
            weight,
            ..PolicyItem::default()
        };
        keyed.push((pair.key, vec![side(pair.chosen, 1.0), side(pair.rejected, 0.0)]));
    }
    Ok(keyed)
}

/// Hash of everything that was given.
fn content_sha256(responses: &[PolicyResponse], pairs: &[PreferenceTokens]) -> String {
    let mut hash = String::new();
    let mut fold = |key: u64, ids: [&[u32]; 3], floats: &[f32], numbers: [f64; 2]| {
        let mut bytes = std::mem::take(&mut hash).into_bytes();
        bytes.extend(key.to_le_bytes());
        for ids in ids {
            bytes.extend((ids.len() as u64).to_le_bytes());
            bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
        }
        bytes.extend(floats.iter().flat_map(|float| float.to_le_bytes()));
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        // Each is folded in at once: the data may be larger than what is free beside them.
        hash = sha256_hex(&bytes);
    };
    for response in responses {
        let ids = [&response.prompt_token_ids[..], &response.token_ids, &[]];
        let numbers = [response.reward, response.weight];
        fold(response.key, ids, &response.sampler_log_probs, numbers);
    }
    for pair in pairs {
        let ids = [&pair.prompt_token_ids[..], &pair.chosen, &pair.rejected];
        fold(pair.key, ids, &[], [pair.weight, 0.0]);
    }
    hash
}
