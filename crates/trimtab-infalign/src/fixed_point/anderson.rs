//! Anderson's acceleration of `x <- G(x)` (Anderson 1965), damped where it swings. Knows vectors, not what they mean.

/// Steps that acceleration looks back on.
const MEMORY: usize = 6;
/// A residual this much greater than the least so far means swinging.
const SWING: f64 = 4.0;
const MIN_DAMPING: f64 = 1e-3;

/// The iteration's state.
pub(crate) struct Anderson {
    values: Vec<f64>,
    num_iterations: usize,
    /// Past differences of `x` and of `G(x) - x`, the latest last.
    history: Vec<(Vec<f64>, Vec<f64>)>,
    /// The previous `x` and its `G(x) - x`.
    previous: Option<(Vec<f64>, Vec<f64>)>,
    /// Share of the way to `G(x)` that is gone.
    damping: f64,
    /// Least residual since the last swing.
    recent_residual: f64,
    /// The `x` of the least residual of all, with it.
    best: (Vec<f64>, f64),
    /// Size of an entry from which on its changes count relative to it; none where they count as they are.
    unit: Option<f64>,
}

impl Anderson {
    pub(crate) fn new(values: Vec<f64>) -> Self {
        Self {
            best: (values.clone(), f64::INFINITY),
            values,
            num_iterations: 0,
            history: Vec::new(),
            previous: None,
            damping: 1.0,
            recent_residual: f64::INFINITY,
            unit: None,
        }
    }

    /// The same with changes counted in `unit`s, and relative to an entry that is greater: entries may differ by more
    /// orders of magnitude than floats have digits.
    pub(crate) fn counting_in(values: Vec<f64>, unit: f64) -> Self {
        Self {
            unit: Some(unit),
            ..Self::new(values)
        }
    }

    /// Where `G` is wanted next.
    pub(crate) fn values(&self) -> &[f64] {
        &self.values
    }

    pub(crate) fn num_iterations(&self) -> usize {
        self.num_iterations
    }

    /// Least `max |G(x) - x|` so far, counted as [`Self::counting_in`] says.
    pub(crate) fn least_residual(&self) -> f64 {
        self.best.1
    }

    /// The `x` of the least residual.
    pub(crate) fn into_best(self) -> Vec<f64> {
        self.best.0
    }

    /// Whether a residual is small enough, or nothing can come of going on.
    pub(crate) fn is_done(&self, tolerance: f64) -> bool {
        self.best.1 <= tolerance || self.values.iter().any(|value| !value.is_finite())
    }

    /// Moves to the next `x`, given `G(x)`.
    pub(crate) fn take(&mut self, image: &[f64]) {
        self.num_iterations += 1;
        let change = difference(image, &self.values);
        let scale = |value: &f64| self.unit.map_or(1.0, |unit| value.abs().max(unit).recip());
        let scales: Vec<f64> = self.values.iter().map(scale).collect();
        let counted = change
            .iter()
            .zip(&scales)
            .map(|(change, scale)| change.abs() * scale);
        let residual = counted.fold(0.0, f64::max);
        if residual < self.best.1 {
            self.best = (self.values.clone(), residual);
        }
        if residual > SWING * self.recent_residual {
            // Forget what led here and go smaller steps.
            self.history.clear();
            self.previous = None;
            self.damping = (self.damping * 0.5).max(MIN_DAMPING);
            self.recent_residual = residual;
        }
        self.recent_residual = self.recent_residual.min(residual);
        if let Some((values, before)) = self.previous.take() {
            self.history
                .push((difference(&self.values, &values), difference(&change, &before)));
            if self.history.len() > MEMORY {
                self.history.remove(0);
            }
        }
        let next = self.accelerated(&change, &scales);
        self.previous = Some((std::mem::replace(&mut self.values, next), change));
    }

    /// `x + d r - sum_k c_k (dx_k + d dr_k)` with the `c` that make `r - sum_k c_k dr_k` least.
    fn accelerated(&self, change: &[f64], scales: &[f64]) -> Vec<f64> {
        let coefficients = least_squares(&self.history, change, scales);
        let moved = |(value, change): (&f64, &f64)| value + self.damping * change;
        let mut next: Vec<f64> = self.values.iter().zip(change).map(moved).collect();
        for (coefficient, (values, changes)) in coefficients.iter().zip(&self.history) {
            for (next, step) in next.iter_mut().zip(values.iter().zip(changes).map(moved)) {
                *next -= coefficient * step;
            }
        }
        next
    }
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// The coefficients `c` that make `|r - sum_k c_k dr_k|` least, entries scaled: normal equations with a little of the
/// identity, by elimination.
fn least_squares(history: &[(Vec<f64>, Vec<f64>)], change: &[f64], scales: &[f64]) -> Vec<f64> {
    let size = history.len();
    let dot = |a: &[f64], b: &[f64]| -> f64 {
        let terms = a.iter().zip(b).zip(scales);
        terms.map(|((a, b), scale)| (a * scale) * (b * scale)).sum()
    };
    let row = |(_, left): &(Vec<f64>, Vec<f64>)| -> Vec<f64> {
        let of_history = history.iter().map(|(_, right)| dot(left, right));
        of_history.chain([dot(left, change)]).collect()
    };
    let mut rows: Vec<Vec<f64>> = history.iter().map(row).collect();
    let greatest = (0..size).map(|idx| rows[idx][idx]).fold(0.0, f64::max);
    for (idx, row) in rows.iter_mut().enumerate() {
        row[idx] += 1e-14 * greatest + f64::MIN_POSITIVE;
    }
    for pivot in 0..size {
        let above = rows[pivot].clone();
        for row in &mut rows[pivot + 1..] {
            let factor = row[pivot] / above[pivot];
            for (entry, above) in row.iter_mut().zip(&above).skip(pivot) {
                *entry -= factor * above;
            }
        }
    }
    let mut solution = vec![0.0; size];
    for (idx, row) in rows.iter().enumerate().rev() {
        let known: f64 = (idx + 1..size).map(|column| row[column] * solution[column]).sum();
        solution[idx] = (row[size] - known) / row[idx];
    }
    solution
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An affine map whose plain iteration diverges: acceleration solves it in as many steps as it has dimensions.
    #[test]
    fn affine_maps_are_solved_where_plain_iteration_diverges() {
        let image = |x: &[f64]| vec![3.0 - 4.0 * x[0], 1.0 + 0.5 * x[0] - 9.0 * x[1]];
        let mut solver = Anderson::new(vec![0.0, 0.0]);
        while solver.num_iterations() < 20 && !solver.is_done(1e-10) {
            let next = image(solver.values());
            solver.take(&next);
        }
        assert!(solver.num_iterations() < 10, "{}", solver.num_iterations());
        let solution = solver.into_best();
        assert!(
            (solution[0] - 0.6).abs() < 1e-9 && (solution[1] - 0.13).abs() < 1e-9,
            "{solution:?}"
        );
    }
}
