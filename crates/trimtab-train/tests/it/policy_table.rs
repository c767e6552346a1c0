//! A policy that is a table of logits, over the enumerable model: every law of it is known in closed form.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use trimtab_base::TokenId;
use trimtab_base::testing::TableLm;
use trimtab_train::policy::PolicyResponse;
use trimtab_train::policy::model::PolicyModule;
use trimtab_train::policy::pieces::{Piece, PolicyItem};

use crate::table::Table;

/// Logits after every prefix; a response ends with the end token or with its third token.
#[derive(Module, Debug)]
pub(crate) struct TablePolicy {
    /// `[prefixes, vocab]`
    logits: Param<Tensor<2>>,
    /// `[vocab, vocab]`
    identity: Tensor<2>,
}

/// The enumerable model as a law of responses.
pub(crate) struct World {
    pub(crate) lm: TableLm,
    /// Every prefix after which a token is drawn.
    pub(crate) prefixes: Vec<Vec<TokenId>>,
    /// Every response, without a forced end.
    pub(crate) responses: Vec<Vec<u32>>,
}

impl World {
    pub(crate) fn new() -> Self {
        let lm = TableLm::tiny();
        let longest = lm.max_len - 1;
        let mut prefixes = Vec::new();
        let mut responses = Vec::new();
        for (mut sequence, _) in lm.enumerate() {
            sequence.truncate(longest);
            prefixes.extend((0..sequence.len()).map(|len| sequence[..len].to_vec()));
            responses.push(sequence.iter().map(|token| token.0).collect());
        }
        prefixes.sort();
        prefixes.dedup();
        Self {
            lm,
            prefixes,
            responses,
        }
    }

    /// Some reward in about [-1, 1] that no length or count explains.
    pub(crate) fn reward(response: &[u32]) -> f64 {
        let tokens: Vec<TokenId> = response.iter().map(|&id| TokenId(id)).collect();
        Table::reward(&tokens)
    }

    pub(crate) fn row_of(&self, prefix: &[u32]) -> usize {
        let prefix: Vec<TokenId> = prefix.iter().map(|&id| TokenId(id)).collect();
        self.prefixes.binary_search(&prefix).unwrap()
    }

    /// The reference's logits. `[prefixes * vocab]`
    pub(crate) fn reference_logits(&self) -> Vec<f64> {
        let of = |prefix: &Vec<TokenId>| self.lm.log_probs(prefix);
        self.prefixes.iter().flat_map(of).collect()
    }

    /// Logits moved by a wave, so that nothing is at a special place.
    pub(crate) fn moved_logits(&self) -> Vec<f64> {
        let wave = |(at, logit): (usize, f64)| logit + 0.4 * (1.7 * at as f64).sin();
        self.reference_logits()
            .into_iter()
            .enumerate()
            .map(wave)
            .collect()
    }

    pub(crate) fn log_probs_at(&self, logits: &[f64], row: usize) -> Vec<f64> {
        let row = &logits[row * self.lm.vocab..][..self.lm.vocab];
        let log_sum = row.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        row.iter().map(|logit| logit - log_sum).collect()
    }

    /// Log-prob of each token of a response.
    pub(crate) fn token_log_probs(&self, logits: &[f64], response: &[u32]) -> Vec<f64> {
        let of = |at: usize| {
            let row = self.row_of(&response[..at]);
            self.log_probs_at(logits, row)[response[at] as usize]
        };
        (0..response.len()).map(of).collect()
    }

    pub(crate) fn log_prob(&self, logits: &[f64], response: &[u32]) -> f64 {
        self.token_log_probs(logits, response).iter().sum()
    }

    /// The law of responses. `[responses]`
    pub(crate) fn law(&self, logits: &[f64]) -> Vec<f64> {
        let prob = |response: &Vec<u32>| self.log_prob(logits, response).exp();
        self.responses.iter().map(prob).collect()
    }

    /// `ref exp(score / beta) / Z`. `[responses]`
    pub(crate) fn tilted(&self, score: impl Fn(&[u32]) -> f64, beta: f64) -> Vec<f64> {
        let reference = self.law(&self.reference_logits());
        let weights = reference.iter().zip(&self.responses);
        let weights: Vec<f64> = weights.map(|(prob, y)| prob * (score(y) / beta).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / total).collect()
    }

    pub(crate) fn policy(&self, logits: &[f64]) -> TablePolicy {
        let device = Device::flex().autodiff();
        let vocab = self.lm.vocab;
        let values: Vec<f32> = logits.iter().map(|&logit| logit as f32).collect();
        let table = Tensor::from_data(TensorData::new(values, [self.prefixes.len(), vocab]), &device);
        TablePolicy {
            logits: Param::from_tensor(table),
            identity: Tensor::eye(vocab, &device),
        }
    }

    /// A response with its own key or another's.
    pub(crate) fn response(token_ids: &[u32], key: u64, weight: f64) -> PolicyResponse {
        PolicyResponse {
            key,
            prompt_token_ids: vec![0],
            token_ids: token_ids.to_vec(),
            sampler_log_probs: Vec::new(),
            reward: Self::reward(token_ids),
            weight,
            ..PolicyResponse::default()
        }
    }

    /// Half the sum of absolute differences.
    pub(crate) fn total_variation(&self, policy: &TablePolicy, law: &[f64]) -> f64 {
        let own = self.law(&policy.logits());
        own.iter().zip(law).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0
    }
}

impl TablePolicy {
    /// The table's values. `[prefixes * vocab]`
    pub(crate) fn logits(&self) -> Vec<f64> {
        self.logits.val().into_data().iter::<f64>().collect()
    }

    pub(crate) fn logits_param(&self) -> &Param<Tensor<2>> {
        &self.logits
    }
}

impl PolicyModule for TablePolicy {
    fn states(&self, piece: &Piece) -> Tensor<2> {
        let world = World::new();
        let rows = |item: &PolicyItem| -> Vec<i32> {
            let row = |at| world.row_of(&item.token_ids[..at]) as i32;
            (0..item.token_ids.len()).map(row).collect()
        };
        let of_items = piece.buckets.iter().flatten().map(|&idx| rows(&piece.items[idx]));
        let rows: Vec<i32> = of_items.flatten().collect();
        let len = rows.len();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [len]), &Device::flex());
        self.logits.val().select(0, rows)
    }

    fn head(&self) -> Tensor<2> {
        self.identity.clone()
    }
}
