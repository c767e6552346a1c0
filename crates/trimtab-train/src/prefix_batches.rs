//! Batches of whole responses from a prefix set: the split by prompt, the moments, and tensors. Knows no loss.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use trimtab_base::rng::{Purpose, SampleStream};
use trimtab_base::{PromptKey, Seed};
use trimtab_scorer::TokenFeatures;

use crate::batches::{Packing, plan_batches, shuffle};
use crate::error::TrainError;
use crate::heads::{RewardScale, Standardisation};
use crate::prefix_set::{PrefixSet, Shard};
use crate::trainer::BatchSource;

/// Whole responses, their prefixes one after another.
#[derive(Debug, Clone)]
pub struct PrefixBatch {
    /// Standardised states. `[prefixes, hidden_len]`
    pub hidden: Tensor<2>,
    /// Token features, where an action head reads them.
    pub features: Option<BatchFeatures>,
    /// Prefixes of each response, one after another. `[responses]`
    pub rows: Vec<Range<usize>>,
    /// Final rewards in normalised units. `[responses]`
    pub rewards: Vec<f32>,
}

/// Token features of a batch.
#[derive(Debug, Clone)]
pub struct BatchFeatures {
    /// `e_t` of each prefix. `[prefixes, feature_len]`
    pub expected: Tensor<2>,
    /// `F[y_{t+1}]` of each prefix; 0 at a response's last one. `[prefixes, feature_len]`
    pub next: Tensor<2>,
}

impl PrefixBatch {
    /// Prefixes in the batch.
    pub fn num_prefixes(&self) -> usize {
        self.rows.last().map_or(0, |rows| rows.end)
    }
}

/// Where a response is and what planning needs of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResponseRef {
    /// Shard of the set.
    pub shard: usize,
    /// Place in the shard.
    pub idx: usize,
    /// Prefixes.
    pub num_prefixes: usize,
    /// Reward in its own unit.
    pub reward: f64,
    /// Prompt.
    pub key: u64,
}

/// The set divided by prompt, and the moments of its training part.
#[derive(Debug, Clone)]
pub struct Split {
    /// Responses to learn from.
    pub train: Vec<ResponseRef>,
    /// Responses to judge with.
    pub eval: Vec<ResponseRef>,
    /// Moments of the training states.
    pub standardisation: Standardisation,
    /// Moments of the training rewards, each response once.
    pub scale: RewardScale,
}

/// Whether a prompt is held out: a coin keyed by seed and prompt, so that adding data moves no prompt.
pub fn is_held_out(key: u64, eval_fraction: f64, seed: Seed) -> bool {
    SampleStream::new(seed, PromptKey(key), 0, Purpose::Training).uniform(u64::MAX) < eval_fraction
}

impl Split {
    /// Divides `set`, reading each shard once.
    ///
    /// # Errors
    /// Files, or a part that is left empty.
    pub fn new(set: &PrefixSet, eval_fraction: f64, seed: Seed) -> Result<Self, TrainError> {
        let (mut train, mut eval) = (Vec::new(), Vec::new());
        let mut moments = Moments::new(set.header().hidden_len);
        for shard_idx in 0..set.shards().len() {
            let shard = set.shard(shard_idx)?;
            for idx in 0..shard.num_responses() {
                let response = ResponseRef {
                    shard: shard_idx,
                    idx,
                    num_prefixes: shard.prefixes(idx).len(),
                    reward: shard.reward(idx),
                    key: shard.key(idx),
                };
                if is_held_out(response.key, eval_fraction, seed) {
                    eval.push(response);
                } else {
                    train.push(response);
                    for row in shard.hidden(idx).chunks_exact(set.header().hidden_len) {
                        moments.add(row.iter().map(|value| value.to_f64()));
                    }
                }
            }
        }
        if train.is_empty() || eval.is_empty() {
            let problem = format!(
                "the prompts leave {} responses to train and {} to evaluate, expected some of both: \
                 more prompts or another eval_fraction",
                train.len(),
                eval.len()
            );
            return Err(TrainError::BadData { problem });
        }
        let scale = RewardScale::of(train.iter().map(|response| response.reward));
        Ok(Self {
            train,
            eval,
            standardisation: moments.finish(),
            scale,
        })
    }
}

/// Sums for mean and standard deviation, in f64 because a set has millions of rows.
pub(crate) struct Moments {
    count: f64,
    sum: Vec<f64>,
    sum_of_squares: Vec<f64>,
}

impl Moments {
    pub(crate) fn new(hidden_len: usize) -> Self {
        Self {
            count: 0.0,
            sum: vec![0.0; hidden_len],
            sum_of_squares: vec![0.0; hidden_len],
        }
    }

    /// Takes in one state. `[hidden_len]`
    pub(crate) fn add(&mut self, state: impl Iterator<Item = f64>) {
        self.count += 1.0;
        let sums = self.sum.iter_mut().zip(&mut self.sum_of_squares);
        for (value, (sum, sum_of_squares)) in state.zip(sums) {
            *sum += value;
            *sum_of_squares += value * value;
        }
    }

    pub(crate) fn finish(self) -> Standardisation {
        let mean: Vec<f64> = self.sum.iter().map(|sum| sum / self.count).collect();
        let std = mean
            .iter()
            .zip(&self.sum_of_squares)
            .map(|(mean, sum_of_squares)| {
                let variance = (sum_of_squares / self.count - mean * mean).max(0.0);
                // A constant coordinate says nothing; dividing by its rounding error would make it shout.
                if variance.sqrt() <= 1e-6 * mean.abs().max(1e-3) {
                    1.0
                } else {
                    variance.sqrt() as f32
                }
            });
        Standardisation {
            std: std.collect(),
            mean: mean.iter().map(|&mean| mean as f32).collect(),
        }
    }
}

/// Reads responses into batches.
#[derive(Debug)]
pub struct BatchReader<'a> {
    /// The set.
    pub set: &'a PrefixSet,
    /// Token features, where an action head is trained.
    pub features: Option<&'a TokenFeatures>,
    /// How states are standardised.
    pub standardisation: Standardisation,
    /// How rewards are normalised.
    pub scale: RewardScale,
    /// Where tensors live.
    pub device: Device,
}

impl BatchReader<'_> {
    /// A batch of these responses in this order.
    ///
    /// # Errors
    /// Files.
    pub fn read(&self, responses: &[ResponseRef]) -> Result<PrefixBatch, TrainError> {
        let prefixes: usize = responses.iter().map(|response| response.num_prefixes).sum();
        let (hidden_len, feature_len) = (self.set.header().hidden_len, self.set.header().feature_len);
        let mut hidden = Vec::with_capacity(prefixes * hidden_len);
        let (mut expected, mut next) = (Vec::new(), Vec::new());
        let (mut rows, mut rewards) = (Vec::new(), Vec::new());
        let mut start = 0;
        for response in responses {
            let shard = self.set.shard(response.shard)?;
            self.standardise(&shard, response.idx, &mut hidden);
            if let Some(features) = self.features {
                expected.extend_from_slice(shard.expected_features(response.idx));
                for &token in shard.token_ids(response.idx) {
                    next.extend_from_slice(features.row(trimtab_base::TokenId(token)));
                }
                next.resize(next.len() + feature_len, 0.0);
            }
            rows.push(start..start + response.num_prefixes);
            start += response.num_prefixes;
            rewards.push(self.scale.normalise(response.reward));
        }
        let tensor =
            |values, width| Tensor::from_data(TensorData::new(values, [prefixes, width]), &self.device);
        Ok(PrefixBatch {
            hidden: tensor(hidden, hidden_len),
            features: self.features.map(|_| BatchFeatures {
                expected: tensor(expected, feature_len),
                next: tensor(next, feature_len),
            }),
            rows,
            rewards,
        })
    }

    fn standardise(&self, shard: &Arc<Shard>, idx: usize, out: &mut Vec<f32>) {
        let Standardisation { mean, std } = &self.standardisation;
        for row in shard.hidden(idx).chunks_exact(mean.len()) {
            let moments = mean.iter().zip(std);
            out.extend(
                row.iter()
                    .zip(moments)
                    .map(|(value, (mean, std))| (value.to_f32() - mean) / std),
            );
        }
    }
}

/// The training part as shuffled batches.
#[derive(Debug)]
pub struct PrefixSource<'a> {
    reader: BatchReader<'a>,
    responses: Vec<ResponseRef>,
    batch_len: usize,
    seed: Seed,
    /// Epoch and batches planned last.
    plan: Option<(u64, Vec<Vec<usize>>)>,
}

impl<'a> PrefixSource<'a> {
    /// Batches of at most `batch_len` prefixes.
    pub fn new(reader: BatchReader<'a>, responses: Vec<ResponseRef>, batch_len: usize, seed: Seed) -> Self {
        Self {
            reader,
            responses,
            batch_len,
            seed,
            plan: None,
        }
    }

    /// Batches of an epoch. A set larger than memory is shuffled in groups of shards that fit, in a shuffled order,
    /// so that no shard is read twice in an epoch.
    fn plan(&self, epoch: u64) -> Vec<Vec<usize>> {
        let mut batches = Vec::new();
        for (group_idx, group) in self.shard_groups(epoch).iter().enumerate() {
            let members: Vec<usize> = (0..self.responses.len())
                .filter(|&idx| group.contains(&self.responses[idx].shard))
                .collect();
            let lens: Vec<usize> = members
                .iter()
                .map(|&idx| self.responses[idx].num_prefixes)
                .collect();
            let seed = Seed(self.seed.0.wrapping_add(group_idx as u64));
            let planned = plan_batches(&lens, self.batch_len, Packing::Flat, seed, epoch);
            batches.extend(
                planned
                    .into_iter()
                    .map(|batch| batch.into_iter().map(|place| members[place]).collect()),
            );
        }
        batches
    }

    fn shard_groups(&self, epoch: u64) -> Vec<Vec<usize>> {
        let shards = self.reader.set.shards();
        let mut order: Vec<usize> = (0..shards.len()).collect();
        shuffle(&mut order, self.seed, epoch, 2);
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut bytes = 0;
        for shard in order {
            bytes += shards[shard].num_bytes;
            match groups.last_mut() {
                Some(group) if bytes <= self.reader.set.max_memory_bytes() => group.push(shard),
                _ => {
                    groups.push(vec![shard]);
                    bytes = shards[shard].num_bytes;
                }
            }
        }
        groups
    }
}

impl BatchSource for PrefixSource<'_> {
    type Batch = PrefixBatch;

    fn num_batches(&self, epoch: u64) -> usize {
        match &self.plan {
            Some((planned, batches)) if *planned == epoch => batches.len(),
            _ => self.plan(epoch).len(),
        }
    }

    fn num_items(&self) -> u64 {
        self.responses
            .iter()
            .map(|response| response.num_prefixes as u64)
            .sum()
    }

    fn batch(&mut self, epoch: u64, idx: usize) -> Result<PrefixBatch, TrainError> {
        if self.plan.as_ref().is_none_or(|(planned, _)| *planned != epoch) {
            self.plan = Some((epoch, self.plan(epoch)));
        }
        let (_, batches) = self.plan.as_ref().expect("it was just planned");
        let responses: Vec<ResponseRef> = batches[idx].iter().map(|&place| self.responses[place]).collect();
        self.reader.read(&responses)
    }
}
