//! The learning rate as a function of the step. Knows nothing else.

use std::f64::consts::PI;

use crate::config::{OptimConfig, Schedule};

/// Learning rate of the step after `done` of `total` steps: a linear rise to the peak, then the schedule.
pub fn learning_rate(config: &OptimConfig, done: u64, total: u64) -> f64 {
    let warmup = (config.warmup_fraction * total as f64).round() as u64;
    if done < warmup {
        return config.learning_rate * (done + 1) as f64 / (warmup + 1) as f64;
    }
    let share = (done - warmup) as f64 / (total - warmup).max(1) as f64;
    let factor = match config.schedule {
        Schedule::Constant => 1.0,
        Schedule::Linear => 1.0 - share,
        Schedule::Cosine => 0.5 * (1.0 + (PI * share).cos()),
    };
    config.learning_rate * factor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schedule: Schedule, warmup_fraction: f64, expect: &[f64]) {
        let config = OptimConfig {
            learning_rate: 1.0,
            schedule,
            warmup_fraction,
            ..OptimConfig::default()
        };
        let total = expect.len() as u64;
        for (done, expected) in expect.iter().enumerate() {
            let rate = learning_rate(&config, done as u64, total);
            assert!(
                (rate - expected).abs() < 1e-12,
                "step {done}: {rate} is not {expected}"
            );
        }
    }

    #[test]
    fn rates_follow_their_schedule() {
        check(Schedule::Constant, 0.0, &[1.0, 1.0]);
        check(Schedule::Constant, 0.5, &[1.0 / 3.0, 2.0 / 3.0, 1.0, 1.0]);
        check(Schedule::Linear, 0.0, &[1.0, 0.75, 0.5, 0.25]);
        check(Schedule::Linear, 0.25, &[0.5, 1.0, 2.0 / 3.0, 1.0 / 3.0]);
        check(Schedule::Cosine, 0.0, &[1.0, 0.75, 0.25].map(|x: f64| x));
    }
}
