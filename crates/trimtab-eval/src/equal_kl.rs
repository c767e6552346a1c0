//! Win rates of methods at equal KL. Knows curves of win rate against KL, no policies.
//!
//! Weights that a run keeps on its way are each somewhere, and those of another method somewhere else: what a transform
//! buys shows at one KL only. Between the points of a run, the reference at (0, 1/2) first, its curve is taken to be
//! straight; runs that differ by their seed alone give a mean and Student's interval. Runs of two methods from one seed
//! began alike, so that their differences, a pair for each seed, hold less noise than the two means do.

use crate::confidence::{Interval, mean_of, student_half_width};

/// The weights that one training kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Of the training, where it is known; runs of one method have seeds of their own.
    pub seed: Option<u64>,
    /// `(kl_nats, win_rate)` of the weights, in any order.
    pub points: Vec<(f64, f64)>,
}

/// A method at one KL.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AtKl {
    /// From the reference, in nats.
    pub kl_nats: f64,
    /// Mean over runs.
    pub win_rate: f64,
    /// Student's interval of that mean; `None` for one run.
    pub ci: Option<Interval>,
    /// Runs that it is the mean of.
    pub num_runs: usize,
}

/// A method less another one at one KL, paired by seed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DifferenceAtKl {
    /// From the reference, in nats.
    pub kl_nats: f64,
    /// Mean over seeds of the difference of win rates.
    pub difference: f64,
    /// Student's interval of that mean.
    pub ci: Interval,
    /// Seeds that it is the mean of, at least two.
    pub num_seeds: usize,
}

/// The mean of `runs` of one method at `kl_nats`; `None` where one of them did not go so far, or where there is none.
///
/// `confidence_level` in `(0, 1)`. The interval says how runs differ, not prompts, which runs share.
pub fn at_equal_kl(runs: &[Run], kl_nats: f64, confidence_level: f64) -> Option<AtKl> {
    let win_rates: Vec<f64> = runs
        .iter()
        .map(|run| run.win_rate_at(kl_nats))
        .collect::<Option<_>>()?;
    if win_rates.is_empty() {
        return None;
    }
    let win_rate = mean_of(&win_rates);
    let ci = student_half_width(&win_rates, confidence_level).map(|half| Interval {
        lo: (win_rate - half).max(0.0),
        hi: (win_rate + half).min(1.0),
    });
    Some(AtKl {
        kl_nats,
        win_rate,
        ci,
        num_runs: runs.len(),
    })
}

/// The mean of `runs` less `others` at `kl_nats` over the seeds of which both have a run that goes so far; `None` for
/// fewer than two of them.
///
/// `confidence_level` in `(0, 1)`. Runs without a seed are in no pair.
pub fn difference_at_equal_kl(
    runs: &[Run],
    others: &[Run],
    kl_nats: f64,
    confidence_level: f64,
) -> Option<DifferenceAtKl> {
    let gap = |run: &Run| {
        let seed = run.seed?;
        let other = others.iter().find(|other| other.seed == Some(seed))?;
        Some(run.win_rate_at(kl_nats)? - other.win_rate_at(kl_nats)?)
    };
    let gaps: Vec<f64> = runs.iter().filter_map(gap).collect();
    let half = student_half_width(&gaps, confidence_level)?;
    let difference = mean_of(&gaps);
    Some(DifferenceAtKl {
        kl_nats,
        difference,
        ci: Interval {
            lo: (difference - half).max(-1.0),
            hi: (difference + half).min(1.0),
        },
        num_seeds: gaps.len(),
    })
}

impl Run {
    /// On the straight line between the points on both sides; `None` beyond the last one.
    fn win_rate_at(&self, kl_nats: f64) -> Option<f64> {
        let mut points = self.points.clone();
        points.push((0.0, 0.5));
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let next = points.partition_point(|point| point.0 < kl_nats);
        let &(to, win_to) = points.get(next)?;
        if next == 0 || to <= kl_nats {
            return Some(win_to);
        }
        let (from, win_from) = points[next - 1];
        Some(win_from + (win_to - win_from) * (kl_nats - from) / (to - from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: impl Into<Option<u64>>, points: &[(f64, f64)]) -> Run {
        Run {
            seed: seed.into(),
            points: points.to_vec(),
        }
    }

    #[test]
    fn curves_are_straight_from_the_reference_on() {
        let run = run(None, &[(2.0, 0.7), (1.0, 0.62)]);
        let check = |kl: f64, expect: Option<f64>| {
            let at = at_equal_kl(std::slice::from_ref(&run), kl, 0.95);
            match (at, expect) {
                (Some(at), Some(expect)) => {
                    assert!((at.win_rate - expect).abs() < 1e-12, "{kl}: {at:?}");
                    assert_eq!((at.ci, at.num_runs), (None, 1));
                }
                (at, expect) => assert!(at.is_none() && expect.is_none(), "{kl}: {at:?}"),
            }
        };
        check(0.0, Some(0.5));
        check(0.5, Some(0.56));
        check(1.0, Some(0.62));
        check(1.75, Some(0.68));
        check(2.0, Some(0.7));
        check(2.001, None);
        assert_eq!(at_equal_kl(&[], 0.0, 0.95), None);
    }

    #[test]
    fn runs_give_a_mean_and_students_interval_and_a_short_one_none() {
        let runs = [
            run(0, &[(2.0, 0.6)]),
            run(1, &[(1.0, 0.7)]),
            run(2, &[(4.0, 1.0), (1.0, 0.8)]),
        ];
        let at = at_equal_kl(&runs, 1.0, 0.95).unwrap();
        // 0.55, 0.7, 0.8: standard deviation 0.12583, t(2) at 97.5% is 4.302653.
        assert!((at.win_rate - 0.683_333).abs() < 1e-6);
        let ci = at.ci.unwrap();
        assert!((at.win_rate - ci.lo - 0.312_583).abs() < 1e-4, "{at:?}");
        assert_eq!(
            (ci.hi, at.num_runs),
            ((at.win_rate + (at.win_rate - ci.lo)).min(1.0), 3)
        );
        assert_eq!(at_equal_kl(&runs, 1.5, 0.95), None);
    }

    #[test]
    fn differences_are_paired_by_seed() {
        // In another order than the others', so that places pair nothing.
        let ours = [
            run(2, &[(2.0, 0.66)]),
            run(0, &[(1.0, 0.6), (3.0, 0.7)]),
            run(1, &[(2.0, 0.6)]),
        ];
        let others = [
            run(0, &[(2.0, 0.6)]),
            run(1, &[(2.0, 0.58)]),
            run(2, &[(2.0, 0.6)]),
        ];
        let at = difference_at_equal_kl(&ours, &others, 2.0, 0.95).unwrap();
        // By seed 0.05, 0.02 and 0.06, whose squares about their mean are 4/9, 49/9 and 25/9 e-4, in all 26/3 e-4.
        let (mean, sd) = (0.13 / 3.0, (26.0e-4_f64 / 3.0 / 2.0).sqrt());
        let half = 4.302_653 * sd / 3.0_f64.sqrt();
        assert!((at.difference - mean).abs() < 1e-12, "{at:?}");
        assert!((at.ci.lo - (mean - half)).abs() < 1e-6, "{at:?}");
        assert!((at.ci.hi - (mean + half)).abs() < 1e-6, "{at:?}");
        assert_eq!((at.kl_nats, at.num_seeds), (2.0, 3));
    }

    #[test]
    fn seeds_that_are_not_shared_or_do_not_go_so_far_are_in_no_pair() {
        let ours = [
            run(0, &[(2.0, 0.7)]),
            run(1, &[(2.0, 0.6)]),
            run(7, &[(2.0, 1.0)]),
            run(None, &[(2.0, 1.0)]),
        ];
        let others = [
            run(0, &[(4.0, 0.7)]),
            run(1, &[(4.0, 0.6)]),
            run(8, &[(4.0, 0.5)]),
            run(None, &[(4.0, 0.5)]),
        ];
        let at = |kl: f64| difference_at_equal_kl(&ours, &others, kl, 0.95);
        // 0.1 and 0.05 at 2 nats; t(1) at 97.5% is 12.7062, and the standard error 0.025.
        let found = at(2.0).unwrap();
        assert!((found.difference - 0.075).abs() < 1e-12, "{found:?}");
        assert!(
            (found.ci.hi - 0.075 - 12.706_205 * 0.025).abs() < 1e-6,
            "{found:?}"
        );
        assert_eq!(found.num_seeds, 2);
        assert_eq!(at(2.001), None);
        // One pair says nothing about seeds.
        assert_eq!(difference_at_equal_kl(&ours[1..], &others, 2.0, 0.95), None);
    }
}
