//! From data to a policy: checks, reference, objective and the one loop together.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use trimtab_base::Seed;
use trimtab_model::ModelConfig;
use trimtab_model::load::WeightSource;

use super::config::{Advantage, PolicyObjective, PolicyTrainConfig};
use super::data::{PolicyResponse, PreferenceTokens, Skipped};
use super::given::{Given, given_units};
use super::judge::PolicyJudge;
use super::kl_goals::KlGoals;
use super::objective::{PolicyBatch, PolicyLoss};
use super::pieces::pieces;
use super::reference::fill_reference;
use super::source::{DrawResponses, GivenSource, OnPolicySource, RoundPlan, Unit};
use super::token_loss::Reads;
use crate::decoder::{Decoder, DecoderOptions, Depth};
use crate::error::TrainError;
use crate::events::{Metrics, TrainEvent};
use crate::files::sha256_hex;
use crate::run_dir::{RunDir, RunFolder};
use crate::trainer::{Checkpoint, CheckpointNames, Outcome, Parts, WeightedSource, load_params, train};

/// The model that a policy starts from and is held near to.
#[derive(Clone)]
pub struct PolicyBase {
    /// What it is.
    pub config: ModelConfig,
    /// Its weights.
    pub weights: Arc<dyn WeightSource>,
    /// Their hash: a run goes on only from the same.
    pub sha256: String,
}

/// Draws responses of a policy and rewards them.
pub trait PolicyRollouts {
    /// Responses of the policy with these weights (adapters merged). A function of the weights and `step` alone, so that
    /// a run that was stopped draws the same again. Responses of one prompt share their key.
    ///
    /// # Errors
    /// What drawing or rewarding may say.
    fn rollouts(
        &mut self,
        weights: Arc<dyn WeightSource>,
        step: u64,
    ) -> Result<Vec<PolicyResponse>, TrainError>;

    /// Responses to look at and not to learn from, after `step` steps: always those of step 0, so that what two looks show
    /// differs by the weights alone.
    ///
    /// # Errors
    /// Those of [`Self::rollouts`].
    fn look(
        &mut self,
        weights: Arc<dyn WeightSource>,
        _step: u64,
    ) -> Result<Vec<PolicyResponse>, TrainError> {
        self.rollouts(weights, 0)
    }

    /// What besides weights and step decides the responses (prompts, reward, sampler), as a text or hash: a run goes on
    /// only with the same.
    fn identity(&self) -> String {
        String::new()
    }
}

/// What a policy learns from.
pub enum PolicyData<'a> {
    /// Responses of its own, drawn as it goes: for `rl`, the only data whose optimum is the one that theory names.
    OnPolicy(&'a mut dyn PolicyRollouts),
    /// Given responses, usually of the reference.
    Responses {
        /// All of them; those of one prompt have one key.
        responses: &'a [PolicyResponse],
        /// Draws from the policy at every evaluation to measure its KL, which given responses cannot tell. Without it
        /// no KL stops the run or keeps weights.
        probe: Option<&'a mut dyn PolicyRollouts>,
    },
    /// Given preferences: for `dpo`, `ipo` and `bonbon`.
    Preferences {
        /// All of them.
        pairs: &'a [PreferenceTokens],
        /// As of responses.
        probe: Option<&'a mut dyn PolicyRollouts>,
    },
}

/// A trained policy.
pub struct TrainedPolicy {
    /// The decoder; [`Self::weights`] is what the engine runs and what files are written from.
    pub decoder: Decoder,
    /// The last of every number that a step or an evaluation gave. `kl_nats` is of one round of these weights' own
    /// responses, `kl_line_nats` by the last `kl_window_steps`, of earlier weights too.
    pub metrics: Metrics,
    /// Optimiser steps that made these weights.
    pub step: u64,
    /// Why the run ended early, if it did.
    pub stopped: Option<String>,
    /// Weights that were kept on the way, by rising KL.
    pub kept: Vec<KeptPolicy>,
    /// What of the given data was left out, and why.
    pub skipped: Skipped,
    base: PolicyBase,
}

/// Weights that were kept when the KL reached a value.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptPolicy {
    /// The value of `keep_at_kl_nats`.
    pub target_kl_nats: f64,
    /// The KL that was measured: by the last `kl_window_steps` on-policy, of an evaluation's draws else.
    pub kl_nats: f64,
    /// Optimiser steps that made them.
    pub step: u64,
    /// The checkpoint; [`load_kept`] reads it.
    pub path: PathBuf,
}

impl TrainedPolicy {
    /// The merged weights.
    pub fn weights(&self) -> Arc<dyn WeightSource> {
        Arc::new(self.decoder.trained_weights(Arc::clone(&self.base.weights)))
    }
}

/// Trains a policy, or goes on with the run that was stopped in `run_dir`.
///
/// # Errors
/// Settings out of range, data that cannot be used, a folder of another run, a loss that is not finite or a KL that
/// explodes, with the last good weights ([`TrainError::last_good`]), or [`TrainError::Stopped`] where `on_event` asked to stop.
pub fn train_policy(
    config: &PolicyTrainConfig,
    base: &PolicyBase,
    data: PolicyData<'_>,
    run_dir: &RunDir,
    on_event: &mut dyn FnMut(TrainEvent) -> ControlFlow<()>,
) -> Result<TrainedPolicy, TrainError> {
    config.validate()?;
    let mut skipped = Skipped::new();
    let (given, mut probe, identity) = sort_out(config, base, data, &mut skipped)?;
    let mut draws = probe.take().map(|rollouts| DecoderDraws {
        rollouts,
        base,
        skipped: Skipped::new(),
    });
    let (policy, reference) = load_policy(config, base)?;
    // Nothing is written before everything has been checked.
    let mut folder = run_dir.open(config.objective.name(), config, &identity, config.seed)?;
    let setting = Setting {
        config,
        reference: &reference,
        folder: &mut folder,
    };
    let outcome = match (given, draws.as_mut()) {
        (Some(given), probe) => setting.on_given(policy, given, probe, on_event),
        (None, Some(drawer)) => setting.on_policy(policy, drawer, on_event),
        (None, None) => unreachable!("data without responses draws them"),
    }?;
    for (reason, count) in draws.map(|draws| draws.skipped).unwrap_or_default() {
        *skipped.entry(reason).or_default() += count;
    }
    Ok(TrainedPolicy {
        decoder: outcome.module,
        metrics: outcome.last,
        step: outcome.step,
        stopped: outcome.stopped,
        kept: kept_policies(run_dir.path())?,
        skipped,
        base: base.clone(),
    })
}

/// Given units, who draws, and the hash of all that decides the run besides its configuration.
type Sorted<'a> = (Option<Given>, Option<&'a mut dyn PolicyRollouts>, String);

fn sort_out<'a>(
    config: &PolicyTrainConfig,
    base: &PolicyBase,
    data: PolicyData<'a>,
    skipped: &mut Skipped,
) -> Result<Sorted<'a>, TrainError> {
    let bad = |problem: &str| {
        Err(TrainError::BadData {
            problem: problem.to_owned(),
        })
    };
    let (given, draws) = match data {
        PolicyData::OnPolicy(_) if !matches!(config.objective, PolicyObjective::Rl { .. }) => {
            return bad(
                "only the objective rl learns from the policy's own responses; give responses or pairs",
            );
        }
        PolicyData::OnPolicy(_) if config.optim.accumulation != 1 => {
            return bad("on-policy steps are divided by steps_per_round: set optim.accumulation to 1");
        }
        PolicyData::OnPolicy(rollouts) => (None, Some(rollouts)),
        PolicyData::Responses { responses, probe } => {
            (Some(given_units(config, base, responses, &[], skipped)?), probe)
        }
        PolicyData::Preferences { .. } if !config.objective.wants_pairs() => {
            return bad(
                "this objective learns from responses with rewards, not from pairs; dpo, ipo and bonbon do",
            );
        }
        PolicyData::Preferences { pairs, probe } => {
            (Some(given_units(config, base, &[], pairs, skipped)?), probe)
        }
    };
    let content = given
        .as_ref()
        .map_or("on-policy", |given: &Given| given.sha256.as_str());
    let who_draws = draws.as_ref().map_or_else(String::new, |draws| draws.identity());
    let identity = sha256_hex(format!("{}\n{content}\n{who_draws}", base.sha256).as_bytes());
    Ok((given, draws, identity))
}

/// The policy, and its reference off the tape.
fn load_policy(config: &PolicyTrainConfig, base: &PolicyBase) -> Result<(Decoder, Decoder), TrainError> {
    let device = config.device.open()?.autodiff();
    let load = |depth| {
        let options = DecoderOptions {
            depth,
            with_head: true,
            seed: Seed(config.seed),
        };
        Decoder::load(base.config.clone(), base.weights.as_ref(), &options, &device)
    };
    let policy = load(config.decoder_depth()?)?;
    let reference = match config.decoder_depth()? {
        Depth::Lora(_) => policy.without_adapters(),
        Depth::Full | Depth::Frozen => load(Depth::Frozen)?,
    };
    Ok((policy, reference.valid()))
}

/// What every run is made of.
struct Setting<'a> {
    config: &'a PolicyTrainConfig,
    reference: &'a Decoder,
    folder: &'a mut RunFolder,
}

impl Setting<'_> {
    /// Goals that look at so many measurements.
    fn goals(&self, window: usize) -> KlGoals {
        let config = self.config;
        let (stop, limit) = (config.kl_stop_nats, config.kl_limit_nats);
        KlGoals::new(&config.keep_at_kl_nats, stop, limit, window)
    }

    fn loss(&self, goals: Option<KlGoals>) -> PolicyLoss<Decoder> {
        let loss = self.config.objective.token_loss();
        PolicyLoss::new(loss, self.reference.clone(), self.config.logit_rows, goals)
    }

    fn on_given(
        self,
        policy: Decoder,
        mut given: Given,
        probe: Option<&mut DecoderDraws<'_>>,
        on_event: &mut dyn FnMut(TrainEvent) -> ControlFlow<()>,
    ) -> Result<Outcome<Decoder>, TrainError> {
        let config = self.config;
        self.fill_reference(&mut given, probe.is_some())?;
        let held_out = (!given.held_out.is_empty())
            .then(|| (pieces(given.held_out, config.optim.batch_len), self.loss(None)));
        let judge = self.judge(held_out, probe);
        let (per_step, piece) = (config.responses_per_step, config.optim.batch_len);
        let mut source = GivenSource::new(given.train, per_step, piece, Seed(config.seed));
        self.run(policy, None, &mut source, judge, on_event)
    }

    /// Computes the reference's log-probs of what is looked at more than once. In a single pass over the training data that
    /// is less work as it goes, and reports the KL at the data; on held-out data only draws tell the KL then.
    fn fill_reference(&self, given: &mut Given, has_probe: bool) -> Result<(), TrainError> {
        let config = self.config;
        if self.config.objective.token_loss().reads() != Reads::LogProbs {
            return Ok(());
        }
        let train = given.train.iter_mut().filter(|_| config.epochs > 1);
        let held_out = given.held_out.iter_mut().filter(|_| has_probe);
        let mut units: Vec<&mut Unit> = train.chain(held_out).collect();
        let path = self.folder.path().join("reference_log_probs.f64");
        let sizes = (config.logit_rows, config.optim.batch_len);
        fill_reference(&mut units, self.reference, sizes, &path)
    }

    fn on_policy(
        self,
        policy: Decoder,
        drawer: &mut DecoderDraws<'_>,
        on_event: &mut dyn FnMut(TrainEvent) -> ControlFlow<()>,
    ) -> Result<Outcome<Decoder>, TrainError> {
        let config = self.config;
        let plan = RoundPlan {
            steps: config.steps_per_round,
            passes: config.passes_per_round,
            advantage: config.objective.advantage(),
            piece_tokens: config.optim.batch_len,
            seed: Seed(config.seed),
            folder: self.folder.path().join("rounds"),
        };
        let mut source = OnPolicySource::new(drawer, plan);
        let (goals, judge) = (self.goals(config.kl_window_steps), self.judge(None, None));
        self.run(policy, Some(goals), &mut source, judge, on_event)
    }

    fn judge<'a>(
        &self,
        held_out: Option<(PolicyBatch, PolicyLoss<Decoder>)>,
        probe: Option<&'a mut DecoderDraws<'_>>,
    ) -> PolicyJudge<'a, Decoder> {
        PolicyJudge {
            held_out,
            probe: probe.map(|probe| probe as &mut dyn DrawResponses<Decoder>),
            reference: self.reference.clone(),
            // The same draws in every evaluation, some steps apart: each says its own KL.
            goals: self.goals(1),
            rows: self.config.logit_rows,
            piece_tokens: self.config.optim.batch_len,
        }
    }

    fn run(
        self,
        policy: Decoder,
        goals: Option<KlGoals>,
        source: &mut dyn WeightedSource<Decoder, Batch = PolicyBatch>,
        mut judge: PolicyJudge<'_, Decoder>,
        on_event: &mut dyn FnMut(TrainEvent) -> ControlFlow<()>,
    ) -> Result<Outcome<Decoder>, TrainError> {
        let parts = Parts {
            objective: &mut self.loss(goals),
            source,
            judge: &mut judge,
        };
        let steps = (&self.config.optim, self.config.epochs);
        train(policy, parts, steps, self.folder, on_event)
    }
}

/// Draws with a decoder's merged weights, and leaves out what cannot be learned from.
struct DecoderDraws<'a> {
    rollouts: &'a mut dyn PolicyRollouts,
    base: &'a PolicyBase,
    skipped: Skipped,
}

impl DrawResponses<Decoder> for DecoderDraws<'_> {
    fn draw(&mut self, policy: &Decoder, step: u64) -> Result<Vec<PolicyResponse>, TrainError> {
        let weights = policy.trained_weights(Arc::clone(&self.base.weights));
        let responses = self.rollouts.rollouts(Arc::new(weights), step)?;
        super::given::usable(responses, &self.base.config, &mut self.skipped)
    }

    fn look(&mut self, policy: &Decoder, step: u64) -> Result<Vec<PolicyResponse>, TrainError> {
        let weights = policy.trained_weights(Arc::clone(&self.base.weights));
        let responses = self.rollouts.look(Arc::new(weights), step)?;
        super::given::usable(responses, &self.base.config, &mut self.skipped)
    }
}

impl PolicyObjective {
    fn advantage(&self) -> Advantage {
        match self {
            Self::Rl { advantage, .. } => *advantage,
            _ => Advantage::None,
        }
    }
}

/// The merged weights that a run kept.
///
/// # Errors
/// A checkpoint that is damaged or of another configuration.
pub fn load_kept(
    config: &PolicyTrainConfig,
    base: &PolicyBase,
    path: &Path,
) -> Result<Arc<dyn WeightSource>, TrainError> {
    let (policy, _) = load_policy(config, base)?;
    let policy = load_params(policy, &Checkpoint::read(path)?.weights)
        .map_err(|problem| TrainError::bad_file(path, problem))?;
    Ok(Arc::new(policy.trained_weights(Arc::clone(&base.weights))))
}

/// The weights that the run in this folder has kept, by rising KL.
///
/// # Errors
/// A checkpoint that is damaged.
pub fn kept_policies(run_dir: &Path) -> Result<Vec<KeptPolicy>, TrainError> {
    let names = CheckpointNames::in_folder(run_dir);
    let mut kept = Vec::new();
    for name in names.kept_names()? {
        let path = names.kept(&name);
        let checkpoint = Checkpoint::read(&path)?;
        let target = name.strip_prefix("kl-").and_then(|number| number.parse().ok());
        let Some(target_kl_nats) = target else {
            return Err(TrainError::bad_file(&path, "not named after a KL"));
        };
        kept.push(KeptPolicy {
            target_kl_nats,
            kl_nats: measured_kl(&checkpoint.metrics).unwrap_or(f64::NAN),
            step: checkpoint.step,
            path,
        });
    }
    kept.sort_by(|a, b| a.target_kl_nats.total_cmp(&b.target_kl_nats));
    Ok(kept)
}

/// The KL among the numbers of a policy, in nats per response: by some steps where there are several.
pub fn measured_kl(metrics: &Metrics) -> Option<f64> {
    metrics
        .get("kl_line_nats")
        .or_else(|| metrics.get("kl_nats"))
        .copied()
        .filter(|kl| kl.is_finite())
}
