//! Reward models with weights of their own: a decoder is trained with one or several heads. Knows tokens, no files.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use trimtab_base::Seed;
use trimtab_model::ModelConfig;

use super::judgements::{Judgements, refuse};
use super::on_items::{ItemJudge, ItemSource, OnItems, States, Task};
use super::{LOGIT_SCALE, head_lens, loss_of};
use crate::config::{ClassifierTrainConfig, ScorerDepth};
use crate::decoder::value_model::HeadInputs;
use crate::decoder::{Decoder, DecoderOptions, TokenBatch, ValueBase};
use crate::error::TrainError;
use crate::events::{Metrics, TrainEvent};
use crate::files::sha256_hex;
use crate::heads::{Heads, Standardisation};
use crate::prefix_batches::Moments;
use crate::run_dir::RunDir;
use crate::scorer::TrainedScorer;
use crate::trainer::{Parts, train};

/// Texts enough to know the states' mean and spread by.
const NUM_MOMENT_TEXTS: usize = 1 << 10;
/// Texts at once where no tape is kept.
const READ_LEN: usize = 16;

/// A decoder with heads on its states, trained together.
#[derive(Module, Debug)]
pub struct RewardNet {
    /// Gives the states.
    pub decoder: Decoder,
    /// One a task.
    pub heads: Vec<Heads>,
}

/// What one head learns.
#[derive(Debug, Clone, Copy)]
pub struct RewardTask<'a> {
    /// Its name, before its metrics where there are several.
    pub name: &'a str,
    /// About the texts that all tasks share.
    pub judgements: &'a Judgements,
}

/// Heads and the decoder whose states they read.
#[derive(Debug)]
pub struct TrainedRewardModel {
    /// One a task, in order.
    pub heads: Vec<TrainedScorer>,
    /// Hash of the judgements, the tokens and the base.
    pub data_sha256: String,
    /// The decoder; [`Decoder::trained_weights`] and [`write_model`](crate::decoder::write_model) make it a model.
    pub decoder: Decoder,
}

/// Trains a decoder and a head for each task, or goes on with the run that was stopped in `run_dir`.
///
/// `texts`: token ids, prompt and response with the token that ends it. `config.optim.batch_len` counts tokens with their
/// padding; a batch holds items of one task, and the tasks' batches take turns in proportion to their numbers. The best
/// weights are those of the smallest mean of the tasks' held-out log-losses.
///
/// # Errors
/// Settings out of range or of the depth "head", texts that do not fit the model, a folder of another run, a loss that is
/// not finite, or [`TrainError::Stopped`] where `on_event` asked to stop.
pub fn train_reward_model(
    config: &ClassifierTrainConfig,
    base: ValueBase<'_>,
    (texts, tasks): (&[Vec<u32>], &[RewardTask<'_>]),
    run_dir: &RunDir,
    on_event: &mut dyn FnMut(TrainEvent) -> ControlFlow<()>,
) -> Result<TrainedRewardModel, TrainError> {
    config.validate()?;
    check(config, base.config, (texts, tasks))?;
    let seed = Seed(config.seed);
    let divided = tasks
        .iter()
        .map(|task| Task::new(task.name, task.judgements, config.eval_fraction, seed))
        .collect::<Result<Vec<_>, _>>()?;
    let device = config.device.open()?.autodiff();
    let net = RewardNet {
        decoder: load(config, base, &device)?,
        heads: tasks
            .iter()
            .map(|_| Heads::new(head_lens(config, base.config.hidden_len), seed, &device))
            .collect(),
    };
    let standardisation = moments(&net.decoder.valid(), texts, &divided);
    let live = LiveStates {
        texts,
        inputs: HeadInputs::new(&standardisation, &device),
        device: device.clone(),
    };
    let parts = Parts {
        objective: &mut OnItems {
            states: &live,
            loss: loss_of(config),
        },
        source: &mut ItemSource::new(&divided, &live, config.optim.batch_len, seed),
        judge: &mut ItemJudge {
            tasks: &divided,
            states: &live,
            batch_len: READ_LEN / 2,
            select: config.select,
        },
    };
    let data_sha256 = content_sha256(base.sha256, texts, tasks);
    // Nothing is written before everything has been checked.
    let mut folder = run_dir.open("classifier", config, &data_sha256, config.seed)?;
    let outcome = train(net, parts, (&config.optim, config.epochs), &mut folder, on_event)?;
    let heads = divided
        .iter()
        .zip(&outcome.module.heads)
        .map(|(task, heads)| TrainedScorer {
            weights: heads.to_weights(&standardisation, LOGIT_SCALE, None),
            metrics: metrics_of(&outcome.metrics, task.name, divided.len()),
            best_step: outcome.step,
            num_train_items: task.train.len() as u64,
        });
    Ok(TrainedRewardModel {
        heads: heads.collect(),
        data_sha256,
        decoder: outcome.module.decoder,
    })
}

fn check(
    config: &ClassifierTrainConfig,
    model: &ModelConfig,
    (texts, tasks): (&[Vec<u32>], &[RewardTask<'_>]),
) -> Result<(), TrainError> {
    if config.depth == ScorerDepth::Head {
        return Err(TrainError::BadSetting {
            field: "depth",
            got: "head".to_owned(),
            expected: "lora or full, where the decoder is trained",
        });
    }
    if tasks.is_empty() {
        return refuse("there is no task, expected at least one".to_owned());
    }
    for (idx, text) in texts.iter().enumerate() {
        let most = model.context_len;
        if text.is_empty() || text.len() > most {
            return refuse(format!(
                "text {idx} has {} tokens, expected 1 to {most}",
                text.len()
            ));
        }
        if let Some(id) = text.iter().find(|&&id| id as usize >= model.vocab_len) {
            return refuse(format!(
                "text {idx} has the token {id}, outside the vocabulary of {}",
                model.vocab_len
            ));
        }
    }
    tasks
        .iter()
        .try_for_each(|task| task.judgements.check(texts.len()))
}

fn load(config: &ClassifierTrainConfig, base: ValueBase<'_>, device: &Device) -> Result<Decoder, TrainError> {
    let options = DecoderOptions {
        depth: config.decoder_depth()?,
        with_head: false,
        seed: Seed(config.seed),
    };
    Ok(Decoder::load(
        base.config.clone(),
        base.weights,
        &options,
        device,
    )?)
}

/// A task's own metrics, by their plain names.
fn metrics_of(all: &Metrics, name: &str, num_tasks: usize) -> Metrics {
    if num_tasks == 1 {
        return all.clone();
    }
    let prefix = format!("{name}_");
    let own = all
        .iter()
        .filter_map(|(key, &value)| Some((key.strip_prefix(&prefix)?.to_owned(), value)));
    own.collect::<BTreeMap<_, _>>()
}

fn content_sha256(base_sha256: &str, texts: &[Vec<u32>], tasks: &[RewardTask<'_>]) -> String {
    let mut digest = base_sha256.to_owned();
    for text in texts {
        let mut bytes = digest.into_bytes();
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.iter().flat_map(|id| id.to_le_bytes()));
        digest = sha256_hex(&bytes);
    }
    for task in tasks {
        digest = task.judgements.content_sha256(&format!("{digest}{}", task.name));
    }
    digest
}

/// Mean and standard deviation of the untrained decoder's states, over the first texts of each task's training part.
fn moments(decoder: &Decoder, texts: &[Vec<u32>], tasks: &[Task<'_>]) -> Standardisation {
    let hidden_len = decoder.config().hidden_len;
    let mut moments = Moments::new(hidden_len);
    for task in tasks {
        let items = &task.train[..task.train.len().min(NUM_MOMENT_TEXTS / tasks.len())];
        for texts_read in task.judgements.texts_of(items).chunks(READ_LEN) {
            let states = final_states(decoder, texts, texts_read, decoder.device());
            let states: Vec<f32> = states.into_data().iter::<f32>().collect();
            for state in states.chunks_exact(hidden_len) {
                moments.add(state.iter().map(|&value| f64::from(value)));
            }
        }
    }
    moments.finish()
}

/// States after the last tokens. `[texts, hidden]`
fn final_states(decoder: &Decoder, texts: &[Vec<u32>], read: &[u32], device: &Device) -> Tensor<2> {
    let rows: Vec<&[u32]> = read.iter().map(|&text| texts[text as usize].as_slice()).collect();
    let tokens = TokenBatch::pad(&rows).expect("batches hold texts, and texts were checked");
    let places: Vec<i32> = tokens
        .lengths()
        .iter()
        .enumerate()
        .map(|(row, len)| (row * tokens.seq() + len - 1) as i32)
        .collect();
    let places: Tensor<1, Int> = Tensor::from_data(TensorData::new(places, [read.len()]), device);
    let hidden = decoder
        .forward(&tokens)
        .expect("texts were checked against the configuration");
    let [num_texts, seq, hidden_len] = hidden.dims();
    hidden.reshape([num_texts * seq, hidden_len]).select(0, places)
}

/// States under the weights as they are.
struct LiveStates<'a> {
    texts: &'a [Vec<u32>],
    inputs: HeadInputs,
    device: Device,
}

impl States<RewardNet> for LiveStates<'_> {
    fn read(&self, net: &RewardNet, texts: &[u32]) -> Tensor<2> {
        let states = final_states(&net.decoder, self.texts, texts, &self.device);
        self.inputs.standardise(states)
    }

    fn head<'m>(&self, net: &'m RewardNet, head_idx: usize) -> &'m Heads {
        &net.heads[head_idx]
    }

    fn text_len(&self, text: u32) -> usize {
        self.texts[text as usize].len()
    }

    fn is_padded(&self) -> bool {
        true
    }
}
