//! Prefix scorers of the enumerable model: exact values as linear heads on one-hot hidden states.

use std::sync::Arc;

use trimtab_base::TokenId;
use trimtab_base::testing::TableLm;
use trimtab_decode::testing::{Scorers, drive_steered};
use trimtab_decode::{Candidate, Outcome, Prefix, Steering, SteeringTerm, ValueSource};
use trimtab_engine::{Engine, EngineConfig, Prompt, Request};
use trimtab_kernels::gemm::Precision;
use trimtab_kernels::pool::Pool;
use trimtab_scorer::{ActionHead, Layer, ScorerSet, ScorerWeights, StateHead, TokenFeatures};

use crate::table_backend::{NUM_PLACES, TableBackend, place_of, reward, steered_decoder, tokens};

/// The prompt whose values the scorers know.
pub(crate) const PROMPT: [u32; 5] = [1, 2, 3, 1, 2];

/// The model after [`PROMPT`].
pub(crate) fn model() -> TableLm {
    model_after(&PROMPT)
}

fn model_after(prompt: &[u32]) -> TableLm {
    let shift: u64 = prompt.iter().map(|&id| u64::from(id)).sum();
    TableLm {
        vocab: 4,
        max_len: 6,
        salt: 3 + shift,
    }
}

/// The rewards of the two scorers: how often the first letter occurs, and the length with its sign turned.
pub(crate) fn rewards(tokens: &[TokenId]) -> [f64; 2] {
    let num_first = tokens.iter().filter(|&&token| token == TokenId(1)).count();
    [num_first as f64, -(tokens.len() as f64)]
}

/// `V*` of every sequence under both rewards, by place.
fn state_values() -> Vec<[f64; 2]> {
    let mut values = vec![[0.0; 2]; NUM_PLACES];
    let mut open = vec![Vec::new()];
    while let Some(prefix) = open.pop() {
        let of = |idx: usize| model().state_value(&prefix, &|tokens| rewards(tokens)[idx]);
        values[place_of(&prefix)] = [of(0), of(1)];
        if prefix.len() < 6 && prefix.last() != Some(&TableLm::EOS) {
            open.extend((0..4).map(|token| [&*prefix, &[TokenId(token)]].concat()));
        }
    }
    values
}

/// A scorer whose values are exactly those of `values`, with a scale and an offset that are no special ones.
fn weights(values: &[f64]) -> ScorerWeights {
    const SCALE: f64 = 0.5;
    const OFFSET: f64 = 1.25;
    let output = |value: f64| ((value - OFFSET) / SCALE) as f32;
    let layer = |rows: Vec<Vec<f32>>| Layer {
        in_len: NUM_PLACES,
        out_len: rows.len(),
        bias: vec![0.0; rows.len()],
        weight: rows.concat(),
    };
    let state: Vec<f32> = values.iter().map(|&value| output(value)).collect();
    // What token `k` adds to the value before it; the last feature, of stop tokens, adds nothing.
    let added = |token: usize| {
        let after = |place: usize| values.get(place * 4 + token + 1);
        let gain = |place: usize| after(place).map_or(0.0, |after| ((after - values[place]) / SCALE) as f32);
        (0..NUM_PLACES).map(gain).collect()
    };
    let mut directions: Vec<Vec<f32>> = (0..4).map(added).collect();
    directions.push(vec![0.0; NUM_PLACES]);
    let features = TokenFeatures::of_embedding(&mut |_, row| row.fill(0.0), 4, 1, 64, &[TableLm::EOS]);
    ScorerWeights {
        mean: vec![0.0; NUM_PLACES],
        std: vec![1.0; NUM_PLACES],
        scale: SCALE as f32,
        offset: OFFSET as f32,
        state: StateHead {
            trunk: None,
            out: layer(vec![state.clone()]),
        },
        action: Some(ActionHead {
            trunk: None,
            base: layer(vec![state]),
            direction: layer(directions),
        }),
        token_features: Some(features),
    }
}

/// Both scorers with what they say.
#[derive(Clone)]
pub(crate) struct Exact {
    values: Vec<[f64; 2]>,
    pub(crate) set: Arc<ScorerSet>,
}

impl Exact {
    pub(crate) fn new() -> Self {
        let values = state_values();
        let of = |idx: usize| weights(&values.iter().map(|values| values[idx]).collect::<Vec<_>>());
        let set = ScorerSet::new(&Pool::new(1), Precision::F32, vec![of(0), of(1)]);
        Self {
            set: Arc::new(set.expect("both are for one model")),
            values,
        }
    }

    /// An engine over the enumerable model that knows both scorers.
    pub(crate) fn engine(&self, num_blocks: usize, num_threads: usize, config: EngineConfig) -> Engine {
        let (backend, _) = TableBackend::one_hot(num_blocks, PROMPT.len(), num_threads);
        let mut engine = Engine::new(Box::new(backend), config).expect("limits are positive");
        engine
            .set_scorers(Arc::clone(&self.set))
            .expect("widths are the model's");
        engine
    }

    /// What the formulas say, every row and value from the branch's tokens alone.
    pub(crate) fn expected(
        &self,
        spec: &str,
        prompt: &[u32],
        seed: u64,
        steering: &Arc<Steering>,
    ) -> Outcome {
        let model = model_after(prompt);
        let mut decoder = steered_decoder(spec, prompt, seed, Arc::clone(steering));
        let mut score = |candidate: &Candidate| reward(&candidate.text);
        let mut logits = |tokens: &[TokenId]| model.logits(tokens);
        drive_steered(decoder.as_mut(), &mut logits, &mut score, &mut self.clone())
            .expect("the slow driver runs to its end")
    }

    /// The values of a response under terms that are asked of the caller: the first reward's.
    pub(crate) fn asked(&self, prefix: &Prefix) -> Vec<f64> {
        vec![self.values[place_of(&prefix.token_ids)][0]]
    }
}

impl Scorers for Exact {
    fn state_values(&mut self, tokens: &[TokenId]) -> Vec<f32> {
        self.values[place_of(tokens)]
            .iter()
            .map(|&value| value as f32)
            .collect()
    }

    fn action_values(&mut self, tokens: &[TokenId]) -> Vec<Vec<f32>> {
        let after = |token: usize| self.values[place_of(tokens) * 4 + token + 1];
        (0..2)
            .map(|idx| (0..4).map(|token| after(token)[idx] as f32).collect())
            .collect()
    }

    fn asked_values(&mut self, prefix: &Prefix) -> Vec<f64> {
        self.asked(prefix)
    }
}

/// Terms with these weights; the values of all but `asked` come with the row.
pub(crate) fn steering(weights: &[f64], asked: Option<usize>) -> Arc<Steering> {
    let term = |(idx, &weight): (usize, &f64)| SteeringTerm {
        name: ["first", "short"][idx].to_owned(),
        weight,
        source: if asked == Some(idx) {
            ValueSource::Asked
        } else {
            ValueSource::Row { scorer: idx }
        },
    };
    Arc::new(Steering {
        terms: weights.iter().enumerate().map(term).collect(),
        floor: None,
    })
}

pub(crate) fn steered_request(spec: &str, prompt: &[u32], seed: u64, steering: &Arc<Steering>) -> Request {
    Request {
        prompt: Prompt::tokens(tokens(prompt)),
        decoder: steered_decoder(spec, prompt, seed, Arc::clone(steering)),
    }
}
