//! Which figures a report has: reward, win rate, and what they cost. Knows the frontier, no page.

use super::figure::{Curve, Figure, Mark};
use crate::best_of_n_curve::CurvePoint;
use crate::frontier::{Frontier, FrontierPoint};
use crate::kl::KlKind;
use crate::win_rate::best_of_n_win_rate_without_ties;

/// Estimates nearer to their bound than this, in nats, are drawn in one place with it.
const VISIBLE_KL_GAP: f64 = 0.02;

const KL_LABEL: &str = "KL from the reference (nats)";

/// Mean reward against KL, with best-of-N in closed form behind it.
pub(super) fn reward_by_kl(frontier: &Frontier) -> Figure {
    let facts = &frontier.facts;
    Figure {
        id: "reward-by-kl",
        description: format!("Mean reward {} against KL in nats, by method", facts.reward),
        x_label: KL_LABEL.to_owned(),
        y_label: format!("mean reward ({})", facts.reward_unit),
        y_limits: (f64::NEG_INFINITY, f64::INFINITY),
        curves: vec![closed_form(frontier, |point| Some(point.reward_mean))],
        marks: marks(frontier, |point, mark| Mark {
            y: point.reward_mean,
            y_interval: point.reward_ci,
            ..mark
        }),
    }
}

/// Win rate against KL, with best-of-N in closed form behind it: from the rewards, and as if nothing tied.
pub(super) fn win_rate_by_kl(frontier: &Frontier) -> Figure {
    let ideal = |point: &CurvePoint| Some(best_of_n_win_rate_without_ties(point.num_candidates));
    let ideal = Curve {
        class: "curve ideal",
        dots: Vec::new(),
        ..closed_form(frontier, ideal)
    };
    Figure {
        id: "win-rate-by-kl",
        description: "Win rate against the reference, against KL in nats, by method".to_owned(),
        x_label: KL_LABEL.to_owned(),
        y_label: "win rate against the reference".to_owned(),
        y_limits: (0.0, 1.0),
        curves: vec![ideal, closed_form(frontier, |point| point.win_rate)],
        marks: marks(frontier, |point, mark| Mark {
            y: point.win_rate,
            y_interval: point.win_rate_ci,
            ..mark
        }),
    }
}

/// Win rate against the tokens an answer costs.
pub(super) fn win_rate_by_tokens(frontier: &Frontier) -> Figure {
    let by_tokens = |point: &FrontierPoint, mark: Mark| Mark {
        x: point.tokens_per_answer,
        x_interval: point.tokens_per_answer_ci,
        x_estimate: None,
        kind: KlKind::Exact,
        y: point.win_rate,
        y_interval: point.win_rate_ci,
        ..mark
    };
    Figure {
        id: "win-rate-by-tokens",
        description: "Win rate against the reference, against tokens drawn for an answer, by method"
            .to_owned(),
        x_label: "tokens drawn for an answer".to_owned(),
        y_label: "win rate against the reference".to_owned(),
        y_limits: (0.0, 1.0),
        curves: Vec::new(),
        marks: marks(frontier, by_tokens),
    }
}

/// The curve at its KL bound, for what is known of each N, with dots at powers of two.
fn closed_form(frontier: &Frontier, y: impl Fn(&CurvePoint) -> Option<f64>) -> Curve {
    let known = frontier
        .best_of_n_curve
        .iter()
        .filter_map(|point| Some((point, y(point)?)));
    let (mut points, mut dots) = (Vec::new(), Vec::new());
    for (point, y) in known {
        points.push((point.kl_bound_nats, y));
        if point.num_candidates.is_power_of_two() {
            dots.push((point.kl_bound_nats, y));
        }
    }
    Curve {
        class: "curve",
        points,
        dots,
    }
}

/// A mark for each method at its KL, completed by `with_y`.
fn marks(frontier: &Frontier, with_y: impl Fn(&FrontierPoint, Mark) -> Mark) -> Vec<Mark> {
    let at_kl = |(series, point): (usize, &FrontierPoint)| {
        let x_estimate = point
            .kl_estimate_nats
            .filter(|estimate| point.kl_nats - estimate > VISIBLE_KL_GAP);
        let mark = Mark {
            label: point.method.clone(),
            series,
            x: point.kl_nats,
            x_interval: point.kl_ci,
            x_estimate,
            kind: point.kl_kind,
            y: 0.0,
            y_interval: None,
        };
        with_y(point, mark)
    };
    frontier.points.iter().enumerate().map(at_kl).collect()
}
