//! Draws what the plan asks for, journals each finished prompt, and leaves the report. Knows files and the runtime.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use trimtab_base::{RewardModel, TokenId};
use trimtab_decode::{Candidate, DecodeSpec, StopRules};
use trimtab_engine::{Engine, EngineConfig};
use trimtab_eval::Frontier;
use trimtab_runtime::{Job, PromptStyle, RunEvent, RunLimits, run_jobs};
use trimtab_store::SourcePolicy;

use super::checks;
use super::config::FrontierConfig;
use super::folder;
use super::identity::Header;
use super::plan::{Group, Plan};
use super::points;
use crate::args::parse_precision;
use crate::journal::Journal;
use crate::output;
use crate::progress::ItemProgress;
use crate::prompts::{PromptRecord, read_prompts};
use crate::resolve::ReadyModel;

/// Characters of a prompt shown in errors.
const MAX_LABEL_CHARS: usize = 40;

/// How to run; nothing here changes results.
#[derive(Debug, Clone)]
pub(crate) struct RunOptions {
    /// Folder for journal and report.
    pub(crate) out: PathBuf,
    /// Threads; all processors if `None`.
    pub(crate) threads: Option<u16>,
    /// Memory for keys and values, in MiB.
    pub(crate) kv_memory_mib: u32,
    /// Where the model may come from.
    pub(crate) source: SourcePolicy,
}

/// One finished prompt of one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Index into the plan's groups.
    pub(crate) group: usize,
    /// Index into the prompts.
    pub(crate) prompt: usize,
    /// Index into `candidates` of the decoder's own choice.
    pub(crate) chosen: usize,
    /// Tokens drawn in all.
    pub(crate) tokens_generated: u64,
    pub(crate) candidates: Vec<Candidate>,
}

/// A frontier run about to start or go on.
pub(crate) struct FrontierRun {
    config: FrontierConfig,
    prompts: Vec<PromptRecord>,
    reward: Box<dyn RewardModel>,
    plan: Plan,
    options: RunOptions,
}

impl FrontierRun {
    /// Reads the prompts, builds the reward and looks the model's name up, so that mistakes show before it is fetched.
    pub(crate) fn new(config: FrontierConfig, options: RunOptions) -> Result<Self> {
        let mut read = read_prompts(&config.prompts)?;
        if read.num_duplicates > 0 {
            let plural = if read.num_duplicates == 1 { "" } else { "s" };
            output::note(&format!(
                "{} duplicate prompt{plural} dropped",
                read.num_duplicates
            ));
        }
        read.records.truncate(config.num_prompts.unwrap_or(usize::MAX));
        let reward = config.reward.build_with(&config.reward_limits())?;
        checks::records_fit(&config.prompts, &read.records, reward.as_ref())?;
        let plan = Plan::new(&config.methods, config.reference_samples, config.seed);
        Ok(Self {
            config: config.locate()?,
            prompts: read.records,
            reward,
            plan,
            options,
        })
    }

    /// Runs what is missing and writes the report; gives its numbers.
    ///
    /// Nothing is written before everything that can be known to fail has been checked.
    pub(crate) fn run(&self) -> Result<Frontier> {
        let precision = parse_precision(&self.config.precision).map_err(anyhow::Error::msg)?;
        let model = ReadyModel::open(
            &self.config.model,
            self.options.source,
            precision.plan,
            self.options.threads,
        )?;
        let tokens = self.tokens(&model)?;
        let mut engine = model.engine(self.options.kv_memory_mib, EngineConfig::standard())?;
        self.check_fit(&model, &mut engine, &tokens)?;
        let header = Header::new(&self.config, &self.prompts, model.sha256())?;
        let out = &self.options.out;
        let config_text = folder::config_to_write(out, &self.config, &header)?;
        std::fs::create_dir_all(out)
            .with_context(|| format!("cannot create the folder {}", out.display()))?;
        let (mut journal, entries) = Journal::open::<Entry>(&folder::journal_path(out), &header)?;
        let mut entries = checks::distinct_entries(entries, self.plan.groups.len(), self.prompts.len())?;
        // After the journal, which refuses a folder that another run is using or has used.
        if let Some(text) = config_text {
            folder::write_whole(&folder::config_path(out), &text)?;
        }
        let missing = self.missing(&entries);
        if !missing.is_empty() {
            let jobs = missing
                .iter()
                .map(|&(group, prompt)| self.job(&model, &self.plan.groups[group], prompt, &tokens));
            let jobs: Vec<Job> = jobs.collect();
            let draw = Draw {
                model: &model,
                missing: &missing,
                jobs: &jobs,
            };
            self.draw(&draw, &mut engine, &mut journal, &mut entries)?;
        }
        self.report(model.sha256(), entries)
    }

    fn report(&self, model_sha256: String, mut entries: Vec<Entry>) -> Result<Frontier> {
        entries.sort_by_key(|entry| (entry.group, entry.prompt));
        let identity = points::Identity {
            model_sha256,
            reward_unit: self.reward.unit().to_owned(),
        };
        let report = points::report(&self.config, &self.prompts, &self.plan, &entries, identity)?;
        let out = &self.options.out;
        report
            .write(out)
            .with_context(|| format!("the samples are kept in {}", folder::journal_path(out).display()))?;
        Ok(report.frontier)
    }

    /// Refuses prompts and methods that can never run, by the worst case of each group: the longest prompt.
    fn check_fit(&self, model: &ReadyModel, engine: &mut Engine, tokens: &[Vec<TokenId>]) -> Result<()> {
        checks::are_distinct(tokens)?;
        let context_len = model.loaded.config().context_len;
        checks::fit_context(tokens, self.config.max_new_tokens, context_len)?;
        let longest = (0..tokens.len()).max_by_key(|&prompt| tokens[prompt].len());
        let jobs = self
            .plan
            .groups
            .iter()
            .zip(longest.into_iter().cycle())
            .map(|(group, prompt)| self.job(model, group, prompt, tokens));
        checks::fit_engine(engine, &model.loaded.token_bytes(), &jobs.collect::<Vec<_>>())
    }

    /// Pairs of group and prompt that are not in the journal, prompts first so that early results cover all groups.
    fn missing(&self, entries: &[Entry]) -> Vec<(usize, usize)> {
        let done: std::collections::HashSet<(usize, usize)> =
            entries.iter().map(|entry| (entry.group, entry.prompt)).collect();
        let pairs = (0..self.prompts.len())
            .flat_map(|prompt| (0..self.plan.groups.len()).map(move |group| (group, prompt)));
        pairs.filter(|pair| !done.contains(pair)).collect()
    }

    fn draw(
        &self,
        draw: &Draw,
        engine: &mut Engine,
        journal: &mut Journal,
        entries: &mut Vec<Entry>,
    ) -> Result<()> {
        let &Draw { model, missing, jobs } = draw;
        let total = self.prompts.len() * self.plan.groups.len();
        let what = "answering";
        let mut progress = ItemProgress::new(what, total as u64, (total - missing.len()) as u64);
        let started = std::time::Instant::now();
        let reward = self.reward.as_ref();
        let limits = RunLimits::standard();
        let ran = run_jobs::<anyhow::Error>(
            engine,
            &model.loaded.token_bytes(),
            jobs,
            Some(reward),
            limits,
            &mut |event| {
                match event {
                    RunEvent::Stepped { rows } => {
                        progress.say(format!(
                            "{:.0} tokens/s",
                            rows as f64 / started.elapsed().as_secs_f64()
                        ));
                    }
                    RunEvent::Finished(result) => {
                        let (group, prompt) = missing[result.job_idx];
                        let entry = Entry {
                            group,
                            prompt,
                            chosen: result.outcome.chosen,
                            tokens_generated: result.outcome.tokens_generated,
                            candidates: result.outcome.candidates,
                        };
                        journal.append(&entry)?;
                        entries.push(entry);
                        progress.advance(what);
                    }
                }
                Ok(())
            },
        );
        progress.finish();
        ran.with_context(|| {
            let path = folder::journal_path(&self.options.out);
            format!(
                "stopped after {} of {total}; what is finished is kept in {}",
                entries.len(),
                path.display()
            )
        })
    }

    /// Token ids of every prompt.
    fn tokens(&self, model: &ReadyModel) -> Result<Vec<Vec<TokenId>>> {
        let style = PromptStyle {
            raw: self.config.raw,
            system: self.config.system.clone(),
        };
        let encode = |(idx, record): (usize, &PromptRecord)| {
            style
                .encode(model.loaded.tokenizer(), &record.prompt)
                .with_context(|| format!("prompt {}", idx + 1))
        };
        self.prompts.iter().enumerate().map(encode).collect()
    }

    fn job(&self, model: &ReadyModel, group: &Group, prompt: usize, tokens: &[Vec<TokenId>]) -> Job {
        let record = &self.prompts[prompt];
        Job {
            label: label(prompt, &record.prompt, &group.decode),
            prompt: record.prompt.clone(),
            record: record.record.clone(),
            token_ids: tokens[prompt].clone(),
            decode: group.decode.clone(),
            seed: group.seed,
            stop: StopRules {
                stop_tokens: model.loaded.tokenizer().stop_tokens().to_vec(),
                stop_strings: self.config.stop.clone(),
                max_new_tokens: self.config.max_new_tokens,
            },
            steering: std::sync::Arc::default(),
            trace: false,
        }
    }
}

/// What is to be drawn: jobs and their pairs of group and prompt.
#[derive(Clone, Copy)]
struct Draw<'a> {
    model: &'a ReadyModel,
    missing: &'a [(usize, usize)],
    jobs: &'a [Job],
}

/// What errors call a job: `prompt 4 ("In one sentence...") with bon:16`.
fn label(prompt_idx: usize, prompt: &str, decode: &DecodeSpec) -> String {
    let start = match prompt.char_indices().nth(MAX_LABEL_CHARS) {
        Some((end, _)) => format!("{}...", &prompt[..end]),
        None => prompt.to_owned(),
    };
    format!("prompt {} ({start:?}) with {decode}", prompt_idx + 1)
}
