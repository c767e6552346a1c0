//! How well a reward agrees with people: accuracy, calibration and what length has to do with it. Knows numbers only.
//!
//! A reward that only likes long answers agrees with people too, because people often do. So every accuracy stands beside
//! that of "longer is better" on the same items, and is told apart by which side is longer.

use serde::Serialize;

use crate::confidence::{Bootstrap, Interval, clopper_pearson, mean_of};
use crate::resample::{groups_of, percentile_interval};

/// Bins of a reliability curve over all probabilities; those below one half stay empty for pairs.
const NUM_BINS: usize = 20;
/// Fewer items leave most bins with one or none: their calibration error says how few they are, and its resamples agree.
const MIN_ITEMS_OF_ECE_CI: usize = 30;

/// A share of right answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Accuracy {
    /// Right ones of all; ties are not right.
    pub accuracy: f64,
    /// 95%: exact where every item is a group of its own, by resampled groups where not; none for one group.
    pub accuracy_ci: Option<Interval>,
    /// Items.
    pub num_items: u64,
    /// Items of which nothing was said: equal values.
    pub num_ties: u64,
}

/// One bin of a reliability curve.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReliabilityBin {
    /// Its lower and upper end.
    pub range: [f64; 2],
    /// Items in it.
    pub num_items: u64,
    /// Mean of what was predicted.
    pub predicted: f64,
    /// Share of what came about.
    pub observed: f64,
    /// 95% of that, as in [`Accuracy::accuracy_ci`].
    pub observed_ci: Option<Interval>,
}

/// Whether probabilities mean what they say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    /// Expected calibration error: mean of `|observed - predicted|` over items, by bins. 0 is perfect; a finite sample of a
    /// perfect predictor has more.
    pub ece: f64,
    /// 95%, by resampled groups; as the error itself it is biased upwards. None for fewer than 30 items, whose resamples
    /// would agree with each other and with nothing else.
    pub ece_ci: Option<Interval>,
    /// Mean of `-log p` of what came about, in nats. `log 2` is a coin's.
    pub log_loss_nats: f64,
    /// 95%, by resampled groups.
    pub log_loss_ci: Option<Interval>,
    /// Bins that hold items.
    pub bins: Vec<ReliabilityBin>,
}

/// What length has to do with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LengthBias {
    /// "The longer one is better."
    pub longer_is_better: Accuracy,
    /// "The shorter one is better."
    pub shorter_is_better: Accuracy,
    /// Pearson's correlation of the difference of rewards with the difference of lengths, chosen less rejected; none where
    /// one of them does not vary.
    pub correlation: Option<f64>,
    /// 95%, by resampled groups.
    pub correlation_ci: Option<Interval>,
    /// Accuracy of the reward where the chosen one is longer; none for no such pair.
    pub where_chosen_is_longer: Option<Accuracy>,
    /// Accuracy of the reward where the chosen one is shorter.
    pub where_chosen_is_shorter: Option<Accuracy>,
}

/// A reward against preferences.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairAgreement {
    /// Pairs whose chosen response has the greater reward.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// Of `1 / (1 + e^-margin)`; none for rewards that are no log-odds.
    pub calibration: Option<Calibration>,
    /// Beside it.
    pub length: LengthBias,
}

/// A classifier against labels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelAgreement {
    /// Items on the right side of one half.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// Share of pairs of a positive and a negative item that the reward orders rightly, ties half; none without both.
    pub auc: Option<f64>,
    /// 95%, by resampled groups.
    pub auc_ci: Option<Interval>,
    /// Of `1 / (1 + e^-logit)`.
    pub calibration: Calibration,
    /// The same share for "longer is positive".
    pub length_auc: Option<f64>,
    /// 95%, by resampled groups.
    pub length_auc_ci: Option<Interval>,
    /// Pearson's correlation of logit and length.
    pub length_correlation: Option<f64>,
}

/// Items in groups that are alike, and how intervals are found.
struct Sample {
    groups: Vec<Vec<usize>>,
    is_grouped: bool,
    bootstrap: Bootstrap,
}

impl Sample {
    fn new(keys: &[u64], bootstrap: Bootstrap) -> Self {
        let groups = groups_of(keys);
        Self {
            is_grouped: groups.len() < keys.len(),
            groups,
            bootstrap,
        }
    }

    fn interval(&self, statistic: &mut dyn FnMut(&[usize]) -> Option<f64>) -> Option<Interval> {
        percentile_interval(&self.groups, self.bootstrap, statistic)
    }

    /// Share of items of which `is_right` holds among those of which `is_member` does, with its interval and their number.
    fn share(
        &self,
        len: usize,
        is_member: &dyn Fn(usize) -> bool,
        is_right: &dyn Fn(usize) -> bool,
    ) -> Share {
        let count = |items: &mut dyn Iterator<Item = usize>| {
            let (mut right, mut all) = (0_u64, 0_u64);
            for item in items.filter(|&item| is_member(item)) {
                all += 1;
                right += u64::from(is_right(item));
            }
            (right, all)
        };
        let (right, all) = count(&mut (0..len));
        let interval = if self.is_grouped {
            let of_groups: Vec<(u64, u64)> = self
                .groups
                .iter()
                .map(|items| count(&mut items.iter().copied()))
                .collect();
            let groups: Vec<Vec<usize>> = (0..of_groups.len()).map(|group| vec![group]).collect();
            percentile_interval(&groups, self.bootstrap, &mut |drawn| {
                let counts = drawn.iter().map(|&group| of_groups[group]);
                let (right, all) = counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
                (all > 0).then(|| right as f64 / all as f64)
            })
        } else {
            Some(clopper_pearson(right, all, self.bootstrap.level))
        };
        Share {
            value: right as f64 / all.max(1) as f64,
            interval,
            num_items: all,
        }
    }
}

struct Share {
    value: f64,
    interval: Option<Interval>,
    num_items: u64,
}

/// Compares `margins` with preferences: the reward of the chosen response less that of the rejected one. `lengths`: of
/// both, `[chosen, rejected]`. `keys`: what makes pairs alike, such as their prompt. `are_log_odds`: whether differences of
/// the reward are log-odds of a preference, so that they can be calibrated. `[pairs]` each
///
/// # Panics
/// If the lengths of the slices differ.
pub fn pair_agreement(
    margins: &[f64],
    lengths: &[[f64; 2]],
    keys: &[u64],
    are_log_odds: bool,
    bootstrap: Bootstrap,
) -> PairAgreement {
    assert!(
        margins.len() == lengths.len() && margins.len() == keys.len(),
        "expected as many lengths and keys as margins"
    );
    let sample = Sample::new(keys, bootstrap);
    let differences: Vec<f64> = lengths
        .iter()
        .map(|[chosen, rejected]| chosen - rejected)
        .collect();
    let shorter: Vec<f64> = differences.iter().map(|difference| -difference).collect();
    let every = |_: usize| true;
    let part = |sign: f64| {
        let is_member = |idx: usize| differences[idx] * sign > 0.0;
        let accuracy = accuracy(&sample, margins, &is_member);
        (accuracy.num_items > 0).then_some(accuracy)
    };
    let calibration = are_log_odds.then(|| {
        // Said of the likelier side, since which side is called the first is nobody's prediction.
        let predictions: Vec<(f64, bool)> = margins
            .iter()
            .map(|margin| (logistic(margin.abs()), *margin > 0.0))
            .collect();
        calibration(&sample, &predictions)
    });
    PairAgreement {
        accuracy: accuracy(&sample, margins, &every),
        calibration,
        length: LengthBias {
            longer_is_better: accuracy(&sample, &differences, &every),
            shorter_is_better: accuracy(&sample, &shorter, &every),
            correlation: correlation_of(margins, &differences, &mut (0..margins.len())),
            correlation_ci: sample
                .interval(&mut |items| correlation_of(margins, &differences, &mut items.iter().copied())),
            where_chosen_is_longer: part(1.0),
            where_chosen_is_shorter: part(-1.0),
        },
    }
}

/// Compares logits with labels, positive or not. `lengths`: of the texts. `keys`: what makes items alike. `[items]` each
///
/// # Panics
/// If the lengths of the slices differ.
pub fn label_agreement(
    logits: &[f64],
    are_positive: &[bool],
    lengths: &[f64],
    keys: &[u64],
    bootstrap: Bootstrap,
) -> LabelAgreement {
    assert!(
        logits.len() == lengths.len() && logits.len() == keys.len() && logits.len() == are_positive.len(),
        "expected as many labels, lengths and keys as logits"
    );
    let sample = Sample::new(keys, bootstrap);
    let signed = logits.iter().zip(are_positive);
    let margins: Vec<f64> = signed
        .map(|(&logit, &is_positive)| if is_positive { logit } else { -logit })
        .collect();
    let predictions: Vec<(f64, bool)> = logits
        .iter()
        .zip(are_positive)
        .map(|(&logit, &is_positive)| (logistic(logit), is_positive))
        .collect();
    let auc = |values: &[f64]| {
        let by_value = sorted_ranks(values);
        let whole = auc_of(&by_value, are_positive, &mut (0..values.len()));
        let interval =
            sample.interval(&mut |items| auc_of(&by_value, are_positive, &mut items.iter().copied()));
        (whole, interval)
    };
    let ((of_reward, of_reward_ci), (of_length, of_length_ci)) = (auc(logits), auc(lengths));
    LabelAgreement {
        accuracy: accuracy(&sample, &margins, &|_| true),
        auc: of_reward,
        auc_ci: of_reward_ci,
        calibration: calibration(&sample, &predictions),
        length_auc: of_length,
        length_auc_ci: of_length_ci,
        length_correlation: correlation_of(logits, lengths, &mut (0..logits.len())),
    }
}

fn accuracy(sample: &Sample, margins: &[f64], is_member: &dyn Fn(usize) -> bool) -> Accuracy {
    let share = sample.share(margins.len(), is_member, &|idx| margins[idx] > 0.0);
    let ties = |&(idx, margin): &(usize, &f64)| is_member(idx) && *margin == 0.0;
    Accuracy {
        accuracy: share.value,
        accuracy_ci: share.interval,
        num_items: share.num_items,
        num_ties: margins.iter().enumerate().filter(ties).count() as u64,
    }
}

/// `predictions`: a probability and whether it came about. `[items]`
fn calibration(sample: &Sample, predictions: &[(f64, bool)]) -> Calibration {
    let len = predictions.len();
    let bins = (0..NUM_BINS).filter_map(|bin| {
        let is_member = |idx: usize| bin_of(predictions[idx].0) == bin;
        let share = sample.share(len, &is_member, &|idx| predictions[idx].1);
        let members = predictions
            .iter()
            .filter(|(probability, _)| bin_of(*probability) == bin);
        let predicted = members.map(|(probability, _)| probability).sum::<f64>() / share.num_items as f64;
        (share.num_items > 0).then(|| ReliabilityBin {
            range: [bin, bin + 1].map(|end| end as f64 / NUM_BINS as f64),
            num_items: share.num_items,
            predicted,
            observed: share.value,
            observed_ci: share.interval,
        })
    });
    let bins: Vec<ReliabilityBin> = bins.collect();
    let losses: Vec<f64> = predictions
        .iter()
        .map(|&(probability, came)| {
            -(if came { probability } else { 1.0 - probability })
                .max(1e-300)
                .ln()
        })
        .collect();
    Calibration {
        ece: ece_of(predictions, &mut (0..len)),
        ece_ci: (len >= MIN_ITEMS_OF_ECE_CI)
            .then(|| sample.interval(&mut |items| Some(ece_of(predictions, &mut items.iter().copied()))))
            .flatten(),
        log_loss_nats: mean_of(&losses),
        log_loss_ci: sample.interval(&mut |items| {
            Some(items.iter().map(|&item| losses[item]).sum::<f64>() / items.len() as f64)
        }),
        bins,
    }
}

fn ece_of(predictions: &[(f64, bool)], items: &mut dyn Iterator<Item = usize>) -> f64 {
    let mut sums = [0.0_f64; NUM_BINS];
    let mut count = 0.0;
    for item in items {
        let (probability, came) = predictions[item];
        sums[bin_of(probability)] += f64::from(u8::from(came)) - probability;
        count += 1.0;
    }
    sums.iter().map(|sum| sum.abs()).sum::<f64>() / f64::max(count, 1.0)
}

fn bin_of(probability: f64) -> usize {
    ((probability * NUM_BINS as f64) as usize).min(NUM_BINS - 1)
}

fn logistic(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

fn correlation_of(a: &[f64], b: &[f64], items: &mut dyn Iterator<Item = usize>) -> Option<f64> {
    let items: Vec<usize> = items.collect();
    let mean = |values: &[f64]| items.iter().map(|&item| values[item]).sum::<f64>() / items.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for &item in &items {
        let (x, y) = (a[item] - mean_a, b[item] - mean_b);
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    let correlation = ab / (aa * bb).sqrt();
    correlation.is_finite().then_some(correlation)
}

/// Rank of each value, equal values alike, from 0. `[values]`
fn sorted_ranks(values: &[f64]) -> Vec<usize> {
    let mut distinct = values.to_vec();
    distinct.sort_by(f64::total_cmp);
    distinct.dedup();
    values
        .iter()
        .map(|value| distinct.partition_point(|other| other.total_cmp(value).is_lt()))
        .collect()
}

/// `P(positive above negative) + P(equal) / 2`, from ranks: one pass over counts, so that resampling it stays cheap.
fn auc_of(ranks: &[usize], are_positive: &[bool], items: &mut dyn Iterator<Item = usize>) -> Option<f64> {
    let mut counts = vec![[0.0_f64; 2]; ranks.iter().max()? + 1];
    for item in items {
        counts[ranks[item]][usize::from(are_positive[item])] += 1.0;
    }
    let (mut negatives, mut positives, mut right) = (0.0, 0.0, 0.0);
    for [negative, positive] in counts {
        right += positive * (negatives + negative / 2.0);
        negatives += negative;
        positives += positive;
    }
    (negatives > 0.0 && positives > 0.0).then(|| right / (negatives * positives))
}

#[cfg(test)]
mod tests;
