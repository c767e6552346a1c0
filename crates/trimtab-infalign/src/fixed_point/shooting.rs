//! The best-of-N fixed point as a boundary value problem. Knows weights on quantiles, no iteration over whole policies.
//!
//! `L = log f` and `F` satisfy `L' = g(F) g(u) / beta`, `F' = exp(L)`, `F(0) = 0`, `F(1) = 1`. Shot from the right end,
//! where the steep part is, with `L(1)` as the unknown: the greater it is, the less is left of `F` at 0.

use crate::panels::{NUM_POINTS, Panels, Point, from_left};
use crate::procedure::PreparedProcedure;

/// Rounds of successive approximation on one panel.
const MAX_ROUNDS: usize = 200;
/// Shots until the best one is taken as it is.
const MAX_SHOTS: usize = 120;
/// Aimed-at error of `F(0)`.
const TOLERANCE: f64 = 1e-14;

/// `log f` of the fixed point at all points of the panels, as exactly as shooting gets.
pub(super) fn log_densities(panels: &Panels, procedure: &PreparedProcedure, beta: f64) -> Vec<f64> {
    let gun = Gun {
        panels,
        procedure,
        beta,
        points: panels.points(),
    };
    // f(1) >= 1, so F(0) >= 0 at this end.
    let (mut low, mut left_at_low) = (0.0, gun.shoot(0.0).1);
    let mut high = 1.0;
    let mut left_at_high = gun.shoot(high).1;
    while left_at_high > 0.0 && high < 700.0 {
        (low, left_at_low) = (high, left_at_high);
        high += 1.0;
        left_at_high = gun.shoot(high).1;
    }
    let mut last_side = 0;
    for _ in 0..MAX_SHOTS {
        let share = left_at_low / (left_at_low - left_at_high);
        let top = low + share.clamp(0.001, 0.999) * (high - low);
        let left = gun.shoot(top).1;
        if left.abs() <= TOLERANCE || high - low <= 1e-15 * high.abs() {
            return gun.shoot(top).0;
        }
        let side = if left > 0.0 { 1 } else { -1 };
        // Regula falsi, where an end that stays loses half its weight (Illinois).
        if side > 0 {
            left_at_high *= if last_side == side { 0.5 } else { 1.0 };
            (low, left_at_low) = (top, left);
        } else {
            left_at_low *= if last_side == side { 0.5 } else { 1.0 };
            (high, left_at_high) = (top, left);
        }
        last_side = side;
    }
    gun.shoot(f64::midpoint(low, high)).0
}

struct Gun<'a> {
    panels: &'a Panels,
    procedure: &'a PreparedProcedure,
    beta: f64,
    points: Vec<f64>,
}

impl Gun<'_> {
    /// `L` at all points and `F(0)`, for `L(1) = top`.
    fn shoot(&self, top: f64) -> (Vec<f64>, f64) {
        let edges = self.panels.edges();
        let mut log_densities = vec![0.0; self.points.len()];
        let (mut log_density, mut cumulative) = (top, 1.0);
        for panel in (0..edges.len() - 1).rev() {
            let range = panel * NUM_POINTS..(panel + 1) * NUM_POINTS;
            let (of_panel, below) = self.cross(&self.points[range.clone()], log_density, cumulative);
            log_densities[range].copy_from_slice(&of_panel);
            (log_density, cumulative) = (of_panel[0], below);
        }
        (log_densities, cumulative)
    }

    /// `L` on a panel and `F` at its left end, given both at its right end, by successive approximation.
    fn cross(&self, points: &[f64], log_density: f64, cumulative: f64) -> (Point, f64) {
        let width = points[NUM_POINTS - 1] - points[0];
        let mut log_densities = [log_density; NUM_POINTS];
        let mut cumulatives = [cumulative; NUM_POINTS];
        for _ in 0..MAX_ROUNDS {
            let mass = from_left(width, &log_densities.map(f64::exp));
            cumulatives = mass.map(|mass_below| cumulative - (mass[NUM_POINTS - 1] - mass_below));
            let mut slopes = [0.0; NUM_POINTS];
            for ((slope, point), cumulative) in slopes.iter_mut().zip(points).zip(cumulatives) {
                // Below zero the shot has missed already; it goes straight on.
                let of_policy = self.procedure.weight(cumulative.max(0.0));
                *slope = of_policy * self.procedure.weight(*point) / self.beta;
            }
            let rise = from_left(width, &slopes);
            let next = rise.map(|rise_below| log_density - (rise[NUM_POINTS - 1] - rise_below));
            let change = next
                .iter()
                .zip(&log_densities)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f64::max);
            log_densities = next;
            if change <= 1e-14 * log_density.abs().max(1.0) {
                break;
            }
        }
        (log_densities, cumulatives[0])
    }
}
