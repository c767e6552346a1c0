//! The steps of training a scorer, each of which goes on where it was stopped. Knows their order, not their inside.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use trimtab_base::RewardModel;
use trimtab_data::RowRange;
use trimtab_reward::ExternalLimits;
use trimtab_runtime::{PromptStyle, token_features};
use trimtab_scorer::{FORMAT_VERSION, ScorerBase, ScorerCard, TokenFeatures, write_scorer};
use trimtab_store::SourcePolicy;
use trimtab_train::{PrefixSet, RunDir, ScorerDepth, TrainEvent, TrainedScorer, train_scorer};

use super::config::ScorerConfig;
use super::features::Source;
use super::own_model::{Own, Start};
use super::report::{TrainReport, finite};
use super::rows::{Fits, Rows};
use crate::progress::ItemProgress;
use crate::resolve::ReadyModel;
use crate::steering::{Models, NamedReward, before_models, build_reward};

/// How to run; nothing here changes the scorer.
#[derive(Debug, Clone)]
pub(crate) struct TrainOptions {
    /// Folder of the run and the scorer.
    pub(crate) out: PathBuf,
    /// Threads; all processors if `None`.
    pub(crate) threads: Option<u16>,
    /// Where the model may come from.
    pub(crate) source: SourcePolicy,
}

/// What the scorer is trained on.
struct Data {
    set: PrefixSet,
    features: Option<TokenFeatures>,
    base: ScorerBase,
    reward_unit: String,
    /// Where the scorer gets weights of its own.
    start: Option<Start>,
}

/// Trains the scorer of `config` and writes it.
///
/// # Errors
/// Data that cannot be used, a run folder of another configuration, a loss that is not finite. States that were read and
/// steps that were made are kept; the scorer's files appear when they are whole.
pub(crate) fn train(config: &ScorerConfig, options: &TrainOptions) -> Result<TrainReport> {
    let training = config.training()?;
    training.device.check()?;
    let mut data = Data::prepare(config, options)?;
    let mut progress = None;
    let on_event = &mut |event: TrainEvent| {
        show_event(&mut progress, &event);
        ControlFlow::Continue(())
    };
    let features = data.features.as_ref();
    let (trained, model) = if let Some(start) = data.start.take() {
        let Own { scorer, entry } = start.train(&training, (&data.set, features), &options.out, on_event)?;
        (scorer, Some(entry))
    } else {
        let run_dir = RunDir::new(&options.out, env!("CARGO_PKG_VERSION"));
        (
            train_scorer(&training, &data.set, features, &run_dir, on_event)?,
            None,
        )
    };
    if let Some(progress) = &progress {
        progress.finish();
    }
    let card = ScorerCard {
        model,
        ..data.card(config, &options.out, &trained)?
    };
    let card = write_scorer(&options.out, &card, &trained.weights)
        .with_context(|| format!("cannot write the scorer in {}", options.out.display()))?;
    let use_it = format!(
        "trimtab generate \"...\" --decode cd-block:k=6,m=16 --scorer {}",
        options.out.display()
    );
    Ok(TrainReport::new(&options.out, card, trained.best_step, use_it))
}

impl Data {
    /// Reads the rollouts, and their states where no earlier run has left them.
    fn prepare(config: &ScorerConfig, options: &TrainOptions) -> Result<Self> {
        if !config.rollouts.exists() {
            bail!(
                "rollouts: {} does not exist; draw some with trimtab rollout --out {0}",
                config.rollouts.display()
            );
        }
        let precision = config.run.precision()?;
        let model = ReadyModel::open(&config.run.model, options.source, precision.plan, options.threads)?;
        let style = PromptStyle::default();
        let models = Models {
            generator: &model,
            policy: options.source,
            plan: precision.plan,
            threads: options.threads,
            style: &style,
        };
        let name = config.reward_name();
        let range = RowRange {
            skip: config.skip,
            limit: config.limit,
        };
        let model_sha256 = model.sha256();
        let fits = Fits {
            reward: &name,
            model_sha256: &model_sha256,
            context_len: model.loaded.config().context_len,
        };
        let rows = Rows::scan(&config.rollouts, range, &fits)?;
        let reward = reward_of(config, &rows, &models)?;
        let training = config.training()?;
        let has_actions = training.action_head;
        let features = has_actions.then(|| token_features(&model.loaded, config.features_len));
        let source = Source {
            model: &model,
            precision: &config.run.precision,
            rows: &rows,
            reward: reward.as_ref(),
            features: features.as_ref(),
        };
        let set = source.prefix_set()?;
        let has_own = training.depth != ScorerDepth::Head;
        let start = has_own.then(|| Start::read(&model, &rows)).transpose()?;
        let reward_unit = reward.unit().to_owned();
        let (hidden_len, vocab_len) = (model.loaded.config().hidden_len, model.loaded.config().vocab_len);
        Ok(Self {
            set,
            features,
            base: ScorerBase {
                name: model.stored.name.clone(),
                sha256: model_sha256,
                hidden_len,
                vocab_len,
                precision: config.run.precision.clone(),
            },
            reward_unit,
            start,
        })
    }

    fn card(&self, config: &ScorerConfig, out: &Path, trained: &TrainedScorer) -> Result<ScorerCard> {
        Ok(ScorerCard {
            format_version: FORMAT_VERSION,
            name: scorer_name(config.run.name.as_ref(), out)?,
            objective: config.training()?.objective.name().to_owned(),
            reward: config.reward_name(),
            reward_unit: self.reward_unit.clone(),
            base: self.base.clone(),
            data_sha256: self.set.content_sha256(),
            num_prefixes: self.set.num_prefixes(),
            metrics: finite(&trained.metrics),
            seed: config.run.seed,
            source_revision: env!("CARGO_PKG_VERSION").to_owned(),
            weights_sha256: String::new(),
            model: None,
            planted: None,
        })
    }
}

/// The reward of `rows`: built where they have to be scored, else by name and unit alone.
fn reward_of(config: &ScorerConfig, rows: &Rows, models: &Models<'_>) -> Result<Box<dyn RewardModel>> {
    let limits = ExternalLimits::default();
    let name = config.reward_name();
    if !rows.are_scored() {
        let spec = config
            .reward_spec()
            .with_context(|| format!("{} has no column {name}", config.rollouts.display()))?;
        crate::output::note(&format!(
            "the rollouts have no column {name}, so they are scored now"
        ));
        return build_reward(&spec, &limits, models);
    }
    let of_spec = config
        .reward_spec()
        .ok()
        .and_then(|spec| before_models(&spec, &limits).ok());
    let unit = rows
        .unit
        .clone()
        .or_else(|| of_spec.map(|reward| reward.unit().to_owned()))
        .unwrap_or_else(|| "as in its column".to_owned());
    Ok(Box::new(NamedReward {
        name,
        unit,
        problem: "is a column of the rollouts, not a reward",
    }))
}

/// What reports call a scorer in `out`.
pub(crate) fn scorer_name(given: Option<&String>, out: &Path) -> Result<String> {
    let of_folder = || out.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = given.cloned().or_else(of_folder);
    name.with_context(|| format!("{} has no last part to name a scorer by", out.display()))
}

/// Steps and the loss as they come.
pub(crate) fn show_event(progress: &mut Option<ItemProgress>, event: &TrainEvent) {
    let what = "training";
    match event {
        TrainEvent::Started {
            total_steps,
            done_steps,
            ..
        } => *progress = Some(ItemProgress::new(what, *total_steps, *done_steps)),
        TrainEvent::Step { loss, .. } => {
            if let Some(progress) = progress {
                progress.say(format!("steps, loss {loss:.4}"));
                progress.advance(what);
            }
        }
        TrainEvent::Evaluated { .. } => {}
    }
}
