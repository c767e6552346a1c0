//! Judgements as training and evaluation read them: checked rows, texts as tokens, each text once. Knows files and the
//! tokenizer, no states.
//!
//! Nothing is left out silently: pairs whose sides the model reads alike (they are one text, or are one after cutting),
//! empty responses and, where asked, rows that are too long or cannot be read are counted and named.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use trimtab_base::rng::Purpose;
use trimtab_base::{PromptKey, SampleStream, Seed, TokenId};
use trimtab_data::{
    DataError, LabelColumns, LabelledReader, LabelledResponse, Message, PreferencePair, PreferenceReader,
};
use trimtab_runtime::{LoadedModel, TextForm};
use trimtab_train::{Judgements, Verdicts};

use super::config::{DataConfig, HeldOut};
use super::encode::{Prompt, cut_responses};
use super::spurious::PlantedCounts;

/// Texts as tokens, each once however often it is judged.
#[derive(Default)]
pub(crate) struct TextSet {
    /// `[texts]`
    pub(crate) tokens: Vec<Vec<TokenId>>,
    place_of: HashMap<[u8; 32], u32>,
}

impl TextSet {
    /// The number of a text, a new one if it was not there.
    pub(crate) fn intern(&mut self, tokens: Vec<TokenId>) -> u32 {
        let mut hash = Sha256::new();
        for token in &tokens {
            hash.update(token.0.to_le_bytes());
        }
        let next = self.tokens.len() as u32;
        let place = *self.place_of.entry(hash.finalize().into()).or_insert(next);
        if place == next {
            self.tokens.push(tokens);
        }
        place
    }
}

/// Judgements about the texts of a [`TextSet`].
pub(crate) struct Said {
    pub(crate) judgements: Judgements,
    /// Characters of each item's responses as they are judged, that is cut; the second is 0 for labels. `[items]`
    pub(crate) lengths: Vec<[f64; 2]>,
    pub(crate) dropped: Dropped,
    /// Of the test's items, where a phrase is planted in those of training: the text without it and with it.
    pub(crate) with_phrase: Vec<[u32; 2]>,
    /// Texts that training sees.
    pub(crate) planted: PlantedCounts,
}

/// Rows that were left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Dropped {
    /// Pairs whose sides are the same tokens: nobody can be right about them.
    pub(crate) identical: DroppedRows,
    /// Rows with a response of no characters.
    pub(crate) empty: DroppedRows,
    /// Rows that exceed the model's context.
    pub(crate) too_long: DroppedRows,
    /// Rows that cannot be read.
    pub(crate) unreadable: DroppedRows,
}

/// Rows of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct DroppedRows {
    pub(crate) count: u64,
    /// Numbers of the first of them.
    pub(crate) first_rows: Vec<u64>,
}

impl DroppedRows {
    fn add(&mut self, row: u64) {
        const MAX_NAMED: usize = 10;
        self.count += 1;
        if self.first_rows.len() < MAX_NAMED {
            self.first_rows.push(row);
        }
    }
}

impl Dropped {
    /// One line for each kind that there is.
    pub(crate) fn notes(&self, file: &Path) -> Vec<String> {
        let kinds = [
            (&self.identical, "have two identical sides"),
            (&self.empty, "have an empty response"),
            (&self.too_long, "do not fit the context"),
            (&self.unreadable, "cannot be read"),
        ];
        let of_kind = |(rows, what): &(&DroppedRows, &str)| {
            let named: Vec<String> = rows.first_rows.iter().map(u64::to_string).collect();
            let more = if rows.count > named.len() as u64 {
                ", ..."
            } else {
                ""
            };
            (rows.count > 0).then(|| {
                format!(
                    "{}: {} rows {what} and are left out: {}{more}",
                    file.display(),
                    rows.count,
                    named.join(", ")
                )
            })
        };
        kinds.iter().filter_map(of_kind).collect()
    }
}

/// Who reads the texts.
#[derive(Clone, Copy)]
pub(crate) struct Reads<'a> {
    pub(crate) model: &'a LoadedModel,
    pub(crate) form: TextForm,
}

impl<'a> Reads<'a> {
    /// As `model` reads: as a conversation if it is a sequence classifier of the hub, else as an answer.
    pub(crate) fn of(model: &'a LoadedModel) -> Self {
        let form = if model.score_head().is_some() {
            TextForm::Conversation
        } else {
            TextForm::Answer
        };
        Self { model, form }
    }
}

/// A row, whatever its kind.
pub(super) struct Item {
    row: u64,
    /// None if the row has none of its own.
    pub(super) turns: Option<Vec<Message>>,
    /// As rewards see it.
    pub(super) prompt: String,
    /// One, or the better one and the other.
    pub(super) responses: Vec<String>,
    record: Map<String, Value>,
    /// Of a single response.
    label: Option<f64>,
}

impl From<PreferencePair> for Item {
    fn from(pair: PreferencePair) -> Self {
        let has_prompt = !(pair.prompt.is_empty() && pair.messages.is_empty());
        Self {
            turns: has_prompt.then(|| pair.turns()),
            row: pair.row,
            prompt: pair.prompt,
            responses: vec![pair.chosen, pair.rejected],
            record: pair.record,
            label: None,
        }
    }
}

impl From<LabelledResponse> for Item {
    fn from(labelled: LabelledResponse) -> Self {
        Self {
            turns: labelled.prompt.is_some().then(|| labelled.turns()),
            row: labelled.row,
            prompt: labelled.prompt.unwrap_or_default(),
            responses: vec![labelled.response],
            record: labelled.record,
            label: Some(labelled.label),
        }
    }
}

/// Reads the judgements of `data`.
///
/// # Errors
/// A file that cannot be read; rows that cannot be used, counted, with the first; no row that is left.
pub(crate) fn read_judgements(data: &DataConfig, reads: Reads<'_>, texts: &mut TextSet) -> Result<Said> {
    let file = data.file().display();
    let drawn = data.sample.map(|count| draw(data, count)).transpose()?;
    let mut collected = Collected::default();
    let mut bad: Option<DataError> = None;
    let mut num_rows = 0_u64;
    for item in items(data)? {
        let item = match item {
            Ok(item) => item,
            Err(error @ DataError::Row { row, .. }) => {
                num_rows += 1;
                collected.dropped.unreadable.add(row);
                bad.get_or_insert(error);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        num_rows += 1;
        if drawn
            .as_ref()
            .is_none_or(|drawn| drawn.binary_search(&item.row).is_ok())
        {
            collected.take(data, reads, &item, texts)?;
        }
    }
    if let Some(error) = bad.filter(|_| !data.drop_bad) {
        let num_bad = collected.dropped.unreadable.count;
        return Err(anyhow::Error::new(error).context(format!(
            "{num_bad} of {num_rows} rows cannot be used; mend them, or set drop_bad = true to leave them out; the first"
        )));
    }
    if collected.keys.is_empty() {
        let notes = collected.dropped.notes(data.file()).join("; ");
        bail!(
            "{file} has no rows to take after the first {}{}{notes}",
            data.skip,
            if notes.is_empty() { "" } else { ": " }
        );
    }
    Ok(collected.finish(data))
}

/// The rows of the file, one at a time.
fn items(data: &DataConfig) -> Result<Box<dyn Iterator<Item = Result<Item, DataError>>>> {
    if let Some(path) = &data.pairs {
        let reader = PreferenceReader::open(path, data.rows())?;
        return Ok(Box::new(reader.map(|pair| pair.map(Item::from))));
    }
    let columns = LabelColumns {
        text: data.text.clone(),
        label: data.label.clone(),
    };
    let reader = LabelledReader::open(data.file(), columns, data.rows())?;
    Ok(Box::new(reader.map(|labelled| labelled.map(Item::from))))
}

/// Numbers of `count` rows drawn from the file, in ascending order; half of them positive where rows have labels.
///
/// The draw is a function of the row's number alone, not of the run's seed: other seeds train and test on the same rows.
fn draw(data: &DataConfig, count: u64) -> Result<Vec<u64>> {
    let stream = SampleStream::new(Seed(0), PromptKey(0), 0, Purpose::Training);
    let mut by_class: [Vec<(f64, u64)>; 2] = Default::default();
    for item in items(data)? {
        match item {
            Ok(item) => {
                let is_positive = item.label.is_some_and(|label| label >= 0.5);
                by_class[usize::from(is_positive)].push((stream.uniform(item.row), item.row));
            }
            // Counted and named when the rows are read for good.
            Err(DataError::Row { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let wanted = if data.labels.is_some() {
        [count / 2, count - count / 2]
    } else {
        [count, 0]
    };
    let mut drawn = Vec::new();
    for (mut rows, wanted) in by_class.into_iter().zip(wanted) {
        if (rows.len() as u64) < wanted {
            bail!(
                "sample is {count}, and {} has {} rows{} to draw {wanted} from",
                data.file().display(),
                rows.len(),
                if data.labels.is_some() { " of a label" } else { "" }
            );
        }
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        drawn.extend(rows.iter().take(wanted as usize).map(|&(_, row)| row));
    }
    drawn.sort_unstable();
    Ok(drawn)
}

#[derive(Default)]
struct Collected {
    /// One entry an item: first and, of pairs, second text.
    first: Vec<u32>,
    second: Vec<u32>,
    /// Labels or margins.
    numbers: Vec<f32>,
    keys: Vec<u64>,
    lengths: Vec<[f64; 2]>,
    dropped: Dropped,
    with_phrase: Vec<[u32; 2]>,
    planted: PlantedCounts,
}

impl Collected {
    fn take(&mut self, data: &DataConfig, reads: Reads<'_>, item: &Item, texts: &mut TextSet) -> Result<()> {
        let label = || format!("{} row {}", data.file().display(), item.row);
        if item.responses.iter().any(|response| response.trim().is_empty()) {
            self.dropped.empty.add(item.row);
            return Ok(());
        }
        let prompt = Prompt::of(data, reads, item).with_context(label)?;
        let key = match &data.held_out {
            Some(held_out) => held_out_key(&item.record, held_out).with_context(label)?,
            None => prompt.key,
        };
        let mut responses = cut_responses(data, reads, item).with_context(label)?;
        let mut encoded = prompt.encode_all(reads, &responses).with_context(label)?;
        if matches!(&encoded[..], [chosen, rejected] if chosen == rejected) {
            self.dropped.identical.add(item.row);
            return Ok(());
        }
        let len = |idx: usize| responses.get(idx).map_or(0, |text| text.chars().count()) as f64;
        let lengths = [len(0), len(1)];
        let is_test = data.test.takes(key);
        match &data.spurious {
            // Read behind the others, and not judged.
            Some(spurious) if is_test => responses.push(spurious.with_phrase(item.row, &responses[0])),
            Some(spurious) => self
                .planted
                .add(spurious.plant(item.row, item.label, &mut responses)),
            None => {}
        }
        if data.spurious.is_some() {
            encoded = prompt.encode_all(reads, &responses).with_context(label)?;
        }
        let context = reads.model.config().context_len;
        if let Some(long) = encoded.iter().find(|tokens| tokens.len() > context) {
            if data.drop_long {
                self.dropped.too_long.add(item.row);
                return Ok(());
            }
            bail!(
                "{}: prompt and response have {} tokens, more than the model's context of {context}; leave the row out, \
                 set drop_long = true, or max_response_tokens to cut responses",
                label(),
                long.len()
            );
        }
        if encoded.iter().any(Vec::is_empty) {
            bail!(
                "{}: prompt and response have no tokens, expected at least one",
                label()
            );
        }
        let number = match (item.label, &data.margin) {
            (Some(label), _) => label,
            (None, Some(column)) => margin(&item.record, column).with_context(label)?,
            (None, None) => 0.0,
        };
        let with_phrase = (data.spurious.is_some() && is_test)
            .then(|| encoded.pop())
            .flatten();
        let mut places = encoded.into_iter().map(|tokens| texts.intern(tokens));
        let first = places.next();
        self.first.extend(first);
        self.second.extend(places.next());
        if let (Some(first), Some(with_phrase)) = (first, with_phrase) {
            self.with_phrase.push([first, texts.intern(with_phrase)]);
        }
        self.numbers.push(number as f32);
        self.keys.push(key);
        self.lengths.push(lengths);
        Ok(())
    }

    fn finish(self, data: &DataConfig) -> Said {
        let verdicts = if data.labels.is_some() {
            Verdicts::Labels {
                texts: self.first,
                labels: self.numbers,
            }
        } else {
            Verdicts::Pairs {
                chosen: self.first,
                rejected: self.second,
                margins: self.numbers,
            }
        };
        Said {
            judgements: Judgements {
                verdicts,
                keys: self.keys,
            },
            lengths: self.lengths,
            dropped: self.dropped,
            with_phrase: self.with_phrase,
            planted: self.planted,
        }
    }
}

fn margin(record: &Map<String, Value>, column: &str) -> Result<f64> {
    let cell = record.get(column);
    let number = cell
        .and_then(Value::as_f64)
        .filter(|margin| margin.is_finite() && *margin >= 0.0);
    number.with_context(|| {
        let got = cell.map_or_else(|| "none".to_owned(), Value::to_string);
        format!("column {column:?}: expected a margin of at least 0, got {got}")
    })
}

fn held_out_key(record: &Map<String, Value>, held_out: &HeldOut) -> Result<u64> {
    let (column, until) = match held_out {
        HeldOut::Column(column) => (column, None),
        HeldOut::Part { column, until } => (column, Some(until)),
    };
    let value = match record.get(column) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => {
            let names: Vec<&str> = record.keys().map(String::as_str).collect();
            bail!(
                "column {column:?} is missing, which held_out names; the row has {names:?} beside its texts"
            );
        }
    };
    let part = until.and_then(|until| value.split_once(until.as_str()));
    Ok(key_of(part.map_or(value.as_str(), |(part, _)| part)))
}

/// Of a text in place of a prompt.
pub(super) fn key_of(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
}
