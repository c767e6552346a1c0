//! Steered jobs whose values come from outside the engine, and what is told while they run.

use std::sync::Arc;

use trimtab_base::TokenId;
use trimtab_decode::{Steering, SteeringTerm, TraceStep, ValueSource};
use trimtab_engine::EngineConfig;
use trimtab_runtime::{
    AskedPrefix, AskedScorer, Job, JobResult, Judges, LoadedModel, RunEvent, RunLimits, RuntimeError,
    run_judged_jobs,
};

use crate::jobs::{PROMPTS, jobs};
use crate::tiny_model;

/// The letters `e` of the text so far; NaN for a prompt, if one is named.
struct CountsE {
    nan_for: Option<&'static str>,
    largest_batch: usize,
}

impl AskedScorer for CountsE {
    fn name(&self) -> &'static str {
        "letters"
    }

    fn unit(&self) -> &'static str {
        "letters"
    }

    fn values(&mut self, asked: &[AskedPrefix<'_>]) -> Result<Vec<f64>, RuntimeError> {
        self.largest_batch = self.largest_batch.max(asked.len());
        let value = |asked: &AskedPrefix<'_>| {
            if self.nan_for == Some(asked.job.prompt.as_str()) {
                f64::NAN
            } else {
                asked.prefix.text.matches('e').count() as f64
            }
        };
        Ok(asked.iter().map(value).collect())
    }
}

fn steered_jobs(model: &LoadedModel, prompts: &[&str]) -> Vec<Job> {
    let steering = Arc::new(Steering {
        terms: vec![SteeringTerm {
            name: "letters".to_owned(),
            weight: 1.0,
            source: ValueSource::Asked,
        }],
        floor: None,
    });
    let mut jobs = jobs(model, "cd-block:k=3,m=4", prompts);
    for job in &mut jobs {
        job.steering = Arc::clone(&steering);
        job.trace = true;
    }
    jobs
}

/// Results in order of the jobs, and the tokens that each was told to be certain of before its end.
fn run(
    model: &LoadedModel,
    jobs: &[Job],
    asked: Vec<&mut dyn AskedScorer>,
) -> Result<Vec<(JobResult, Vec<TokenId>)>, RuntimeError> {
    let mut engine = model.engine(8 << 20, EngineConfig::standard()).unwrap();
    let mut committed = vec![Vec::new(); jobs.len()];
    let mut results = Vec::new();
    let judges = Judges { reward: None, asked };
    let ran = run_judged_jobs::<RuntimeError>(
        &mut engine,
        &model.token_bytes(),
        jobs,
        judges,
        RunLimits::standard(),
        &mut |event| {
            match event {
                RunEvent::Finished(result) => results.push(result),
                RunEvent::Committed { job_idx, token_ids } => committed[job_idx].extend(token_ids),
                RunEvent::Stepped { .. } => {}
            }
            Ok(())
        },
    );
    assert!(engine.is_idle(), "nothing is left behind, whatever happened");
    ran?;
    results.sort_by_key(|result| result.job_idx);
    Ok(results.into_iter().zip(committed).collect())
}

#[test]
fn blocks_are_kept_by_values_that_are_asked_for() {
    let model = tiny_model::load(2);
    let mut scorer = CountsE {
        nan_for: None,
        largest_batch: 0,
    };
    let together = run(&model, &steered_jobs(&model, &PROMPTS), vec![&mut scorer]).unwrap();
    assert!(scorer.largest_batch > 3, "several jobs are asked about at once");
    let token_bytes = model.token_bytes();
    for (result, committed) in &together {
        let outcome = &result.outcome;
        let answer = &outcome.candidates[outcome.chosen];
        assert_eq!(&answer.token_ids, committed, "streamed in order and in full");
        let mut kept = Vec::new();
        for step in &outcome.trace {
            let TraceStep::Block { candidates, .. } = step else {
                panic!("blocks alone");
            };
            let best = candidates
                .iter()
                .map(|block| block.mixed_value)
                .fold(f64::MIN, f64::max);
            for block in candidates {
                let whole = [kept.as_slice(), &block.token_ids].concat();
                let letters = token_bytes.text_of(&whole).matches('e').count() as f64;
                assert_eq!(block.values, [letters], "{:?}", block.text);
            }
            let chosen = candidates.iter().find(|block| block.is_kept).unwrap();
            assert_eq!(chosen.mixed_value, best);
            kept.extend_from_slice(&chosen.token_ids);
        }
        assert_eq!(kept, answer.token_ids);
    }
    // Alone, each job ends as in company.
    for (idx, (result, _)) in together.iter().enumerate() {
        let alone = run(
            &model,
            &steered_jobs(&model, &PROMPTS[idx..=idx]),
            vec![&mut scorer],
        )
        .unwrap();
        assert_eq!(alone[0].0.outcome, result.outcome);
    }
}

#[test]
fn a_value_that_is_no_number_names_scorer_and_prompt() {
    let model = tiny_model::load(1);
    let mut scorer = CountsE {
        nan_for: Some("zebra"),
        largest_batch: 0,
    };
    let error = run(&model, &steered_jobs(&model, &PROMPTS), vec![&mut scorer])
        .expect_err("must fail")
        .to_string();
    for part in ["prompt 3: scorer letters", "NaN"] {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}

#[test]
fn a_term_that_nobody_answers_is_refused_before_anything_runs() {
    let model = tiny_model::load(1);
    let error = run(&model, &steered_jobs(&model, &PROMPTS), Vec::new())
        .expect_err("must fail")
        .to_string();
    assert!(error.contains("no scorer is called letters"), "{error}");
}
