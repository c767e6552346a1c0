//! Win rates of methods at equal KL. Knows curves of win rate against KL, no policies.
//!
//! Weights that a run keeps on its way are each somewhere, and those of another method somewhere else: what a transform
//! buys shows at one KL only. Between the points of a run, the reference at (0, 1/2) first, its curve is taken to be
//! straight; runs that differ by their seed alone give a mean and Student's interval.

use crate::confidence::{Interval, mean_of, student_half_width};

/// A run: `(kl_nats, win_rate)` of its weights, in any order.
pub type Curve = Vec<(f64, f64)>;

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

/// The mean of `runs` of one method at `kl_nats`; `None` where one of them did not go so far, or where there is none.
///
/// `confidence_level` in `(0, 1)`. The interval says how runs differ, not prompts, which runs share.
pub fn at_equal_kl(runs: &[Curve], kl_nats: f64, confidence_level: f64) -> Option<AtKl> {
    let win_rates: Vec<f64> = runs
        .iter()
        .map(|run| between(run, kl_nats))
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

/// The straight line between the points on both sides.
fn between(run: &Curve, kl_nats: f64) -> Option<f64> {
    let mut points = run.clone();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_straight_from_the_reference_on() {
        let run = vec![(2.0, 0.7), (1.0, 0.62)];
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
        let runs = [vec![(2.0, 0.6)], vec![(1.0, 0.7)], vec![(4.0, 1.0), (1.0, 0.8)]];
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
}
