//! When a policy's KL keeps weights and ends a run. Knows numbers of steps, no weights.
//!
//! The KL of one step's responses is exact along them, but 64 responses to 8 prompts are few: a step says half or twice
//! what the next one says. Goals therefore look at a window, and because the KL grows while it is looked at, at the end of
//! the line through it and not at its mean, which is late by half the window. An explosion is told from one step.

use crate::events::Metrics;
use crate::trainer::{Stop, Verdict};

/// Goals of a run, and which of them are reached.
#[derive(Debug, Clone, PartialEq)]
pub struct KlGoals {
    keep_at: Vec<f64>,
    stop: Option<f64>,
    limit: f64,
    window: usize,
    /// The last measurements, at most as many as the window holds.
    recent: Vec<f64>,
    kept: Vec<String>,
}

impl KlGoals {
    /// Goals of which none is reached: weights are kept at `keep_at` and the run ends at `stop`, both by [`at_the_end`] of the
    /// last `window` measurements; one measurement above `limit` is an error, and such weights are not kept. All in nats per
    /// response.
    pub fn new(keep_at: &[f64], stop: Option<f64>, limit: f64, window: usize) -> Self {
        Self {
            keep_at: keep_at.to_vec(),
            stop,
            limit,
            window: window.max(1),
            recent: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// The name of the weights that are kept at a value.
    pub fn name(kl_nats: f64) -> String {
        format!("kl-{kl_nats}")
    }

    /// Names that an earlier run has kept.
    pub fn restore(&mut self, names: &[String]) {
        self.kept = names.to_vec();
    }

    /// The measurements in the window.
    pub fn recent(&self) -> &[f64] {
        &self.recent
    }

    /// Puts back what [`Self::recent`] gave.
    pub fn restore_recent(&mut self, recent: &[f64]) {
        self.recent = recent.to_vec();
    }

    /// What these numbers, `kl_nats` among them, bring about; adds `kl_line_nats` where the window holds more than one.
    pub fn verdict(&mut self, metrics: Metrics) -> Verdict {
        let mut verdict = Verdict {
            metrics,
            ..Verdict::default()
        };
        let Some(&kl) = verdict.metrics.get("kl_nats") else {
            return verdict;
        };
        if kl > self.limit || kl.is_nan() {
            verdict.stop = Some(self.explosion(kl));
            return verdict;
        }
        let now = self.estimate_with(kl);
        if self.window > 1 {
            verdict.metrics.insert("kl_line_nats".to_owned(), now);
        }
        for &target in self.keep_at.iter().filter(|target| now >= **target) {
            let name = Self::name(target);
            if !self.kept.contains(&name) {
                self.kept.push(name.clone());
                verdict.keep.push(name);
            }
        }
        verdict.stop = self.reached(now);
        verdict
    }

    fn estimate_with(&mut self, kl: f64) -> f64 {
        self.recent.push(kl);
        let too_many = self.recent.len().saturating_sub(self.window);
        self.recent.drain(..too_many);
        at_the_end(&self.recent)
    }

    fn explosion(&self, kl: f64) -> Stop {
        let limit = self.limit;
        Stop::Diverged(format!(
            "the KL to the reference is {kl:.3} nats per response, above kl_limit_nats = {limit}: \
             lower learning_rate, raise beta, or set kl_stop_nats"
        ))
    }

    fn reached(&self, now: f64) -> Option<Stop> {
        self.stop.filter(|stop| now >= *stop).map(|stop| {
            let window = self.window;
            let from = if window > 1 {
                format!(", by the last {window} steps,")
            } else {
                String::new()
            };
            Stop::Reached(format!(
                "the KL to the reference{from} is {now:.3} nats per response and has reached kl_stop_nats = {stop}"
            ))
        })
    }
}

/// The least-squares line through equally spaced values, where the last of them is; 0 of none.
///
/// Of a KL that grows by as much in every step it is the KL of the last step, and noise of mean 0 leaves its expectation; its
/// variance is `(4 n - 2) / (n (n + 1))` of one value's, 0.6 for five. One value or two are on their line: it is the last one.
pub fn at_the_end(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    // What the normal equations of a line give at its last point.
    let weight = |idx: usize| 2.0 * (3.0 * idx as f64 + 2.0 - n) / (n * (n + 1.0));
    let weighted = values.iter().enumerate().map(|(idx, value)| weight(idx) * value);
    weighted.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps at which goals fire: weights that are kept at 1, and the end at 2.
    fn fired(window: usize, kls: &[f64]) -> (Option<usize>, Option<usize>) {
        let mut goals = KlGoals::new(&[1.0], Some(2.0), 50.0, window);
        let mut kept = None;
        for (step, &kl) in kls.iter().enumerate() {
            let verdict = goals.verdict(Metrics::from([("kl_nats".to_owned(), kl)]));
            if !verdict.keep.is_empty() {
                assert!(kept.replace(step).is_none(), "kept twice");
            }
            if verdict.stop.is_some() {
                return (kept, Some(step));
            }
        }
        (kept, None)
    }

    #[test]
    fn one_loud_step_fires_nothing_that_its_neighbours_do_not_bear_out() {
        // Rises by 0.1 a step; every fifth step says three times as much.
        let noisy: Vec<f64> = (0..40)
            .map(|step| 0.1 * f64::from(step) * if step % 5 == 4 { 3.0 } else { 0.8 })
            .collect();
        assert_eq!(fired(1, &noisy), (Some(4), Some(9)));
        // A window cannot tell a loud step from growth, but takes off two fifths of what it says too much.
        let (kept, stopped) = fired(5, &noisy);
        assert_eq!((kept, stopped), (Some(9), Some(14)));
        let loud = [0.1, 0.1, 0.1, 0.1, 1.5, 0.1, 0.1, 0.1];
        assert_eq!(fired(1, &loud), (Some(4), None));
        assert_eq!(fired(5, &loud), (None, None));
        // Where the first measurement is far from the reference already, nobody waits for a full window.
        assert_eq!(fired(5, &[1.3, 1.4, 1.9]), (Some(0), None));
    }

    #[test]
    fn a_kl_that_grows_evenly_is_told_without_delay() {
        let line: Vec<f64> = (0..60).map(|step| 0.01 + 0.125 * f64::from(step)).collect();
        for window in [1, 2, 3, 5, 16] {
            assert_eq!(fired(window, &line), (Some(8), Some(16)), "{window}");
            let mut goals = KlGoals::new(&[], None, 50.0, window);
            for &kl in &line {
                let estimate = goals.estimate_with(kl);
                assert!((estimate - kl).abs() < 1e-12, "{window}: {estimate} of {kl}");
            }
        }
        // One step is its own KL, to the last bit.
        assert_eq!(at_the_end(&[0.1 + 0.2]), 0.1 + 0.2);
        assert_eq!(at_the_end(&[7.0, 0.3]), 0.3);
    }

    #[test]
    fn noise_is_not_taken_for_growth_on_average() {
        // Every noise of mean 0 is a mixture of such: each of five steps in turn says 1 more than the others.
        let mut sum = 0.0;
        let mut sum_of_squares = 0.0;
        for loud in 0..5 {
            let mut values = [2.0; 5];
            values[loud] += 1.0;
            let error = at_the_end(&values) - 2.0;
            sum += error;
            sum_of_squares += error * error;
        }
        // The weights add up to 1, and their squares to the variance.
        assert!((sum - 1.0).abs() < 1e-12, "{sum}");
        assert!((sum_of_squares - 0.6).abs() < 1e-12, "{sum_of_squares}");
    }

    #[test]
    fn an_explosion_is_told_from_one_step_and_memory_goes_on() {
        let step = |goals: &mut KlGoals, kl: f64| goals.verdict(Metrics::from([("kl_nats".to_owned(), kl)]));
        let mut goals = KlGoals::new(&[], None, 50.0, 5);
        step(&mut goals, 0.1);
        for kl in [51.0, f64::NAN] {
            let mut keeping = KlGoals::new(&[1.0], None, 50.0, 5);
            let verdict = step(&mut keeping, kl);
            assert!(matches!(verdict.stop, Some(Stop::Diverged(_))), "{kl}");
            assert!(verdict.keep.is_empty(), "what exploded is kept");
        }
        let mut resumed = KlGoals::new(&[], None, 50.0, 5);
        resumed.restore_recent(goals.recent());
        for kl in [0.5, 0.3, 0.7, 0.9, 0.2] {
            assert_eq!(step(&mut resumed, kl), step(&mut goals, kl));
        }
        // 0.3, 0.7, 0.9, 0.2, 0.4 with weights -0.2 to 0.6.
        assert!((step(&mut goals, 0.4).metrics["kl_line_nats"] - 0.44).abs() < 1e-12);
        // Numbers without a KL say nothing.
        assert_eq!(goals.verdict(Metrics::new()), Verdict::default());
    }
}
