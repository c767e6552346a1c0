//! Which of several valued blocks are kept. Knows values and coins, no tokens and no branches.

use trimtab_base::SampleStream;
use trimtab_base::prob::{categorical, log_softmax_in_place};
use trimtab_base::rng::Purpose;

use super::settings::{BlockChoice, CdBlockConfig};
use crate::inputs::DecoderInputs;
use crate::steering::Floor;

/// What a choice knows of a candidate.
pub(super) struct Contender<'a> {
    /// The weighted sum of its values.
    pub(super) mixed_value: f64,
    /// The same of the branch it extends; 0 before the first choice.
    pub(super) parent_mixed_value: f64,
    /// One a term.
    pub(super) values: &'a [f64],
    /// How many equal candidates it stands for.
    pub(super) num_copies: usize,
}

impl<'a> Contender<'a> {
    /// A kept branch that is compared with others as it stands.
    pub(super) fn lasting(mixed_value: f64, values: &'a [f64]) -> Self {
        Self {
            mixed_value,
            parent_mixed_value: 0.0,
            values,
            num_copies: 1,
        }
    }
}

/// The result of a choice.
pub(super) struct Chosen {
    /// Indices of the kept candidates. By value: in order of index; at random: in order of the draws.
    pub(super) kept: Vec<usize>,
    is_kept: Vec<bool>,
    floor: Option<(usize, f64)>,
}

impl Chosen {
    fn new(kept: Vec<usize>, num_contenders: usize, floor: Option<(usize, f64)>) -> Self {
        let mut is_kept = vec![false; num_contenders];
        for &idx in &kept {
            is_kept[idx] = true;
        }
        Self { kept, is_kept, floor }
    }

    /// Whether a candidate is among the kept.
    pub(super) fn keeps(&self, idx: usize) -> bool {
        self.is_kept[idx]
    }

    /// The value by which a candidate was compared, what the floor added included.
    pub(super) fn mixed_value(&self, contender: &Contender<'_>) -> f64 {
        with_floor(contender, self.floor)
    }
}

fn with_floor(contender: &Contender<'_>, floor: Option<(usize, f64)>) -> f64 {
    let added = floor.map_or(0.0, |(term, weight)| weight * contender.values[term]);
    contender.mixed_value + added
}

/// A rule that keeps some of several candidates.
pub(super) struct Chooser {
    choice: BlockChoice,
    floor: Option<Floor>,
    /// One for each place.
    streams: Vec<SampleStream>,
    num_places: usize,
}

impl Chooser {
    pub(super) fn new(config: &CdBlockConfig, inputs: &DecoderInputs) -> Self {
        let stream = |place| SampleStream::new(inputs.seed, inputs.prompt_key, place, Purpose::Block);
        let num_streams = match config.choice {
            BlockChoice::Best => 0,
            BlockChoice::Proportional { .. } => config.beams,
        };
        Self {
            choice: config.choice,
            floor: inputs.steering.floor,
            streams: (0..num_streams as u64).map(stream).collect(),
            num_places: config.beams,
        }
    }

    /// The candidates that choice `choice_idx` keeps.
    pub(super) fn keep(&self, contenders: &[Contender<'_>], choice_idx: u64) -> Chosen {
        match self.choice {
            BlockChoice::Best => self.keep_best(contenders),
            BlockChoice::Proportional { temperature } => {
                let log_probs = resampling_log_probs(contenders, temperature);
                let draw = |stream: &SampleStream| {
                    // The candidate of greatest weight has positive probability, so there is always one.
                    categorical(&log_probs, stream.uniform(choice_idx)).unwrap_or(0)
                };
                Chosen::new(self.streams.iter().map(draw).collect(), contenders.len(), None)
            }
        }
    }

    /// The place of the answer among the branches that are left: by value the best, at random the first.
    pub(super) fn best(&self, contenders: &[Contender<'_>]) -> usize {
        match self.choice {
            // Before the first choice there are no values yet.
            BlockChoice::Best if !contenders[0].values.is_empty() => {
                best_with_floor(contenders, self.floor).0
            }
            _ => 0,
        }
    }

    fn keep_best(&self, contenders: &[Contender<'_>]) -> Chosen {
        let (best, added) = best_with_floor(contenders, self.floor);
        let floor = self.floor.map(|floor| (floor.term, added));
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        let value = |idx: usize| with_floor(&contenders[idx], floor);
        // The sort is stable, so equals stay in order of their indices. The best comes first even where it ties at the
        // floor's weight or rounding would put it behind.
        order.sort_by(|&a, &b| (b == best).cmp(&(a == best)).then(value(b).total_cmp(&value(a))));
        order.truncate(self.num_places);
        order.sort_unstable();
        Chosen::new(order, contenders.len(), floor)
    }
}

/// Log-probabilities in proportion to the incremental weights.
fn resampling_log_probs(contenders: &[Contender<'_>], temperature: f64) -> Vec<f64> {
    let increment = |contender: &Contender<'_>| contender.mixed_value - contender.parent_mixed_value;
    let most = contenders.iter().map(increment).fold(f64::NEG_INFINITY, f64::max);
    let log_weight = |contender: &Contender<'_>| {
        // Subtracted before the division, so that a low temperature cannot overflow.
        (increment(contender) - most) / temperature + (contender.num_copies as f64).ln()
    };
    let mut log_probs: Vec<f64> = contenders.iter().map(log_weight).collect();
    log_softmax_in_place(&mut log_probs);
    log_probs
}

/// The candidate of greatest mixed value, ties by lower index, and the least weight on the floor's term by which it
/// holds the floor.
///
/// As the weight grows, the greatest sum passes from candidate to candidate of ever greater value under the floor's
/// term. The walk goes from one such crossing to the next, until the floor is held or nothing has a greater value. Where
/// two tie at the crossing itself, the one with more of that value counts.
fn best_with_floor(contenders: &[Contender<'_>], floor: Option<Floor>) -> (usize, f64) {
    let mut best = 0;
    for (idx, contender) in contenders.iter().enumerate() {
        if contender.mixed_value > contenders[best].mixed_value {
            best = idx;
        }
    }
    let Some(floor) = floor else { return (best, 0.0) };
    let value = |idx: usize| contenders[idx].values[floor.term];
    let mut added = 0.0;
    while value(best) < floor.at_least {
        let crossing = |idx: usize| {
            let lost = contenders[best].mixed_value - contenders[idx].mixed_value;
            lost / (value(idx) - value(best))
        };
        let next = (0..contenders.len())
            .filter(|&idx| value(idx) > value(best))
            .min_by(|&a, &b| {
                crossing(a)
                    .total_cmp(&crossing(b))
                    .then(value(b).total_cmp(&value(a)))
            });
        let Some(next) = next else { break };
        added = crossing(next).max(added);
        best = next;
    }
    (best, added)
}

#[cfg(test)]
mod tests;
