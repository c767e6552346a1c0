//! What people said of texts: labels of single ones, or which of two is better. Knows texts by number alone.

use sha2::{Digest as _, Sha256};

use crate::error::TrainError;
use crate::objectives::classifier::BatchVerdicts;

/// Items with a prompt each.
///
/// Texts are numbers: many judgements may be about one text, whose state is then read once.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgements {
    /// What was said.
    pub verdicts: Verdicts,
    /// Prompt of each item, or another thing that it is about: training and evaluation never share one. `[items]`
    pub keys: Vec<u64>,
}

/// What was said of each item.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdicts {
    /// Single texts.
    Labels {
        /// The texts. `[items]`
        texts: Vec<u32>,
        /// Probability of the positive class, in `[0, 1]`. `[items]`
        labels: Vec<f32>,
    },
    /// Pairs of which one is better.
    Pairs {
        /// The better ones. `[items]`
        chosen: Vec<u32>,
        /// The others. `[items]`
        rejected: Vec<u32>,
        /// By how much at least their values should differ, in logits; 0 is plain Bradley-Terry. `[items]`
        margins: Vec<f32>,
    },
}

impl Judgements {
    /// Number of items.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Texts of one item, the better one first. `[1 or 2]`
    pub fn texts(&self, item: usize) -> Vec<u32> {
        match &self.verdicts {
            Verdicts::Labels { texts, .. } => vec![texts[item]],
            Verdicts::Pairs { chosen, rejected, .. } => vec![chosen[item], rejected[item]],
        }
    }

    /// Texts of these items as a batch holds them: the single ones, or all better ones and then all others.
    pub fn texts_of(&self, items: &[usize]) -> Vec<u32> {
        let of = |all: &[u32]| items.iter().map(|&item| all[item]).collect::<Vec<u32>>();
        match &self.verdicts {
            Verdicts::Labels { texts, .. } => of(texts),
            Verdicts::Pairs { chosen, rejected, .. } => [of(chosen), of(rejected)].concat(),
        }
    }

    /// What was said of these items.
    pub fn verdicts_of(&self, items: &[usize]) -> BatchVerdicts {
        let of = |all: &[f32]| items.iter().map(|&item| all[item]).collect();
        match &self.verdicts {
            Verdicts::Labels { labels, .. } => BatchVerdicts::Labels(of(labels)),
            Verdicts::Pairs { margins, .. } => BatchVerdicts::Pairs { margins: of(margins) },
        }
    }

    /// Some of the items.
    #[must_use]
    pub fn select(&self, items: &[usize]) -> Self {
        let of = |all: &[u32]| items.iter().map(|&item| all[item]).collect();
        let said = |all: &[f32]| items.iter().map(|&item| all[item]).collect();
        Self {
            verdicts: match &self.verdicts {
                Verdicts::Labels { texts, labels } => Verdicts::Labels {
                    texts: of(texts),
                    labels: said(labels),
                },
                Verdicts::Pairs {
                    chosen,
                    rejected,
                    margins,
                } => Verdicts::Pairs {
                    chosen: of(chosen),
                    rejected: of(rejected),
                    margins: said(margins),
                },
            },
            keys: items.iter().map(|&item| self.keys[item]).collect(),
        }
    }

    /// Refuses lengths that do not fit each other, texts that are not there, and labels and margins out of range.
    ///
    /// # Errors
    /// [`TrainError::BadData`] with the place.
    pub fn check(&self, num_texts: usize) -> Result<(), TrainError> {
        let items = self.keys.len();
        let (lens, said) = match &self.verdicts {
            Verdicts::Labels { texts, labels } => (
                vec![("texts", texts.len()), ("labels", labels.len())],
                first_bad("label", labels, "a number in [0, 1]", |label| {
                    (0.0..=1.0).contains(&label)
                }),
            ),
            Verdicts::Pairs {
                chosen,
                rejected,
                margins,
            } => (
                vec![
                    ("chosen", chosen.len()),
                    ("rejected", rejected.len()),
                    ("margins", margins.len()),
                ],
                first_bad("margin", margins, "a number of at least 0", |margin| {
                    margin.is_finite() && margin >= 0.0
                }),
            ),
        };
        for (name, len) in lens {
            check_len(name, len, items)?;
        }
        said?;
        let all: Vec<usize> = (0..items).collect();
        match self
            .texts_of(&all)
            .iter()
            .find(|&&text| text as usize >= num_texts)
        {
            None => Ok(()),
            Some(text) => refuse(format!("text {text} of {num_texts} is not there")),
        }
    }

    /// Folds everything into a hash.
    pub(super) fn content_sha256(&self, states_sha256: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(states_sha256);
        let numbers: (Vec<&[u32]>, &[f32]) = match &self.verdicts {
            Verdicts::Labels { texts, labels } => (vec![texts], labels),
            Verdicts::Pairs {
                chosen,
                rejected,
                margins,
            } => (vec![chosen, rejected], margins),
        };
        for texts in numbers.0 {
            hash.update((texts.len() as u64).to_le_bytes());
            for text in texts {
                hash.update(text.to_le_bytes());
            }
        }
        for value in numbers.1 {
            hash.update(value.to_le_bytes());
        }
        for key in &self.keys {
            hash.update(key.to_le_bytes());
        }
        hex::encode(hash.finalize())
    }
}

fn first_bad(
    name: &str,
    values: &[f32],
    expected: &str,
    is_good: impl Fn(f32) -> bool,
) -> Result<(), TrainError> {
    match values.iter().position(|&value| !is_good(value)) {
        None => Ok(()),
        Some(idx) => refuse(format!("{name} {idx} is {}, expected {expected}", values[idx])),
    }
}

pub(super) fn refuse<T>(problem: String) -> Result<T, TrainError> {
    Err(TrainError::BadData { problem })
}

pub(super) fn check_len(name: &str, got: usize, expected: usize) -> Result<(), TrainError> {
    if got == expected {
        return Ok(());
    }
    refuse(format!("{name} has {got} values, expected {expected}"))
}
