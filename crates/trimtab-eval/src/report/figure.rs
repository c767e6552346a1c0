//! One figure as inline SVG: methods as marks with error bars, curves behind them. Knows positions and words, no run.
//!
//! Colours are the page's (classes `series-0` to `series-7`), so a figure follows the reader's light or dark mode.

use maud::{Markup, html};

use super::axis::{Axis, with_minus};
use super::labels::{Box2, place_labels};
use crate::confidence::Interval;
use crate::kl::KlKind;

/// Number of colours; methods beyond share them.
pub(super) const NUM_SERIES: usize = 8;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 52.0;
pub(super) const RIGHT: f64 = WIDTH - 12.0;
const TOP: f64 = 12.0;
pub(super) const BOTTOM: f64 = HEIGHT - 44.0;

/// One method.
pub(super) struct Mark {
    pub(super) label: String,
    /// What stands beside the mark in place of the label; nothing if it is empty.
    pub(super) beside: Option<String>,
    /// Colour of the method, the same in every figure.
    pub(super) series: usize,
    pub(super) x: f64,
    pub(super) x_interval: Option<Interval>,
    /// Where the ties-aware estimate puts it, if `x` is a bound.
    pub(super) x_estimate: Option<f64>,
    pub(super) kind: KlKind,
    pub(super) y: f64,
    pub(super) y_interval: Option<Interval>,
}

/// A line through points.
#[derive(Default)]
pub(super) struct Curve {
    /// Class of the line: `curve`, `curve ideal`, or `through series-2`.
    pub(super) class: String,
    pub(super) points: Vec<(f64, f64)>,
    /// Points with a dot on the line.
    pub(super) dots: Vec<(f64, f64)>,
    /// Interval of the line's height at some places, ascending, shown as a band behind it.
    pub(super) band: Vec<(f64, Interval)>,
}

/// What the level axis shows.
pub(super) enum Level {
    /// A quantity that is not negative, from zero.
    FromZero,
    /// Any number.
    Free,
    /// A positive quantity of which ratios matter.
    Log,
    /// A count that is doubled from point to point.
    Doublings,
    /// Names, in even distances; `x` is the place among them.
    Categories(Vec<String>),
}

/// A figure.
pub(super) struct Figure {
    /// Unique on the page; names the title for screen readers.
    pub(super) id: String,
    /// What a reader who does not see it should know.
    pub(super) description: String,
    /// First words of the caption.
    pub(super) title: &'static str,
    /// The rest of the caption.
    pub(super) caption: String,
    pub(super) level: Level,
    pub(super) x_label: String,
    pub(super) y_label: String,
    /// Ends that `y` cannot pass.
    pub(super) y_limits: (f64, f64),
    pub(super) curves: Vec<Curve>,
    pub(super) marks: Vec<Mark>,
}

impl Figure {
    /// The `svg` element.
    pub(super) fn to_svg(&self) -> Markup {
        let (x_axis, y_axis) = self.axes();
        let title_id = format!("{}-title", self.id);
        html! {
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-labelledby=(title_id) {
                title id=(title_id) { (self.description) }
                (self.frame(&x_axis, &y_axis))
                @for curve in &self.curves { (curve_line(curve, &x_axis, &y_axis)) }
                @for mark in &self.marks { (mark_shape(mark, &x_axis, &y_axis)) }
                (self.labels(&x_axis, &y_axis))
            }
        }
    }

    fn axes(&self) -> (Axis, Axis) {
        let ends = |interval: Option<Interval>| interval.into_iter().flat_map(<[f64; 2]>::from);
        let curve_points = || self.curves.iter().flat_map(|curve| &curve.points);
        let bands = self.curves.iter().flat_map(|curve| &curve.band);
        let xs = self.marks.iter().flat_map(|mark| {
            std::iter::once(mark.x)
                .chain(mark.x_estimate)
                .chain(ends(mark.x_interval))
        });
        let ys = self
            .marks
            .iter()
            .flat_map(|mark| std::iter::once(mark.y).chain(ends(mark.y_interval)));
        let xs = xs.chain(curve_points().map(|point| point.0));
        let ys = ys
            .chain(curve_points().map(|point| point.1))
            .chain(bands.flat_map(|&(_, interval)| <[f64; 2]>::from(interval)));
        let y_axis = Axis::fitting(ys, self.y_limits, (BOTTOM, TOP));
        // Marks at the left end need room for their shape.
        let page = (LEFT + 10.0, RIGHT);
        let x_axis = match &self.level {
            Level::FromZero => Axis::fitting(xs.chain([0.0]), (0.0, f64::INFINITY), page),
            Level::Free => Axis::fitting(xs, (f64::NEG_INFINITY, f64::INFINITY), page),
            Level::Log => Axis::log_fitting(xs, page),
            Level::Doublings => Axis::doublings(xs, page),
            Level::Categories(names) => {
                let all = [0.0, names.len().saturating_sub(1) as f64];
                Axis::fitting(all.into_iter(), (f64::NEG_INFINITY, f64::INFINITY), page)
            }
        };
        (x_axis, y_axis)
    }

    /// Ticks of the level axis.
    fn x_ticks(&self, x_axis: &Axis) -> Vec<(f64, String)> {
        match &self.level {
            Level::Categories(names) => names
                .iter()
                .enumerate()
                .map(|(idx, name)| (idx as f64, name.clone()))
                .collect(),
            _ => x_axis.ticks(),
        }
    }

    fn frame(&self, x_axis: &Axis, y_axis: &Axis) -> Markup {
        let (middle_x, middle_y) = (f64::midpoint(LEFT, RIGHT), f64::midpoint(TOP, BOTTOM));
        html! {
            @for (value, text) in y_axis.ticks() {
                @let y = y_axis.at(value);
                line.grid x1=(LEFT) x2=(RIGHT) y1=(at(y)) y2=(at(y)) {}
                text.tick x=(LEFT - 6.0) y=(at(y + 4.0)) text-anchor="end" { (text) }
            }
            @for (value, text) in self.x_ticks(x_axis) {
                @let x = x_axis.at(value);
                line.axis x1=(at(x)) x2=(at(x)) y1=(BOTTOM) y2=(BOTTOM + 4.0) {}
                text.tick x=(at(x)) y=(BOTTOM + 17.0) text-anchor="middle" { (text) }
            }
            line.axis x1=(LEFT) x2=(RIGHT) y1=(BOTTOM) y2=(BOTTOM) {}
            text.label x=(at(middle_x)) y=(HEIGHT - 6.0) text-anchor="middle" { (self.x_label) }
            text.label transform=(format!("translate(12 {middle_y:.2}) rotate(-90)")) text-anchor="middle" {
                (self.y_label)
            }
        }
    }

    fn labels(&self, x_axis: &Axis, y_axis: &Axis) -> Markup {
        let beside = |mark: &'_ Mark| mark.beside.clone().unwrap_or_else(|| mark.label.clone());
        let names: Vec<(&Mark, String)> = self.marks.iter().map(|mark| (mark, beside(mark))).collect();
        let names: Vec<&(&Mark, String)> = names.iter().filter(|(_, name)| !name.is_empty()).collect();
        let anchors: Vec<(f64, f64, &str)> = names
            .iter()
            .map(|(mark, name)| (x_axis.at(mark.x), y_axis.at(mark.y), name.as_str()))
            .collect();
        let bars: Vec<Box2> = self
            .marks
            .iter()
            .flat_map(|mark| bar_boxes(mark, x_axis, y_axis))
            .collect();
        let area = Box2 {
            left: LEFT,
            right: RIGHT,
            top: TOP - 8.0,
            bottom: BOTTOM,
        };
        let places = place_labels(&anchors, &bars, area);
        html! {
            @for ((mark, name), (x, y)) in names.iter().zip(places) {
                text class=(series_class("name", mark.series)) x=(at(x)) y=(at(y)) { (name) }
            }
        }
    }
}

/// Class names of a thing in a method's colour.
pub(super) fn series_class(class: &str, series: usize) -> String {
    format!("{class} series-{}", series % NUM_SERIES)
}

/// A page position with two decimals: finer than a screen, and the same text everywhere.
fn at(position: f64) -> String {
    format!("{position:.2}")
}

fn curve_line(curve: &Curve, x_axis: &Axis, y_axis: &Axis) -> Markup {
    let points: Vec<String> = curve
        .points
        .iter()
        .map(|&(x, y)| format!("{:.2},{:.2}", x_axis.at(x), y_axis.at(y)))
        .collect();
    let along = |end: fn(Interval) -> f64| move |&(x, interval): &(f64, Interval)| (x, end(interval));
    let lower = curve.band.iter().map(along(|interval| interval.lo));
    let upper = curve.band.iter().rev().map(along(|interval| interval.hi));
    let around: Vec<String> = lower
        .chain(upper)
        .map(|(x, y)| format!("{:.2},{:.2}", x_axis.at(x), y_axis.at(y)))
        .collect();
    html! {
        @if !around.is_empty() { polygon.band points=(around.join(" ")) {} }
        polyline class=(curve.class) points=(points.join(" ")) {}
        @for &(x, y) in &curve.dots { circle.dot cx=(at(x_axis.at(x))) cy=(at(y_axis.at(y))) r="2.2" {} }
    }
}

fn mark_shape(mark: &Mark, x_axis: &Axis, y_axis: &Axis) -> Markup {
    let (x, y) = (x_axis.at(mark.x), y_axis.at(mark.y));
    html! {
        g class=(series_class("mark", mark.series)) {
            title { (description(mark)) }
            @if let Some(ends) = mark.y_interval {
                @let (lo, hi) = (y_axis.at(ends.lo), y_axis.at(ends.hi));
                path.bar d=(format!("M{x:.2} {lo:.2}V{hi:.2}M{:.2} {lo:.2}h8M{:.2} {hi:.2}h8", x - 4.0, x - 4.0)) {}
            }
            @if let Some(ends) = mark.x_interval.filter(|ends| ends.hi > ends.lo) {
                @let (lo, hi) = (x_axis.at(ends.lo), x_axis.at(ends.hi));
                path.bar d=(format!("M{lo:.2} {y:.2}H{hi:.2}M{lo:.2} {:.2}v8M{hi:.2} {:.2}v8", y - 4.0, y - 4.0)) {}
            }
            @if let Some(estimate) = mark.x_estimate {
                @let estimate = x_axis.at(estimate);
                line.to-estimate x1=(at(estimate)) x2=(at(x)) y1=(at(y)) y2=(at(y)) {}
                circle.hollow cx=(at(estimate)) cy=(at(y)) r="3.5" {}
            }
            (shape(mark.kind, x, y))
        }
    }
}

/// What a mark covers besides its shape: its error bars and the way to its estimate.
fn bar_boxes(mark: &Mark, x_axis: &Axis, y_axis: &Axis) -> Vec<Box2> {
    let (x, y) = (x_axis.at(mark.x), y_axis.at(mark.y));
    let upright = mark
        .y_interval
        .map(|ends| (x, x, y_axis.at(ends.hi), y_axis.at(ends.lo)));
    let level = mark
        .x_interval
        .map(|ends| (x_axis.at(ends.lo), x_axis.at(ends.hi), y, y));
    let estimate = mark.x_estimate.map(|estimate| (x_axis.at(estimate), x, y, y));
    let lines = upright.into_iter().chain(level).chain(estimate);
    lines
        .map(|(left, right, top, bottom)| Box2 {
            left: left - 4.0,
            right: right + 4.0,
            top: top - 4.0,
            bottom: bottom + 4.0,
        })
        .collect()
}

/// A disc for an exact KL, an arrowhead towards where the true value lies for a bound, a lozenge for an estimate.
fn shape(kind: KlKind, x: f64, y: f64) -> Markup {
    match kind {
        KlKind::Exact => html! { circle cx=(at(x)) cy=(at(y)) r="4.5" {} },
        KlKind::Bound => {
            let points = format!(
                "{:.2},{y:.2} {:.2},{:.2} {:.2},{:.2}",
                x - 6.0,
                x + 4.0,
                y - 5.5,
                x + 4.0,
                y + 5.5
            );
            html! { polygon points=(points) {} }
        }
        KlKind::Estimate => {
            let (left, right, top, bottom) = (x - 5.5, x + 5.5, y - 5.5, y + 5.5);
            let points = format!("{left:.2},{y:.2} {x:.2},{top:.2} {right:.2},{y:.2} {x:.2},{bottom:.2}");
            html! { polygon points=(points) {} }
        }
    }
}

/// What a mouse resting on the mark is told.
fn description(mark: &Mark) -> String {
    let ends = mark
        .y_interval
        .map(|ends| format!(" [{:.3}, {:.3}]", ends.lo, ends.hi))
        .unwrap_or_default();
    format!(
        "{}: {}",
        mark.label,
        with_minus(&format!("x {:.3}, y {:.3}{ends}", mark.x, mark.y))
    )
}
