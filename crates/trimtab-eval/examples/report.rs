//! Writes a report of made-up samples into the folder named on the command line, to look at its page.
//!
//! `cargo run -p trimtab-eval --example report -- FOLDER`

use std::path::PathBuf;

use trimtab_base::rng::Purpose;
use trimtab_base::{PromptKey, SampleStream, Seed};
use trimtab_decode::{BlockKl, Sampling};
use trimtab_eval::{
    EvalError, Example, ExampleAnswer, Frontier, FrontierInput, KlRule, MethodRuns, PromptRun,
    ReferenceSamples, Report, RewardName, RunFacts, Scored, ShownAs, best_of_n_bound_nats,
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
    let sweeps = [2, 4, 6, 16].map(|k| blockwise("CD-Q blockwise", k, 1.0));
    let weaker = [2, 4, 6, 16].map(|k| blockwise("CD-FUDGE blockwise", k, 0.6));
    let methods: Vec<MethodRuns> = methods.into_iter().chain(sweeps).chain(weaker).collect();
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
        rewards_also: vec![RewardName {
            name: "json".into(),
            unit: "share".into(),
        }],
        x_axis: Some("k".into()),
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
            rewards_also: vec![vec![draw(prompt_idx, 50, 0.0).reward / 10.0 + 0.5]],
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

/// Blocks of 16 tokens chosen by a scorer of some skill: a made-up gain that grows with K.
fn blockwise(series: &str, k: u32, skill: f64) -> MethodRuns {
    let bound = best_of_n_bound_nats(k);
    let run = |prompt_idx| {
        let mut answer = draw(prompt_idx, 9, 0.0);
        answer.num_tokens = (f64::from(answer.num_tokens) * (1.0 + skill * bound)).min(120.0) as u32;
        answer.reward = (f64::from(answer.num_tokens) / 1024.0).ln();
        let num_choices = u64::from(answer.num_tokens.div_ceil(16));
        PromptRun {
            prompt_idx,
            answers: vec![answer],
            candidates: vec![answer],
            tokens_generated: u64::from(k * answer.num_tokens),
            block_kl: vec![BlockKl {
                num_choices,
                bound_nats: bound * num_choices as f64,
                estimate_nats: Some(0.6 * bound * num_choices as f64),
            }],
            first_commit_tokens: vec![u64::from(16 * k)],
            rewards_also: vec![vec![-0.1 * skill * bound - answer.reward / 10.0]],
            ..PromptRun::default()
        }
    };
    MethodRuns {
        method: format!("cd-block:k={k},m=16 @ {series}"),
        num_candidates: k,
        sampling: Sampling::REFERENCE,
        kl_rule: KlRule::Blockwise,
        value_names: Vec::new(),
        varies_by_seed: false,
        shown_as: ShownAs {
            series: Some(series.into()),
            label: None,
            variables: [("k".to_owned(), k.to_string())].into(),
        },
        runs: (0..NUM_PROMPTS).map(run).collect(),
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
