//! Scorers for tests.

use std::collections::BTreeMap;

use trimtab_scorer::{FORMAT_VERSION, HeadSizes, ScorerBase, ScorerCard, ScorerWeights};

/// A small scorer with trunks and action values, whose moments and units are no special ones.
pub(crate) fn weights(seed: u64) -> ScorerWeights {
    sized(
        seed,
        HeadSizes {
            hidden_len: 24,
            vocab_len: 90,
            trunk_len: 17,
            features_len: 5,
        },
    )
}

pub(crate) fn sized(seed: u64, sizes: HeadSizes) -> ScorerWeights {
    let mut weights = ScorerWeights::random(seed, sizes);
    let wave = |idx: usize| (idx as f32 * 0.7 + seed as f32).sin();
    weights.mean = (0..sizes.hidden_len).map(|idx| 2.0 * wave(idx)).collect();
    weights.std = (0..sizes.hidden_len).map(|idx| 1.5 + wave(idx + 1)).collect();
    (weights.scale, weights.offset) = (0.75 + seed as f32 / 10.0, -3.25);
    weights.state.out.bias[0] = 0.5;
    if let Some(action) = &mut weights.action {
        action.base.bias[0] = -0.25;
        for (idx, bias) in action.direction.bias.iter_mut().enumerate() {
            *bias = wave(idx + 2);
        }
    }
    weights
}

pub(crate) fn card(weights: &ScorerWeights) -> ScorerCard {
    let features = weights.token_features.as_ref();
    ScorerCard {
        format_version: FORMAT_VERSION,
        name: "shortness".to_owned(),
        objective: "cd-q".to_owned(),
        reward: "length*-0.5".to_owned(),
        reward_unit: "nats".to_owned(),
        base: ScorerBase {
            name: "smollm2-135m-instruct".to_owned(),
            sha256: "ab".repeat(32),
            hidden_len: weights.hidden_len(),
            vocab_len: features.map_or(90, |features| features.vocab_len),
            precision: "int8-wide".to_owned(),
        },
        data_sha256: "cd".repeat(32),
        num_prefixes: 12_345,
        metrics: BTreeMap::from([("eval_mse".to_owned(), 0.125)]),
        seed: 7,
        source_revision: "0.0.0".to_owned(),
        weights_sha256: String::new(),
        model: None,
        planted: None,
    }
}

/// Rows of hidden states. `[rows, hidden]`
pub(crate) fn hidden(rows: usize, hidden_len: usize, salt: u64) -> Vec<f32> {
    let value = |idx: usize| ((idx as u64 * 37 + salt * 101) % 1009) as f32 / 150.0 - 3.3;
    (0..rows * hidden_len).map(value).collect()
}
