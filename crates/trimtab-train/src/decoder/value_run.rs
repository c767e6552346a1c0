//! From responses to a prefix scorer with weights of its own: split, moments, objective and the one loop together.

use std::ops::ControlFlow;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use trimtab_base::Seed;
use trimtab_model::ModelConfig;
use trimtab_model::load::WeightSource;
use trimtab_scorer::TokenFeatures;

use super::load::DecoderOptions;
use super::model::Decoder;
use super::value_data::{TokenReader, TokenResponse, TokenSource, check_responses};
use super::value_model::{HeadInputs, OnTokens, ValueModel, prefix_states};
use crate::config::{ScorerTrainConfig, Select};
use crate::error::TrainError;
use crate::events::{Metrics, TrainEvent};
use crate::files::sha256_hex;
use crate::heads::{HeadLens, Heads, RewardScale, Standardisation, value_at};
use crate::prefix_batches::is_held_out;
use crate::prefix_metrics::{ScoredResponse, prefix_metrics};
use crate::run_dir::RunDir;
use crate::scorer::{TrainedScorer, head_objective};
use crate::trainer::{Judge, Parts, train};

/// States enough to know their mean and spread by.
const NUM_MOMENT_PREFIXES: u64 = 1 << 14;

/// The model that a scorer starts from.
#[derive(Clone, Copy)]
pub struct ValueBase<'a> {
    /// What it is.
    pub config: &'a ModelConfig,
    /// Its weights.
    pub weights: &'a dyn WeightSource,
    /// Their hash: a run goes on only from the same.
    pub sha256: &'a str,
}

/// A scorer and the decoder whose states it reads.
#[derive(Debug)]
pub struct TrainedValueModel {
    /// Heads and numbers, as those of a head on cached states.
    pub scorer: TrainedScorer,
    /// Hash of the responses and the base.
    pub data_sha256: String,
    /// The decoder; [`Decoder::trained_weights`] and [`write_model`](super::write_model) make it a model of its own.
    pub decoder: Decoder,
}

/// Trains a decoder and its heads on `responses`, or goes on with the run that was stopped in `run_dir`.
///
/// `config.optim.batch_len` counts tokens with their padding.
///
/// # Errors
/// Settings out of range or of the depth "head", responses that do not fit the model or `features`, a folder of
/// another run, a loss that is not finite, or [`TrainError::Stopped`] where `on_event` asked to stop.
pub fn train_value_model(
    config: &ScorerTrainConfig,
    base: ValueBase<'_>,
    responses: &[TokenResponse],
    features: Option<&TokenFeatures>,
    run_dir: &RunDir,
    on_event: &mut dyn FnMut(TrainEvent) -> ControlFlow<()>,
) -> Result<TrainedValueModel, TrainError> {
    config.validate()?;
    let features = features.filter(|_| config.action_head);
    check_features(config, features)?;
    check_responses(responses, base.config, features)?;
    let seed = Seed(config.seed);
    let data_sha256 = content_sha256(responses, base.sha256);
    let part = |held_out| members(responses, config.eval_fraction, seed, held_out);
    let (train_part, eval_part) = (part(false), part(true));
    check_parts(&train_part, &eval_part)?;

    let device = config.device.open()?.autodiff();
    let reader = TokenReader {
        responses,
        features,
        scale: RewardScale::of(train_part.iter().map(|&idx| responses[idx].reward)),
        device: device.clone(),
    };
    let model = value_model(config, base, features, &device)?;
    let batch_len = config.optim.batch_len;
    let batches = reader.plan(&train_part, batch_len, seed, 0);
    let standardisation = moments(&model.decoder.valid(), &reader, &batches);
    let inputs = HeadInputs::new(&standardisation, &device);
    // Nothing is written before everything has been checked.
    let mut folder = run_dir.open(config.objective.name(), config, &data_sha256, config.seed)?;
    let mut objective = OnTokens::new(head_objective(&config.objective, &model.heads), inputs.clone());
    let num_train_items = num_prefixes(responses, &train_part);
    let mut source = TokenSource::new(reader.clone(), train_part, batch_len, seed);
    let mut judge = TokenJudge {
        batches: reader.plan(&eval_part, batch_len, seed, 0),
        num_items: num_prefixes(responses, &eval_part),
        reader: reader.clone(),
        inputs,
        select: config.select,
    };
    let parts = Parts {
        objective: &mut objective,
        source: &mut source,
        judge: &mut judge,
    };
    let outcome = train(
        model,
        parts,
        (&config.optim, config.epochs),
        &mut folder,
        on_event,
    )?;
    let ValueModel { decoder, heads } = outcome.module;
    Ok(TrainedValueModel {
        scorer: TrainedScorer {
            weights: heads.to_weights(&standardisation, reader.scale, features),
            metrics: outcome.metrics,
            best_step: outcome.step,
            num_train_items,
        },
        data_sha256,
        decoder,
    })
}

fn value_model(
    config: &ScorerTrainConfig,
    base: ValueBase<'_>,
    features: Option<&TokenFeatures>,
    device: &Device,
) -> Result<ValueModel, TrainError> {
    let options = DecoderOptions {
        depth: config.decoder_depth()?,
        with_head: false,
        seed: Seed(config.seed),
    };
    let lens = HeadLens {
        hidden_len: base.config.hidden_len,
        trunk_len: config.trunk_len,
        feature_len: features.map_or(0, |features| features.len),
    };
    Ok(ValueModel {
        decoder: Decoder::load(base.config.clone(), base.weights, &options, device)?,
        heads: Heads::new(lens, Seed(config.seed), device),
    })
}

fn check_features(config: &ScorerTrainConfig, features: Option<&TokenFeatures>) -> Result<(), TrainError> {
    if config.action_head && features.is_none() {
        let problem = "an action head needs token features: give them, or set action_head = false";
        return Err(TrainError::BadData {
            problem: problem.to_owned(),
        });
    }
    Ok(())
}

fn check_parts(train_part: &[usize], eval_part: &[usize]) -> Result<(), TrainError> {
    if !train_part.is_empty() && !eval_part.is_empty() {
        return Ok(());
    }
    Err(TrainError::BadData {
        problem: format!(
            "the prompts leave {} responses to train and {} to evaluate, expected some of both: \
             more prompts or another eval_fraction",
            train_part.len(),
            eval_part.len()
        ),
    })
}

fn members(responses: &[TokenResponse], eval_fraction: f64, seed: Seed, held_out: bool) -> Vec<usize> {
    let is_member = |&idx: &usize| is_held_out(responses[idx].key, eval_fraction, seed) == held_out;
    (0..responses.len()).filter(is_member).collect()
}

fn num_prefixes(responses: &[TokenResponse], members: &[usize]) -> u64 {
    members
        .iter()
        .map(|&idx| responses[idx].num_prefixes() as u64)
        .sum()
}

/// Hash of everything the run reads.
fn content_sha256(responses: &[TokenResponse], base_sha256: &str) -> String {
    let mut bytes = base_sha256.as_bytes().to_vec();
    for response in responses {
        for ids in [&response.prompt_token_ids, &response.response_token_ids] {
            bytes.extend((ids.len() as u64).to_le_bytes());
            bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
        }
        bytes.extend(
            response
                .expected_features
                .iter()
                .flat_map(|value| value.to_le_bytes()),
        );
        bytes.extend(response.reward.to_le_bytes());
        bytes.extend(response.key.to_le_bytes());
        // Each response is folded in at once: the data may be larger than what is free beside them.
        bytes = sha256_hex(&bytes).into_bytes();
    }
    sha256_hex(&bytes)
}

/// Mean and standard deviation of the untrained decoder's states, over the first batches.
fn moments(decoder: &Decoder, reader: &TokenReader<'_>, batches: &[Vec<usize>]) -> Standardisation {
    let hidden_len = decoder.config().hidden_len;
    let (mut sum, mut square_sum) = (vec![0.0_f64; hidden_len], vec![0.0_f64; hidden_len]);
    let mut count = 0;
    for members in batches {
        let states = floats(prefix_states(decoder, &reader.read(members)));
        for row in states.chunks_exact(hidden_len) {
            for ((&value, sum), square_sum) in row.iter().zip(&mut sum).zip(&mut square_sum) {
                *sum += f64::from(value);
                *square_sum += f64::from(value).powi(2);
            }
            count += 1;
        }
        if count >= NUM_MOMENT_PREFIXES {
            break;
        }
    }
    let mean: Vec<f64> = sum.iter().map(|sum| sum / count as f64).collect();
    let std = mean.iter().zip(&square_sum).map(|(mean, square_sum)| {
        let std = (square_sum / count as f64 - mean * mean).max(0.0).sqrt();
        // A constant coordinate says nothing; dividing by its rounding error would make it shout.
        if std <= 1e-6 * mean.abs().max(1e-3) {
            1.0
        } else {
            std as f32
        }
    });
    Standardisation {
        std: std.collect(),
        mean: mean.iter().map(|&mean| mean as f32).collect(),
    }
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Looks at held-out responses.
struct TokenJudge<'a> {
    reader: TokenReader<'a>,
    batches: Vec<Vec<usize>>,
    num_items: u64,
    inputs: HeadInputs,
    select: Select,
}

impl Judge<ValueModel> for TokenJudge<'_> {
    fn num_items(&self) -> u64 {
        self.num_items
    }

    fn evaluate(&mut self, model: &ValueModel, _step: u64) -> Result<Metrics, TrainError> {
        let mut scored = Vec::new();
        for members in &self.batches {
            self.score(model, members, &mut scored);
        }
        Ok(prefix_metrics(&scored))
    }

    fn selects_by(&self) -> Option<&'static str> {
        (self.select == Select::Best).then_some("mse")
    }
}

impl TokenJudge<'_> {
    fn score(&self, model: &ValueModel, members: &[usize], out: &mut Vec<ScoredResponse>) {
        let batch = self.inputs.of(&model.decoder, &self.reader.read(members));
        let restore = |values: Tensor<1>| -> Vec<f64> {
            let normalised = floats(values).into_iter();
            normalised.map(|value| self.reader.scale.restore(value)).collect()
        };
        let states = restore(model.heads.state.forward(batch.hidden.clone()));
        let actions = model
            .heads
            .action
            .as_ref()
            .zip(batch.features)
            .map(|(action, features)| {
                let (base, direction) = action.forward(batch.hidden);
                let next = restore(value_at(base.clone(), direction.clone(), features.next));
                (next, restore(value_at(base, direction, features.expected)))
            });
        for (&idx, rows) in members.iter().zip(batch.rows) {
            let response = &self.reader.responses[idx];
            // The last row of a response speaks of no token.
            let of_tokens = |values: &Vec<f64>| values[rows.start..rows.end - 1].to_vec();
            out.push(ScoredResponse {
                key: response.key,
                reward: response.reward,
                action_values: actions
                    .as_ref()
                    .map_or_else(Vec::new, |(next, _)| of_tokens(next)),
                expected_values: actions
                    .as_ref()
                    .map_or_else(Vec::new, |(_, expected)| of_tokens(expected)),
                state_values: states[rows].to_vec(),
            });
        }
    }
}
