//! The frontier as CSV: one row a method, one column a number, intervals as two columns.

use crate::confidence::Interval;
use crate::error::EvalError;
use crate::frontier::{Frontier, FrontierPoint};

const HEADER: [&str; 22] = [
    "method",
    "num_candidates",
    "reward_mean",
    "reward_ci_lo",
    "reward_ci_hi",
    "win_rate",
    "win_rate_ci_lo",
    "win_rate_ci_hi",
    "kl_nats",
    "kl_ci_lo",
    "kl_ci_hi",
    "kl_kind",
    "kl_estimate_nats",
    "kl_estimate_ci_lo",
    "kl_estimate_ci_hi",
    "reward_gain",
    "reward_gain_ci_lo",
    "reward_gain_ci_hi",
    "tokens_generated",
    "tokens_per_answer",
    "tokens_per_answer_ci_lo",
    "tokens_per_answer_ci_hi",
];

impl Frontier {
    /// The points as CSV with a header; a missing interval is two empty fields.
    ///
    /// # Errors
    /// [`EvalError::Csv`].
    pub fn to_csv(&self) -> Result<String, EvalError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(HEADER)?;
        for point in &self.points {
            writer.write_record(fields(point))?;
        }
        let bytes = writer
            .into_inner()
            .map_err(|error| csv::Error::from(error.into_error()))?;
        Ok(String::from_utf8(bytes).expect("every field is a string"))
    }
}

fn fields(point: &FrontierPoint) -> [String; HEADER.len()] {
    let [reward_lo, reward_hi] = ends(point.reward_ci);
    let [win_lo, win_hi] = ends(point.win_rate_ci);
    let [kl_lo, kl_hi] = ends(point.kl_ci);
    let [estimate_lo, estimate_hi] = ends(point.kl_estimate_ci);
    let [gain_lo, gain_hi] = ends(point.reward_gain_ci);
    let [tokens_lo, tokens_hi] = ends(point.tokens_per_answer_ci);
    [
        point.method.clone(),
        point.num_candidates.to_string(),
        point.reward_mean.to_string(),
        reward_lo,
        reward_hi,
        point.win_rate.to_string(),
        win_lo,
        win_hi,
        point.kl_nats.to_string(),
        kl_lo,
        kl_hi,
        point.kl_kind.name().to_owned(),
        point
            .kl_estimate_nats
            .map(|estimate| estimate.to_string())
            .unwrap_or_default(),
        estimate_lo,
        estimate_hi,
        point.reward_gain.to_string(),
        gain_lo,
        gain_hi,
        point.tokens_generated.to_string(),
        point.tokens_per_answer.to_string(),
        tokens_lo,
        tokens_hi,
    ]
}

fn ends(interval: Option<Interval>) -> [String; 2] {
    interval
        .map(|Interval { lo, hi }| [lo.to_string(), hi.to_string()])
        .unwrap_or_default()
}
