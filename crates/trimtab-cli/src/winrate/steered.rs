//! Answers of one side by blockwise control, in a journal that is resumed. Knows the runtime, no statistics.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trimtab_base::Seed;
use trimtab_decode::DecodeSpec;
use trimtab_engine::EngineConfig;
use trimtab_eval::drift_nats;
use trimtab_runtime::{Job, JobResult, Judges, RunEvent, RunLimits, run_judged_jobs};

use super::settings::Settings;
use super::sides::Side;
use crate::journal::{Journal, RunHeader};
use crate::progress::ItemProgress;
use crate::rollout::{Rewards, rollout};
use crate::steering::{Models, OpenScorers};

/// Answers that are scored together.
const SCORED_ROWS: usize = 64;

/// What the answers depend on.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct SteeredRun {
    version: &'static str,
    model_sha256: String,
    scorers_sha256: Vec<String>,
    weights: Vec<f64>,
    decode: String,
    rewards: Vec<String>,
    seed: u64,
    per_prompt: usize,
    precision: String,
    max_new_tokens: Option<usize>,
    /// Tokens of the prompts.
    prompts: Vec<Vec<u32>>,
}

impl RunHeader for SteeredRun {
    fn differences(&self, stored: &Value) -> Vec<String> {
        let ours = serde_json::to_value(self).unwrap_or_default();
        let fields = ours.as_object().into_iter().flatten();
        let differing = fields.filter(|(name, value)| stored.get(name) != Some(value));
        differing.map(|(name, _)| format!("{name} differs")).collect()
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SteeredAnswer {
    /// Place among all answers: prompts in order, the answers to one together.
    place: usize,
    /// `[rewards]`
    pub(super) rewards: Vec<f64>,
    /// By how much the choices among blocks moved it from the side's own policy, in nats: a bound.
    pub(super) drift_nats: f64,
}

#[cfg(test)]
impl SteeredAnswer {
    pub(super) fn of(rewards: Vec<f64>, drift_nats: f64) -> Self {
        Self {
            place: 0,
            rewards,
            drift_nats,
        }
    }
}

/// What both sides share.
pub(super) struct Steered<'a> {
    pub(super) settings: &'a Settings<'a>,
    pub(super) spec: &'a DecodeSpec,
    /// A job a prompt, as samples are drawn.
    pub(super) prompts: &'a [Job],
    pub(super) rewards: &'a Rewards,
}

impl Steered<'_> {
    /// The answers of one side, those missing in the journal at `path` drawn now. `[prompts][answers]`
    pub(super) fn answers(
        &self,
        models: &Models<'_>,
        side: Side,
        path: &Path,
    ) -> Result<Vec<Vec<SteeredAnswer>>> {
        let args = self.settings.args;
        let places = args.scorer.iter().map(|term| term.place.clone()).collect();
        let mut scorers = OpenScorers::open(places, models)?;
        let steering = Arc::new(scorers.steering(&args.scorer, None, false)?);
        let run = self.run(models, side, &scorers);
        let (mut journal, mut known): (Journal, Vec<SteeredAnswer>) = Journal::open(path, &run)?;
        let all = self.prompts.len() * args.steered_per_prompt;
        let missing: Vec<usize> = (0..all)
            .filter(|place| known.iter().all(|answer| answer.place != *place))
            .collect();
        let jobs: Vec<Job> = missing
            .iter()
            .map(|&place| self.job(place, run.seed, &steering))
            .collect();
        let mut engine = models
            .generator
            .engine(args.run.kv_memory, EngineConfig::standard())?;
        scorers.install(&mut engine)?;
        let what = "steering";
        let mut progress = ItemProgress::new(what, all as u64, known.len() as u64);
        let mut finished: Vec<JobResult> = Vec::new();
        let judges = Judges {
            reward: None,
            asked: scorers.asked(),
        };
        let mut keep = |finished: &mut Vec<JobResult>| -> Result<()> {
            for answer in self.scored(&jobs, &missing, finished)? {
                journal.append(&answer)?;
                known.push(answer);
                progress.advance(what);
            }
            finished.clear();
            Ok(())
        };
        run_judged_jobs::<anyhow::Error>(
            &mut engine,
            &models.generator.loaded.token_bytes(),
            &jobs,
            judges,
            RunLimits::standard(),
            &mut |event| {
                if let RunEvent::Finished(result) = event {
                    finished.push(result);
                    if finished.len() >= SCORED_ROWS {
                        keep(&mut finished)?;
                    }
                }
                Ok(())
            },
        )?;
        keep(&mut finished)?;
        progress.finish();
        known.sort_by_key(|answer| answer.place);
        Ok(known
            .chunks(args.steered_per_prompt)
            .map(<[SteeredAnswer]>::to_vec)
            .collect())
    }

    fn run(&self, models: &Models<'_>, side: Side, scorers: &OpenScorers) -> SteeredRun {
        let args = self.settings.args;
        SteeredRun {
            version: env!("CARGO_PKG_VERSION"),
            model_sha256: models.generator.sha256(),
            scorers_sha256: scorers.sha256s(),
            weights: args.scorer.iter().map(|term| term.weight).collect(),
            decode: self.spec.to_string(),
            rewards: self
                .rewards
                .columns()
                .iter()
                .map(|column| column.name.clone())
                .collect(),
            seed: side.seed(self.settings.draw.seed),
            per_prompt: args.steered_per_prompt,
            precision: args.run.precision.name.clone(),
            max_new_tokens: self.settings.draw.max_new_tokens,
            prompts: self.prompts.iter().map(ids).collect(),
        }
    }

    fn job(&self, place: usize, seed: u64, steering: &Arc<trimtab_decode::Steering>) -> Job {
        let (prompt, answer) = (
            place / self.settings.args.steered_per_prompt,
            place % self.settings.args.steered_per_prompt,
        );
        Job {
            decode: self.spec.clone(),
            // An answer's number moves the seed: a steered method draws one answer a seed.
            seed: Seed(seed.wrapping_add((answer as u64) << 40)),
            steering: Arc::clone(steering),
            ..self.prompts[prompt].clone()
        }
    }

    fn scored(&self, jobs: &[Job], places: &[usize], finished: &[JobResult]) -> Result<Vec<SteeredAnswer>> {
        let mut rows = Vec::with_capacity(finished.len());
        for result in finished {
            let chosen = result.outcome.candidates.get(result.outcome.chosen);
            let chosen = chosen.context("a method chooses one of its candidates")?;
            rows.push(rollout(
                &jobs[result.job_idx],
                places[result.job_idx] as u64,
                chosen,
            ));
        }
        self.rewards.score(&mut rows)?;
        let names = self.rewards.columns().iter().map(|column| &column.name);
        let names: Vec<&String> = names.collect();
        let answer = |(row, result): (&trimtab_data::Rollout, &JobResult)| SteeredAnswer {
            place: places[result.job_idx],
            rewards: names.iter().map(|name| row.rewards[*name]).collect(),
            drift_nats: drift_nats(self.spec, &result.outcome).0,
        };
        Ok(rows.iter().zip(finished).map(answer).collect())
    }
}

fn ids(job: &Job) -> Vec<u32> {
    job.token_ids.iter().map(|id| id.0).collect()
}
