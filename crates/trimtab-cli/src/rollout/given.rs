//! Responses of a data set instead of samples: tokenised for the model, scored, written. Knows no engine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::Digest;
use trimtab_base::{TokenBytes, TokenId};
use trimtab_data::{Manifest, RewardColumn, Rollout, RolloutReader};

use super::rewards::label;
use super::setup::{Ran, Scan, Setup};
use crate::args::RolloutArgs;
use crate::progress::ItemProgress;

/// Why a response of a data set ends: its author was done.
const DONE: &str = "stop_token";
/// Why a response ends that was cut.
const CUT: &str = "length";

/// A data set with responses.
pub(super) struct Source {
    path: PathBuf,
    skip: u64,
    limit: Option<u64>,
}

impl Source {
    /// What the arguments name; reads the first row, or what is wrong with it.
    pub(super) fn new(path: &Path, args: &RolloutArgs) -> Result<Self> {
        RolloutReader::open(path)?.next().transpose()?;
        Ok(Self {
            path: path.to_owned(),
            skip: args.draw.skip,
            limit: args.draw.num_prompts,
        })
    }

    /// The rows of the prompts that were asked for.
    fn rows(&self) -> Result<impl Iterator<Item = Result<Rollout>> + use<>> {
        let (skip, limit) = (self.skip, self.limit);
        let (mut last, mut number) = (None, 0_u64);
        let numbered = RolloutReader::open(&self.path)?.map(move |row| {
            let row = row?;
            if last != Some(row.prompt_idx) {
                number += u64::from(last.is_some());
                last = Some(row.prompt_idx);
            }
            Ok((number, row))
        });
        let end = limit.map_or(u64::MAX, |limit| skip.saturating_add(limit));
        Ok(numbered
            .take_while(move |row| !matches!(row, Ok((number, _)) if *number >= end))
            .filter(move |row| !matches!(row, Ok((number, _)) if *number < skip))
            .map(|row: Result<(u64, Rollout)>| row.map(|(_, row)| row)))
    }
}

/// How rows of the source become rows of the run.
struct Intake<'a> {
    setup: &'a Setup<'a>,
    source: &'a Source,
    /// Whether the source has tokens of this model, put in the same way: they and their log-probabilities are kept.
    keeps_tokens: bool,
    /// Columns of rewards that the source has.
    given: Vec<RewardColumn>,
}

/// Takes over what is missing in the folder.
pub(super) fn run(setup: &Setup<'_>, source: &Source) -> Ran {
    let intake = Intake::new(setup, source)?;
    let scan = intake.scan()?;
    let mut columns = intake.given.clone();
    columns.extend_from_slice(setup.rewards.columns());
    let settings = [("max_new_tokens".to_owned(), json!(setup.args.draw.max_new_tokens))].into();
    let mut writer = setup.writer(&scan, settings, columns)?;
    if writer.is_complete() {
        return Ok((writer.finish()?, scan.dropped));
    }
    let what = "taking over";
    let mut progress = ItemProgress::new(what, scan.num_prompts, writer.num_prompts());
    intake
        .groups(&mut |mut rows| {
            let is_missing = rows.first().is_some_and(|row| !writer.has_prompt(row.prompt_idx));
            if is_missing {
                setup.rewards.score(&mut rows)?;
                writer.push(rows)?;
                progress.advance(what);
            }
            Ok(())
        })
        .with_context(|| setup.stopped(writer.num_prompts(), scan.num_prompts))?;
    progress.finish();
    Ok((writer.finish()?, scan.dropped))
}

impl<'a> Intake<'a> {
    fn new(setup: &'a Setup<'a>, source: &'a Source) -> Result<Self> {
        let reader = RolloutReader::open(&source.path)?;
        let keeps_tokens = reader
            .manifest()
            .is_some_and(|manifest| is_same_model(setup, manifest));
        let given = match reader.manifest() {
            Some(manifest) => manifest.rewards.clone(),
            None => given_columns(source)?,
        };
        let ours = setup.rewards.columns();
        if let Some(twice) = ours
            .iter()
            .find(|column| given.iter().any(|other| other.name == column.name))
        {
            bail!(
                "--reward {}: {} has that column already",
                twice.name,
                source.path.display()
            );
        }
        Ok(Self {
            setup,
            source,
            keeps_tokens,
            given,
        })
    }

    /// The first pass: checks every row.
    fn scan(&self) -> Result<Scan> {
        let mut scan = Scan::default();
        let mut too_long = 0;
        let mut last = None;
        for row in self.source.rows()? {
            let row = row?;
            let label = || format!("{}: {}", self.source.path.display(), label(&row));
            self.setup.rewards.check_record(&row.record, label)?;
            if !row.rewards.keys().eq(self.given_names()) {
                bail!(
                    "{}: expected the rewards {:?} as in the rows before, got {:?}",
                    label(),
                    self.given_names().collect::<Vec<_>>(),
                    row.rewards.keys().collect::<Vec<_>>()
                );
            }
            let json = serde_json::to_vec(&row).context("cannot serialise a rollout")?;
            let prompt_idx = row.prompt_idx;
            if self.fitted(row)?.is_none() {
                too_long += 1;
                continue;
            }
            scan.num_prompts += u64::from(last != Some(prompt_idx));
            last = Some(prompt_idx);
            scan.hasher.update(json);
        }
        scan.dropped.too_long = too_long;
        if scan.num_prompts == 0 {
            bail!(
                "{} holds no rows to take ({too_long} do not fit the context of {})",
                self.source.path.display(),
                self.setup.context_len()
            );
        }
        Ok(scan)
    }

    fn given_names(&self) -> impl Iterator<Item = &String> {
        let mut names: Vec<&String> = self.given.iter().map(|column| &column.name).collect();
        names.sort();
        names.into_iter()
    }

    /// The second pass: the rows of each prompt, numbered anew.
    fn groups(&self, take: &mut dyn FnMut(Vec<Rollout>) -> Result<()>) -> Result<()> {
        let mut group: Vec<Rollout> = Vec::new();
        let (mut prompt_idx, mut last) = (0, None);
        for row in self.source.rows()? {
            let Some(mut row) = self.fitted(row?)? else {
                continue;
            };
            if last.is_some_and(|last| last != row.prompt_idx) {
                take(std::mem::take(&mut group))?;
                prompt_idx += 1;
            }
            last = Some(row.prompt_idx);
            row.prompt_idx = prompt_idx;
            row.sample_idx = group.len() as u64;
            group.push(row);
        }
        if group.is_empty() { Ok(()) } else { take(group) }
    }

    /// A row with its tokens; `None` if it is too long and such ones are to be left out.
    fn fitted(&self, mut row: Rollout) -> Result<Option<Rollout>> {
        let name = || format!("{}: {}", self.source.path.display(), label(&row));
        let keeps = self.keeps_tokens && !row.response_token_ids.is_empty();
        if !keeps {
            let tokens = self.tokenised(&row, name)?;
            (row.prompt_token_ids, row.response_token_ids) = tokens;
            row.log_prob = None;
            row.reference_log_prob = None;
            if row.finish.is_empty() {
                DONE.clone_into(&mut row.finish);
            }
        }
        self.cut(&mut row);
        let (prompt, response) = (row.prompt_token_ids.len(), row.response_token_ids.len());
        let context = self.setup.context_len();
        if prompt.saturating_add(response) <= context {
            return Ok(Some(row));
        }
        if self.setup.args.draw.drop_long {
            return Ok(None);
        }
        bail!(
            "{}: {}: a prompt of {prompt} tokens and a response of {response} do not fit the context of {context}; cut \
             responses with --max-new-tokens, or leave such rows out with --drop-long",
            self.source.path.display(),
            label(&row)
        )
    }

    fn tokenised(&self, row: &Rollout, name: impl Fn() -> String) -> Result<(Vec<u32>, Vec<u32>)> {
        let setup = self.setup;
        let tokenizer = setup.model.loaded.tokenizer();
        let ids = |ids: Vec<TokenId>| ids.into_iter().map(|id| id.0).collect();
        // What is said after a dialogue is tokenised like what is said after one turn.
        let dialogue_ids = setup.encode(&row.turns(), &name)?;
        let is_finished = row.finish != CUT;
        let encoded = setup
            .style
            .encode_response(tokenizer, &row.prompt, &row.response, is_finished)
            .with_context(name)?;
        let prompt_ids = if row.messages.is_empty() {
            encoded.prompt_ids
        } else {
            dialogue_ids
        };
        Ok((ids(prompt_ids), ids(encoded.response_ids)))
    }

    /// Cuts a response at the limit that was asked for.
    fn cut(&self, row: &mut Rollout) {
        let Some(limit) = self.setup.args.draw.max_new_tokens else {
            return;
        };
        if row.response_token_ids.len() <= limit {
            return;
        }
        row.response_token_ids.truncate(limit);
        let ids: Vec<TokenId> = row.response_token_ids.iter().map(|&id| TokenId(id)).collect();
        row.response = self.setup.model.loaded.tokenizer().text_of(&ids);
        CUT.clone_into(&mut row.finish);
        row.log_prob = None;
        row.reference_log_prob = None;
    }
}

/// Whether a folder's tokens are those that this run would make.
fn is_same_model(setup: &Setup<'_>, manifest: &Manifest) -> bool {
    let identity = &manifest.identity;
    let same = |name: &str, ours: Value| identity.config.get(name) == Some(&ours);
    identity.model_sha256 == setup.model.sha256()
        && same("raw", json!(setup.style.raw))
        && same("system", json!(setup.style.system))
}

/// The rewards of a data set's first row, which all others must have.
fn given_columns(source: &Source) -> Result<Vec<RewardColumn>> {
    let first = source.rows()?.next().transpose()?;
    let rewards: BTreeMap<String, f64> = first.map(|row| row.rewards).unwrap_or_default();
    let column = |name| RewardColumn {
        name,
        unit: "as in the data".to_owned(),
    };
    Ok(rewards.into_keys().map(column).collect())
}
