//! `train reward`: from judgements to rewards, classifiers on a model's state at the end of a response.
//!
//! Where the model is not changed its states are read once and training takes seconds; with weights of its own a reward
//! takes hours on a CPU. A reward so made is `head:DIR` wherever rewards are named, or `head:DIR#NAME` where several were
//! trained together.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use trimtab_base::Seed;
use trimtab_model::ModelFile;
use trimtab_runtime::{LOG_PROBABILITY, LOGIT};
use trimtab_scorer::{FORMAT_VERSION, ScorerBase, ScorerCard, write_scorer};
use trimtab_train::decoder::{ValueBase, write_model};
use trimtab_train::prefix_batches::is_held_out;
use trimtab_train::{
    ClassifierTrainConfig, FinalStates, Judgements, RewardTask, RunDir, ScorerDepth, TrainEvent,
    TrainedScorer, Verdicts, classifier_data_sha256, train_classifier, train_reward_model,
};

use super::config::{DataConfig, Output, RewardConfig};
use super::evaluate::agreement;
use super::report::{DataReport, HeadReport, HeldOutReport, RewardReport};
use super::spurious::{PhraseWorth, PlantedCounts, SpuriousConfig, phrase_worth};
use super::states::text_states;
use super::texts::{Dropped, Reads, Said, TextSet, read_judgements};
use crate::output;
use crate::resolve::ReadyModel;
use crate::train::report::finite;
use crate::train::run::{TrainOptions, scorer_name, show_event};

/// Judgements of one head.
struct HeadData<'a> {
    /// None for a reward alone.
    name: Option<&'a str>,
    train: Judgements,
    /// On which the report is made.
    test: Said,
    /// Whether those are apart from what chooses the weights.
    has_own_test: bool,
    num_eval: u64,
    dropped: Dropped,
    /// What was planted, and into how many texts.
    spurious: Option<(&'a SpuriousConfig, PlantedCounts)>,
}

/// A head after training.
struct Trained {
    scorer: TrainedScorer,
    data_sha256: String,
    /// Entry beside the cards' folders with a model of its own.
    model: Option<String>,
}

/// Trains the rewards of `config` and writes them.
///
/// # Errors
/// Judgements that cannot be used, a run folder of another configuration, a loss that is not finite. States that were read
/// and steps that were made are kept; a reward's files appear when they are whole.
pub(crate) fn train_reward(config: &RewardConfig, options: &TrainOptions) -> Result<RewardReport> {
    let training = config.training()?;
    training.device.check()?;
    let precision = config.run.precision()?;
    let model = ReadyModel::open(&config.run.model, options.source, precision.plan, options.threads)?;
    let mut texts = TextSet::default();
    let heads = config
        .heads
        .iter()
        .map(|(name, data)| head_data(name.as_deref(), data, &training, &model, &mut texts))
        .collect::<Result<Vec<_>>>()?;
    let base = ScorerBase {
        name: model.stored.name.clone(),
        sha256: model.sha256(),
        hidden_len: model.loaded.config().hidden_len,
        vocab_len: model.loaded.config().vocab_len,
        precision: config.run.precision.clone(),
    };
    let (trained, states) = if training.depth == ScorerDepth::Head {
        let states = text_states(&texts, &config.run.precision, &model)?;
        // The model's memory is free again before training begins.
        drop(model);
        (train_heads(&training, &states, &heads, &options.out)?, states)
    } else {
        let path = model.stored.path.clone();
        drop(model);
        let trained = train_together(&training, (&path, &base.sha256), (&texts, &heads), &options.out)?;
        // As it will be run: packed, from its files.
        let entry = trained.first().and_then(|trained| trained.model.as_ref());
        let own = options.out.join(entry.context("a model of its own was written")?);
        let own = ReadyModel::open(
            &own.display().to_string(),
            options.source,
            precision.plan,
            options.threads,
        )?;
        (trained, text_states(&texts, &config.run.precision, &own)?)
    };
    let heads = heads.iter().zip(trained).map(|(head, trained)| {
        let place = Place::new(config, &options.out, head.name)?;
        let phrase = head.spurious.map(|(spurious, planted)| {
            let reward = (&trained.scorer.weights, config.output);
            phrase_worth(spurious, reward, &states, (&head.test, planted))
        });
        let card = card(config, &place, (&base, head), (&trained, phrase.as_ref()));
        let card = write_scorer(&place.folder, &card, &trained.scorer.weights)
            .with_context(|| format!("cannot write the reward in {}", place.folder.display()))?;
        Ok(HeadReport {
            best_step: trained.scorer.best_step,
            reward: place.reward,
            scorer: place.folder,
            card,
            data: DataReport {
                num_train: trained.scorer.num_train_items,
                num_eval: head.num_eval,
                dropped: head.dropped.clone(),
            },
            held_out: HeldOutReport {
                chose_the_weights: !head.has_own_test,
                dropped: head.has_own_test.then(|| head.test.dropped.clone()),
                agreement: agreement(&trained.scorer.weights, &states, &head.test, true),
                phrase,
            },
        })
    });
    Ok(RewardReport {
        heads: heads.collect::<Result<_>>()?,
    })
}

fn head_data<'a>(
    name: Option<&'a str>,
    data: &'a DataConfig,
    training: &ClassifierTrainConfig,
    model: &ReadyModel,
    texts: &mut TextSet,
) -> Result<HeadData<'a>> {
    let reads = Reads::of(&model.loaded);
    let said = read_judgements(data, reads, texts)?;
    note_dropped(&said.dropped, data.file());
    let keys = &said.judgements.keys;
    let all = || 0..keys.len();
    let is_eval = |item: &usize| is_held_out(keys[*item], training.eval_fraction, Seed(training.seed));
    let (train_items, test, has_own_test) = if let Some(of_test) = data.of_test() {
        let test = read_judgements(&of_test, reads, texts).context("test")?;
        note_dropped(&test.dropped, of_test.file());
        (all().collect(), test, true)
    } else if data.test.fraction.is_some() {
        let (test, train): (Vec<usize>, Vec<usize>) = all().partition(|&item| data.test.takes(keys[item]));
        (train, said.select(&test), true)
    } else {
        let eval: Vec<usize> = all().filter(is_eval).collect();
        (all().collect::<Vec<_>>(), said.select(&eval), false)
    };
    Ok(HeadData {
        name,
        num_eval: train_items.iter().filter(|item| is_eval(item)).count() as u64,
        train: said.judgements.select(&train_items),
        test,
        has_own_test,
        spurious: data.spurious.as_ref().map(|spurious| (spurious, said.planted)),
        dropped: said.dropped,
    })
}

fn note_dropped(dropped: &Dropped, file: &Path) {
    for note in dropped.notes(file) {
        output::note(&note);
    }
}

impl Said {
    /// Some of the items, with what was left out of all. Texts with a phrase are all of the test's.
    fn select(&self, items: &[usize]) -> Self {
        Self {
            judgements: self.judgements.select(items),
            lengths: items.iter().map(|&item| self.lengths[item]).collect(),
            dropped: Dropped::default(),
            with_phrase: self.with_phrase.clone(),
            planted: self.planted,
        }
    }
}

/// Each head by itself on kept states.
fn train_heads(
    training: &ClassifierTrainConfig,
    states: &FinalStates,
    heads: &[HeadData<'_>],
    out: &Path,
) -> Result<Vec<Trained>> {
    let train = |head: &HeadData<'_>| {
        let folder = head.name.map_or_else(|| out.to_owned(), |name| out.join(name));
        let run_dir = RunDir::new(&folder, env!("CARGO_PKG_VERSION"));
        let scorer = watched(&mut |on_event| {
            Ok(train_classifier(
                training,
                (states, &head.train),
                &run_dir,
                on_event,
            )?)
        })?;
        Ok(Trained {
            scorer,
            data_sha256: classifier_data_sha256(states, &head.train),
            model: None,
        })
    };
    heads.iter().map(train).collect()
}

/// All heads with one decoder of their own, which is written beside their folders.
fn train_together(
    training: &ClassifierTrainConfig,
    (base, base_sha256): (&Path, &str),
    (texts, heads): (&TextSet, &[HeadData<'_>]),
    out: &Path,
) -> Result<Vec<Trained>> {
    let file = ModelFile::open(base).with_context(|| base.display().to_string())?;
    let weights = file.weights();
    let value_base = ValueBase {
        config: file.config(),
        weights: weights.as_ref(),
        sha256: base_sha256,
    };
    let tokens: Vec<Vec<u32>> = texts
        .tokens
        .iter()
        .map(|text| text.iter().map(|token| token.0).collect())
        .collect();
    let tasks: Vec<RewardTask<'_>> = heads
        .iter()
        .map(|head| RewardTask {
            name: head.name.unwrap_or_default(),
            judgements: &head.train,
        })
        .collect();
    let run_dir = RunDir::new(out, env!("CARGO_PKG_VERSION"));
    let trained = watched(&mut |on_event| {
        Ok(train_reward_model(
            training,
            value_base,
            (&tokens, &tasks),
            &run_dir,
            on_event,
        )?)
    })?;
    let written = write_model(&file, &trained.decoder.trained_weights(weights), out)?;
    let entry = written.file_name().context("a written model has a name")?;
    let of_head = |scorer: TrainedScorer| Trained {
        scorer,
        data_sha256: trained.data_sha256.clone(),
        model: Some(entry.to_string_lossy().into_owned()),
    };
    Ok(trained.heads.into_iter().map(of_head).collect())
}

/// Told of what a training does.
type OnEvent<'a> = dyn FnMut(TrainEvent) -> ControlFlow<()> + 'a;

/// Runs a training with progress, and says how long it took.
fn watched<T>(train: &mut dyn FnMut(&mut OnEvent<'_>) -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let mut progress = None;
    let trained = train(&mut |event| {
        show_event(&mut progress, &event);
        ControlFlow::Continue(())
    });
    if let Some(progress) = &progress {
        progress.finish();
    }
    let trained = trained?;
    output::note(&format!("trained in {:.1} s", started.elapsed().as_secs_f64()));
    Ok(trained)
}

/// Where a reward is and how it is named.
struct Place {
    folder: PathBuf,
    name: String,
    reward: String,
}

impl Place {
    fn new(config: &RewardConfig, out: &Path, head: Option<&str>) -> Result<Self> {
        Ok(match head {
            Some(head) => Self {
                folder: out.join(head),
                name: head.to_owned(),
                reward: format!("head:{}#{head}", out.display()),
            },
            None => Self {
                folder: out.to_owned(),
                name: scorer_name(config.run.name.as_ref(), out)?,
                reward: format!("head:{}", out.display()),
            },
        })
    }
}

fn card(
    config: &RewardConfig,
    place: &Place,
    (base, head): (&ScorerBase, &HeadData<'_>),
    (trained, phrase): (&Trained, Option<&PhraseWorth>),
) -> ScorerCard {
    let unit = match config.output {
        Output::Logit => LOGIT,
        Output::LogProbability => LOG_PROBABILITY,
    };
    let (reward, texts_each) = match head.train.verdicts {
        Verdicts::Labels { .. } => ("label", 1),
        Verdicts::Pairs { .. } => ("preference", 2),
    };
    let mut metrics = finite(&trained.scorer.metrics);
    metrics.extend(phrase.map(|phrase| ("planted_phrase_worth_nats".to_owned(), phrase.worth)));
    ScorerCard {
        format_version: FORMAT_VERSION,
        name: place.name.clone(),
        objective: "classifier".to_owned(),
        reward: reward.to_owned(),
        reward_unit: unit.to_owned(),
        base: base.clone(),
        data_sha256: trained.data_sha256.clone(),
        num_prefixes: texts_each * head.train.len() as u64,
        metrics,
        seed: config.run.seed,
        source_revision: env!("CARGO_PKG_VERSION").to_owned(),
        weights_sha256: String::new(),
        model: trained.model.clone(),
        planted: head.spurious.map(|(spurious, planted)| spurious.card(planted)),
    }
}
