//! What external scorers share: limits, splitting into batches, retries. Knows no transport.

use std::thread;
use std::time::Duration;

use trimtab_base::{RewardError, ScoreInput};

use crate::json_lines;

/// Limits of an external scorer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalLimits {
    /// Most items sent at once; at least 1. Default 256.
    pub batch_len: usize,
    /// Longest time one batch may take, in milliseconds. Default 120,000.
    pub timeout_ms: u64,
    /// Further attempts after one that failed. Default 2.
    pub num_retries: u32,
    /// Pause before the first further attempt in milliseconds; doubles with each one. Default 250.
    pub backoff_ms: u64,
}

impl Default for ExternalLimits {
    fn default() -> Self {
        Self {
            batch_len: 256,
            timeout_ms: 120_000,
            num_retries: 2,
            backoff_ms: 250,
        }
    }
}

impl ExternalLimits {
    /// Longest time one batch may take.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// Why one attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Another attempt may succeed.
    Passing(String),
    /// Another attempt would fail in the same way.
    Lasting(String),
}

/// Bytes of answer that `num_items` items may cost; more is refused instead of stored.
pub(crate) fn max_answer_bytes(num_items: usize) -> u64 {
    // A reward takes some 30 bytes; the rest is room for scorers that explain themselves.
    (1 << 20) + num_items as u64 * 16_384
}

/// Scores `batch` in parts of `limits.batch_len`. `exchange` sends one request text and returns the answer text.
pub(crate) fn score_in_batches(
    reward: &str,
    limits: &ExternalLimits,
    batch: &[ScoreInput],
    exchange: impl Fn(&str, usize) -> Result<String, Failure>,
) -> Result<Vec<f64>, RewardError> {
    let batch_len = limits.batch_len.max(1);
    let mut rewards = Vec::with_capacity(batch.len());
    for (part_idx, part) in batch.chunks(batch_len).enumerate() {
        let request = json_lines::encode(part);
        let answer = with_retries(reward, limits, || exchange(&request, part.len()))?;
        rewards.extend(json_lines::decode(
            reward,
            part_idx * batch_len,
            part.len(),
            &answer,
        )?);
    }
    Ok(rewards)
}

fn with_retries(
    reward: &str,
    limits: &ExternalLimits,
    attempt: impl Fn() -> Result<String, Failure>,
) -> Result<String, RewardError> {
    let external = |problem: String| RewardError::External {
        reward: reward.to_owned(),
        problem,
    };
    let mut num_failed = 0_u32;
    loop {
        match attempt() {
            Ok(answer) => return Ok(answer),
            Err(Failure::Lasting(problem)) => return Err(external(problem)),
            Err(Failure::Passing(problem)) if num_failed == limits.num_retries => {
                let attempts = if num_failed == 0 {
                    "1 attempt".to_owned()
                } else {
                    format!("{} attempts", num_failed + 1)
                };
                return Err(external(format!("gave up after {attempts}: {problem}")));
            }
            Err(Failure::Passing(_)) => {
                let pause_ms = limits.backoff_ms.saturating_mul(1 << num_failed.min(16));
                thread::sleep(Duration::from_millis(pause_ms));
                num_failed += 1;
            }
        }
    }
}

/// The end of `text`, at most about `max_bytes` of it, for an error message.
pub(crate) fn tail(text: &str, max_bytes: usize) -> &str {
    let text = text.trim();
    let mut start = text.len().saturating_sub(max_bytes);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::testing::tokens_input;

    const NO_PAUSE: ExternalLimits = ExternalLimits {
        batch_len: 2,
        timeout_ms: 1000,
        num_retries: 2,
        backoff_ms: 0,
    };

    #[test]
    fn splits_batches_and_keeps_order() {
        let sizes = Cell::new(Vec::new());
        let batch: Vec<ScoreInput> = (0..5).map(tokens_input).collect();
        let next = Cell::new(0);
        let rewards = score_in_batches("r", &NO_PAUSE, &batch, |request, num_items| {
            assert_eq!(request.lines().count(), num_items);
            let mut seen = sizes.take();
            seen.push(num_items);
            sizes.set(seen);
            let line = |_| {
                next.set(next.get() + 1);
                format!("{{\"reward\": {}}}\n", next.get())
            };
            Ok((0..num_items).map(line).collect())
        });
        assert_eq!(rewards.unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(sizes.take(), [2, 2, 1]);
    }

    #[test]
    fn retries_what_may_pass_and_only_that() {
        let check = |failure: Failure, expect_attempts: u32, expect: &str| {
            let attempts = Cell::new(0);
            let error = with_retries("r", &NO_PAUSE, || {
                attempts.set(attempts.get() + 1);
                Err(failure.clone())
            });
            assert_eq!(attempts.get(), expect_attempts);
            assert_eq!(error.unwrap_err().to_string(), expect);
        };
        check(
            Failure::Passing("busy".to_owned()),
            3,
            "reward r: gave up after 3 attempts: busy",
        );
        check(Failure::Lasting("broken".to_owned()), 1, "reward r: broken");
    }

    #[test]
    fn items_are_numbered_through_batches() {
        let batch: Vec<ScoreInput> = (0..3).map(tokens_input).collect();
        let answer = |_: &str, num_items: usize| {
            Ok(if num_items == 2 {
                "{\"reward\":1}\n{\"reward\":2}"
            } else {
                "{\"reward\":null}"
            }
            .to_owned())
        };
        let error = score_in_batches("r", &NO_PAUSE, &batch, answer).unwrap_err();
        assert!(
            matches!(error, RewardError::BadReward { item_idx: 2, .. }),
            "{error}"
        );
    }

    #[test]
    fn tails_respect_characters() {
        assert_eq!(tail("aéb", 2), "b");
        assert_eq!(tail(" ab \n", 10), "ab");
    }
}
