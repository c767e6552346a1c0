//! The frontier as CSV: one row a method, one column a number, intervals as two columns.

use crate::confidence::Interval;
use crate::error::EvalError;
use crate::frontier::{Frontier, FrontierPoint, NamedMean};

/// Columns that every run has.
const HEADER: [&str; 27] = [
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
    "like_best_of",
    "first_commit_tokens",
    "first_commit_tokens_ci_lo",
    "first_commit_tokens_ci_hi",
    "series",
];

impl Frontier {
    /// The points as CSV with a header; a missing interval is two empty fields.
    ///
    /// After the columns of every run come three for each further reward, named by it.
    ///
    /// # Errors
    /// [`EvalError::Csv`].
    pub fn to_csv(&self) -> Result<String, EvalError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let further = self.points.first().map_or(&[][..], |point| &point.rewards_also);
        let of_reward =
            |reward: &NamedMean| ["", "_ci_lo", "_ci_hi"].map(|end| format!("{}{end}", reward.name));
        let header = HEADER
            .map(str::to_owned)
            .into_iter()
            .chain(further.iter().flat_map(of_reward));
        writer.write_record(header)?;
        for point in &self.points {
            let further = point.rewards_also.iter().flat_map(|reward| {
                let [lo, hi] = ends(reward.ci);
                [reward.mean.to_string(), lo, hi]
            });
            writer.write_record(fields(point).into_iter().chain(further))?;
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
    let [first_lo, first_hi] = ends(point.first_commit_tokens_ci);
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
        point.like_best_of.map(|n| n.to_string()).unwrap_or_default(),
        point
            .first_commit_tokens
            .map(|tokens| tokens.to_string())
            .unwrap_or_default(),
        first_lo,
        first_hi,
        point.shown_as.series.clone().unwrap_or_default(),
    ]
}

fn ends(interval: Option<Interval>) -> [String; 2] {
    interval
        .map(|Interval { lo, hi }| [lo.to_string(), hi.to_string()])
        .unwrap_or_default()
}
