//! Procedures that have no formula, by simulation on the idealised continuous model. Knows how to draw quantiles, no
//! model and no response.
//!
//! | text | what it does to calibrated rewards |
//! |---|---|
//! | `majority:N,A` | N draws; a response's answer is which of A equal parts of `[0, 1]` it lies in; the first response of the most frequent answer |
//! | `retry:PHI,MAX` | draws until the *reference's* quantile is at least PHI, at most MAX times; then the last draw |
//! | `cd-block:K,B` | B blocks, each settling which quarter of what is left the response lies in: the best of K, then on within it |
//! | `noisy:K,S` | the best of K by a value that knows the reward up to noise: `logit(u) + S logit(v)`, `v` uniform |
//!
//! `cd-block` is blockwise controlled decoding with an exact value: continuations of a prefix are draws of the policy
//! given the part of `[0, 1]` that the prefix has come to.

use std::fmt;
use std::str::FromStr;

use trimtab_base::rng::Purpose;
use trimtab_base::{PromptKey, SampleStream, Seed};

use crate::density::Density;
use crate::error::InfalignError;
use crate::table::Table;
use crate::transform::{forms, parse_setting};

/// Every simulated procedure: its form and its meaning, for help texts.
pub const SIMULATED_PROCEDURES: &[(&str, &str)] = &[
    (
        "majority:N,A",
        "the most frequent of A answers among N responses, better answers being better",
    ),
    (
        "retry:PHI,MAX",
        "draw until the reference's quantile is PHI or more, at most MAX times",
    ),
    (
        "cd-block:K,B",
        "blockwise controlled decoding: the best of K for each of B blocks",
    ),
    (
        "noisy:K,S",
        "the best of K by a value that errs by S on the logit scale",
    ),
];

/// Parts that a block of `cd-block` tells apart.
const PARTS_PER_BLOCK: f64 = 4.0;
/// Greatest number of draws in one outcome.
const MAX_DRAWS: u32 = 4096;

/// Draws from a policy of the idealised model, for one outcome.
pub struct PolicyDraws<'a> {
    /// `None` for the reference.
    policy: Option<&'a Density>,
    stream: SampleStream,
    next: u64,
}

impl PolicyDraws<'_> {
    /// Calibrated reward of one response, under the reference.
    pub fn draw(&mut self) -> f64 {
        self.draw_within(0.0, 1.0)
    }

    /// The same of a response that is known to lie in `[lo, hi]`.
    pub fn draw_within(&mut self, lo: f64, hi: f64) -> f64 {
        let coin = self.coin();
        match self.policy {
            None => lo + coin * (hi - lo),
            Some(policy) => {
                let (below, up_to) = (policy.cumulative(lo), policy.cumulative(hi));
                policy.quantile(below + coin * (up_to - below)).clamp(lo, hi)
            }
        }
    }

    /// A uniform number in `[0, 1)`, for a procedure's own randomness.
    pub fn coin(&mut self) -> f64 {
        self.next += 1;
        self.stream.uniform(self.next)
    }
}

/// What happens to a policy at inference, as a program: any choice among draws of calibrated rewards.
pub trait SimulatedProcedure {
    /// Calibrated reward of the response that the procedure answers with.
    fn outcome(&self, policy: &mut PolicyDraws<'_>) -> f64;
}

/// A choice of one among N calibrated rewards.
pub trait CandidateChoice {
    /// N.
    fn num_candidates(&self) -> usize;
    /// Which one is kept, an index into the N candidates.
    fn choose(&self, calibrated_rewards: &[f64]) -> usize;
}

impl<C: CandidateChoice> SimulatedProcedure for C {
    fn outcome(&self, policy: &mut PolicyDraws<'_>) -> f64 {
        let candidates: Vec<f64> = (0..self.num_candidates()).map(|_| policy.draw()).collect();
        let chosen = self.choose(&candidates).min(candidates.len().saturating_sub(1));
        candidates.get(chosen).copied().unwrap_or(0.5)
    }
}

/// The procedures of the module's table.
#[derive(Debug, Clone, PartialEq)]
pub enum Simulated {
    /// The most frequent of so many answers.
    Majority {
        /// Responses.
        num_candidates: u32,
        /// Answers.
        num_answers: u32,
    },
    /// Draw until the reference's quantile is high enough.
    Retry {
        /// In `[0, 1)`.
        threshold: f64,
        /// Draws at most.
        max_draws: u32,
    },
    /// Blockwise controlled decoding.
    Blocks {
        /// Candidates for each block.
        num_candidates: u32,
        /// Blocks.
        num_blocks: u32,
    },
    /// Best-of-K by a noisy value.
    Noisy {
        /// Candidates.
        num_candidates: u32,
        /// Scale of the logistic noise on the logit of the calibrated reward; 0 is best-of-K.
        noise: f64,
    },
}

impl SimulatedProcedure for Simulated {
    fn outcome(&self, policy: &mut PolicyDraws<'_>) -> f64 {
        match *self {
            Self::Majority {
                num_candidates,
                num_answers,
            } => majority(policy, num_candidates, num_answers),
            Self::Retry { threshold, max_draws } => {
                let mut last = policy.draw();
                for _ in 1..max_draws {
                    if last >= threshold {
                        break;
                    }
                    last = policy.draw();
                }
                last
            }
            Self::Blocks {
                num_candidates,
                num_blocks,
            } => blockwise(policy, num_candidates, num_blocks),
            Self::Noisy {
                num_candidates,
                noise,
            } => {
                let scored = (0..num_candidates).map(|_| {
                    let (drawn, error) = (policy.draw(), policy.coin());
                    (drawn, logit(drawn) + noise * logit(error))
                });
                let best = scored.max_by(|a, b| a.1.total_cmp(&b.1));
                best.map_or(0.5, |(drawn, _)| drawn)
            }
        }
    }
}

fn logit(u: f64) -> f64 {
    let inside = u.clamp(1e-300, 1.0 - f64::EPSILON / 2.0);
    inside.ln() - (-inside).ln_1p()
}

fn majority(policy: &mut PolicyDraws<'_>, num_candidates: u32, num_answers: u32) -> f64 {
    let candidates: Vec<f64> = (0..num_candidates).map(|_| policy.draw()).collect();
    let answer = |u: f64| ((u * f64::from(num_answers)) as u32).min(num_answers - 1);
    let votes = |u: f64| {
        candidates
            .iter()
            .filter(|&&other| answer(other) == answer(u))
            .count()
    };
    let mut chosen = candidates[0];
    for &candidate in &candidates[1..] {
        if votes(candidate) > votes(chosen) {
            chosen = candidate;
        }
    }
    chosen
}

fn blockwise(policy: &mut PolicyDraws<'_>, num_candidates: u32, num_blocks: u32) -> f64 {
    let (mut lo, mut width) = (0.0, 1.0);
    for _ in 0..num_blocks {
        width /= PARTS_PER_BLOCK;
        let part = |u: f64| ((u - lo) / width).floor().clamp(0.0, PARTS_PER_BLOCK - 1.0);
        let hi = lo + width * PARTS_PER_BLOCK;
        let best = (0..num_candidates)
            .map(|_| part(policy.draw_within(lo, hi)))
            .fold(0.0, f64::max);
        lo += best * width;
    }
    policy.draw_within(lo, lo + width)
}

/// A simulated win rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SimulatedWinRate {
    /// Inference-time win rate.
    pub win_rate: f64,
    /// Its standard error.
    pub standard_error: f64,
}

/// `W^T(policy > reference)` of a procedure without a formula, by `num_outcomes` outcomes on each side.
///
/// All pairs of outcomes are compared; the error is that of a two-sample statistic (the variances of both sides' mean
/// wins, each over its number). One seed gives one answer, and the same coins to every policy.
pub fn simulated_win_rate(
    policy: &Density,
    procedure: &dyn SimulatedProcedure,
    num_outcomes: u32,
    seed: Seed,
) -> SimulatedWinRate {
    let of_policy = outcomes(Some(policy), procedure, num_outcomes, seed);
    let of_reference = outcomes(None, procedure, num_outcomes, seed);
    let (win_rate, policy_variance) = mean_win(&of_policy, &of_reference);
    let (_, reference_variance) = mean_win(&of_reference, &of_policy);
    let variance = (policy_variance + reference_variance) / f64::from(num_outcomes.max(1));
    SimulatedWinRate {
        win_rate,
        standard_error: variance.sqrt(),
    }
}

/// The acceptance weight `g(q)` of a procedure that looks at nothing but the order of its draws, as a table of
/// `num_parts` equal parts, by outcomes on the reference: then formulas take over from simulation.
///
/// # Errors
/// [`InfalignError::OutOfRange`] for no part at all.
pub fn simulated_weights(
    procedure: &dyn SimulatedProcedure,
    num_parts: u32,
    num_outcomes: u32,
    seed: Seed,
) -> Result<Table, InfalignError> {
    if !(1..=1000).contains(&num_parts) {
        return Err(InfalignError::OutOfRange {
            what: "number of parts",
            value: f64::from(num_parts),
            expected: "1 to 1000",
        });
    }
    let mut counts = vec![0_u32; num_parts as usize];
    for outcome in outcomes(None, procedure, num_outcomes, seed) {
        let part = (outcome * f64::from(num_parts)) as usize;
        counts[part.min(num_parts as usize - 1)] += 1;
    }
    let share = f64::from(num_parts) / f64::from(num_outcomes.max(1));
    let weights: Vec<f64> = counts.iter().map(|&count| f64::from(count) * share).collect();
    // Lines between the middles of parts, level beyond the first and last.
    let middle = |idx: usize| (idx as f64 + 0.5) / f64::from(num_parts);
    let mut points = vec![(0.0, weights[0])];
    points.extend(
        weights
            .iter()
            .enumerate()
            .map(|(idx, &weight)| (middle(idx), weight)),
    );
    points.push((1.0, weights[weights.len() - 1]));
    Table::try_new("simulated weights", &points)
}

/// Outcomes in ascending order.
fn outcomes(
    policy: Option<&Density>,
    procedure: &dyn SimulatedProcedure,
    num_outcomes: u32,
    seed: Seed,
) -> Vec<f64> {
    let side = PromptKey(u64::from(policy.is_some()));
    let mut outcomes: Vec<f64> = (0..num_outcomes)
        .map(|idx| {
            let stream = SampleStream::new(seed, side, u64::from(idx), Purpose::Token);
            procedure.outcome(&mut PolicyDraws {
                policy,
                stream,
                next: 0,
            })
        })
        .collect();
    outcomes.sort_by(f64::total_cmp);
    outcomes
}

/// Mean and variance of the share of `others` that each of `these` beats, ties half; both ascend.
fn mean_win(these: &[f64], others: &[f64]) -> (f64, f64) {
    let share = |value: f64| {
        let below = others.partition_point(|&other| other < value);
        let up_to = others.partition_point(|&other| other <= value);
        (below + up_to) as f64 / (2 * others.len()) as f64
    };
    let shares: Vec<f64> = these.iter().map(|&value| share(value)).collect();
    let count = shares.len().max(1) as f64;
    let mean = shares.iter().sum::<f64>() / count;
    let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / count;
    (mean, variance)
}

impl FromStr for Simulated {
    type Err = InfalignError;

    fn from_str(text: &str) -> Result<Self, InfalignError> {
        let unknown = || InfalignError::Unknown {
            what: "simulated procedure",
            text: text.to_owned(),
            known: forms(SIMULATED_PROCEDURES),
        };
        let (name, settings) = text.trim().split_once(':').ok_or_else(unknown)?;
        let (first, second) = settings.split_once(',').ok_or_else(unknown)?;
        let (first, second) = (first.trim(), second.trim());
        let count = |setting: &str| {
            parse_setting(name, "a whole number from 1 to 4096", setting, |n| {
                (1..=MAX_DRAWS).contains(n)
            })
        };
        match name {
            "majority" => Ok(Self::Majority {
                num_candidates: count(first)?,
                num_answers: count(second)?,
            }),
            "retry" => Ok(Self::Retry {
                threshold: parse_setting(name, "a number from 0 to below 1", first, |phi| {
                    (0.0..1.0).contains(phi)
                })?,
                max_draws: count(second)?,
            }),
            "cd-block" => Ok(Self::Blocks {
                num_candidates: count(first)?,
                num_blocks: parse_setting(name, "a whole number from 1 to 20", second, |n| {
                    (1..=20).contains(n)
                })?,
            }),
            "noisy" => Ok(Self::Noisy {
                num_candidates: count(first)?,
                noise: parse_setting(name, "a number from 0 to 1000", second, |s| {
                    (0.0..=1000.0).contains(s)
                })?,
            }),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Majority {
                num_candidates,
                num_answers,
            } => write!(f, "majority:{num_candidates},{num_answers}"),
            Self::Retry { threshold, max_draws } => write!(f, "retry:{threshold},{max_draws}"),
            Self::Blocks {
                num_candidates,
                num_blocks,
            } => write!(f, "cd-block:{num_candidates},{num_blocks}"),
            Self::Noisy {
                num_candidates,
                noise,
            } => write!(f, "noisy:{num_candidates},{noise}"),
        }
    }
}

#[cfg(test)]
mod tests;
