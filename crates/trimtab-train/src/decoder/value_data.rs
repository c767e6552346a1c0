//! Responses as token ids, in padded batches of about one length. Knows no loss and no model.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};
use trimtab_base::{Seed, TokenId};
use trimtab_model::ModelConfig;
use trimtab_scorer::TokenFeatures;

use super::batch::TokenBatch;
use crate::batches::{Packing, plan_batches};
use crate::error::TrainError;
use crate::heads::RewardScale;
use crate::prefix_batches::BatchFeatures;
use crate::trainer::BatchSource;

/// Responses sorted together by length: padding shrinks, and the order stays random beyond.
const WINDOW: usize = 512;

/// One response with what a prefix scorer with weights of its own learns from.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenResponse {
    /// At least one token.
    pub prompt_token_ids: Vec<u32>,
    /// `y_1..y_T`, end of sequence included if it was drawn. `[T]`
    pub response_token_ids: Vec<u32>,
    /// `e_0..e_T` under the reference; empty where no action head is trained. `[T + 1, feature_len]`
    pub expected_features: Vec<f32>,
    /// In its own unit.
    pub reward: f64,
    /// Of the prompt: training and evaluation are divided by it.
    pub key: u64,
}

impl TokenResponse {
    /// Prompt and response.
    pub fn len(&self) -> usize {
        self.prompt_token_ids.len() + self.response_token_ids.len()
    }

    /// Whether there is no token at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `T + 1`
    pub fn num_prefixes(&self) -> usize {
        self.response_token_ids.len() + 1
    }

    /// Checks once what the forward and the heads rely on.
    fn check(&self, model: &ModelConfig, features: Option<&TokenFeatures>) -> Result<(), String> {
        if self.prompt_token_ids.is_empty() {
            return Err("the prompt has no tokens, so no state to judge the empty response by".to_owned());
        }
        if self.len() > model.context_len {
            let (len, most) = (self.len(), model.context_len);
            return Err(format!(
                "{len} tokens exceed the model's context of {most}; cut it or leave it out"
            ));
        }
        let ids = || self.prompt_token_ids.iter().chain(&self.response_token_ids);
        if let Some(token) = ids().find(|&&id| id as usize >= model.vocab_len) {
            let vocab_len = model.vocab_len;
            return Err(format!(
                "token id {token} is outside the vocabulary of {vocab_len}"
            ));
        }
        if !self.reward.is_finite() {
            return Err(format!("the reward is {}, expected a finite number", self.reward));
        }
        let expected = features.map_or(0, |features| self.num_prefixes() * features.len);
        if features.is_some() && self.expected_features.len() != expected {
            let got = self.expected_features.len();
            return Err(format!("{got} expected features, expected {expected}"));
        }
        Ok(())
    }
}

/// Refuses responses that cannot be trained on.
///
/// # Errors
/// The first of them, with what is wrong with it.
pub(super) fn check_responses(
    responses: &[TokenResponse],
    model: &ModelConfig,
    features: Option<&TokenFeatures>,
) -> Result<(), TrainError> {
    for (response_idx, response) in (0..).zip(responses) {
        let problem = response.check(model, features);
        problem.map_err(|problem| TrainError::BadResponse {
            response_idx,
            problem,
        })?;
    }
    Ok(())
}

/// Whole responses, padded.
#[derive(Debug, Clone)]
pub struct TokenResponseBatch {
    /// Prompts and responses. `[responses, seq]`
    pub tokens: TokenBatch,
    /// Places of the prefixes' last tokens in the batch, row after row. `[prefixes]`
    pub places: Tensor<1, Int>,
    /// Token features, where an action head reads them.
    pub features: Option<BatchFeatures>,
    /// Prefixes of each response, one after another. `[responses]`
    pub rows: Vec<Range<usize>>,
    /// Final rewards in normalised units. `[responses]`
    pub rewards: Vec<f32>,
}

/// Reads checked responses into batches.
#[derive(Debug, Clone)]
pub struct TokenReader<'a> {
    /// All of them.
    pub responses: &'a [TokenResponse],
    /// Token features, where an action head is trained.
    pub features: Option<&'a TokenFeatures>,
    /// How rewards are normalised.
    pub scale: RewardScale,
    /// Where tensors live.
    pub device: Device,
}

impl TokenReader<'_> {
    /// A batch of these responses in this order, at least one.
    pub fn read(&self, members: &[usize]) -> TokenResponseBatch {
        let responses = || members.iter().map(|&idx| &self.responses[idx]);
        let sequences: Vec<Vec<u32>> = responses()
            .map(|response| [&response.prompt_token_ids[..], &response.response_token_ids].concat())
            .collect();
        let rows: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let tokens = TokenBatch::pad(&rows).expect("batches hold responses, and responses were checked");
        let mut places = Vec::new();
        let mut rows = Vec::with_capacity(members.len());
        for (row, response) in responses().enumerate() {
            let first = row * tokens.seq() + response.prompt_token_ids.len() - 1;
            let start = places.len();
            places.extend((first..first + response.num_prefixes()).map(|place| place as i32));
            rows.push(start..places.len());
        }
        TokenResponseBatch {
            places: Tensor::from_data(
                TensorData::new(places, [rows.last().map_or(0, |r: &Range<_>| r.end)]),
                &self.device,
            ),
            features: self
                .features
                .map(|features| self.batch_features(members, features)),
            rewards: responses()
                .map(|response| self.scale.normalise(response.reward))
                .collect(),
            tokens,
            rows,
        }
    }

    fn batch_features(&self, members: &[usize], features: &TokenFeatures) -> BatchFeatures {
        let (mut expected, mut next) = (Vec::new(), Vec::new());
        for response in members.iter().map(|&idx| &self.responses[idx]) {
            expected.extend_from_slice(&response.expected_features);
            for &token in &response.response_token_ids {
                next.extend_from_slice(features.row(TokenId(token)));
            }
            next.resize(next.len() + features.len, 0.0);
        }
        let prefixes = next.len() / features.len;
        let tensor =
            |values| Tensor::from_data(TensorData::new(values, [prefixes, features.len]), &self.device);
        BatchFeatures {
            expected: tensor(expected),
            next: tensor(next),
        }
    }

    /// Batches of these responses, padding included at most `batch_len` tokens each.
    pub(super) fn plan(
        &self,
        members: &[usize],
        batch_len: usize,
        seed: Seed,
        epoch: u64,
    ) -> Vec<Vec<usize>> {
        let lens: Vec<usize> = members.iter().map(|&idx| self.responses[idx].len()).collect();
        plan_batches(&lens, batch_len, Packing::Padded { window: WINDOW }, seed, epoch)
            .into_iter()
            .map(|batch| batch.into_iter().map(|place| members[place]).collect())
            .collect()
    }
}

/// The training part as shuffled batches.
#[derive(Debug)]
pub struct TokenSource<'a> {
    reader: TokenReader<'a>,
    members: Vec<usize>,
    batch_len: usize,
    seed: Seed,
    /// Epoch and batches planned last.
    plan: Option<(u64, Vec<Vec<usize>>)>,
}

impl<'a> TokenSource<'a> {
    /// Batches of `members`, padding included at most `batch_len` tokens each.
    pub fn new(reader: TokenReader<'a>, members: Vec<usize>, batch_len: usize, seed: Seed) -> Self {
        Self {
            reader,
            members,
            batch_len,
            seed,
            plan: None,
        }
    }

    fn plan(&self, epoch: u64) -> Vec<Vec<usize>> {
        self.reader.plan(&self.members, self.batch_len, self.seed, epoch)
    }
}

impl BatchSource for TokenSource<'_> {
    type Batch = TokenResponseBatch;

    fn num_batches(&self, epoch: u64) -> usize {
        match &self.plan {
            Some((planned, batches)) if *planned == epoch => batches.len(),
            _ => self.plan(epoch).len(),
        }
    }

    fn num_items(&self) -> u64 {
        let prefixes = |&idx: &usize| self.reader.responses[idx].num_prefixes() as u64;
        self.members.iter().map(prefixes).sum()
    }

    fn batch(&mut self, epoch: u64, idx: usize) -> Result<TokenResponseBatch, TrainError> {
        if self.plan.as_ref().is_none_or(|(planned, _)| *planned != epoch) {
            self.plan = Some((epoch, self.plan(epoch)));
        }
        let (_, batches) = self.plan.as_ref().expect("it was just planned");
        Ok(self.reader.read(&batches[idx]))
    }
}
