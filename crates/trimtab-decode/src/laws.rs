//! Decoders run on the enumerable model, and the test that their results follow a law. Shared by the tests.

use std::collections::HashMap;
use std::sync::Arc;

use statrs::distribution::{ChiSquared, ContinuousCDF};
use trimtab_base::testing::{LetterTokens, TableLm, chi_square};
use trimtab_base::{PromptKey, Seed, TokenId};

use crate::need::{Candidate, Outcome, Prefix};
use crate::spec::DecodeSpec;
use crate::steering::{Steering, SteeringTerm, ValueSource};
use crate::stop::StopRules;
use crate::testing::{Scorers, drive_steered};
use crate::{DecodeError, DecoderInputs};

/// A law is refused when so small a share of correct implementations would deviate as much. Seeds are fixed, so a
/// test that passes once passes always.
pub(crate) const ALPHA: f64 = 1e-3;

/// Inputs under which the enumerable model ends by its end token alone, steered by the exact value of [`count_a`].
pub(crate) fn inputs(prompt: u64) -> DecoderInputs {
    DecoderInputs {
        prompt_key: PromptKey(prompt),
        seed: Seed(20_260),
        stop: StopRules {
            stop_tokens: vec![TableLm::EOS],
            stop_strings: Vec::new(),
            max_new_tokens: 8,
        },
        token_bytes: Arc::new(LetterTokens),
        steering: Arc::new(Steering::single("a")),
        trace: false,
    }
}

/// Inputs with terms of these weights: the engine's scorers in order, all their values with the row.
pub(crate) fn inputs_of(prompt: u64, weights: &[f64]) -> DecoderInputs {
    DecoderInputs {
        steering: Arc::new(steering(weights, |scorer| ValueSource::Row { scorer })),
        ..inputs(prompt)
    }
}

/// One term for each weight.
pub(crate) fn steering(weights: &[f64], source: impl Fn(usize) -> ValueSource) -> Steering {
    let term = |(idx, &weight): (usize, &f64)| SteeringTerm {
        name: format!("scorer {idx}"),
        weight,
        source: source(idx),
    };
    Steering {
        terms: weights.iter().enumerate().map(term).collect(),
        floor: None,
    }
}

/// Exact prefix values on a model: scorer 0 of [`count_a`], scorer 1 of [`length`]. Asked for, they give the same.
pub(crate) struct ExactScorers<'a> {
    model: &'a TableLm,
    states: HashMap<Vec<TokenId>, Vec<f32>>,
    actions: HashMap<Vec<TokenId>, Vec<Vec<f32>>>,
}

impl<'a> ExactScorers<'a> {
    const REWARDS: [fn(&[TokenId]) -> f64; 2] = [count_a, length];

    pub(crate) fn new(model: &'a TableLm) -> Self {
        Self {
            model,
            states: HashMap::new(),
            actions: HashMap::new(),
        }
    }
}

impl Scorers for ExactScorers<'_> {
    fn state_values(&mut self, tokens: &[TokenId]) -> Vec<f32> {
        let value = |reward: fn(&[TokenId]) -> f64| self.model.state_value(tokens, &reward) as f32;
        let values = self.states.entry(tokens.to_vec());
        values
            .or_insert_with(|| Self::REWARDS.into_iter().map(value).collect())
            .clone()
    }

    fn action_values(&mut self, tokens: &[TokenId]) -> Vec<Vec<f32>> {
        let of_reward = |reward: fn(&[TokenId]) -> f64| {
            let values = self.model.action_values(tokens, &reward);
            values.into_iter().map(|value| value as f32).collect()
        };
        let values = self.actions.entry(tokens.to_vec());
        values
            .or_insert_with(|| Self::REWARDS.into_iter().map(of_reward).collect())
            .clone()
    }

    fn asked_values(&mut self, prefix: &Prefix) -> Vec<f64> {
        let values = self.state_values(&prefix.token_ids);
        values.into_iter().map(f64::from).collect()
    }
}

/// Number of tokens, the end token included.
pub(crate) fn length(token_ids: &[TokenId]) -> f64 {
    token_ids.len() as f64
}

/// Number of `a` in the response: 0 to 3, so that the 15 sequences tie in four classes.
pub(crate) fn count_a(token_ids: &[TokenId]) -> f64 {
    token_ids.iter().filter(|&&token| token == TokenId(1)).count() as f64
}

/// Runs a decoder on `model` with [`count_a`] as reward.
pub(crate) fn run_on(model: &TableLm, spec: &str, prompt: u64) -> Result<Outcome, DecodeError> {
    run_with(model, spec, inputs(prompt))
}

/// Runs a decoder on `model` with [`count_a`] as reward and exact prefix values.
pub(crate) fn run_with(model: &TableLm, spec: &str, inputs: DecoderInputs) -> Result<Outcome, DecodeError> {
    run_steered(model, spec, inputs, &mut ExactScorers::new(model))
}

/// The same with other prefix values.
pub(crate) fn run_steered(
    model: &TableLm,
    spec: &str,
    inputs: DecoderInputs,
    scorers: &mut dyn Scorers,
) -> Result<Outcome, DecodeError> {
    let mut decoder = spec.parse::<DecodeSpec>()?.build(inputs)?;
    let mut reward = |candidate: &Candidate| count_a(&candidate.token_ids);
    let logits = &mut |prefix: &[TokenId]| model.logits(prefix);
    drive_steered(decoder.as_mut(), logits, &mut reward, scorers)
}

/// Runs a decoder on the tiny model.
pub(crate) fn run(spec: &str, prompt: u64) -> Outcome {
    run_on(&TableLm::tiny(), spec, prompt).expect("the spec is valid and rewards are numbers")
}

/// How often each sequence of the tiny model is the answer, over prompts `0..num_runs`. In order of enumeration.
pub(crate) fn answer_counts(spec: &str, num_runs: u64) -> Vec<u64> {
    answer_counts_with(spec, num_runs, &inputs)
}

/// The same under other inputs.
pub(crate) fn answer_counts_with(
    spec: &str,
    num_runs: u64,
    inputs: &dyn Fn(u64) -> DecoderInputs,
) -> Vec<u64> {
    let model = TableLm::tiny();
    let sequences = model.enumerate();
    let mut scorers = ExactScorers::new(&model);
    let mut counts = vec![0; sequences.len()];
    for prompt in 0..num_runs {
        let outcome = run_steered(&model, spec, inputs(prompt), &mut scorers)
            .expect("the spec is valid and rewards are numbers");
        let answer = &outcome.candidates[outcome.chosen].token_ids;
        let idx = sequences.iter().position(|(tokens, _)| tokens == answer);
        counts[idx.expect("every response is a sequence of the model")] += 1;
    }
    counts
}

/// Probability that counts from the law `probs` deviate from it at least as much as `counts` do.
pub(crate) fn p_value(counts: &[u64], probs: &[f64]) -> f64 {
    let total: f64 = probs.iter().sum();
    assert!((total - 1.0).abs() < 1e-6, "the law sums to {total}");
    let (statistic, degrees) = chi_square(counts, probs);
    if statistic.is_infinite() {
        return 0.0;
    }
    ChiSquared::new(degrees as f64)
        .expect("at least two cells")
        .sf(statistic)
}

/// Asserts that `counts` follow the law.
pub(crate) fn assert_follows(counts: &[u64], probs: &[f64]) {
    let p_value = p_value(counts, probs);
    assert!(
        p_value > ALPHA,
        "p-value {p_value}: counts {counts:?} do not follow {probs:?}"
    );
}
