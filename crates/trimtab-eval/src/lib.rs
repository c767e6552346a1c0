//! Numbers and reports: reward, win rate and distance from the reference, each with an interval.
//!
//! The key decision: a number says what it is. A KL is [`KlKind::Exact`], a bound or an estimate, and carries that
//! word through JSON, table and figure, because a point that sits at an upper bound and a point that was measured do
//! not belong on one axis unmarked. Every mean is over prompts, and so is every interval; win rates are against
//! held-out responses of the reference, since a method judged by samples it chose from would be its own judge.
//!
//! The layers, each knowing only those before it: rewards of one prompt ([`RewardSample`]), laws of best-of-N on them
//! ([`kl`], [`mod@win_rate`], [`mod@best_of_n_curve`]), intervals over prompts ([`confidence`]), points ([`Frontier`]) from
//! samples ([`PromptRun`]), and the [`Report`] of points as JSON, CSV, HTML and text. All but the last writes nothing.
//! A report is a function of samples and seed: the same bytes on every run. No clock, no model, no tokenizer here.
//!
//! ```
//! use trimtab_eval::{RewardSample, best_of_n_bound_nats, best_of_n_kl_estimate_nats, expected_best_reward};
//!
//! // Eight responses to one prompt; four of them tie for the best reward.
//! let pools = [RewardSample::try_new(&[0.0, 1.0, 2.0, 3.0, 5.0, 5.0, 5.0, 5.0])?];
//! let estimate = best_of_n_kl_estimate_nats(&pools, 4).expect("there is more than one response");
//! assert!(estimate < best_of_n_bound_nats(4), "ties bring best-of-4 nearer to the reference than the bound");
//! assert!(expected_best_reward(&pools[0], 4) > expected_best_reward(&pools[0], 1));
//! # Ok::<(), trimtab_eval::EvalError>(())
//! ```

pub mod agreement;
pub mod best_of_n_curve;
pub mod confidence;
mod drift;
pub mod equal_kl;
mod error;
pub mod frontier;
pub mod inference_win_rate;
pub mod kl;
pub mod objective;
pub mod report;
mod resample;
pub mod reward_sample;
pub mod samples;
pub mod win_rate;

pub use agreement::{
    Accuracy, Calibration, LabelAgreement, LengthBias, PairAgreement, ReliabilityBin, label_agreement,
    pair_agreement,
};
pub use best_of_n_curve::{CurvePoint, best_of_n_curve, expected_best_reward};
pub use confidence::{Bootstrap, DEFAULT_LEVEL, Interval, clopper_pearson};
pub use drift::drift_nats;
pub use equal_kl::{AtKl, DifferenceAtKl, at_equal_kl, difference_at_equal_kl};
pub use error::EvalError;
pub use frontier::{
    Frontier, FrontierInput, FrontierPoint, KlRule, MethodRuns, NamedMean, RewardName, RunFacts, SeedValues,
    ShownAs,
};
pub use inference_win_rate::{
    ChoiceOfN, InferenceWinRate, PromptRewards, inference_win_rate, inference_win_rate_of,
    inference_win_rate_over_prompts, paired_difference,
};
pub use kl::{
    KlKind, best_of_n_bound_nats, best_of_n_kl_estimate_nats, best_of_n_kl_jackknife_nats, best_of_n_kl_nats,
    blockwise_bound_nats, log_ratio_kl_nats, selection_bound_nats, tokenwise_kl_nats,
};
pub use objective::{advantage, tokenwise_objective_nats};
pub use report::equal_kl::EqualKlRow;
pub use report::inference::{InferencePoint, InferenceReport};
pub use report::win_rate_lines::{WinRateLine, WinRateLines};
pub use report::{Example, ExampleAnswer, Report, ReportFiles};
pub use reward_sample::{RewardClass, RewardSample};
pub use samples::{PromptRun, ReferenceSamples, Scored};
pub use win_rate::{
    best_of_n_win_rate, best_of_n_win_rate_against, best_of_n_win_rate_estimate,
    best_of_n_win_rate_without_ties, win_rate,
};
