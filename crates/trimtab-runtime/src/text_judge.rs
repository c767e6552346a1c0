//! Scorers and rewards with a model of their own, asked about texts. Knows heads on states, no generator.

use std::sync::{Arc, Mutex, PoisonError};

use trimtab_base::{RewardError, RewardModel, ScoreInput};
use trimtab_model::ScoreHead;
use trimtab_scorer::{Layer, ScorerCard, ScorerWeights, StateHead};

use crate::asked::{AskedPrefix, AskedScorer};
use crate::error::RuntimeError;
use crate::loaded::LoadedModel;
use crate::prompt::PromptStyle;
use crate::state_reader::ReaderLimits;
use crate::text_reader::{SharedTextReader, Text, TextForm, TextReader};

/// Unit of a reward head's plain output.
pub const LOGIT: &str = "logit";
/// Unit of a reward head whose output is the log-probability that a response is good: `log sigmoid(logit)`.
pub const LOG_PROBABILITY: &str = "log-probability in nats";

/// State values of `texts`, in order.
fn values<'t>(
    reader: &mut TextReader,
    weights: &ScorerWeights,
    texts: impl IntoIterator<Item = Text<'t>>,
) -> Result<Vec<f64>, RuntimeError> {
    let mut values = Vec::new();
    reader.read(texts, &mut |idx, hidden| {
        if values.len() <= idx {
            values.resize(idx + 1, f64::NAN);
        }
        values[idx] = weights.state_value(hidden);
    })?;
    Ok(values)
}

/// A prefix scorer with a model of its own, which steers any generator by text (the paper's transfer, CD section 5,
/// experiment 5).
pub struct SeparateScorer {
    name: String,
    unit: String,
    weights: ScorerWeights,
    reader: TextReader,
}

impl SeparateScorer {
    /// The scorer of `card` and `weights` on the states of `model`, answering the steering term `name`.
    ///
    /// # Errors
    /// Hidden states of another width, no address space for keys and values.
    pub fn try_new(
        name: String,
        (card, weights): (&ScorerCard, ScorerWeights),
        model: &LoadedModel,
        style: PromptStyle,
        limits: ReaderLimits,
    ) -> Result<Self, RuntimeError> {
        let reader = TextReader::try_new(model, style, TextForm::Answer, limits)?;
        check_width(card, &weights, &reader)?;
        Ok(Self {
            name,
            unit: card.reward_unit.clone(),
            weights,
            reader,
        })
    }
}

impl AskedScorer for SeparateScorer {
    fn name(&self) -> &str {
        &self.name
    }

    fn unit(&self) -> &str {
        &self.unit
    }

    fn values(&mut self, asked: &[AskedPrefix<'_>]) -> Result<Vec<f64>, RuntimeError> {
        let texts = asked.iter().map(|asked| Text {
            prompt: &asked.job.prompt,
            response: &asked.prefix.text,
            is_finished: asked.is_ended(),
        });
        values(&mut self.reader, &self.weights, texts)
    }
}

/// A reward read off a model's state at the end of a response: a classifier that was trained as a scorer.
///
/// `r(x, y) = V([x, y])` at the token that ends answers, which is put behind every response: that is where it was
/// trained, and it makes the reward a function of the texts alone.
pub struct HeadReward {
    name: String,
    unit: String,
    takes_log_sigmoid: bool,
    weights: ScorerWeights,
    reader: SharedTextReader,
}

impl HeadReward {
    /// The reward of `card` and `weights` on the states of `model`, called `name`. A card whose unit is
    /// [`LOG_PROBABILITY`] makes it `log sigmoid(V)`, the paper's reward (CD section 4); any other `V` as it is.
    ///
    /// # Errors
    /// Hidden states of another width, no address space for keys and values.
    pub fn try_new(
        name: String,
        (card, weights): (&ScorerCard, ScorerWeights),
        model: &LoadedModel,
        style: PromptStyle,
        limits: ReaderLimits,
    ) -> Result<Self, RuntimeError> {
        let reader = TextReader::try_new(model, style, TextForm::Answer, limits)?;
        Self::on_reader(name, (card, weights), &Arc::new(Mutex::new(reader)))
    }

    /// [`Self::try_new`] on a reader that other heads use too: the texts that all are asked about are read once, up to
    /// what the reader keeps.
    ///
    /// # Errors
    /// Hidden states of another width.
    pub fn on_reader(
        name: String,
        (card, weights): (&ScorerCard, ScorerWeights),
        reader: &SharedTextReader,
    ) -> Result<Self, RuntimeError> {
        check_width(
            card,
            &weights,
            &reader.lock().unwrap_or_else(PoisonError::into_inner),
        )?;
        Ok(Self {
            name,
            takes_log_sigmoid: card.reward_unit == LOG_PROBABILITY,
            unit: card.reward_unit.clone(),
            weights,
            reader: Arc::clone(reader),
        })
    }

    /// The reward of one label of a sequence classifier of the hub, see [`classifier_weights`]. The reader's form is
    /// [`TextForm::Conversation`].
    ///
    /// # Errors
    /// Those of [`classifier_weights`].
    pub fn of_classifier(
        name: String,
        (head, label): (&ScoreHead, Option<&str>),
        reader: &SharedTextReader,
    ) -> Result<Self, RuntimeError> {
        Ok(Self {
            name,
            takes_log_sigmoid: false,
            unit: LOGIT.to_owned(),
            weights: classifier_weights(head, label)?,
            reader: Arc::clone(reader),
        })
    }
}

/// What a sequence classifier of the hub says of a text, as a scorer's weights. The unit is [`LOGIT`].
///
/// One label: its score. Two: the log-odds of `label`, or of the second, `h . (w_label - w_other)`. More: the
/// score of `label`, which must be named.
///
/// # Errors
/// A label that it does not have, or none where it has more than two.
pub fn classifier_weights(head: &ScoreHead, label: Option<&str>) -> Result<ScorerWeights, RuntimeError> {
    let num_labels = head.labels.len();
    let no_label = || RuntimeError::NoLabel {
        label: label.unwrap_or_default().to_owned(),
        labels: head.labels.clone(),
    };
    let chosen = match label {
        Some(label) => head
            .labels
            .iter()
            .position(|known| known == label)
            .ok_or_else(no_label)?,
        None if num_labels <= 2 => num_labels - 1,
        None => return Err(no_label()),
    };
    let row = |idx: usize| &head.weight[idx * head.hidden_len..][..head.hidden_len];
    let weight = if num_labels == 2 {
        let pairs = row(chosen).iter().zip(row(1 - chosen));
        pairs.map(|(own, other)| own - other).collect()
    } else {
        row(chosen).to_vec()
    };
    Ok(ScorerWeights {
        mean: vec![0.0; head.hidden_len],
        std: vec![1.0; head.hidden_len],
        scale: 1.0,
        offset: 0.0,
        state: StateHead {
            trunk: None,
            out: Layer {
                in_len: head.hidden_len,
                out_len: 1,
                weight,
                bias: vec![0.0],
            },
        },
        action: None,
        token_features: None,
    })
}

impl RewardModel for HeadReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn unit(&self) -> &str {
        &self.unit
    }

    fn score(&self, batch: &[ScoreInput]) -> Result<Vec<f64>, RewardError> {
        let texts = batch.iter().map(|input| Text {
            prompt: &input.prompt,
            response: &input.response,
            is_finished: true,
        });
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let values = values(&mut reader, &self.weights, texts).map_err(|cause| RewardError::External {
            reward: self.name.clone(),
            problem: cause.to_string(),
        })?;
        let reward = |value: f64| {
            if self.takes_log_sigmoid {
                log_sigmoid(value)
            } else {
                value
            }
        };
        Ok(values.into_iter().map(reward).collect())
    }
}

/// `log(1 / (1 + e^-x))` without overflow.
fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

fn check_width(card: &ScorerCard, weights: &ScorerWeights, reader: &TextReader) -> Result<(), RuntimeError> {
    let (expected, got) = (weights.hidden_len(), reader.hidden_len());
    if expected == got {
        return Ok(());
    }
    Err(RuntimeError::OtherWidth {
        scorer: card.name.clone(),
        expected,
        got,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_a_sigmoid_does_not_overflow() {
        let check = |x: f64, expect: f64| assert!((log_sigmoid(x) - expect).abs() < 1e-12, "{x}");
        check(0.0, -std::f64::consts::LN_2);
        check(1000.0, 0.0);
        check(-1000.0, -1000.0);
        check(2.0, -(1.0 + (-2.0_f64).exp()).ln());
    }
}
