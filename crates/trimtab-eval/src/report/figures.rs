//! Which figures a report has: reward, win rate, and what they cost. Knows the frontier, no page.

use super::figure::{Curve, Figure, Level, Mark, series_class};
use super::numbers;
use super::shades::{Shades, shades};
use crate::best_of_n_curve::CurvePoint;
use crate::confidence::Interval;
use crate::frontier::{Frontier, FrontierPoint, NamedMean};
use crate::kl::KlKind;
use crate::win_rate::best_of_n_win_rate_without_ties;

/// Estimates nearer to their bound than this, in nats, are drawn in one place with it.
const VISIBLE_KL_GAP: f64 = 0.02;

const KL_LABEL: &str = "KL from the reference (nats)";
const TOKENS_LABEL: &str = "tokens drawn for an answer";
const WIN_RATE_LABEL: &str = "win rate against the reference";
const ANY: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);

/// All figures of a report, in their order on the page.
pub(super) fn figures(frontier: &Frontier) -> Vec<Figure> {
    let mut figures = vec![
        reward_by_kl(frontier),
        win_rate_by_kl(frontier),
        win_rate_by_tokens(frontier),
        reward_by_tokens(frontier),
    ];
    figures.extend(trade_offs(frontier));
    if let Some(variable) = &frontier.x_axis {
        figures.push(reward_by_variable(frontier, variable));
        figures.extend(first_commit_by_variable(frontier, variable));
    }
    figures
}

/// Mean reward against KL, with best-of-N in closed form behind it.
fn reward_by_kl(frontier: &Frontier) -> Figure {
    let facts = &frontier.facts;
    let closed_form = closed_form(frontier, |point| {
        Some((point.kl_bound_nats, point.reward_mean, point.reward_ci))
    });
    with_lines(
        Figure {
            id: "reward-by-kl".to_owned(),
            description: format!("Mean reward {} against KL in nats, by method", facts.reward),
            title: "Reward against distance.",
            caption: with_intervals(
                frontier,
                &format!("Mean reward ({}) and KL in nats", facts.reward_unit),
            ),
            level: Level::FromZero,
            x_label: KL_LABEL.to_owned(),
            y_label: format!("mean reward ({})", facts.reward_unit),
            y_limits: ANY,
            curves: vec![closed_form],
            marks: marks(frontier, at_kl_and(|point| (point.reward_mean, point.reward_ci))),
        },
        frontier,
    )
}

/// Win rate against KL, with best-of-N in closed form behind it: from the rewards, and as if nothing tied.
fn win_rate_by_kl(frontier: &Frontier) -> Figure {
    let ideal = |point: &CurvePoint| {
        let win_rate = best_of_n_win_rate_without_ties(point.num_candidates);
        Some((point.kl_bound_nats, win_rate, None))
    };
    let ideal = Curve {
        class: "curve ideal".to_owned(),
        dots: Vec::new(),
        ..closed_form(frontier, ideal)
    };
    let closed_form = closed_form(frontier, |point| {
        Some((point.kl_bound_nats, point.win_rate?, point.win_rate_ci))
    });
    with_lines(
        Figure {
            id: "win-rate-by-kl".to_owned(),
            description: "Win rate against the reference, against KL in nats, by method".to_owned(),
            title: "Win rate against distance.",
            caption: with_intervals(
                frontier,
                "Share of pairs with a reference answer that are won, ties half",
            ),
            level: Level::FromZero,
            x_label: KL_LABEL.to_owned(),
            y_label: WIN_RATE_LABEL.to_owned(),
            y_limits: (0.0, 1.0),
            curves: vec![ideal, closed_form],
            marks: marks(frontier, at_kl_and(|point| (point.win_rate, point.win_rate_ci))),
        },
        frontier,
    )
}

/// Win rate against the tokens an answer costs.
fn win_rate_by_tokens(frontier: &Frontier) -> Figure {
    let closed_form = closed_form(frontier, |point| {
        Some((point.tokens_per_answer?, point.win_rate?, point.win_rate_ci))
    });
    with_lines(
        Figure {
            id: "win-rate-by-tokens".to_owned(),
            description: "Win rate against the reference, against tokens drawn for an answer, by method"
                .to_owned(),
            title: "Win rate against cost.",
            caption: with_intervals(
                frontier,
                "Tokens drawn for one answer, those of discarded candidates included",
            ),
            level: Level::Log,
            x_label: TOKENS_LABEL.to_owned(),
            y_label: WIN_RATE_LABEL.to_owned(),
            y_limits: (0.0, 1.0),
            curves: vec![closed_form],
            marks: marks(
                frontier,
                at_tokens_and(|point| (point.win_rate, point.win_rate_ci)),
            ),
        },
        frontier,
    )
}

/// Mean reward against the tokens an answer costs.
fn reward_by_tokens(frontier: &Frontier) -> Figure {
    let facts = &frontier.facts;
    let closed_form = closed_form(frontier, |point| {
        Some((point.tokens_per_answer?, point.reward_mean, point.reward_ci))
    });
    with_lines(
        Figure {
            id: "reward-by-tokens".to_owned(),
            description: format!(
                "Mean reward {} against tokens drawn for an answer, by method",
                facts.reward
            ),
            title: "Reward against cost.",
            caption: with_intervals(
                frontier,
                &format!(
                    "Mean reward ({}) and tokens drawn for one answer",
                    facts.reward_unit
                ),
            ),
            level: Level::Log,
            x_label: TOKENS_LABEL.to_owned(),
            y_label: format!("mean reward ({})", facts.reward_unit),
            y_limits: ANY,
            curves: vec![closed_form],
            marks: marks(
                frontier,
                at_tokens_and(|point| (point.reward_mean, point.reward_ci)),
            ),
        },
        frontier,
    )
}

/// The run's reward against each of its further rewards.
fn trade_offs(frontier: &Frontier) -> Vec<Figure> {
    let facts = &frontier.facts;
    let further = frontier
        .points
        .first()
        .map_or(&[][..], |point| &point.rewards_also);
    let of_reward = |(idx, other): (usize, &NamedMean)| {
        let place = move |point: &FrontierPoint, mark: Mark| {
            let other = point.rewards_also.get(idx)?;
            Some(Mark {
                x: other.mean,
                x_interval: other.ci,
                y: point.reward_mean,
                y_interval: point.reward_ci,
                ..mark
            })
        };
        let figure = Figure {
            id: format!("trade-off-{}", idx + 1),
            description: format!(
                "Mean reward {} against mean reward {}, by method",
                facts.reward, other.name
            ),
            title: "Reward against reward.",
            caption: with_intervals(frontier, &format!("{} against {}", facts.reward, other.name)),
            level: Level::Free,
            x_label: format!("{} ({})", numbers::shortened(&other.name), other.unit),
            y_label: format!("{} ({})", numbers::shortened(&facts.reward), facts.reward_unit),
            y_limits: ANY,
            curves: Vec::new(),
            marks: marks(frontier, place),
        };
        with_lines(figure, frontier)
    };
    further.iter().enumerate().map(of_reward).collect()
}

/// Mean reward against a variable of the sweeps.
fn reward_by_variable(frontier: &Frontier, variable: &str) -> Figure {
    let y_label = format!("mean reward ({})", frontier.facts.reward_unit);
    let caption = format!("Mean reward by {variable}");
    let of = |point: &FrontierPoint| Some((point.reward_mean, point.reward_ci));
    let figure = Figure {
        id: "reward-by-variable".to_owned(),
        title: "Reward by setting.",
        ..by_variable(frontier, variable, &caption, y_label, of)
    };
    with_lines(figure, frontier)
}

/// Tokens until the first part of an answer is certain against a variable, where methods commit early.
fn first_commit_by_variable(frontier: &Frontier, variable: &str) -> Option<Figure> {
    let caption = format!("Tokens drawn until the first part of an answer is certain, by {variable}");
    let of = |point: &FrontierPoint| Some((point.first_commit_tokens?, point.first_commit_tokens_ci));
    let figure = Figure {
        id: "first-commit-by-variable".to_owned(),
        title: "Waiting for the first words.",
        y_limits: (0.0, f64::INFINITY),
        ..by_variable(
            frontier,
            variable,
            &caption,
            "tokens to the first commitment".to_owned(),
            of,
        )
    };
    (!figure.marks.is_empty()).then(|| with_lines(figure, frontier))
}

fn by_variable(
    frontier: &Frontier,
    variable: &str,
    caption: &str,
    y_label: String,
    of: impl Fn(&FrontierPoint) -> Option<(f64, Option<Interval>)>,
) -> Figure {
    let mut names: Vec<String> = Vec::new();
    for value in frontier
        .points
        .iter()
        .filter_map(|point| point.shown_as.variables.get(variable))
    {
        if !names.contains(value) {
            names.push(value.clone());
        }
    }
    let place = |point: &FrontierPoint, mark: Mark| {
        let value = point.shown_as.variables.get(variable)?;
        let (y, y_interval) = of(point)?;
        Some(Mark {
            x: names.iter().position(|name| name == value)? as f64,
            y,
            y_interval,
            ..mark
        })
    };
    let mut marks = marks(frontier, place);
    for mark in &mut marks {
        // The axis says it.
        mark.label.clear();
    }
    Figure {
        id: "by-variable".to_owned(),
        description: format!("{caption}, by method"),
        title: "",
        caption: with_intervals(frontier, caption),
        level: Level::Categories(names),
        x_label: variable.to_owned(),
        y_label,
        y_limits: ANY,
        curves: Vec::new(),
        marks,
    }
}

fn with_intervals(frontier: &Frontier, caption: &str) -> String {
    format!(
        "{caption}, with {} intervals.",
        numbers::percent(frontier.confidence_level)
    )
}

/// Best-of-N in closed form for what is known of each N, with dots at powers of two. `place` gives position, height and
/// the height's interval.
fn closed_form(
    frontier: &Frontier,
    place: impl Fn(&CurvePoint) -> Option<(f64, f64, Option<Interval>)>,
) -> Curve {
    let mut curve = Curve {
        class: "curve".to_owned(),
        ..Curve::default()
    };
    for point in &frontier.best_of_n_curve {
        let Some((x, y, interval)) = place(point) else {
            continue;
        };
        curve.points.push((x, y));
        curve.band.extend(interval.map(|interval| (x, interval)));
        if point.num_candidates.is_power_of_two() {
            curve.dots.push((x, y));
        }
    }
    curve
}

/// The figure with a line through the marks of each series.
fn with_lines(mut figure: Figure, frontier: &Frontier) -> Figure {
    let Shades { series, .. } = shades(frontier);
    for (shade, _) in series {
        let of_series = figure.marks.iter().filter(|mark| mark.series == shade);
        let points: Vec<(f64, f64)> = of_series.map(|mark| (mark.x, mark.y)).collect();
        if points.len() > 1 {
            figure.curves.push(Curve {
                class: series_class("through", shade),
                points,
                ..Curve::default()
            });
        }
    }
    figure
}

fn at_kl_and(
    y: impl Fn(&FrontierPoint) -> (f64, Option<Interval>),
) -> impl Fn(&FrontierPoint, Mark) -> Option<Mark> {
    move |point, mark| {
        let x_estimate = point.kl_estimate_nats;
        let (y, y_interval) = y(point);
        Some(Mark {
            x: point.kl_nats,
            x_interval: point.kl_ci,
            x_estimate: x_estimate.filter(|estimate| point.kl_nats - estimate > VISIBLE_KL_GAP),
            kind: point.kl_kind,
            y,
            y_interval,
            ..mark
        })
    }
}

fn at_tokens_and(
    y: impl Fn(&FrontierPoint) -> (f64, Option<Interval>),
) -> impl Fn(&FrontierPoint, Mark) -> Option<Mark> {
    move |point, mark| {
        let (y, y_interval) = y(point);
        Some(Mark {
            x: point.tokens_per_answer,
            x_interval: point.tokens_per_answer_ci,
            y,
            y_interval,
            ..mark
        })
    }
}

/// A mark for each method that `place` completes.
fn marks(frontier: &Frontier, place: impl Fn(&FrontierPoint, Mark) -> Option<Mark>) -> Vec<Mark> {
    let shades = shades(frontier);
    let of_point = |(point, shade): (&FrontierPoint, &usize)| {
        let mark = Mark {
            label: label(point),
            beside: None,
            series: *shade,
            x: 0.0,
            x_interval: None,
            x_estimate: None,
            kind: KlKind::Exact,
            y: 0.0,
            y_interval: None,
        };
        place(point, mark)
    };
    frontier
        .points
        .iter()
        .zip(&shades.of_point)
        .filter_map(of_point)
        .collect()
}

/// What a mark is called: on the line of a sweep its settings, which the legend names.
fn label(point: &FrontierPoint) -> String {
    let shown = &point.shown_as;
    if shown.series.is_some() && shown.label.is_none() && !shown.variables.is_empty() {
        shown.variables.values().cloned().collect::<Vec<_>>().join(",")
    } else {
        point.name().to_owned()
    }
}
