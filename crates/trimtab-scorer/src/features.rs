//! One short row of fixed features for every token. Knows embeddings as rows, no model and no head.

use half::f16;
use trimtab_base::TokenId;

use crate::error::ScorerError;
use crate::layer::check_values;
use crate::pca::{Draws, principal_projection};

/// `F`: what an action head sees of the next token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenFeatures {
    /// Tokens.
    pub vocab_len: usize,
    /// Features of a token.
    pub len: usize,
    /// The rows, each value a 16-bit float, so that files hold them exactly. `[vocab, len]`
    pub values: Vec<f32>,
}

impl TokenFeatures {
    /// The leading `len - 1` principal components of the output embedding, each of mean 0 and variance 1 over the
    /// vocabulary, and a last column that is 1 for `stop_tokens` and 0 for all others.
    ///
    /// `row_source(token, row)` writes row `token` of the embedding `[vocab_len, hidden_len]`; it is called several times for
    /// each. A vocabulary of at most `len - 1` tokens gets one column for each token instead, so that every function of
    /// the token can be represented; features are then `vocab_len + 1`. There are never more components than
    /// `hidden_len`. The result is a function of the arguments alone.
    ///
    /// # Panics
    /// If `len` is below 2, or `hidden_len` or `vocab_len` is 0 or a stop token outside the vocabulary.
    pub fn of_embedding(
        row_source: &mut dyn FnMut(usize, &mut [f32]),
        vocab_len: usize,
        hidden_len: usize,
        len: usize,
        stop_tokens: &[TokenId],
    ) -> Self {
        assert!(len >= 2, "expected at least 2 token features, got {len}");
        assert!(
            vocab_len > 0 && hidden_len > 0,
            "expected an embedding with rows and columns"
        );
        let mut features = if vocab_len < len {
            Self::one_hot(vocab_len)
        } else {
            let num_components = (len - 1).min(hidden_len);
            let projected = principal_projection(row_source, vocab_len, hidden_len, num_components);
            Self::of_columns(vocab_len, num_components, &projected)
        };
        for stop in stop_tokens {
            let row_end = (stop.index() + 1) * features.len;
            features.values[row_end - 1] = 1.0;
        }
        features
    }

    /// The features of `token`. `[len]`
    ///
    /// # Panics
    /// If the vocabulary has no such token.
    pub fn row(&self, token: TokenId) -> &[f32] {
        &self.values[token.index() * self.len..][..self.len]
    }

    /// The features of every token, in order of their ids. `[vocab][len]`
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.len)
    }

    /// Pseudo-random features of variance 1 with an empty last column.
    pub(crate) fn random(seed: u64, vocab_len: usize, len: usize) -> Self {
        let mut draws = Draws::new(!seed);
        let columns: Vec<f32> = (0..vocab_len * (len - 1)).map(|_| draws.next() as f32).collect();
        Self::of_columns(vocab_len, len - 1, &columns)
    }

    pub(crate) fn check(&self) -> Result<(), ScorerError> {
        if self.vocab_len == 0 || self.len == 0 {
            let found = [self.vocab_len, self.len];
            return Err(ScorerError::shape("token_features", &found, &[1, 1]));
        }
        check_values(
            "token_features",
            &self.values,
            self.vocab_len.saturating_mul(self.len),
        )
    }

    fn one_hot(vocab_len: usize) -> Self {
        let len = vocab_len + 1;
        let mut values = vec![0.0; vocab_len * len];
        for token in 0..vocab_len {
            values[token * len + token] = 1.0;
        }
        Self {
            vocab_len,
            len,
            values,
        }
    }

    /// Standardised columns, rounded to 16 bits, and an empty one. `columns`: `[vocab, num_columns]`
    fn of_columns(vocab_len: usize, num_columns: usize, columns: &[f32]) -> Self {
        let moments: Vec<(f64, f64)> = (0..num_columns)
            .map(|column| {
                let values = || {
                    columns
                        .iter()
                        .skip(column)
                        .step_by(num_columns)
                        .map(|&value| f64::from(value))
                };
                let mean = values().sum::<f64>() / vocab_len as f64;
                let variance = values().map(|value| (value - mean).powi(2)).sum::<f64>() / vocab_len as f64;
                // A column without spread says nothing and stays 0.
                let scale = if variance > 1e-24 {
                    variance.sqrt().recip()
                } else {
                    0.0
                };
                (mean, scale)
            })
            .collect();
        let len = num_columns + 1;
        let mut values = vec![0.0; vocab_len * len];
        for (row, columns) in values
            .chunks_exact_mut(len)
            .zip(columns.chunks_exact(num_columns))
        {
            for ((value, &column), &(mean, scale)) in row.iter_mut().zip(columns).zip(&moments) {
                *value = f16::from_f64((f64::from(column) - mean) * scale).to_f32();
            }
        }
        Self {
            vocab_len,
            len,
            values,
        }
    }
}
