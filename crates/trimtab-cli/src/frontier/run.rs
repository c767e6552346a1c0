//! Draws what the plan asks for, journals each finished prompt, and leaves the report. Knows files and the runtime.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use trimtab_base::{RewardModel, ScoreInput, TokenBytes, TokenId};
use trimtab_decode::{Candidate, DecodeSpec, Steering, StopRules};
use trimtab_engine::{Engine, EngineConfig};
use trimtab_eval::{Frontier, RewardName};
use trimtab_runtime::{AskedScorer, Job, Judges, PromptStyle, RunEvent, RunLimits, run_judged_jobs};
use trimtab_store::SourcePolicy;

use super::checks;
use super::config::FrontierConfig;
use super::entry::Entry;
use super::folder;
use super::identity::Header;
use super::methods::Method;
use super::plan::{Group, Plan};
use super::points;
use crate::args::parse_precision;
use crate::head_place::HeadPlace;
use crate::journal::Journal;
use crate::output;
use crate::progress::ItemProgress;
use crate::prompts::{Duplicates, PromptRecord, read_prompts};
use crate::resolve::ReadyModel;
use crate::steering::{Models, OpenScorers, ScorerTerm, before_models, build_reward};

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

/// A frontier run about to start or go on.
pub(crate) struct FrontierRun {
    config: FrontierConfig,
    methods: Vec<Method>,
    prompts: Vec<PromptRecord>,
    duplicates: Duplicates,
    reward: Box<dyn RewardModel>,
    /// In the configuration's order.
    rewards_also: Vec<Box<dyn RewardModel>>,
    plan: Plan,
    options: RunOptions,
}

impl FrontierRun {
    /// Reads the prompts, builds the reward and looks the model's name up, so that mistakes show before it is fetched.
    pub(crate) fn new(config: FrontierConfig, options: RunOptions) -> Result<Self> {
        let mut read = read_prompts(&config.prompts, config.duplicates)?;
        note_dropped(read.num_duplicates);
        if config.skip >= read.records.len() {
            bail!(
                "skip is {}, and {} holds {} prompts",
                config.skip,
                config.prompts,
                read.records.len()
            );
        }
        read.records.drain(..config.skip);
        read.records.truncate(config.num_prompts.unwrap_or(usize::MAX));
        let limits = config.reward_limits();
        let reward = before_models(&config.reward, &limits)?;
        let also = config
            .rewards_also
            .iter()
            .map(|reward| before_models(reward, &limits));
        let rewards_also = also.collect::<Result<Vec<_>, _>>()?;
        for reward in std::iter::once(&reward).chain(&rewards_also) {
            checks::records_fit(&config.prompts, &read.records, reward.as_ref())?;
        }
        let config = config.locate()?;
        if config.share_prompts && read.records.len() < config.seeds.len() {
            bail!(
                "share_prompts shares {} prompts among {} seeds; expected at least one prompt for each",
                read.records.len(),
                config.seeds.len()
            );
        }
        let methods = config.methods()?;
        let plan = Plan::new(&methods, config.reference_samples, config.all_seeds())
            .sharing_prompts(config.share_prompts);
        Ok(Self {
            config,
            methods,
            prompts: read.records,
            duplicates: read.duplicates,
            reward,
            rewards_also,
            plan,
            options,
        })
    }

    /// Runs what is missing and writes the report; gives its numbers.
    ///
    /// Nothing is written before everything that can be known to fail has been checked.
    pub(crate) fn run(mut self) -> Result<Frontier> {
        let precision = parse_precision(&self.config.precision).map_err(anyhow::Error::msg)?;
        let model = ReadyModel::open(
            &self.config.model,
            self.options.source,
            precision.plan,
            self.options.threads,
        )?;
        let tokens = self.distinct_tokens(&model)?;
        let mut engine = model.engine(self.options.kv_memory_mib, EngineConfig::standard())?;
        let style = self.style();
        let models = Models {
            generator: &model,
            policy: self.options.source,
            plan: precision.plan,
            threads: self.options.threads,
            style: &style,
        };
        let mut scorers = OpenScorers::open(self.scorer_places(), &models)?;
        scorers.install(&mut engine)?;
        let heads = self.open_heads(&models)?;
        let jobs = Jobs::new(&self, &model, &scorers, tokens)?;
        self.check_fit(&jobs, &mut engine)?;
        let header = Header::new(
            &self.config,
            &self.prompts,
            model.sha256(),
            [scorers.sha256s(), heads].concat(),
        )?;
        let out = &self.options.out;
        let config_text = folder::config_to_write(out, &self.config, &header)?;
        std::fs::create_dir_all(out)
            .with_context(|| format!("cannot create the folder {}", out.display()))?;
        let (mut journal, entries) = Journal::open::<Entry>(&folder::journal_path(out), &header)?;
        let mut entries = checks::distinct_entries(entries, self.plan.groups.len(), self.prompts.len())?;
        // After the journal, which refuses a folder that another run is using or has used.
        if let Some(text) = config_text {
            crate::whole_file::write(&folder::config_path(out), &text)?;
        }
        let missing = self.missing(&entries);
        if !missing.is_empty() {
            let draw = Draw {
                token_bytes: &model.loaded.token_bytes(),
                jobs: &missing
                    .iter()
                    .map(|&(group, prompt)| jobs.job(group, prompt))
                    .collect::<Vec<_>>(),
                missing: &missing,
            };
            let asked = scorers.asked();
            self.draw(&draw, asked, &mut engine, &mut journal, &mut entries)?;
        }
        self.report(model.sha256(), &scorers, entries)
    }

    fn style(&self) -> PromptStyle {
        PromptStyle {
            raw: self.config.raw,
            system: self.config.system.clone(),
        }
    }

    /// Builds the rewards that read a model's states, now that there are models; gives the SHA-256 of their weights.
    fn open_heads(&mut self, models: &Models<'_>) -> Result<Vec<String>> {
        let limits = self.config.reward_limits();
        let rewards = std::iter::once(&mut self.reward).chain(&mut self.rewards_also);
        let specs = std::iter::once(&self.config.reward).chain(&self.config.rewards_also);
        let mut sha256s = Vec::new();
        for (reward, spec) in rewards.zip(specs) {
            let heads = spec
                .head_folders()
                .map(HeadPlace::sha256)
                .collect::<Result<Vec<_>>>()?;
            if !heads.is_empty() {
                *reward = build_reward(spec, &limits, models)?;
                sha256s.extend(heads);
            }
        }
        Ok(sha256s)
    }

    /// Every scorer of the run once, in the order of first use.
    fn scorer_places(&self) -> Vec<String> {
        let mut places: Vec<String> = Vec::new();
        for term in self.plan.groups.iter().flat_map(|group| &group.scorers) {
            if !places.contains(&term.place) {
                places.push(term.place.clone());
            }
        }
        places
    }

    /// Token ids of every prompt, each once.
    fn distinct_tokens(&mut self, model: &ReadyModel) -> Result<Vec<Vec<TokenId>>> {
        let mut tokens = self.tokens(model)?;
        if self.duplicates == Duplicates::Refuse {
            checks::are_distinct(&tokens)?;
            return Ok(tokens);
        }
        let equal = checks::equal_to_earlier(&tokens);
        note_dropped(equal.len());
        for &(_, place) in equal.iter().rev() {
            tokens.remove(place);
            self.prompts.remove(place);
        }
        Ok(tokens)
    }

    fn report(
        &self,
        model_sha256: String,
        scorers: &OpenScorers,
        mut entries: Vec<Entry>,
    ) -> Result<Frontier> {
        entries.sort_by_key(|entry| (entry.group, entry.prompt));
        let also = self.config.rewards_also.iter().zip(&self.rewards_also);
        let identity = points::Identity {
            model_sha256,
            reward_unit: self.reward.unit().to_owned(),
            rewards_also: also
                .map(|(spec, reward)| RewardName {
                    name: spec.to_string(),
                    unit: reward.unit().to_owned(),
                })
                .collect(),
            values_of_method: self
                .methods
                .iter()
                .map(|method| self.values_of(method, scorers))
                .collect(),
        };
        let samples = points::Samples {
            config: &self.config,
            methods: &self.methods,
            prompts: &self.prompts,
            plan: &self.plan,
            entries: &entries,
            identity,
        };
        let report = samples.report()?;
        let out = &self.options.out;
        report
            .write(out)
            .with_context(|| format!("the samples are kept in {}", folder::journal_path(out).display()))?;
        Ok(report.frontier)
    }

    /// Names and units of a method's scorers: those of the first seed, whose units are those of all.
    fn values_of(&self, method: &Method, scorers: &OpenScorers) -> Vec<RewardName> {
        let of_first = method.scorers_of(self.config.all_seeds()[0]);
        let name = |term: &ScorerTerm| {
            let (name, unit) = scorers.name_and_unit(&term.place);
            RewardName {
                name: name.to_owned(),
                unit: unit.to_owned(),
            }
        };
        of_first.iter().map(name).collect()
    }

    /// Refuses prompts and methods that can never run, by the worst case of each group: the longest prompt.
    fn check_fit(&self, jobs: &Jobs<'_>, engine: &mut Engine) -> Result<()> {
        let loaded = &jobs.model.loaded;
        checks::fit_context(
            &jobs.tokens,
            self.config.max_new_tokens,
            loaded.config().context_len,
        )?;
        let longest = (0..jobs.tokens.len()).max_by_key(|&prompt| jobs.tokens[prompt].len());
        let groups = (0..self.plan.groups.len()).zip(longest.into_iter().cycle());
        let worst: Vec<Job> = groups.map(|(group, prompt)| jobs.job(group, prompt)).collect();
        checks::fit_engine(engine, &loaded.token_bytes(), &worst)
    }

    /// Pairs of group and prompt that are to be drawn and not in the journal.
    fn missing(&self, entries: &[Entry]) -> Vec<(usize, usize)> {
        let done: std::collections::HashSet<(usize, usize)> =
            entries.iter().map(|entry| (entry.group, entry.prompt)).collect();
        let pairs = self.plan.pairs(self.prompts.len());
        pairs.filter(|pair| !done.contains(pair)).collect()
    }

    fn draw<'a>(
        &'a self,
        draw: &Draw<'_>,
        asked: Vec<&'a mut dyn AskedScorer>,
        engine: &mut Engine,
        journal: &mut Journal,
        entries: &mut Vec<Entry>,
    ) -> Result<()> {
        let &Draw {
            token_bytes,
            missing,
            jobs,
        } = draw;
        let total = self.plan.pairs(self.prompts.len()).count();
        let what = "answering";
        let mut progress = ItemProgress::new(what, total as u64, (total - missing.len()) as u64);
        let started = std::time::Instant::now();
        let judges = Judges {
            reward: Some(self.reward.as_ref()),
            asked,
        };
        let limits = RunLimits::standard();
        let ran = run_judged_jobs::<anyhow::Error>(engine, token_bytes, jobs, judges, limits, &mut |event| {
            match event {
                RunEvent::Stepped { rows } => {
                    progress.say(format!(
                        "{:.0} tokens/s",
                        rows as f64 / started.elapsed().as_secs_f64()
                    ));
                }
                RunEvent::Finished(result) => {
                    let (group, prompt) = missing[result.job_idx];
                    let also = self.further_rewards(group, prompt, &result.outcome.candidates)?;
                    let entry = Entry::new(group, prompt, result.outcome, also);
                    journal.append(&entry)?;
                    entries.push(entry);
                    progress.advance(what);
                }
                RunEvent::Committed { .. } => {}
            }
            Ok(())
        });
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

    /// Further rewards of candidates, which nothing waits for. `[candidates][rewards_also]`
    ///
    /// Of the reference's answers they are not asked.
    fn further_rewards(
        &self,
        group: usize,
        prompt: usize,
        candidates: &[Candidate],
    ) -> Result<Vec<Vec<f64>>> {
        let is_reference = self.plan.seeds.iter().any(|seed| seed.reference_group == group);
        if is_reference || self.rewards_also.is_empty() {
            return Ok(Vec::new());
        }
        let record = &self.prompts[prompt];
        let inputs: Vec<ScoreInput> = candidates
            .iter()
            .map(|candidate| ScoreInput {
                prompt: record.prompt.clone(),
                response: candidate.text.clone(),
                token_ids: candidate.token_ids.clone(),
                reference_log_prob: candidate.reference_log_prob,
                record: record.record.clone(),
            })
            .collect();
        let mut by_candidate = vec![Vec::with_capacity(self.rewards_also.len()); candidates.len()];
        for (reward, spec) in self.rewards_also.iter().zip(&self.config.rewards_also) {
            let rewards = reward
                .score(&inputs)
                .with_context(|| format!("prompt {}", prompt + 1))?;
            for (row, value) in by_candidate.iter_mut().zip(rewards) {
                if !value.is_finite() {
                    bail!(
                        "prompt {}: reward {spec} is {value}, expected a finite number",
                        prompt + 1
                    );
                }
                row.push(value);
            }
        }
        Ok(by_candidate)
    }

    /// Token ids of every prompt.
    fn tokens(&self, model: &ReadyModel) -> Result<Vec<Vec<TokenId>>> {
        let style = self.style();
        let encode = |(idx, record): (usize, &PromptRecord)| {
            style
                .encode(model.loaded.tokenizer(), &record.prompt)
                .with_context(|| format!("prompt {}", idx + 1))
        };
        self.prompts.iter().enumerate().map(encode).collect()
    }
}

/// What jobs are made of.
struct Jobs<'a> {
    run: &'a FrontierRun,
    model: &'a ReadyModel,
    /// Of each prompt.
    tokens: Vec<Vec<TokenId>>,
    /// Of each group.
    steering: Vec<Arc<Steering>>,
}

impl<'a> Jobs<'a> {
    fn new(
        run: &'a FrontierRun,
        model: &'a ReadyModel,
        scorers: &OpenScorers,
        tokens: Vec<Vec<TokenId>>,
    ) -> Result<Self> {
        let steering = run.plan.groups.iter().map(|group| {
            let steering = scorers.steering(
                &group.scorers,
                group.floor.as_deref(),
                matches!(group.decode, DecodeSpec::CdToken(_)),
            );
            steering.with_context(|| group.decode.to_string()).map(Arc::new)
        });
        Ok(Self {
            run,
            model,
            tokens,
            steering: steering.collect::<Result<_>>()?,
        })
    }

    fn job(&self, group: usize, prompt: usize) -> Job {
        let record = &self.run.prompts[prompt];
        let Group { decode, seed, .. } = &self.run.plan.groups[group];
        Job {
            label: label(prompt, &record.prompt, decode),
            prompt: record.prompt.clone(),
            record: record.record.clone(),
            token_ids: self.tokens[prompt].clone(),
            decode: decode.clone(),
            seed: *seed,
            stop: StopRules {
                stop_tokens: self.model.loaded.tokenizer().stop_tokens().to_vec(),
                stop_strings: self.run.config.stop.clone(),
                max_new_tokens: self.run.config.max_new_tokens,
            },
            steering: Arc::clone(&self.steering[group]),
            trace: false,
        }
    }
}

/// What is to be drawn: jobs and their pairs of group and prompt.
#[derive(Clone, Copy)]
struct Draw<'a> {
    token_bytes: &'a Arc<dyn TokenBytes>,
    missing: &'a [(usize, usize)],
    jobs: &'a [Job],
}

fn note_dropped(num_duplicates: usize) {
    if num_duplicates > 0 {
        let plural = if num_duplicates == 1 { "" } else { "s" };
        output::note(&format!("{num_duplicates} duplicate prompt{plural} dropped"));
    }
}

/// What errors call a job: `prompt 4 ("In one sentence...") with bon:16`.
fn label(prompt_idx: usize, prompt: &str, decode: &DecodeSpec) -> String {
    let start = match prompt.char_indices().nth(MAX_LABEL_CHARS) {
        Some((end, _)) => format!("{}...", &prompt[..end]),
        None => prompt.to_owned(),
    };
    format!("prompt {} ({start:?}) with {decode}", prompt_idx + 1)
}
