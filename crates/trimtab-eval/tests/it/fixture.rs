//! Decoders run on the enumerable model, as a frontier's samples. The reward is the number of `a`, so rewards tie.

use std::sync::Arc;

use trimtab_base::testing::{LetterTokens, TableLm};
use trimtab_base::{PromptKey, Seed, TokenId};
use trimtab_decode::testing::{Scorers, drive_steered};
use trimtab_decode::{Candidate, DecodeSpec, DecoderInputs, Outcome, Prefix, Steering, StopRules};
use trimtab_eval::{FrontierInput, KlRule, MethodRuns, PromptRun, ReferenceSamples, RunFacts, ShownAs};

/// Number of `a` in a response: 0 to 3.
pub(crate) fn reward(token_ids: &[TokenId]) -> f64 {
    token_ids.iter().filter(|&&token| token == TokenId(1)).count() as f64
}

/// A scorer that says the reward so far: many prefixes tie.
struct CountSoFar;

impl Scorers for CountSoFar {
    fn state_values(&mut self, tokens: &[TokenId]) -> Vec<f32> {
        vec![reward(tokens) as f32]
    }

    fn action_values(&mut self, tokens: &[TokenId]) -> Vec<Vec<f32>> {
        let with = |token: u32| reward(&[tokens, &[TokenId(token)]].concat()) as f32;
        vec![(0..TableLm::tiny().vocab as u32).map(with).collect()]
    }

    fn asked_values(&mut self, _prefix: &Prefix) -> Vec<f64> {
        Vec::new()
    }
}

fn run(spec: &DecodeSpec, prompt: u64, seed: u64) -> Outcome {
    let stop = StopRules {
        stop_tokens: vec![TableLm::EOS],
        stop_strings: Vec::new(),
        max_new_tokens: 8,
    };
    let inputs = DecoderInputs {
        prompt_key: PromptKey(prompt),
        seed: Seed(seed),
        stop,
        token_bytes: Arc::new(LetterTokens),
        steering: Arc::new(if spec.needs_scorers() {
            Steering::single("count")
        } else {
            Steering::default()
        }),
        trace: false,
    };
    let mut decoder = spec.build(inputs).unwrap();
    let mut score = |candidate: &Candidate| reward(&candidate.token_ids);
    let mut logits = |prefix: &[TokenId]| TableLm::tiny().logits(prefix);
    let mut outcome = drive_steered(decoder.as_mut(), &mut logits, &mut score, &mut CountSoFar).unwrap();
    for candidate in &mut outcome.candidates {
        candidate.reward = Some(reward(&candidate.token_ids));
    }
    outcome
}

/// The method on every prompt.
pub(crate) fn method_runs(spec: &str, num_prompts: u64) -> MethodRuns {
    let parsed: DecodeSpec = spec.parse().unwrap();
    let outcomes = (0..num_prompts).map(|prompt| (prompt, run(&parsed, prompt, 1)));
    let runs: Vec<PromptRun> = outcomes
        .map(|(prompt, outcome)| PromptRun::of_outcome(prompt, &outcome).unwrap())
        .collect();
    let num_candidates = runs[0].candidates.len() as u32;
    MethodRuns {
        method: spec.to_owned(),
        num_candidates,
        sampling: parsed.sampling(),
        kl_rule: KlRule::of_spec(&parsed),
        value_names: Vec::new(),
        varies_by_seed: false,
        shown_as: ShownAs::default(),
        runs,
    }
}

/// Methods and four held-out reference responses a prompt.
pub(crate) fn frontier_input(specs: &[&str], num_prompts: u64) -> FrontierInput {
    let sample: DecodeSpec = "bon:4".parse().unwrap();
    let references = (0..num_prompts).map(|prompt_idx| {
        let rewards = run(&sample, prompt_idx, 2)
            .candidates
            .iter()
            .map(|c| reward(&c.token_ids))
            .collect();
        ReferenceSamples { prompt_idx, rewards }
    });
    FrontierInput {
        facts: RunFacts {
            model: "table <lm> & \"friends\"".into(),
            model_sha256: "5ca1ab1e".into(),
            seed: 7,
            precision: "f32".into(),
            reward: "regex:a".into(),
            reward_unit: "matches".into(),
            config_sha256: "c0ffee".into(),
            version: "0.0.0".into(),
        },
        references: references.collect(),
        methods: specs.iter().map(|spec| method_runs(spec, num_prompts)).collect(),
        rewards_also: Vec::new(),
        x_axis: None,
    }
}
