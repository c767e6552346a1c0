//! What a report says of one method. Knows numbers, not how they come about or how they are shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::confidence::Interval;
use crate::kl::KlKind;

/// A method's place: what it gains, how far it moves, what it costs. All intervals are over prompts; an interval is
/// missing where the prompts say nothing of their spread: there are fewer than two, or all have the same value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrontierPoint {
    /// The method as written in the configuration, e.g. `bon:16`.
    pub method: String,
    /// Candidates drawn for an answer.
    pub num_candidates: u32,
    /// Mean reward of the answers, in the reward's unit.
    pub reward_mean: f64,
    /// Its interval; exact, and there even for equal values, if all rewards of the run are 0 or 1.
    pub reward_ci: Option<Interval>,
    /// Probability of a greater reward than an independent reference response, ties half, in `[0, 1]`.
    pub win_rate: f64,
    /// Its interval; exact, and there even for equal values, if all prompts are won or lost.
    pub win_rate_ci: Option<Interval>,
    /// Distance from the reference in nats; `kl_kind` says of what kind.
    pub kl_nats: f64,
    /// What kind of number `kl_nats` is.
    pub kl_kind: KlKind,
    /// Tokens drawn for one answer to each prompt, those of discarded candidates included; a rounded mean where several
    /// answers to a prompt are averaged.
    pub tokens_generated: u64,
    /// Interval of `kl_nats`; missing too for a bound that does not depend on samples.
    pub kl_ci: Option<Interval>,
    /// Ties-aware estimate in nats from all of the run's draws from the reference, where `kl_nats` is the bound of
    /// best-of-N.
    pub kl_estimate_nats: Option<f64>,
    /// Interval of the estimate.
    pub kl_estimate_ci: Option<Interval>,
    /// Mean over prompts of the answers' reward minus the reference's, in the reward's unit.
    pub reward_gain: f64,
    /// Its interval, paired by prompt: narrower than those of the two means.
    pub reward_gain_ci: Option<Interval>,
    /// Tokens drawn for an answer, mean over prompts.
    pub tokens_per_answer: f64,
    /// Its interval.
    pub tokens_per_answer_ci: Option<Interval>,
    /// The least N for which best-of-N in closed form has at least this mean reward; `None` if it is beyond the curve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like_best_of: Option<u32>,
    /// Choices among blocks for an answer, mean over prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices_per_answer: Option<f64>,
    /// Tokens drawn, discarded ones included, until the first part of an answer is certain, mean over prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_commit_tokens: Option<f64>,
    /// Its interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_commit_tokens_ci: Option<Interval>,
    /// What the prefix scorers say of the answers, one a scorer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<NamedMean>,
    /// The answers under the run's further rewards, in the configuration's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewards_also: Vec<NamedMean>,
    /// The same numbers by seed, where a run has several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seed_values: Vec<SeedValues>,
    /// How it is shown.
    #[serde(flatten)]
    pub shown_as: ShownAs,
}

impl FrontierPoint {
    /// What tables call it: its label, or the method.
    pub fn name(&self) -> &str {
        self.shown_as.label.as_deref().unwrap_or(&self.method)
    }
}

/// How a report shows a method.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ShownAs {
    /// The line that figures draw through it and the others of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<String>,
    /// What tables and figures call it instead of `method`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Settings by name, as a sweep wrote them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
}

/// A mean over prompts of something with a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedMean {
    /// A reward as written in the configuration, or a scorer.
    pub name: String,
    /// Its unit, e.g. `nats`.
    pub unit: String,
    /// The mean.
    pub mean: f64,
    /// Its interval.
    pub ci: Option<Interval>,
}

/// A point's numbers from one seed alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedValues {
    /// The seed.
    pub seed: u64,
    /// As in [`FrontierPoint`].
    pub reward_mean: f64,
    /// As in [`FrontierPoint`].
    pub win_rate: f64,
    /// As in [`FrontierPoint`]; of the point's `kl_kind`.
    pub kl_nats: f64,
    /// As in [`FrontierPoint`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl_estimate_nats: Option<f64>,
    /// As in [`FrontierPoint`].
    pub tokens_per_answer: f64,
    /// Means of [`FrontierPoint::rewards_also`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewards_also: Vec<f64>,
}
