//! Writes a report of made-up samples into the folder named on the command line, to look at its page.
//!
//! `cargo run -p trimtab-eval --example report -- FOLDER`

use std::path::PathBuf;

use trimtab_base::rng::Purpose;
use trimtab_base::{PromptKey, SampleStream, Seed};
use trimtab_decode::Sampling;
use trimtab_eval::{
    EvalError, Example, ExampleAnswer, Frontier, FrontierInput, KlRule, MethodRuns, PromptRun,
    ReferenceSamples, Report, RunFacts, Scored, ShownAs,
};

const NUM_PROMPTS: u64 = 24;
const MAX_TOKENS: u32 = 96;

fn main() -> Result<(), EvalError> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| ".".to_owned()));
    let methods = vec![
        sampling("sample", 0.0),
        sampling("sample:t=0.7", 0.31),
        best_of(4),
        best_of(16),
        MethodRuns {
            method: "majority:8".into(),
            kl_rule: KlRule::Selection { num_candidates: 8 },
            num_candidates: 8,
            ..sampling("", 0.0)
        },
    ];
    let references = (0..NUM_PROMPTS).map(|prompt_idx| ReferenceSamples {
        prompt_idx,
        rewards: (100..108).map(|idx| draw(prompt_idx, idx, 0.0).reward).collect(),
    });
    let examples = [
        "Explain why the sky is blue.",
        "Name three uses of a paperclip & <one> that is silly.",
    ];
    let input = FrontierInput {
        facts: facts(),
        methods,
        references: references.collect(),
        rewards_also: Vec::new(),
        x_axis: None,
    };
    let report = Report {
        examples: examples
            .iter()
            .map(|prompt| example(prompt, &input.methods))
            .collect(),
        frontier: Frontier::compute(&input)?,
    };
    report.write(&folder)?;
    Ok(())
}

/// A response whose length is uniform up to the limit, which some reach: their rewards tie.
fn draw(prompt_idx: u64, candidate_idx: u64, kl_nats: f64) -> Scored {
    let stream = SampleStream::new(Seed(5), PromptKey(prompt_idx), candidate_idx, Purpose::Token);
    let stretch = 70.0 + 3.0 * prompt_idx as f64;
    let num_tokens = ((8.0 + stretch * stream.uniform(0)) as u32).min(MAX_TOKENS);
    let reward = (f64::from(num_tokens) / 1024.0).ln();
    let kl_nats = kl_nats * f64::from(num_tokens) / 10.0;
    Scored {
        reward,
        log_prob: -60.0,
        reference_log_prob: -60.0 - kl_nats,
        kl_nats,
        num_tokens,
    }
}

fn runs(num_candidates: u64, kl_nats: f64, choose: impl Fn(&[Scored]) -> Scored) -> Vec<PromptRun> {
    let run = |prompt_idx| {
        let candidates: Vec<Scored> = (0..num_candidates)
            .map(|idx| draw(prompt_idx, idx, kl_nats))
            .collect();
        let tokens_generated = candidates
            .iter()
            .map(|candidate| u64::from(candidate.num_tokens))
            .sum();
        PromptRun {
            prompt_idx,
            answers: vec![choose(&candidates)],
            candidates,
            tokens_generated,
            ..PromptRun::default()
        }
    };
    (0..NUM_PROMPTS).map(run).collect()
}

fn sampling(method: &str, kl_nats: f64) -> MethodRuns {
    let runs = runs(1, kl_nats, |candidates| candidates[0]);
    MethodRuns {
        method: method.into(),
        num_candidates: 1,
        sampling: if kl_nats > 0.0 {
            Sampling::at_temperature(0.7)
        } else {
            Sampling::REFERENCE
        },
        kl_rule: KlRule::TokenwiseSum,
        value_names: Vec::new(),
        varies_by_seed: false,
        shown_as: ShownAs::default(),
        runs,
    }
}

fn best_of(num_candidates: u32) -> MethodRuns {
    let best = |candidates: &[Scored]| {
        candidates
            .iter()
            .copied()
            .reduce(|best, next| if next.reward > best.reward { next } else { best })
    };
    let runs = runs(u64::from(num_candidates), 0.0, |candidates| {
        best(candidates).expect("there are candidates")
    });
    let kl_rule = KlRule::BestOfN { num_candidates };
    MethodRuns {
        method: format!("bon:{num_candidates}"),
        num_candidates,
        sampling: Sampling::REFERENCE,
        kl_rule,
        value_names: Vec::new(),
        varies_by_seed: false,
        shown_as: ShownAs::default(),
        runs,
    }
}

fn example(prompt: &str, methods: &[MethodRuns]) -> Example {
    let answer = |method: &MethodRuns| {
        ExampleAnswer {
        method: method.method.clone(),
        text: "The sky is blue because air scatters short waves of light more than long ones.\n\n1. Sunlight holds all \
               colours.\n2. Blue is scattered most."
            .repeat(method.num_candidates.min(4) as usize),
        reward: method.runs[0].answers[0].reward,
    }
    };
    Example {
        prompt: prompt.to_owned(),
        answers: methods.iter().map(answer).collect(),
    }
}

fn facts() -> RunFacts {
    RunFacts {
        model: "made-up-model".into(),
        model_sha256: "0".repeat(64),
        seed: 0,
        precision: "int8".into(),
        reward: "length".into(),
        reward_unit: "nats".into(),
        config_sha256: "0".repeat(64),
        version: env!("CARGO_PKG_VERSION").into(),
    }
}
