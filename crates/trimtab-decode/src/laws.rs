//! Decoders run on the enumerable model, and the test that their results follow a law. Shared by the tests.

use std::sync::Arc;

use statrs::distribution::{ChiSquared, ContinuousCDF};
use trimtab_base::testing::{LetterTokens, TableLm, chi_square};
use trimtab_base::{PromptKey, Seed, TokenId};

use crate::need::{Candidate, Outcome};
use crate::spec::DecodeSpec;
use crate::stop::StopRules;
use crate::testing::drive;
use crate::{DecodeError, DecoderInputs};

/// A law is refused when so small a share of correct implementations would deviate as much. Seeds are fixed, so a
/// test that passes once passes always.
pub(crate) const ALPHA: f64 = 1e-3;

/// Inputs under which the enumerable model ends by its end token alone.
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
        steering: Arc::default(),
        trace: false,
    }
}

/// Number of `a` in the response: 0 to 3, so that the 15 sequences tie in four classes.
pub(crate) fn count_a(token_ids: &[TokenId]) -> f64 {
    token_ids.iter().filter(|&&token| token == TokenId(1)).count() as f64
}

/// Runs a decoder on `model` with [`count_a`] as reward.
pub(crate) fn run_on(model: &TableLm, spec: &str, prompt: u64) -> Result<Outcome, DecodeError> {
    let mut decoder = spec.parse::<DecodeSpec>()?.build(inputs(prompt))?;
    let mut reward = |candidate: &Candidate| count_a(&candidate.token_ids);
    drive(decoder.as_mut(), &mut |prefix| model.logits(prefix), &mut reward)
}

/// Runs a decoder on the tiny model.
pub(crate) fn run(spec: &str, prompt: u64) -> Outcome {
    run_on(&TableLm::tiny(), spec, prompt).expect("the spec is valid and rewards are numbers")
}

/// How often each sequence of the tiny model is the answer, over prompts `0..num_runs`. In order of enumeration.
pub(crate) fn answer_counts(spec: &str, num_runs: u64) -> Vec<u64> {
    let sequences = TableLm::tiny().enumerate();
    let mut counts = vec![0; sequences.len()];
    for prompt in 0..num_runs {
        let outcome = run(spec, prompt);
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
