//! Functions on `[0, 1]` as polynomials on panels, with their antiderivatives. Knows no density, no transform.
//!
//! A distribution function stands inside every win rate, and integrating anew for each of its values would square the
//! cost. So it is kept as values at Chebyshev points of panels: interpolation and integration from the panel's left end
//! are then exact for polynomials of the degree, and the last coefficients say whether a panel is narrow enough.

use std::sync::OnceLock;

use crate::integral::edges_with;

/// Degree of the polynomials.
const DEGREE: usize = 16;
/// Points of a panel, both ends included.
const NUM_POINTS: usize = DEGREE + 1;

/// Values at the points of one panel, from left to right.
type Point = [f64; NUM_POINTS];

/// What all panels share, on `[-1, 1]`.
struct Rule {
    /// Ascending from -1 to 1.
    points: Point,
    /// Barycentric weights.
    barycentric: Point,
    /// Values to Chebyshev coefficients. `[coefficient][point]`
    coefficients: [Point; NUM_POINTS],
    /// Values to integrals from -1 to each point. `[point][point]`
    integrals: [Point; NUM_POINTS],
}

fn rule() -> &'static Rule {
    static RULE: OnceLock<Rule> = OnceLock::new();
    RULE.get_or_init(Rule::new)
}

impl Rule {
    fn new() -> Self {
        let angle = |idx: usize| std::f64::consts::PI * (DEGREE - idx) as f64 / DEGREE as f64;
        let mut points = [0.0; NUM_POINTS];
        let mut barycentric = [1.0; NUM_POINTS];
        for idx in 0..NUM_POINTS {
            // The middle point's cosine would be 6e-17.
            points[idx] = if 2 * idx == DEGREE { 0.0 } else { angle(idx).cos() };
            barycentric[idx] = end_half(idx) * if idx % 2 == 0 { 1.0 } else { -1.0 };
        }
        let mut coefficients = [[0.0; NUM_POINTS]; NUM_POINTS];
        for (order, row) in coefficients.iter_mut().enumerate() {
            for (idx, entry) in row.iter_mut().enumerate() {
                let cosine = (order as f64 * angle(idx)).cos();
                *entry = 2.0 / DEGREE as f64 * end_half(order) * end_half(idx) * cosine;
            }
        }
        let mut integrals = [[0.0; NUM_POINTS]; NUM_POINTS];
        for (point, row) in points.iter().zip(&mut integrals) {
            for (order, of_order) in coefficients.iter().enumerate() {
                let integral = chebyshev_integral(order, *point);
                for (entry, coefficient) in row.iter_mut().zip(of_order) {
                    *entry += integral * coefficient;
                }
            }
        }
        Self {
            points,
            barycentric,
            coefficients,
            integrals,
        }
    }
}

/// One half at both ends, 1 between them: the trapezoidal weights of Chebyshev sums.
fn end_half(idx: usize) -> f64 {
    if idx == 0 || idx == DEGREE { 0.5 } else { 1.0 }
}

/// Integral of the Chebyshev polynomial of an order from -1 to `x`.
fn chebyshev_integral(order: usize, x: f64) -> f64 {
    let polynomial = |order: usize, x: f64| (order as f64 * x.clamp(-1.0, 1.0).acos()).cos();
    let antiderivative = |x: f64| match order {
        0 => x,
        1 => x * x / 2.0,
        _ => {
            let k = order as f64;
            (polynomial(order + 1, x) / (k + 1.0) - polynomial(order - 1, x) / (k - 1.0)) / 2.0
        }
    };
    antiderivative(x) - antiderivative(-1.0)
}

/// Panels of `[0, 1]`.
#[derive(Debug, Clone)]
pub(crate) struct Panels {
    edges: Vec<f64>,
}

impl Panels {
    /// Panels that halve towards both ends down to `2^-depth`, and are no wider than `1 / num_inner` between; all of them
    /// in `num_parts` equal parts.
    pub(crate) fn graded(depth: u32, num_inner: u32, num_parts: u32) -> Self {
        let mut edges: Vec<f64> = (0..=num_inner)
            .map(|idx| f64::from(idx) / f64::from(num_inner))
            .collect();
        for power in 1..=depth {
            let edge = 0.5_f64.powi(power as i32);
            edges.extend([edge, 1.0 - edge]);
        }
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        let part =
            |ends: &[f64], idx: u32| ends[0] + (ends[1] - ends[0]) * f64::from(idx) / f64::from(num_parts);
        let inside = edges
            .windows(2)
            .flat_map(|ends| (1..num_parts).map(move |idx| part(ends, idx)));
        Self {
            edges: edges_with(&edges, inside),
        }
    }

    /// Panels between the given edges, halved until a polynomial's truncated mass on each is below `tolerance`.
    pub(crate) fn resolving(f: &impl Fn(f64) -> f64, edges: &[f64], tolerance: f64) -> Self {
        let mut resolved = vec![edges[0]];
        for ends in edges.windows(2) {
            split(f, (ends[0], ends[1]), tolerance, f64::INFINITY, &mut resolved);
        }
        Self { edges: resolved }
    }

    /// From 0 to 1. `[num_panels + 1]`
    pub(crate) fn edges(&self) -> &[f64] {
        &self.edges
    }

    /// All points, panel by panel. `[num_panels * NUM_POINTS]`
    pub(crate) fn points(&self) -> Vec<f64> {
        self.edges
            .windows(2)
            .flat_map(|ends| rule().points.map(|point| place(ends[0], ends[1], point)))
            .collect()
    }

    /// The point before the one at this place among all points, and that one.
    pub(crate) fn around(&self, place_of_point: usize) -> (f64, f64) {
        let num_points = (self.edges.len() - 1) * NUM_POINTS;
        let later = place_of_point.clamp(1, num_points - 1);
        let at = |idx: usize| {
            let panel = idx / NUM_POINTS;
            place(
                self.edges[panel],
                self.edges[panel + 1],
                rule().points[idx % NUM_POINTS],
            )
        };
        (at(later - 1), at(later))
    }

    /// Integrals from 0 to each point of a function given by its values at all points. `[num_panels * NUM_POINTS]`
    pub(crate) fn cumulative(&self, values: &[f64]) -> Vec<f64> {
        let mut cumulative = Vec::with_capacity(values.len());
        let mut before = 0.0;
        for (ends, values) in self.edges.windows(2).zip(values.chunks_exact(NUM_POINTS)) {
            let integrals = from_left(ends[1] - ends[0], values);
            cumulative.extend(integrals.map(|integral| before + integral));
            before = cumulative[cumulative.len() - 1];
        }
        cumulative
    }

    /// Integral from 0 to 1 of a function given by its values at all points.
    pub(crate) fn integral(&self, values: &[f64]) -> f64 {
        let whole = &rule().integrals[DEGREE];
        let of_panel = |(ends, values): (&[f64], &[f64])| -> f64 {
            let sum: f64 = whole
                .iter()
                .zip(values)
                .map(|(weight, value)| weight * value)
                .sum();
            (ends[1] - ends[0]) / 2.0 * sum
        };
        let panels = self.edges.windows(2).zip(values.chunks_exact(NUM_POINTS));
        panels.map(of_panel).sum()
    }

    /// Integrals from each point to 1, added from the right, so that small ones keep their digits.
    /// `[num_panels * NUM_POINTS]`
    pub(crate) fn remaining(&self, values: &[f64]) -> Vec<f64> {
        let mut remaining = vec![0.0; values.len()];
        let mut beyond = 0.0;
        let panels = self
            .edges
            .windows(2)
            .zip(values.chunks_exact(NUM_POINTS))
            .zip(remaining.chunks_exact_mut(NUM_POINTS));
        for ((ends, values), remaining) in panels.rev() {
            let integrals = from_left(ends[1] - ends[0], values);
            for (entry, integral) in remaining.iter_mut().zip(integrals) {
                *entry = beyond + (integrals[DEGREE] - integral);
            }
            beyond = remaining[0];
        }
        remaining
    }

    /// The function with these values at all points, at `u` in `[0, 1]`.
    pub(crate) fn at(&self, values: &[f64], u: f64) -> f64 {
        let panel = self
            .edges
            .partition_point(|&edge| edge <= u)
            .clamp(1, self.edges.len() - 1)
            - 1;
        let (from, to) = (self.edges[panel], self.edges[panel + 1]);
        let x = ((u - from) - (to - u)) / (to - from);
        interpolate(&values[panel * NUM_POINTS..(panel + 1) * NUM_POINTS], x)
    }
}

/// Greatest part of a panel's values, given at all points, that its last three coefficients hold: how far from resolved
/// it is; in `unit`s, and relative to the values where they are greater.
pub(crate) fn unresolved(values: &[f64], unit: f64) -> f64 {
    let counted = |values: &[f64]| {
        let least = values
            .iter()
            .fold(f64::INFINITY, |least, value| least.min(value.abs()));
        tail(values) / least.max(unit)
    };
    values.chunks_exact(NUM_POINTS).map(counted).fold(0.0, f64::max)
}

/// Integrals from the left end of a panel of this width to each of its points.
fn from_left(width: f64, values: &[f64]) -> Point {
    rule().integrals.map(|row| {
        let integral: f64 = row.iter().zip(values).map(|(weight, value)| weight * value).sum();
        width / 2.0 * integral
    })
}

fn place(from: f64, to: f64, point: f64) -> f64 {
    if point == -1.0 {
        from
    } else if point == 1.0 {
        to
    } else {
        f64::midpoint(from, to) + (to - from) / 2.0 * point
    }
}

/// Relative truncation below which halving must help, or what is left is rounding.
const NOISE: f64 = 1e-6;

/// Appends the ends of the panels that `[from, to]` needs, the first excepted; `tail_before` is that of the panel which
/// was halved.
fn split(
    f: &impl Fn(f64) -> f64,
    (from, to): (f64, f64),
    tolerance: f64,
    tail_before: f64,
    edges: &mut Vec<f64>,
) {
    let values = rule().points.map(|point| f(place(from, to, point)));
    let middle = f64::midpoint(from, to);
    let tail = tail(&values);
    let greatest = values
        .iter()
        .fold(0.0_f64, |greatest, value| greatest.max(value.abs()));
    // A resolved polynomial's tail falls by 2^14 and more; noise of the function stays.
    let is_noise = tail <= NOISE * greatest && tail > tail_before / 8.0;
    // Once the middle is an end by rounding there is nothing left to halve.
    if tail * (to - from) <= tolerance || is_noise || middle <= from || middle >= to {
        edges.push(to);
    } else {
        split(f, (from, middle), tolerance, tail, edges);
        split(f, (middle, to), tolerance, tail, edges);
    }
}

/// Greatest of the last three Chebyshev coefficients.
fn tail(values: &[f64]) -> f64 {
    let coefficient =
        |row: &Point| -> f64 { row.iter().zip(values).map(|(weight, value)| weight * value).sum() };
    rule().coefficients[NUM_POINTS - 3..]
        .iter()
        .map(|row| coefficient(row).abs())
        .fold(0.0, f64::max)
}

/// The polynomial through the values at the points, at `x` in `[-1, 1]` (barycentric formula).
fn interpolate(values: &[f64], x: f64) -> f64 {
    let rule = rule();
    let (mut weighted, mut total) = (0.0, 0.0);
    for ((point, weight), value) in rule.points.iter().zip(&rule.barycentric).zip(values) {
        let distance = x - point;
        if distance == 0.0 {
            return *value;
        }
        let share = weight / distance;
        weighted += share * value;
        total += share;
    }
    weighted / total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_of_the_degree_are_exact() {
        let panels = Panels::graded(3, 2, 1);
        assert_eq!(panels.edges(), [0.0, 0.125, 0.25, 0.5, 0.75, 0.875, 1.0]);
        assert_eq!(Panels::graded(1, 1, 2).edges(), [0.0, 0.25, 0.5, 0.75, 1.0]);
        let values: Vec<f64> = panels.points().iter().map(|u| 16.0 * u.powi(15)).collect();
        let (cumulative, remaining) = (panels.cumulative(&values), panels.remaining(&values));
        assert!((panels.integral(&values) - 1.0).abs() < 1e-13);
        for u in [0.0, 0.1, 0.125, 0.33, 0.5, 0.9999, 1.0] {
            assert!(
                (panels.at(&values, u) - 16.0 * u.powi(15)).abs() < 1e-12,
                "value at {u}"
            );
            assert!(
                (panels.at(&cumulative, u) - u.powi(16)).abs() < 1e-13,
                "integral at {u}"
            );
            assert!(
                (panels.at(&remaining, u) - (1.0 - u.powi(16))).abs() < 1e-13,
                "integral from {u}"
            );
        }
        assert!(unresolved(&values, 1.0) < 1e-9);
    }

    #[test]
    fn panels_are_halved_where_a_function_is_steep() {
        // A step of width 1e-5 at the right end and a root at the left.
        let f = |u: f64| u.sqrt() + ((u - 1.0) / 1e-5).exp();
        let panels = Panels::resolving(&f, &[0.0, 1.0], 1e-13);
        let values: Vec<f64> = panels.points().iter().map(|&u| f(u)).collect();
        let cumulative = panels.cumulative(&values);
        let expect = 2.0 / 3.0 + 1e-5;
        assert!((cumulative[cumulative.len() - 1] - expect).abs() < 1e-11);
        assert!(panels.edges().len() < 200, "{} panels", panels.edges().len() - 1);
        let u: f64 = 1.0 - 2e-5;
        let expect = 2.0 / 3.0 * u.powf(1.5) + 1e-5 * (-2.0_f64).exp();
        assert!((panels.at(&cumulative, u) - expect).abs() < 1e-11);
    }
}
