//! A scorer with a model of its own, asked about texts. Knows one model and one scorer, no generator.
//!
//! The generator may have another tokenizer, so responses come as text and are tokenised anew. A text that grew may end
//! in other tokens than before; the reader keeps whole blocks by their tokens, so it goes on from the last block that is
//! still the same, and a block of M tokens costs about M rows, not the whole prefix.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use trimtab_base::{RewardError, RewardModel, ScoreInput, TokenId};
use trimtab_model::ForwardOutput;
use trimtab_scorer::{ScorerCard, ScorerWeights};

use crate::asked::{AskedPrefix, AskedScorer};
use crate::error::RuntimeError;
use crate::loaded::LoadedModel;
use crate::prompt::PromptStyle;
use crate::state_reader::{OutputRow, ReaderLimits, Sequence, StateReader};

/// Unit of a reward head's plain output.
pub const LOGIT: &str = "logit";
/// Unit of a reward head whose output is the log-probability that a response is good: `log sigmoid(logit)`.
pub const LOG_PROBABILITY: &str = "log-probability in nats";

/// Prompts whose tokens are kept.
const MAX_PROMPTS: usize = 1024;

/// A text to be judged.
#[derive(Debug, Clone, Copy)]
struct Text<'a> {
    prompt: &'a str,
    response: &'a str,
    is_finished: bool,
}

/// State values of texts.
struct TextJudge {
    model: LoadedModel,
    reader: StateReader,
    weights: ScorerWeights,
    style: PromptStyle,
    prompts: HashMap<String, Vec<TokenId>>,
}

impl TextJudge {
    fn try_new(
        model: &LoadedModel,
        weights: ScorerWeights,
        style: PromptStyle,
        limits: ReaderLimits,
    ) -> Result<Self, RuntimeError> {
        Ok(Self {
            reader: StateReader::try_new(model, limits)?,
            model: model.clone(),
            weights,
            style,
            prompts: HashMap::new(),
        })
    }

    /// Values of `texts` in order; those of failures name `what`.
    fn values(&mut self, texts: &[Text<'_>]) -> Result<Vec<f64>, RuntimeError> {
        let mut sequences = Vec::with_capacity(texts.len());
        for (idx, text) in texts.iter().enumerate() {
            sequences.push(self.sequence(idx, text)?);
        }
        let mut values = vec![f64::NAN; texts.len()];
        let weights = &self.weights;
        let hidden_len = weights.hidden_len();
        self.reader.run::<RuntimeError>(
            &mut sequences.into_iter(),
            &mut |rows: &[OutputRow], output: &ForwardOutput| {
                for (row, hidden) in rows.iter().zip(output.hidden.chunks_exact(hidden_len)) {
                    values[row.sequence] = weights.state_value(hidden);
                }
                Ok(())
            },
        )?;
        Ok(values)
    }

    fn sequence(&mut self, idx: usize, text: &Text<'_>) -> Result<Sequence, RuntimeError> {
        let tokenizer = self.model.tokenizer();
        let prompt_ids = if let Some(known) = self.prompts.get(text.prompt) {
            known.clone()
        } else {
            let ids = self.style.encode(tokenizer, text.prompt)?;
            if self.prompts.len() >= MAX_PROMPTS {
                self.prompts.clear();
            }
            self.prompts.insert(text.prompt.to_owned(), ids.clone());
            ids
        };
        let encoded = self.style.encode_behind(
            tokenizer,
            (text.prompt, prompt_ids),
            text.response,
            text.is_finished,
        )?;
        let (prompt, response) = (encoded.prompt_ids.len(), encoded.response_ids.len());
        let context = self.model.config().context_len;
        if prompt + response == 0 {
            return Err(RuntimeError::EmptyPromptIds { idx });
        }
        if prompt + response > context {
            return Err(RuntimeError::ResponseTooLong {
                idx,
                prompt,
                response,
                context,
            });
        }
        let tokens = [encoded.prompt_ids, encoded.response_ids].concat();
        Ok(Sequence {
            first_output: tokens.len() - 1,
            shared_len: tokens.len(),
            tokens,
        })
    }
}

/// A prefix scorer with a model of its own, which steers any generator by text (the paper's transfer, CD section 5,
/// experiment 5).
pub struct SeparateScorer {
    name: String,
    unit: String,
    judge: TextJudge,
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
        check_width(card, &weights, model)?;
        Ok(Self {
            name,
            unit: card.reward_unit.clone(),
            judge: TextJudge::try_new(model, weights, style, limits)?,
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
        let text = |asked: &AskedPrefix<'_>| {
            let is_finished = asked.is_ended();
            (asked.job.prompt.clone(), asked.prefix.text.clone(), is_finished)
        };
        let texts: Vec<(String, String, bool)> = asked.iter().map(text).collect();
        let texts: Vec<Text<'_>> = texts
            .iter()
            .map(|(prompt, response, is_finished)| Text {
                prompt,
                response,
                is_finished: *is_finished,
            })
            .collect();
        self.judge.values(&texts)
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
    judge: Mutex<TextJudge>,
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
        check_width(card, &weights, model)?;
        Ok(Self {
            name,
            takes_log_sigmoid: card.reward_unit == LOG_PROBABILITY,
            unit: card.reward_unit.clone(),
            judge: Mutex::new(TextJudge::try_new(model, weights, style, limits)?),
        })
    }
}

impl RewardModel for HeadReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn unit(&self) -> &str {
        &self.unit
    }

    fn score(&self, batch: &[ScoreInput]) -> Result<Vec<f64>, RewardError> {
        let text = |input: &ScoreInput| (input.prompt.clone(), input.response.clone());
        let texts: Vec<(String, String)> = batch.iter().map(text).collect();
        let texts: Vec<Text<'_>> = texts
            .iter()
            .map(|(prompt, response)| Text {
                prompt,
                response,
                is_finished: true,
            })
            .collect();
        let mut judge = self.judge.lock().unwrap_or_else(PoisonError::into_inner);
        let values = judge.values(&texts).map_err(|cause| RewardError::External {
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

fn check_width(card: &ScorerCard, weights: &ScorerWeights, model: &LoadedModel) -> Result<(), RuntimeError> {
    let (expected, got) = (weights.hidden_len(), model.config().hidden_len);
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
