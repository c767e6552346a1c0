//! The watch for hacked rewards: what responses look like while their reward rises, and what rewards that are not trained
//! on say of them. Knows responses and rewards, no model.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use trimtab_data::Rollout;

use super::rewarding::Rewarded;

/// Tokens of a run whose return counts as repetition.
const RUN_LEN: usize = 4;

/// Responses of one round in numbers; a line of `watch.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Watched {
    /// Optimiser steps done before the round.
    pub(crate) step: u64,
    /// Mean reward, as it is.
    pub(crate) reward: f64,
    /// Mean calibrated reward; 1/2 is as good as the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) calibrated_reward: Option<f64>,
    /// Mean of what is trained on.
    pub(crate) trained_reward: f64,
    /// Mean tokens of a response.
    pub(crate) response_len: f64,
    /// Share of runs of four tokens that the same response had before.
    pub(crate) repetition: f64,
    /// Share of prompts all of whose responses have one reward: they teach nothing.
    pub(crate) uniform_prompts: f64,
    /// Rewards that are not trained on.
    #[serde(default)]
    pub(crate) watch: BTreeMap<String, Judged>,
}

/// What a reward that is not trained on says of a round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Judged {
    /// Its mean.
    pub(crate) mean: f64,
    /// Share of pairs of responses to one prompt, unequal in both, that it orders as the reward does; below 1/2 it
    /// disagrees. `None` without such pairs.
    pub(crate) agreement: Option<f64>,
}

impl Watched {
    /// The numbers of `rows`, which are scored: their rewards by name, that which is trained on named `reward`.
    pub(super) fn of(step: u64, reward: &str, rows: &[Rollout], rewarded: &[Rewarded]) -> Self {
        let value = |row: &Rollout, name: &str| row.rewards.get(name).copied().unwrap_or(f64::NAN);
        let prompts: Vec<&[Rollout]> = rows.chunk_by(|a, b| a.prompt_idx == b.prompt_idx).collect();
        let is_uniform = |prompt: &&&[Rollout]| {
            prompt
                .windows(2)
                .all(|two| value(&two[0], reward) == value(&two[1], reward))
        };
        let judged = |name: &String| {
            let pairs = prompts.iter().map(|prompt| {
                let of = |name: &str| prompt.iter().map(|row| value(row, name)).collect::<Vec<f64>>();
                agreeing_pairs(&of(reward), &of(name))
            });
            let (agreeing, all) = pairs.fold((0, 0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
            let judged = Judged {
                mean: mean(rows.iter().map(|row| value(row, name))),
                agreement: (all > 0).then(|| f64::from(agreeing) / f64::from(all)),
            };
            (name.clone(), judged)
        };
        let names = rows.first().map(|row| row.rewards.keys()).into_iter().flatten();
        Self {
            step,
            reward: mean(rows.iter().map(|row| value(row, reward))),
            calibrated_reward: rewarded
                .iter()
                .all(|one| one.calibrated_reward.is_some())
                .then(|| mean(rewarded.iter().filter_map(|one| one.calibrated_reward))),
            trained_reward: mean(rewarded.iter().map(|one| one.trained_reward)),
            response_len: mean(rows.iter().map(|row| row.response_token_ids.len() as f64)),
            repetition: mean(rows.iter().map(|row| repetition(&row.response_token_ids))),
            uniform_prompts: prompts.iter().filter(is_uniform).count() as f64 / prompts.len().max(1) as f64,
            watch: names.filter(|name| *name != reward).map(judged).collect(),
        }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, num) = values.fold((0.0, 0_u64), |(sum, num), value| (sum + value, num + 1));
    sum / num.max(1) as f64
}

/// Pairs that both order in one way, and pairs that both order.
fn agreeing_pairs(a: &[f64], b: &[f64]) -> (u32, u32) {
    let (mut agreeing, mut all) = (0, 0);
    for i in 0..a.len() {
        for j in 0..i {
            let product = (a[i] - a[j]) * (b[i] - b[j]);
            agreeing += u32::from(product > 0.0);
            all += u32::from(product != 0.0 && product.is_finite());
        }
    }
    (agreeing, all)
}

/// Share of runs of [`RUN_LEN`] tokens that came before in the same response.
fn repetition(tokens: &[u32]) -> f64 {
    let mut seen = HashSet::new();
    let (mut repeated, mut all) = (0_u32, 0_u32);
    for run in tokens.windows(RUN_LEN) {
        repeated += u32::from(!seen.insert(run));
        all += 1;
    }
    f64::from(repeated) / f64::from(all.max(1))
}

/// `watch.jsonl` of a run folder: a line for each round, by step.
#[derive(Debug)]
pub(super) struct WatchLog {
    path: PathBuf,
    lines: BTreeMap<u64, Watched>,
}

impl WatchLog {
    /// Opens the log of a run, with what an earlier part of it left.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("watch.jsonl");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let mut lines = BTreeMap::new();
        for (idx, line) in text.lines().enumerate() {
            let watched: Watched = serde_json::from_str(line)
                .with_context(|| format!("{} line {} is damaged", path.display(), idx + 1))?;
            lines.insert(watched.step, watched);
        }
        Ok(Self { path, lines })
    }

    /// Keeps a round, in place of one at the same step that a stopped run had drawn before.
    pub(super) fn keep(&mut self, watched: Watched) -> Result<()> {
        self.lines.insert(watched.step, watched);
        let lines = self.lines.values().map(serde_json::to_string);
        let text = lines.collect::<Result<Vec<_>, _>>()?.join("\n") + "\n";
        crate::whole_file::write(&self.path, &text)
    }

    /// The first round and the last; `None` before any.
    pub(super) fn ends(&self) -> Option<(Watched, Watched)> {
        let (_, first) = self.lines.first_key_value()?;
        let (_, last) = self.lines.last_key_value()?;
        Some((first.clone(), last.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_of_runs_are_repetition() {
        let check = |tokens: &[u32], expect: f64| assert_eq!(repetition(tokens), expect, "{tokens:?}");
        check(&[1, 2, 3], 0.0);
        check(&[1, 1, 1, 1, 1], 0.5);
        check(&[1, 2, 3, 4, 5, 6], 0.0);
        check(&[1, 2, 3, 4, 1, 2, 3, 4], 0.2);
    }

    #[test]
    fn agreement_counts_pairs_that_both_order() {
        assert_eq!(agreeing_pairs(&[0.0, 1.0, 2.0], &[0.0, 1.0, 2.0]), (3, 3));
        assert_eq!(agreeing_pairs(&[0.0, 1.0, 2.0], &[2.0, 1.0, 0.0]), (0, 3));
        assert_eq!(agreeing_pairs(&[0.0, 0.0, 2.0], &[5.0, 1.0, 1.0]), (0, 1));
    }

    fn row(prompt_idx: u64, reward: f64, judge: f64) -> Rollout {
        Rollout {
            prompt_idx,
            response_token_ids: vec![1, 2],
            rewards: [("r".to_owned(), reward), ("j".to_owned(), judge)].into(),
            ..Rollout::default()
        }
    }

    #[test]
    fn a_round_is_told_by_its_means() {
        let rows = [
            row(0, 1.0, 0.0),
            row(0, 3.0, 5.0),
            row(1, 2.0, 1.0),
            row(1, 2.0, 2.0),
        ];
        let rewarded = [Rewarded {
            calibrated_reward: Some(0.5),
            trained_reward: 2.0,
        }; 4];
        let watched = Watched::of(7, "r", &rows, &rewarded);
        assert_eq!(
            (watched.step, watched.reward, watched.calibrated_reward),
            (7, 2.0, Some(0.5))
        );
        assert_eq!((watched.response_len, watched.uniform_prompts), (2.0, 0.5));
        assert_eq!(watched.watch.len(), 1);
        assert_eq!(
            (watched.watch["j"].mean, watched.watch["j"].agreement),
            (2.0, Some(1.0))
        );
    }

    #[test]
    fn a_round_that_is_drawn_again_replaces_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let rewarded = [Rewarded {
            calibrated_reward: None,
            trained_reward: 1.0,
        }];
        let keep = |step: u64, reward: f64| {
            let mut log = WatchLog::open(folder.path()).unwrap();
            log.keep(Watched::of(step, "r", &[row(0, reward, 0.0)], &rewarded))
                .unwrap();
            let (first, last) = log.ends().unwrap();
            (first.reward, last.reward, log.lines.len())
        };
        assert_eq!(keep(0, 1.0), (1.0, 1.0, 1));
        assert_eq!(keep(1, 2.0), (1.0, 2.0, 2));
        assert_eq!(keep(1, 3.0), (1.0, 3.0, 2));
    }
}
