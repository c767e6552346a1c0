//! Many prompts through one engine: keeps it fed, has candidates scored, hands results out as they come.
//!
//! Knows requests and rewards; it does not know files, journals or how results are shown. The order in which results
//! come is left open; a result itself depends on its job alone.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use trimtab_base::{PromptKey, RewardError, RewardModel, ScoreInput, Seed, TokenBytes, TokenId};
use trimtab_decode::{Candidate, DecodeSpec, Decoder, DecoderInputs, Outcome, Prefix, Steering, StopRules};
use trimtab_engine::{Engine, EngineError, Event, Prompt, Request, RequestId, Usage};

use crate::asked::{AskedPrefix, Judges};
use crate::error::RuntimeError;
use crate::scorer::{Scored, Scorer, ToScore};

/// One prompt with what to do about it.
#[derive(Debug, Clone)]
pub struct Job {
    /// What errors call it, such as `prompts.txt line 3`; empty if nobody can take it for another.
    pub label: String,
    /// The prompt as the user wrote it, for rewards.
    pub prompt: String,
    /// Other fields of the prompt's record, for rewards.
    pub record: Map<String, Value>,
    /// The prompt's token ids; also its identity in the random streams.
    pub token_ids: Vec<TokenId>,
    /// How to answer.
    pub decode: DecodeSpec,
    /// Seed of the run.
    pub seed: Seed,
    /// What ends an answer.
    pub stop: StopRules,
    /// Prefix scorers that steer the method and their weights; empty for methods without.
    pub steering: Arc<Steering>,
    /// Whether every decision of a steered method is kept in [`Outcome::trace`].
    pub trace: bool,
}

/// A finished job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobResult {
    /// Place among the jobs.
    pub job_idx: usize,
    /// Candidates and choice.
    pub outcome: Outcome,
    /// What it cost the engine.
    pub usage: Usage,
}

/// Something a caller may want to show or keep.
#[derive(Debug)]
pub enum RunEvent {
    /// A job has ended.
    Finished(JobResult),
    /// More of a job's answer is certain, for streaming; methods that decide at the end have nothing to say before.
    Committed {
        /// Place among the jobs.
        job_idx: usize,
        /// Tokens that follow those of earlier events.
        token_ids: Vec<TokenId>,
    },
    /// The engine has made a step; `rows` positions have been run since the start.
    Stepped {
        /// Positions, prompts' included.
        rows: u64,
    },
}

/// How much runs at once. Changes speed and memory, never results.
#[derive(Debug, Clone, Copy)]
pub struct RunLimits {
    /// Branches alive at once over all requests; a request with more than this runs alone.
    pub max_live_branches: usize,
}

impl RunLimits {
    /// 64 branches: enough rows per step to use the machine's arithmetic, few enough to keep memory small.
    pub fn standard() -> Self {
        Self {
            max_live_branches: 64,
        }
    }
}

/// Runs `jobs` to their ends and hands each result to `on_event` as it comes.
///
/// With a reward every candidate is scored, also where the method does not choose by reward.
///
/// # Errors
/// The first failure: a refused prompt, a reward that fails or is NaN, or whatever `on_event` returns. Results handed
/// out before stay valid, and jobs that were scored together with one whose reward failed are handed out first; the
/// engine is left empty.
pub fn run_jobs<E: From<RuntimeError>>(
    engine: &mut Engine,
    token_bytes: &Arc<dyn TokenBytes>,
    jobs: &[Job],
    reward: Option<&dyn RewardModel>,
    limits: RunLimits,
    on_event: &mut dyn FnMut(RunEvent) -> Result<(), E>,
) -> Result<(), E> {
    run_judged_jobs(
        engine,
        token_bytes,
        jobs,
        Judges::by_reward(reward),
        limits,
        on_event,
    )
}

/// [`run_jobs`] with scorers that are asked for values of unfinished responses.
///
/// # Errors
/// Those of [`run_jobs`]; also a steering term that nobody answers, and a value that is NaN.
pub fn run_judged_jobs<E: From<RuntimeError>>(
    engine: &mut Engine,
    token_bytes: &Arc<dyn TokenBytes>,
    jobs: &[Job],
    judges: Judges<'_>,
    limits: RunLimits,
    on_event: &mut dyn FnMut(RunEvent) -> Result<(), E>,
) -> Result<(), E> {
    for job in jobs {
        if job.decode.needs_rewards() && judges.reward.is_none() {
            return Err(RuntimeError::NoReward {
                decode: job.decode.to_string(),
            }
            .into());
        }
        judges.check(job)?;
    }
    std::thread::scope(|scope| {
        let scorer = judges.reward.map(|reward| Scorer::start(scope, reward));
        let mut run = Run {
            engine,
            token_bytes,
            jobs,
            scorer,
            judges,
            asked: Vec::new(),
            limits,
            next_job: 0,
            waiting: None,
            running: HashMap::new(),
            live: 0,
        };
        let result = run.drive(on_event);
        for &id in run.running.keys() {
            // A request that has just failed is gone already.
            let _ = run.engine.cancel(id);
        }
        result
    })
}

/// A request under way.
#[derive(Debug, Clone, Copy)]
struct Running {
    job_idx: usize,
    branches: usize,
}

/// Values that a request waits for.
struct Question {
    request: RequestId,
    job_idx: usize,
    prefixes: Vec<Prefix>,
}

struct Run<'a, 'b> {
    engine: &'a mut Engine,
    token_bytes: &'a Arc<dyn TokenBytes>,
    jobs: &'a [Job],
    scorer: Option<Scorer>,
    judges: Judges<'b>,
    /// Of the present step.
    asked: Vec<Question>,
    limits: RunLimits,
    next_job: usize,
    /// Decoder of `next_job`, built and waiting for room.
    waiting: Option<Box<dyn Decoder>>,
    running: HashMap<RequestId, Running>,
    live: usize,
}

impl Run<'_, '_> {
    fn drive<E: From<RuntimeError>>(
        &mut self,
        on_event: &mut dyn FnMut(RunEvent) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            self.submit()?;
            if self.running.is_empty() {
                return Ok(());
            }
            let steps_before = self.engine.stats().steps;
            let num_events = self.step(on_event)?;
            let made_progress = num_events > 0 || self.engine.stats().steps > steps_before;
            if let Err(failure) = self.take_rewards(!made_progress) {
                // Jobs that did get their rewards are over; the engine says so in its next step.
                self.step(on_event)?;
                return Err(failure.into());
            }
        }
    }

    /// One step of the engine and what comes of it; gives the number of events.
    fn step<E: From<RuntimeError>>(
        &mut self,
        on_event: &mut dyn FnMut(RunEvent) -> Result<(), E>,
    ) -> Result<usize, E> {
        let events = self.engine.step().map_err(|cause| RuntimeError::Step { cause })?;
        let num_events = events.len();
        for event in events {
            self.handle(event, on_event)?;
        }
        self.answer_values()?;
        let rows = self.engine.stats().rows;
        on_event(RunEvent::Stepped { rows })?;
        Ok(num_events)
    }

    /// Submits jobs while there is room for their branches.
    fn submit(&mut self) -> Result<(), RuntimeError> {
        let jobs = self.jobs;
        while let Some(job) = jobs.get(self.next_job) {
            let decoder = match self.waiting.take() {
                Some(decoder) => decoder,
                None => self.decoder(job)?,
            };
            let branches = decoder.max_live_branches();
            if self.live > 0 && self.live + branches > self.limits.max_live_branches {
                self.waiting = Some(decoder);
                return Ok(());
            }
            let request = Request {
                prompt: Prompt::tokens(job.token_ids.clone()),
                decoder,
            };
            let id = self.engine.submit(request).map_err(|cause| failed(job, cause))?;
            let job_idx = self.next_job;
            self.running.insert(id, Running { job_idx, branches });
            self.live += branches;
            self.next_job += 1;
        }
        Ok(())
    }

    fn decoder(&self, job: &Job) -> Result<Box<dyn Decoder>, RuntimeError> {
        let inputs = DecoderInputs {
            prompt_key: PromptKey::of_tokens(&job.token_ids),
            seed: job.seed,
            stop: job.stop.clone(),
            token_bytes: Arc::clone(self.token_bytes),
            steering: Arc::clone(&job.steering),
            trace: job.trace,
        };
        let built = if self.scorer.is_some() {
            job.decode.build_scored(inputs)
        } else {
            job.decode.build(inputs)
        };
        built.map_err(|cause| RuntimeError::Decode {
            label: job.label.clone(),
            cause,
        })
    }

    fn handle<E: From<RuntimeError>>(
        &mut self,
        event: Event,
        on_event: &mut dyn FnMut(RunEvent) -> Result<(), E>,
    ) -> Result<(), E> {
        match event {
            Event::RewardsWanted { request, candidates } => {
                let Some(&Running { job_idx, .. }) = self.running.get(&request) else {
                    return Ok(());
                };
                if let Some(scorer) = &self.scorer {
                    let job = &self.jobs[job_idx];
                    let inputs = candidates
                        .into_iter()
                        .map(|candidate| score_input(job, candidate))
                        .collect();
                    scorer.ask(ToScore { job_idx, inputs });
                }
                Ok(())
            }
            Event::ValuesWanted { request, prefixes } => {
                if let Some(&Running { job_idx, .. }) = self.running.get(&request) {
                    self.asked.push(Question {
                        request,
                        job_idx,
                        prefixes,
                    });
                }
                Ok(())
            }
            Event::Committed { request, token_ids } => match self.running.get(&request) {
                Some(&Running { job_idx, .. }) => on_event(RunEvent::Committed { job_idx, token_ids }),
                None => Ok(()),
            },
            Event::Finished {
                request,
                outcome,
                usage,
            } => match self.retire(request) {
                Some(job_idx) => on_event(RunEvent::Finished(JobResult {
                    job_idx,
                    outcome,
                    usage,
                })),
                None => Ok(()),
            },
            Event::Failed { request, error } => match self.retire(request) {
                Some(job_idx) => Err(failed(&self.jobs[job_idx], error).into()),
                None => Ok(()),
            },
        }
    }

    /// Answers what this step has asked, of all requests at once: a scorer has a model of its own to fill a batch of.
    fn answer_values(&mut self) -> Result<(), RuntimeError> {
        let questions = std::mem::take(&mut self.asked);
        let jobs = self.jobs;
        let asked = questions.iter().flat_map(|question| {
            let job = &jobs[question.job_idx];
            question
                .prefixes
                .iter()
                .map(move |prefix| AskedPrefix { job, prefix })
        });
        let mut values = self.judges.values(&asked.collect::<Vec<_>>())?.into_iter();
        for question in questions {
            let own = values.by_ref().take(question.prefixes.len()).collect();
            let answered = self.engine.answer_values(question.request, own);
            answered.map_err(|cause| failed(&jobs[question.job_idx], cause))?;
        }
        Ok(())
    }

    fn retire(&mut self, request: RequestId) -> Option<usize> {
        let running = self.running.remove(&request)?;
        self.live -= running.branches;
        Some(running.job_idx)
    }

    /// Hands rewards that have come to their requests; waits for some if the engine has nothing else to do.
    ///
    /// # Errors
    /// The first failure, after all rewards that came with it are handed over.
    fn take_rewards(&mut self, must_wait: bool) -> Result<(), RuntimeError> {
        let Some(scorer) = &self.scorer else { return Ok(()) };
        let mut come = if must_wait {
            scorer.wait().ok_or(RuntimeError::ScorerDied)?
        } else {
            scorer.ready().unwrap_or_default()
        };
        while let Some(more) = scorer.ready() {
            come.extend(more);
        }
        let mut result = Ok(());
        for Scored { job_idx, rewards } in come {
            let handed_over = self.hand_over(job_idx, rewards);
            result = result.and(handed_over);
        }
        result
    }

    fn hand_over(
        &mut self,
        job_idx: usize,
        rewards: Result<Vec<f64>, RewardError>,
    ) -> Result<(), RuntimeError> {
        let job = &self.jobs[job_idx];
        let rewards = rewards.map_err(|cause| RuntimeError::Reward {
            label: job.label.clone(),
            cause: Box::new(cause),
        })?;
        let request = self
            .running
            .iter()
            .find(|(_, running)| running.job_idx == job_idx);
        let Some((&id, _)) = request else { return Ok(()) };
        self.engine
            .answer_rewards(id, rewards)
            .map_err(|cause| failed(job, cause))
    }
}

fn failed(job: &Job, cause: EngineError) -> RuntimeError {
    RuntimeError::Engine {
        label: job.label.clone(),
        cause: Box::new(cause),
    }
}

fn score_input(job: &Job, candidate: Candidate) -> ScoreInput {
    ScoreInput {
        prompt: job.prompt.clone(),
        response: candidate.text,
        token_ids: candidate.token_ids,
        reference_log_prob: candidate.reference_log_prob,
        record: job.record.clone(),
    }
}
