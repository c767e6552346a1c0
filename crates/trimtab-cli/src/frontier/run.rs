//! Draws what the plan asks for, journals each finished prompt, and leaves the report. Knows files and the runtime.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use trimtab_base::{RewardModel, TokenId};
use trimtab_decode::{Candidate, StopRules};
use trimtab_engine::EngineConfig;
use trimtab_eval::Frontier;
use trimtab_runtime::{Job, PromptStyle, RunEvent, RunLimits, run_jobs};
use trimtab_store::SourcePolicy;

use super::config::FrontierConfig;
use super::plan::{Group, Plan};
use super::points;
use crate::args::parse_precision;
use crate::journal::Journal;
use crate::progress::ItemProgress;
use crate::prompts::{PromptRecord, read_prompts};
use crate::resolve::ReadyModel;

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

/// Identity of a run: a journal of another run is not mixed in.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Header {
    /// Version of the journal's form.
    journal: u32,
    /// Version of this program.
    version: String,
    config: FrontierConfig,
    model_sha256: String,
    prompts: Vec<String>,
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
    /// Reads the prompts and builds the reward, so that mistakes show before a model is fetched.
    pub(crate) fn new(config: FrontierConfig, options: RunOptions) -> Result<Self> {
        let mut prompts = read_prompts(&config.prompts)?;
        prompts.truncate(config.num_prompts.unwrap_or(usize::MAX));
        let reward = config.reward.build()?;
        let plan = Plan::new(&config.methods, config.reference_samples, config.seed);
        Ok(Self {
            config,
            prompts,
            reward,
            plan,
            options,
        })
    }

    /// Runs what is missing and writes the report; gives its numbers.
    pub(crate) fn run(&self) -> Result<Frontier> {
        let precision = parse_precision(&self.config.precision).map_err(anyhow::Error::msg)?;
        let model = ReadyModel::open(
            &self.config.model,
            self.options.source,
            precision.plan,
            self.options.threads,
        )?;
        let out = &self.options.out;
        std::fs::create_dir_all(out)
            .with_context(|| format!("cannot create the folder {}", out.display()))?;
        let header = Header {
            journal: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config: self.config.clone(),
            model_sha256: model.sha256(),
            prompts: self.prompts.iter().map(|prompt| prompt.prompt.clone()).collect(),
        };
        let (mut journal, mut entries) = Journal::open::<_, Entry>(&out.join("journal"), &header)?;
        self.check(&entries)?;
        // After the journal, which refuses a folder that holds another run: what is there stays as it is.
        write_new(&out.join("config.toml"), &self.config.to_toml()?)?;
        let missing = self.missing(&entries);
        if !missing.is_empty() {
            self.draw(&model, &missing, &mut journal, &mut entries)?;
        }
        entries.sort_by_key(|entry| (entry.group, entry.prompt));
        let identity = points::Identity {
            model_sha256: model.sha256(),
            reward_unit: self.reward.unit().to_owned(),
        };
        let report = points::report(&self.config, &self.prompts, &self.plan, &entries, identity)?;
        report
            .write(out)
            .with_context(|| format!("the samples are kept in {}", out.join("journal").display()))?;
        Ok(report.frontier)
    }

    /// Entries of a journal whose header fits can only be wrong if somebody edited it.
    fn check(&self, entries: &[Entry]) -> Result<()> {
        let is_known =
            |entry: &Entry| entry.group < self.plan.groups.len() && entry.prompt < self.prompts.len();
        if let Some(entry) = entries
            .iter()
            .find(|entry| !is_known(entry) || entry.chosen >= entry.candidates.len())
        {
            bail!(
                "the journal has an entry for group {}, prompt {}, which this run does not have",
                entry.group,
                entry.prompt
            );
        }
        Ok(())
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
        model: &ReadyModel,
        missing: &[(usize, usize)],
        journal: &mut Journal,
        entries: &mut Vec<Entry>,
    ) -> Result<()> {
        let tokens = self.tokens(model)?;
        let jobs: Vec<Job> = missing
            .iter()
            .map(|&(group, prompt)| self.job(model, &self.plan.groups[group], prompt, &tokens))
            .collect();
        let mut engine = model.engine(self.options.kv_memory_mib, EngineConfig::standard())?;
        let total = self.prompts.len() * self.plan.groups.len();
        let what = "answering";
        let mut progress = ItemProgress::new(what, total as u64, (total - missing.len()) as u64);
        let started = std::time::Instant::now();
        let reward = self.reward.as_ref();
        let limits = RunLimits::standard();
        let ran = run_jobs::<anyhow::Error>(
            &mut engine,
            &model.loaded.token_bytes(),
            &jobs,
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
            let path = self.options.out.join("journal");
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
                .with_context(|| format!("prompt {idx}"))
        };
        let tokens: Vec<Vec<TokenId>> = self
            .prompts
            .iter()
            .enumerate()
            .map(encode)
            .collect::<Result<_>>()?;
        let mut seen: HashMap<&[TokenId], usize> = HashMap::new();
        for (idx, ids) in tokens.iter().enumerate() {
            if let Some(first) = seen.insert(ids, idx) {
                bail!(
                    "prompts {first} and {idx} are the same; remove one, since equal prompts draw equal answers"
                );
            }
        }
        Ok(tokens)
    }

    fn job(&self, model: &ReadyModel, group: &Group, prompt: usize, tokens: &[Vec<TokenId>]) -> Job {
        let record = &self.prompts[prompt];
        Job {
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
        }
    }
}

/// Writes a file under a temporary name and renames it, so that it is never seen in part.
fn write_new(path: &Path, text: &str) -> Result<()> {
    let part = path.with_extension("part");
    std::fs::write(&part, text)
        .and_then(|()| std::fs::rename(&part, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
