//! What prefix scorers are trained on: hidden states and expected token features of given responses. Knows responses as
//! token ids, no rewards and no training.
//!
//! `e_t = sum_z pi_ref(z | x, y^t) F[z]` is kept beside `h_t`, so that CD-Q's expectation over the whole vocabulary (CD
//! Eq. 5) costs training one product of width r and no pass over the vocabulary: with an action value that is linear in
//! `F[z]`, `sum_z pi_ref(z) V([x, y^t, z]) = v(h_t) + u(h_t) . e_t`, exactly.

use std::collections::BTreeMap;

use trimtab_base::TokenId;
use trimtab_kernels::gemm::{GemmScratch, Linear, Precision};
use trimtab_kernels::pool::Pool;
use trimtab_kernels::softmax::probs_of;
use trimtab_kernels::vocab::log_sum_exp_row;
use trimtab_scorer::TokenFeatures;

use crate::error::RuntimeError;
use crate::loaded::LoadedModel;
use crate::state_reader::{OutputRow, ReaderLimits, Sequence, StateReader};

/// One response to one prompt, as token ids of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureItem<'a> {
    /// The prompt as the model reads it, chat template included; at least one token. Items of one prompt that stand
    /// next to each other share its run.
    pub prompt: &'a [TokenId],
    /// The response; an end token that was drawn is its last.
    pub response: &'a [TokenId],
}

/// Every prefix of one response, from the empty one on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PrefixStates {
    /// Hidden states after the final norm: of the prompt's last token, then of each token of the response.
    /// `[T + 1, hidden]`
    pub hidden: Vec<f32>,
    /// Expected features of the next token under the reference; empty if no features were given. `[T + 1, features]`
    pub expected_features: Vec<f32>,
}

/// Entries of the vocabulary in one product; packed layers take at most twice as many inputs.
const VOCAB_CHUNK: usize = 32 << 10;

/// Computes the states of `items` and hands them out in order.
///
/// They have the bits that an engine over the same model sees when it draws the same tokens. Memory is that of one pass
/// (see [`ReaderLimits`]) and of the responses in it.
///
/// # Errors
/// A response that does not fit the context, named by its index; token features of another vocabulary; whatever
/// `on_states` returns.
pub fn prefix_features<E: From<RuntimeError>>(
    model: &LoadedModel,
    features: Option<&TokenFeatures>,
    items: &[FeatureItem<'_>],
    limits: ReaderLimits,
    on_states: &mut dyn FnMut(usize, PrefixStates) -> Result<(), E>,
) -> Result<(), E> {
    for (idx, item) in items.iter().enumerate() {
        check_fits(model, idx, item)?;
    }
    let mut mean = features
        .map(|features| MeanFeatures::try_new(model, features))
        .transpose()?;
    let mut sequences = items.iter().map(|item| Sequence {
        tokens: [item.prompt, item.response].concat(),
        first_output: item.prompt.len() - 1,
        shared_len: item.prompt.len(),
    });
    let mut unfinished: BTreeMap<usize, PrefixStates> = BTreeMap::new();
    let hidden_len = model.config().hidden_len;
    let mut expected = Vec::new();
    let mut reader = StateReader::try_new(model, limits)?;
    reader.run::<E>(&mut sequences, &mut |rows, output| {
        let width = match &mut mean {
            Some(mean) => {
                mean.of_rows(model.pool(), &output.logits, &mut expected);
                mean.len
            }
            None => 0,
        };
        for (row_idx, row) in rows.iter().enumerate() {
            let OutputRow { sequence, is_last } = *row;
            let states = unfinished.entry(sequence).or_default();
            states
                .hidden
                .extend_from_slice(&output.hidden[row_idx * hidden_len..][..hidden_len]);
            states
                .expected_features
                .extend_from_slice(&expected[row_idx * width..][..width]);
            if is_last {
                on_states(sequence, unfinished.remove(&sequence).unwrap_or_default())?;
            }
        }
        Ok(())
    })
}

/// Features of the tokens of `model`'s vocabulary, from the rows of its output embedding.
///
/// The last column marks the tokens that end an answer.
///
/// The embedding is read as it is stored, whatever the precision that the model runs in.
///
/// # Panics
/// If `len` is below 2.
pub fn token_features(model: &LoadedModel, len: usize) -> TokenFeatures {
    let config = model.config();
    TokenFeatures::of_embedding(
        &mut |token, row| model.read_output_row(token, row),
        config.vocab_len,
        config.hidden_len,
        len,
        model.tokenizer().stop_tokens(),
    )
}

pub(crate) fn check_fits(
    model: &LoadedModel,
    idx: usize,
    item: &FeatureItem<'_>,
) -> Result<(), RuntimeError> {
    let (prompt, response) = (item.prompt.len(), item.response.len());
    if prompt == 0 {
        return Err(RuntimeError::EmptyPromptIds { idx });
    }
    let context = model.config().context_len;
    if prompt + response > context {
        return Err(RuntimeError::ResponseTooLong {
            idx,
            prompt,
            response,
            context,
        });
    }
    Ok(())
}

/// Means of token features under rows of logits.
struct MeanFeatures {
    /// `F^T` in stretches of the vocabulary. `[stretches][features, stretch]`
    stretches: Vec<Linear>,
    vocab_len: usize,
    len: usize,
    probs: Vec<f32>,
    part: Vec<f32>,
    scratch: GemmScratch,
}

impl MeanFeatures {
    fn try_new(model: &LoadedModel, features: &TokenFeatures) -> Result<Self, RuntimeError> {
        let vocab_len = model.config().vocab_len;
        if features.vocab_len != vocab_len {
            return Err(RuntimeError::OtherVocabulary {
                features: features.vocab_len,
                model: vocab_len,
            });
        }
        let len = features.len;
        let starts = (0..vocab_len).step_by(VOCAB_CHUNK);
        let stretches = starts.map(|start| {
            let stretch_len = VOCAB_CHUNK.min(vocab_len - start);
            let fill = |feature: usize, row: &mut [f32]| {
                for (offset, value) in row.iter_mut().enumerate() {
                    *value = features.values[(start + offset) * len + feature];
                }
            };
            Linear::pack(model.pool(), Precision::F32, stretch_len, len, &fill, None)
        });
        Ok(Self {
            stretches: stretches.collect(),
            vocab_len,
            len,
            probs: Vec::new(),
            part: Vec::new(),
            scratch: GemmScratch::default(),
        })
    }

    /// `logits`: `[rows, vocab]`; leaves `[rows, features]` in `mean`.
    fn of_rows(&mut self, pool: &Pool, logits: &[f32], mean: &mut Vec<f32>) {
        let vocab_len = self.vocab_len;
        let num_rows = logits.len() / vocab_len;
        let mut normalisers = vec![0.0; num_rows];
        pool.run_chunks_mut(&mut normalisers, 1, |row, normaliser| {
            normaliser[0] = log_sum_exp_row(&logits[row * vocab_len..][..vocab_len]);
        });
        mean.clear();
        mean.resize(num_rows * self.len, 0.0);
        self.part.resize(num_rows * self.len, 0.0);
        for (stretch_idx, stretch) in self.stretches.iter().enumerate() {
            let (start, stretch_len) = (stretch_idx * VOCAB_CHUNK, stretch.in_len());
            self.probs.resize(num_rows * stretch_len, 0.0);
            pool.run_chunks_mut(&mut self.probs, stretch_len, |row, probs| {
                let logits = &logits[row * vocab_len + start..][..stretch_len];
                probs_of(logits, normalisers[row], probs);
            });
            stretch.forward(pool, &self.probs, &mut self.part, &mut self.scratch);
            for (mean, part) in mean.iter_mut().zip(&self.part) {
                *mean += part;
            }
        }
    }
}
