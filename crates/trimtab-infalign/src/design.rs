//! Which transform to train with for a procedure, and what it buys (InfAlign B5, B6). Searches; integrates nothing itself.
//!
//! At a KL budget every family of transforms is searched for the member with the greatest inference-time win rate: signs
//! and sizes of `exp`, powers, `identity`, `log`. The simplest that wins is recommended. For best-of-N the fixed point
//! is the optimum over all policies and says how much is left; for worst-of-N it is stationary only.

use serde::Serialize;

use crate::density::Density;
use crate::error::InfalignError;
use crate::procedure::Procedure;
use crate::transform::Transform;
use crate::win_rates::{Analysis, analyze, policy_at_kl, policy_at_kl_from};

/// Sizes of `t` and `p` that are tried before the search narrows.
const COARSE: [f64; 14] = [
    0.5, 1.0, 2.0, 3.5, 5.0, 7.0, 10.0, 14.0, 20.0, 35.0, 60.0, 120.0, 240.0, 480.0,
];
/// Narrowing steps; each leaves 0.62 of the interval.
const NUM_NARROWINGS: usize = 9;
/// A simpler transform is preferred if it loses no more than this, in win rate.
const INDIFFERENCE: f64 = 1e-4;

/// A transform over a range of KL.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DesignLine {
    /// The transform.
    pub transform: Transform,
    /// In order of KL; fewer than asked for where a KL cannot be reached.
    pub points: Vec<Analysis>,
}

/// A fixed point that is not there to compare with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MissingFixedPoint {
    /// As users write it; there may be no such transform.
    pub transform: String,
    /// Why it is not there.
    pub reason: String,
}

/// The answer of a search.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Design {
    /// The KL budget.
    pub kl_max_nats: f64,
    /// The transform to train with, at the budget.
    pub recommended: Analysis,
    /// Whether the recommended one is the first or last of its family that was tried, so that one beyond may win more.
    pub is_at_edge_of_search: bool,
    /// The identity transform at the budget: what training for the standard win rate gets.
    pub identity: Analysis,
    /// The fixed point at the budget, where the procedure has one: for best-of-N the most that any policy gets.
    pub fixed_point: Option<Analysis>,
    /// The fixed point of a procedure that has one, where it could not be solved at the budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_fixed_point: Option<MissingFixedPoint>,
    /// KL at which the recommended transform wins as often as identity does at the budget.
    pub kl_nats_for_identity_win_rate: Option<f64>,
    /// Win rate against KL: recommended, identity, log, fixed point, and the best of the other families.
    pub lines: Vec<DesignLine>,
}

/// Searches for a procedure with a formula.
///
/// # Errors
/// [`InfalignError::OutOfRange`] for a budget outside [`crate::KL_RANGE_NATS`], [`InfalignError::TableNotRead`].
pub fn design(procedure: &Procedure, kl_max_nats: f64, num_points: u32) -> Result<Design, InfalignError> {
    let fixed_point = match procedure {
        Procedure::BestOf { n } if *n > 1 => Some(Transform::BonFixedPoint { n: *n }),
        Procedure::WorstOf { n } if *n > 1 => Some(Transform::WonFixedPoint { n: *n }),
        _ => None,
    };
    // Fixed points have a greatest N; beyond, there is none to compare with.
    let known = fixed_point
        .as_ref()
        .map(|transform| transform.to_string().parse::<Transform>());
    let too_great = known.as_ref().and_then(|known| known.as_ref().err());
    let mut found = design_by(
        &|policy| analyze(policy, procedure),
        fixed_point.as_ref().filter(|_| too_great.is_none()),
        kl_max_nats,
        num_points,
    )?;
    if let Some((transform, error)) = fixed_point.zip(too_great) {
        found.missing_fixed_point = Some(MissingFixedPoint {
            transform: transform.to_string(),
            reason: error.to_string(),
        });
    }
    Ok(found)
}

/// Searches with any way to analyse a policy, e.g. by simulation; `fixed_point` is a transform to compare with.
///
/// # Errors
/// Those of `analyze`, and [`InfalignError::OutOfRange`] for a budget outside [`crate::KL_RANGE_NATS`].
pub fn design_by(
    analyze: &dyn Fn(&Density) -> Result<Analysis, InfalignError>,
    fixed_point: Option<&Transform>,
    kl_max_nats: f64,
    num_points: u32,
) -> Result<Design, InfalignError> {
    let search = Search { analyze, kl_max_nats };
    let identity = search.at_budget(&Transform::Identity)?;
    let families: [&dyn Fn(f64) -> Transform; 3] =
        [&|t| Transform::Exp { t }, &|t| Transform::Exp { t: -t }, &|p| {
            Transform::Power { p }
        }];
    let mut found = vec![identity.clone()];
    found.extend(search.at_budget(&Transform::Log).ok());
    let of_families = families.iter().filter_map(|family| search.best_of(family));
    // A family of the wrong sign comes nearest at its mildest, and says nothing.
    found.extend(of_families.filter(|point| point.win_rate > identity.win_rate));
    let best = found.iter().map(|point| point.win_rate).fold(0.0, f64::max);
    let recommended = found
        .iter()
        .find(|point| point.win_rate >= best - INDIFFERENCE)
        .unwrap_or(&identity)
        .clone();
    let at_budget = fixed_point.map(|transform| search.at_budget(transform));
    let (at_budget, missing_fixed_point) = match (at_budget, fixed_point) {
        (Some(Err(error)), Some(transform)) if error.is_out_of_reach() => {
            let missing = MissingFixedPoint {
                transform: transform.to_string(),
                reason: error.to_string(),
            };
            (None, Some(missing))
        }
        (at_budget, _) => (at_budget.transpose()?, None),
    };
    let lines = search.lines(&recommended, fixed_point, &found, num_points)?;
    Ok(Design {
        kl_max_nats,
        is_at_edge_of_search: is_at_edge(&recommended.transform),
        kl_nats_for_identity_win_rate: search.kl_for(&recommended.transform, identity.win_rate),
        recommended,
        identity,
        fixed_point: at_budget,
        missing_fixed_point,
        lines,
    })
}

struct Search<'a> {
    analyze: &'a dyn Fn(&Density) -> Result<Analysis, InfalignError>,
    kl_max_nats: f64,
}

impl Search<'_> {
    fn at_budget(&self, transform: &Transform) -> Result<Analysis, InfalignError> {
        (self.analyze)(&policy_at_kl(transform, self.kl_max_nats)?)
    }

    /// The best member of a family: the best of coarse sizes, then golden sections around it, then two digits.
    fn best_of(&self, family: &dyn Fn(f64) -> Transform) -> Option<Analysis> {
        let win_rate = |size: f64| self.at_budget(&family(size)).map_or(0.0, |point| point.win_rate);
        let coarse = COARSE.map(win_rate);
        let best = (0..COARSE.len()).max_by(|&a, &b| coarse[a].total_cmp(&coarse[b]))?;
        let golden = (5.0_f64.sqrt() - 1.0) / 2.0;
        let mut lo = COARSE[best.saturating_sub(1)].ln();
        let mut hi = COARSE[(best + 1).min(COARSE.len() - 1)].ln();
        let inner = |lo: f64, hi: f64| (hi - golden * (hi - lo), lo + golden * (hi - lo));
        let (mut left, mut right) = inner(lo, hi);
        let (mut at_left, mut at_right) = (win_rate(left.exp()), win_rate(right.exp()));
        for _ in 0..NUM_NARROWINGS {
            if at_left >= at_right {
                (hi, right, at_right) = (right, left, at_left);
                left = inner(lo, hi).0;
                at_left = win_rate(left.exp());
            } else {
                (lo, left, at_left) = (left, right, at_right);
                right = inner(lo, hi).1;
                at_right = win_rate(right.exp());
            }
        }
        let rounded = two_digits(f64::midpoint(lo, hi).exp());
        let candidates = [family(rounded), family(COARSE[best])];
        let found = candidates
            .iter()
            .filter_map(|transform| self.at_budget(transform).ok());
        found.max_by(|a, b| a.win_rate.total_cmp(&b.win_rate))
    }

    fn lines(
        &self,
        recommended: &Analysis,
        fixed_point: Option<&Transform>,
        found: &[Analysis],
        num_points: u32,
    ) -> Result<Vec<DesignLine>, InfalignError> {
        let mut transforms = vec![recommended.transform.clone()];
        let others = found.iter().map(|point| &point.transform);
        for transform in others.chain(fixed_point) {
            if !transforms.contains(transform) {
                transforms.push(transform.clone());
            }
        }
        transforms
            .iter()
            .map(|transform| self.line(transform, num_points))
            .collect()
    }

    /// Points at squares of even steps, since win rates rise like the root of the KL.
    fn line(&self, transform: &Transform, num_points: u32) -> Result<DesignLine, InfalignError> {
        let mut points = Vec::new();
        let mut neighbour: Option<Density> = None;
        for idx in 1..=num_points.max(1) {
            let share = f64::from(idx) / f64::from(num_points.max(1));
            let policy = policy_at_kl_from(transform, self.kl_max_nats * share * share, neighbour.as_ref());
            // A KL out of reach ends a line; it is no fault of the others.
            let Ok(policy) = policy else { break };
            points.push((self.analyze)(&policy)?);
            neighbour = Some(policy);
        }
        Ok(DesignLine {
            transform: transform.clone(),
            points,
        })
    }

    /// The KL at which a transform has a win rate, by halving; `None` if not within the budget.
    fn kl_for(&self, transform: &Transform, win_rate: f64) -> Option<f64> {
        let at = |kl_nats: f64| {
            let policy = policy_at_kl(transform, kl_nats).ok()?;
            Some((self.analyze)(&policy).ok()?.win_rate)
        };
        if at(self.kl_max_nats)? < win_rate {
            return None;
        }
        let (mut lo, mut hi) = (crate::KL_RANGE_NATS.0, self.kl_max_nats);
        while hi - lo > 1e-4 * self.kl_max_nats {
            let middle = f64::midpoint(lo, hi);
            if at(middle)? < win_rate {
                lo = middle;
            } else {
                hi = middle;
            }
        }
        Some(f64::midpoint(lo, hi))
    }
}

/// Whether a transform is the mildest or steepest of its family that is searched.
fn is_at_edge(transform: &Transform) -> bool {
    let size = match transform {
        Transform::Exp { t } => t.abs(),
        Transform::Power { p } => *p,
        _ => return false,
    };
    size <= COARSE[0] || size >= COARSE[COARSE.len() - 1]
}

/// A positive number with two significant digits.
fn two_digits(value: f64) -> f64 {
    format!("{value:.1e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn designed(procedure: &str, kl_max_nats: f64) -> Design {
        design(&procedure.parse().unwrap(), kl_max_nats, 4).unwrap()
    }

    #[test]
    fn one_draw_wants_the_identity() {
        let design = designed("sample", 0.5);
        assert_eq!(design.recommended.transform, Transform::Identity);
        assert_eq!(design.fixed_point, None);
        assert!((design.kl_nats_for_identity_win_rate.unwrap() - 0.5).abs() < 1e-3);
    }

    /// B7's reading: exp near 10 for best-of-4, within .006 of the optimum up to KL 1, and 5 to 7 points above identity.
    #[test]
    fn best_of_4_wants_a_positive_exponent() {
        let design = designed("bon:4", 0.5);
        let Transform::Exp { t } = design.recommended.transform else {
            panic!("{:?}", design.recommended);
        };
        assert!((7.0..16.0).contains(&t), "{t}");
        let optimum = design.fixed_point.unwrap().win_rate;
        assert!(design.recommended.win_rate <= optimum + 1e-9);
        assert!(optimum - design.recommended.win_rate < 0.006);
        assert!(design.recommended.win_rate - design.identity.win_rate > 0.05);
        let kl_nats = design.kl_nats_for_identity_win_rate.unwrap();
        assert!((0.1..0.4).contains(&kl_nats), "{kl_nats}");
        for line in &design.lines {
            assert_eq!(line.points.len(), 4, "{}", line.transform);
            assert!(
                line.points.is_sorted_by(|a, b| a.win_rate < b.win_rate),
                "{}",
                line.transform
            );
            assert!((line.points[3].kl_nats - 0.5).abs() < 1e-6);
        }
    }

    /// A threshold wants a step, which no exponent of the search is; best-of-4 wants one that is found.
    #[test]
    fn an_optimum_at_the_edge_of_the_search_is_told() {
        let design = designed("rewind:0.9", 1.0);
        let Transform::Exp { t } = design.recommended.transform else {
            panic!("{:?}", design.recommended);
        };
        assert_eq!((t, design.is_at_edge_of_search), (480.0, true));
        assert!(!designed("bon:4", 0.5).is_at_edge_of_search);
    }

    #[test]
    fn a_fixed_point_that_is_not_there_is_named() {
        let design = designed("won:2000", 0.1);
        let missing = design.missing_fixed_point.unwrap();
        assert_eq!(
            (design.fixed_point, &missing.transform[..]),
            (None, "won_fp:2000")
        );
        assert!(missing.reason.contains("1 to 1024"), "{}", missing.reason);
        assert_eq!(designed("bon:2", 0.5).missing_fixed_point, None);
    }

    #[test]
    fn worst_of_4_wants_a_negative_exponent() {
        let design = designed("won:4", 0.5);
        let Transform::Exp { t } = design.recommended.transform else {
            panic!("{:?}", design.recommended);
        };
        assert!((-14.0..-4.0).contains(&t), "{t}");
        assert!((design.fixed_point.unwrap().win_rate - design.recommended.win_rate).abs() < 0.006);
    }

    #[test]
    fn black_boxes_are_designed_for_by_their_weights() {
        let best_of_2: Procedure = "weight:g"
            .parse::<Procedure>()
            .unwrap()
            .with_table("0 0\n1 2")
            .unwrap();
        let (by_weights, by_name) = (design(&best_of_2, 0.25, 1).unwrap(), designed("bon:2", 0.25));
        assert_eq!(by_weights.recommended.transform, by_name.recommended.transform);
        assert!((by_weights.recommended.win_rate - by_name.recommended.win_rate).abs() < 1e-9);
    }

    #[test]
    fn budgets_that_cannot_be_are_refused() {
        assert!(matches!(
            design(&Procedure::Sample, 0.0, 4),
            Err(InfalignError::OutOfRange { .. })
        ));
        assert!(matches!(
            design(&Procedure::Sample, 50.0, 4),
            Err(InfalignError::OutOfRange { .. })
        ));
    }

    #[test]
    fn sizes_are_rounded_to_what_people_write() {
        assert_eq!([9.87, 0.5123, 123.0].map(two_digits), [9.9, 0.51, 120.0]);
    }
}
