//! When a policy's KL keeps weights and ends a run. Knows numbers of steps, no weights.
//!
//! The KL of one step's responses is exact along them, but 64 responses to 8 prompts are few: a step says half or twice
//! what the next one says. Goals therefore look at the mean over a window; an explosion is told from one step.

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
    /// Goals of which none is reached: weights are kept at `keep_at` and the run ends at `stop`, both by the mean over the last
    /// `window` measurements; one measurement above `limit` is an error. All in nats per response.
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

    /// What these numbers, `kl_nats` among them, bring about; adds `kl_mean_nats` where the window holds more than one.
    pub fn verdict(&mut self, metrics: Metrics) -> Verdict {
        let mut verdict = Verdict {
            metrics,
            ..Verdict::default()
        };
        let Some(&kl) = verdict.metrics.get("kl_nats") else {
            return verdict;
        };
        let mean = self.mean_with(kl);
        if self.window > 1 {
            verdict.metrics.insert("kl_mean_nats".to_owned(), mean);
        }
        for &target in self.keep_at.iter().filter(|target| mean >= **target) {
            let name = Self::name(target);
            if !self.kept.contains(&name) {
                self.kept.push(name.clone());
                verdict.keep.push(name);
            }
        }
        verdict.stop = self.stop_at(kl, mean);
        verdict
    }

    fn mean_with(&mut self, kl: f64) -> f64 {
        if self.recent.is_empty() {
            // What the window lacks is like the first measurement: 0 where that is of the reference, more after a warm start.
            self.recent = vec![kl; self.window];
        }
        self.recent.push(kl);
        let too_many = self.recent.len().saturating_sub(self.window);
        self.recent.drain(..too_many);
        self.recent.iter().sum::<f64>() / self.recent.len() as f64
    }

    fn stop_at(&self, kl: f64, mean: f64) -> Option<Stop> {
        let limit = self.limit;
        if kl > limit || kl.is_nan() {
            return Some(Stop::Diverged(format!(
                "the KL to the reference is {kl:.3} nats per response, above kl_limit_nats = {limit}: \
                 lower learning_rate, raise beta, or set kl_stop_nats"
            )));
        }
        self.stop.filter(|stop| mean >= *stop).map(|stop| {
            let window = self.window;
            let over = if window > 1 {
                format!(", over the last {window} steps,")
            } else {
                String::new()
            };
            Stop::Reached(format!(
                "the KL to the reference{over} is {mean:.3} nats per response and has reached kl_stop_nats = {stop}"
            ))
        })
    }
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
        // The mean over five is 1.24 times the middle one of them, and so late by two steps.
        let (kept, stopped) = fired(5, &noisy);
        assert_eq!((kept, stopped), (Some(10), Some(19)));
        let loud = [0.1, 0.1, 4.0, 0.1, 0.1, 0.1];
        assert_eq!(fired(1, &loud), (Some(2), Some(2)));
        assert_eq!(fired(5, &loud), (None, None));
        assert_eq!(fired(5, &[0.0, 0.1, 0.1, 0.1, 4.0, 0.1]), (None, None));
        // Where the first measurement is far from the reference already, nobody waits for a full window.
        assert_eq!(fired(5, &[1.3, 1.4, 1.9]), (Some(0), None));
    }

    #[test]
    fn without_noise_a_window_is_late_by_half_its_length() {
        let line: Vec<f64> = (0..60).map(|step| 0.125 * f64::from(step)).collect();
        assert_eq!(fired(1, &line), (Some(8), Some(16)));
        assert_eq!(fired(5, &line), (Some(10), Some(18)));
    }

    #[test]
    fn an_explosion_is_told_from_one_step_and_memory_goes_on() {
        let step = |goals: &mut KlGoals, kl: f64| goals.verdict(Metrics::from([("kl_nats".to_owned(), kl)]));
        let mut goals = KlGoals::new(&[], None, 50.0, 5);
        step(&mut goals, 0.1);
        for kl in [51.0, f64::NAN] {
            assert!(
                matches!(step(&mut goals.clone(), kl).stop, Some(Stop::Diverged(_))),
                "{kl}"
            );
        }
        let mut resumed = KlGoals::new(&[], None, 50.0, 5);
        resumed.restore_recent(goals.recent());
        for kl in [0.5, 0.3, 0.7, 0.9, 0.2] {
            assert_eq!(step(&mut resumed, kl), step(&mut goals, kl));
        }
        assert!((step(&mut goals, 0.4).metrics["kl_mean_nats"] - 0.5).abs() < 1e-12);
        // Numbers without a KL say nothing.
        assert_eq!(goals.verdict(Metrics::new()), Verdict::default());
    }
}
