//! From a prefix set to a prefix scorer: the split, the objective and the one loop put together.

use std::ops::ControlFlow;

use trimtab_base::Seed;
use trimtab_scorer::{ScorerWeights, TokenFeatures};

use crate::config::{ScorerDepth, ScorerObjective, ScorerTrainConfig, Select};
use crate::error::TrainError;
use crate::events::{Metrics, TrainEvent};
use crate::heads::{HeadLens, Heads, value_at};
use crate::objectives::cd_fudge::CdFudge;
use crate::objectives::cd_q::CdQ;
use crate::prefix_batches::{BatchReader, PrefixBatch, PrefixSource, ResponseRef, Split};
use crate::prefix_metrics::{ScoredResponse, prefix_metrics};
use crate::prefix_set::PrefixSet;
use crate::run_dir::RunDir;
use crate::trainer::{Judge, Objective, Parts, train};

/// A trained scorer: the weights that the run keeps.
#[derive(Debug, Clone)]
pub struct TrainedScorer {
    /// State head, and action head with token features where asked for.
    pub weights: ScorerWeights,
    /// Numbers of the evaluation part at [`Self::best_step`].
    pub metrics: Metrics,
    /// The step whose weights these are.
    pub best_step: u64,
    /// Items (prefixes, labels or pairs) in the training part.
    pub num_train_items: u64,
}

/// Trains a prefix scorer on cached states, or goes on with the run that was stopped in `run_dir`.
///
/// # Errors
/// Settings out of range, a set that does not fit `features`, a folder of another run, a loss that is not finite, or
/// [`TrainError::Stopped`] where `on_event` asked to stop.
pub fn train_scorer(
    config: &ScorerTrainConfig,
    set: &PrefixSet,
    features: Option<&TokenFeatures>,
    run_dir: &RunDir,
    on_event: &mut dyn FnMut(TrainEvent) -> ControlFlow<()>,
) -> Result<TrainedScorer, TrainError> {
    config.validate()?;
    if config.depth != ScorerDepth::Head {
        return Err(TrainError::BadSetting {
            field: "depth",
            got: format!("{:?}", config.depth).to_lowercase(),
            expected: "head: cached states have no weights under them",
        });
    }
    let features = used_features(config, set, features)?;
    set.limit_memory(config.max_memory_bytes);
    let seed = Seed(config.seed);
    let kind = config.objective.name();
    let mut folder = run_dir.open(kind, config, &set.content_sha256(), config.seed)?;
    let split = Split::new(set, config.eval_fraction, seed)?;
    let device = config.device.open()?;
    let lens = HeadLens {
        hidden_len: set.header().hidden_len,
        trunk_len: config.trunk_len,
        feature_len: features.map_or(0, |features| features.len),
    };
    let heads = Heads::new(lens, seed, &device.clone().autodiff());
    let reader = || BatchReader {
        set,
        features,
        standardisation: split.standardisation.clone(),
        scale: split.scale,
        device: device.clone(),
    };
    let mut objective = head_objective(&config.objective, &heads);
    let mut source = PrefixSource::new(reader(), split.train.clone(), config.optim.batch_len, seed);
    let mut judge = PrefixJudge {
        reader: reader(),
        responses: split.eval.clone(),
        batch_len: config.optim.batch_len,
        select: config.select,
    };
    let parts = Parts {
        objective: &mut *objective,
        source: &mut source,
        judge: &mut judge,
    };
    let outcome = train(
        heads,
        parts,
        (&config.optim, config.epochs),
        &mut folder,
        on_event,
    )?;
    Ok(TrainedScorer {
        weights: outcome
            .module
            .to_weights(&split.standardisation, split.scale, features),
        metrics: outcome.metrics,
        best_step: outcome.step,
        num_train_items: split
            .train
            .iter()
            .map(|response| response.num_prefixes as u64)
            .sum(),
    })
}

pub(crate) fn head_objective(
    objective: &ScorerObjective,
    heads: &Heads,
) -> Box<dyn Objective<Heads, Batch = PrefixBatch>> {
    match objective {
        ScorerObjective::CdFudge {} => Box::new(CdFudge),
        ScorerObjective::CdQ {
            lambda,
            num_steps,
            target_network,
        } => Box::new(CdQ::new(*lambda, *num_steps, *target_network, heads)),
    }
}

/// The token features the run reads, held against configuration and set.
fn used_features<'a>(
    config: &ScorerTrainConfig,
    set: &PrefixSet,
    features: Option<&'a TokenFeatures>,
) -> Result<Option<&'a TokenFeatures>, TrainError> {
    let refuse = |problem: String| Err(TrainError::BadData { problem });
    if !config.action_head {
        return match config.objective {
            ScorerObjective::CdFudge {} => Ok(None),
            // The target is an expectation of action values; without that head there is none.
            ScorerObjective::CdQ { .. } => Err(TrainError::BadSetting {
                field: "action_head",
                got: "false".to_owned(),
                expected: "true for the objective cd-q, whose targets it makes",
            }),
        };
    }
    let header = set.header();
    let Some(features) = features else {
        return refuse(
            "an action head needs token features: give them, or set action_head = false".to_owned(),
        );
    };
    if (features.len, features.vocab_len) != (header.feature_len, header.vocab_len) {
        return refuse(format!(
            "the token features are [{}, {}], the prefix set was made with [{}, {}]: extract the prefixes again",
            features.vocab_len, features.len, header.vocab_len, header.feature_len
        ));
    }
    Ok(Some(features))
}

/// Looks at held-out responses.
struct PrefixJudge<'a> {
    reader: BatchReader<'a>,
    responses: Vec<ResponseRef>,
    batch_len: usize,
    select: Select,
}

impl Judge<Heads> for PrefixJudge<'_> {
    fn num_items(&self) -> u64 {
        self.responses
            .iter()
            .map(|response| response.num_prefixes as u64)
            .sum()
    }

    fn evaluate(&mut self, heads: &Heads, _step: u64) -> Result<Metrics, TrainError> {
        let mut scored = Vec::with_capacity(self.responses.len());
        let mut first = 0;
        while first < self.responses.len() {
            let mut prefixes = 0;
            let fits = |response: &&ResponseRef| {
                prefixes += response.num_prefixes;
                prefixes <= self.batch_len
            };
            let count = self.responses[first..].iter().take_while(fits).count().max(1);
            let part = &self.responses[first..first + count];
            let batch = self.reader.read(part)?;
            self.score(heads, part, &batch, &mut scored);
            first += count;
        }
        Ok(prefix_metrics(&scored))
    }

    fn selects_by(&self) -> Option<&'static str> {
        (self.select == Select::Best).then_some("mse")
    }
}

impl PrefixJudge<'_> {
    fn score(&self, heads: &Heads, part: &[ResponseRef], batch: &PrefixBatch, out: &mut Vec<ScoredResponse>) {
        let restore = |values: burn::tensor::Tensor<1>| -> Vec<f64> {
            let values: Vec<f32> = values.into_data().try_to_vec().expect("values are f32");
            values
                .into_iter()
                .map(|value| self.reader.scale.restore(value))
                .collect()
        };
        let state_values = restore(heads.state.forward(batch.hidden.clone()));
        let action = heads
            .action
            .as_ref()
            .zip(batch.features.as_ref())
            .map(|(action, features)| {
                let (base, direction) = action.forward(batch.hidden.clone());
                let expected = value_at(base.clone(), direction.clone(), features.expected.clone());
                (
                    restore(value_at(base, direction, features.next.clone())),
                    restore(expected),
                )
            });
        for (response, rows) in part.iter().zip(&batch.rows) {
            let (next, expected) = action.as_ref().map_or((&[][..], &[][..]), |(next, expected)| {
                let rows = rows.start..rows.end - 1;
                (&next[rows.clone()], &expected[rows])
            });
            out.push(ScoredResponse {
                key: response.key,
                reward: response.reward,
                state_values: state_values[rows.clone()].to_vec(),
                action_values: next.to_vec(),
                expected_values: expected.to_vec(),
            });
        }
    }
}
