//! The prompts of a run, each once, as a stream that can be begun again. Knows no tokens.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Result, bail};
use trimtab_base::PromptKey;
use trimtab_data::{PromptForm, PromptReader, PromptRecord, RowRange};

use crate::args::DrawArgs;
use crate::prompts::{BUILTIN, BUILTIN_TRAINING, read_prompts};

/// Where prompts come from.
#[derive(Debug)]
enum Place {
    /// Few enough to hold: the built-in set, or standard input, which cannot be read twice.
    Held(Vec<PromptRecord>),
    File(PathBuf),
}

/// The prompts that a run is asked for.
#[derive(Debug)]
pub(super) struct PromptSource {
    place: Place,
    form: PromptForm,
    skip: u64,
    limit: Option<u64>,
}

impl PromptSource {
    /// The prompts called `prompts`, as many of them as `draw` says.
    pub(super) fn new(prompts: &str, draw: &DrawArgs) -> Result<Self> {
        let place = match prompts {
            source @ (BUILTIN | BUILTIN_TRAINING | "-") => {
                let records = read_prompts(source, None)?.records.into_iter();
                let records = records.map(|record| PromptRecord {
                    prompt: record.prompt,
                    messages: Vec::new(),
                    record: record.record,
                    row: record.line as u64,
                });
                Place::Held(records.collect())
            }
            path => Place::File(PathBuf::from(path)),
        };
        Ok(Self {
            place,
            form: if draw.dialogue {
                PromptForm::Dialogue
            } else {
                PromptForm::FirstTurn
            },
            skip: draw.skip,
            limit: draw.num_prompts,
        })
    }

    /// The prompts from the beginning.
    pub(super) fn read(&self) -> Result<DistinctPrompts<'_>> {
        let records: Box<dyn Iterator<Item = Result<PromptRecord>>> = match &self.place {
            Place::Held(records) => Box::new(records.iter().cloned().map(Ok)),
            Place::File(path) => {
                let records = PromptReader::open(path, self.form, RowRange::ALL)?;
                Box::new(records.map(|record| Ok(record?)))
            }
        };
        Ok(DistinctPrompts {
            records,
            seen: HashSet::new(),
            skip: self.skip,
            left: self.limit,
            num_duplicates: 0,
        })
    }

    /// The error for a source without prompts.
    pub(super) fn empty<T>(&self, name: &str) -> Result<T> {
        if self.skip > 0 {
            bail!("{name} holds no prompts after the first {} (--skip)", self.skip);
        }
        bail!("{name} holds no prompts");
    }
}

/// Identities of the prompts that a run of these arguments would take, in their order: for those who ask whether two runs
/// have some in common.
///
/// # Errors
/// What cannot be read.
pub(crate) fn prompt_keys(prompts: &str, draw: &DrawArgs) -> Result<Vec<PromptKey>> {
    let source = PromptSource::new(prompts, draw)?;
    let records = source.read()?;
    records.map(|record| Ok(key(&record?))).collect()
}

/// Prompts, the first of equal ones each: the rest would draw the same responses again.
pub(super) struct DistinctPrompts<'a> {
    records: Box<dyn Iterator<Item = Result<PromptRecord>> + 'a>,
    seen: HashSet<PromptKey>,
    skip: u64,
    left: Option<u64>,
    /// Rows left out so far because an earlier one has their prompt.
    pub(super) num_duplicates: u64,
}

impl Iterator for DistinctPrompts<'_> {
    type Item = Result<PromptRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == Some(0) {
            return None;
        }
        loop {
            let record = match self.records.next()? {
                Ok(record) => record,
                Err(error) => return Some(Err(error)),
            };
            if !self.seen.insert(key(&record)) {
                self.num_duplicates += 1;
            } else if self.skip > 0 {
                self.skip -= 1;
            } else {
                if let Some(left) = &mut self.left {
                    *left -= 1;
                }
                return Some(Ok(record));
            }
        }
    }
}

/// Identity of a prompt's text: its roles and contents, each with an end that no text has.
fn key(record: &PromptRecord) -> PromptKey {
    let turns = record.turns();
    let parts = turns.iter().flat_map(|turn| [&turn.role, &turn.content]);
    PromptKey::of_bytes(parts.flat_map(|part| part.bytes().chain([0xff])))
}
