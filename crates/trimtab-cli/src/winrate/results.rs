//! Win rates with their intervals, from rewards of both sides prompt by prompt. Knows numbers, no samples' texts.

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use trimtab_base::Seed;
use trimtab_eval::{Bootstrap, InferencePoint, InferenceReport, Interval, KlKind, inference_win_rate};

use super::divergence::PromptKl;
use super::procedure::EvalProcedure;
use super::selection::{Weighted, weights};
use super::steered::SteeredAnswer;
use crate::policy_card::PolicyCard;

/// One policy under one procedure; `--json` prints a list of these.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct WinRateRow {
    /// What was done at inference, on both sides.
    pub(crate) procedure: String,
    /// Share of comparisons with the reference under the same procedure that the policy wins, ties half.
    pub(crate) win_rate: f64,
    /// 95%, over prompts; `null` where prompts say nothing about spread.
    pub(crate) ci: Option<Interval>,
    /// `KL(policy || reference)` of a response, before the procedure, in nats.
    pub(crate) kl_nats: f64,
    /// Mean reward of the policy's answers under the procedure.
    pub(crate) reward: f64,
    /// As it was named.
    pub(crate) policy: String,
    /// What it was trained on, if it is a policy of `train align`.
    pub(crate) method: String,
    /// Of `reward`.
    pub(crate) reward_ci: Option<Interval>,
    /// Mean reward of the reference's answers under the procedure.
    pub(crate) reference_reward: f64,
    pub(crate) reward_name: String,
    pub(crate) reward_unit: String,
    /// Over prompts.
    pub(crate) kl_ci: Option<Interval>,
    /// What `kl_nats` is: exact at each token, averaged over samples.
    pub(crate) kl_kind: KlKind,
    /// The same KL as the mean of sequence log-ratios: an estimate with more noise.
    pub(crate) kl_log_ratio_nats: f64,
    /// For blocks: `kl_nats` plus the bound of the choices among blocks, since KLs of tilting a policy add up (CD 2310.17022v3).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kl_with_blocks_nats: Option<f64>,
    /// Win rate less that of the first policy under this procedure, paired by prompt; not for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) difference: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) difference_ci: Option<Interval>,
    /// The same answers by rewards that neither chose them nor were trained on.
    pub(crate) judges: Vec<JudgeRow>,
    /// Mean tokens of a sample of the policy, and of the reference.
    pub(crate) response_len: f64,
    pub(crate) reference_response_len: f64,
    pub(crate) num_prompts: usize,
    /// Samples of each side to each prompt.
    pub(crate) num_samples: usize,
}

/// Win rate by another reward.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct JudgeRow {
    pub(crate) reward: String,
    /// Of the answers that the procedure chose by the first reward.
    pub(crate) win_rate: f64,
    pub(crate) ci: Option<Interval>,
    /// Mean of this reward over those answers of the policy.
    pub(crate) mean: f64,
    /// Win rate less that of the first policy, paired by prompt; not for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) difference: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) difference_ci: Option<Interval>,
}

impl JudgeRow {
    /// Of win rates and mean rewards by prompt.
    fn of(reward: &str, (win_rates, rewards): (&[f64], &[f64]), bootstrap: Bootstrap) -> Self {
        Self {
            reward: reward.to_owned(),
            win_rate: mean(win_rates),
            ci: bootstrap.share_interval(win_rates),
            mean: mean(rewards),
            difference: None,
            difference_ci: None,
        }
    }
}

/// Rewards of one side to one prompt. `[rewards][answers]`
pub(super) type Answers = Vec<Vec<f64>>;

/// One side under one procedure.
pub(super) struct SideAnswers {
    /// `[prompts]`
    pub(super) prompts: Vec<Answers>,
    /// Mean drift of its own choices among blocks, in nats; 0 without.
    pub(super) drift_nats: f64,
}

impl SideAnswers {
    /// Of answers by blockwise control.
    pub(super) fn of_steered(answers: &[Vec<SteeredAnswer>]) -> Self {
        let of_prompt = |answers: &Vec<SteeredAnswer>| {
            let num_rewards = answers.first().map_or(0, |answer| answer.rewards.len());
            let of_reward = |reward: usize| answers.iter().map(|answer| answer.rewards[reward]).collect();
            (0..num_rewards).map(of_reward).collect()
        };
        let drifts: Vec<f64> = answers.iter().flatten().map(|answer| answer.drift_nats).collect();
        Self {
            prompts: answers.iter().map(of_prompt).collect(),
            drift_nats: drifts.iter().sum::<f64>() / drifts.len().max(1) as f64,
        }
    }
}

/// What a comparison knows besides rewards.
pub(super) struct Facts<'a> {
    pub(super) policy: &'a str,
    pub(super) card: Option<&'a PolicyCard>,
    pub(super) kl: &'a [PromptKl],
    /// Names of the rewards, the one that procedures choose by first.
    pub(super) rewards: &'a [trimtab_data::RewardColumn],
    /// Of the policy's samples and of the reference's.
    pub(super) response_lens: (f64, f64),
    pub(super) seed: u64,
}

/// A row and what pairs it with those of other policies.
pub(super) struct Compared {
    pub(super) row: WinRateRow,
    /// Win rate of each prompt.
    pub(super) by_prompt: Vec<f64>,
    /// The same by each judge. `[judges][prompts]`
    judges_by_prompt: Vec<Vec<f64>>,
}

/// Compares two sides under a procedure.
///
/// # Errors
/// Fewer samples than the procedure takes.
pub(super) fn compare(
    procedure: &EvalProcedure,
    policy: &SideAnswers,
    reference: &SideAnswers,
    facts: &Facts<'_>,
) -> Result<Compared> {
    let bootstrap = Bootstrap::of_seed(Seed(facts.seed));
    let sides: Vec<(&Answers, &Answers)> = policy.prompts.iter().zip(&reference.prompts).collect();
    let chosen: Vec<(Vec<f64>, Vec<f64>)> = sides
        .iter()
        .map(|(policy, reference)| (weights(procedure, &policy[0]), weights(procedure, &reference[0])))
        .collect();
    let of_judge = |judge: usize, of: &dyn Fn(Weighted<'_>, Weighted<'_>) -> f64| -> Vec<f64> {
        let weighted = |rewards, weights| Weighted { rewards, weights };
        sides
            .iter()
            .zip(&chosen)
            .map(|((policy, reference), (of_policy, of_reference))| {
                of(
                    weighted(&policy[judge], of_policy),
                    weighted(&reference[judge], of_reference),
                )
            })
            .collect()
    };
    let win_rates = |judge: usize| of_judge(judge, &|policy, reference| policy.win_rate(&reference));
    let by_prompt = match procedure.choice() {
        Some(choice) => sides
            .iter()
            .map(|(policy, reference)| inference_win_rate(choice, &policy[0], &reference[0]))
            .collect::<Result<Vec<f64>, _>>()?,
        None => win_rates(0),
    };
    let rewards = of_judge(0, &|policy, _| policy.mean());
    let judges_by_prompt: Vec<Vec<f64>> = (1..facts.rewards.len()).map(win_rates).collect();
    let judges = (1..).zip(&judges_by_prompt).map(|(judge, by_prompt)| {
        let rewards = of_judge(judge, &|policy, _| policy.mean());
        JudgeRow::of(&facts.rewards[judge].name, (by_prompt, &rewards), bootstrap)
    });
    let kl: Vec<f64> = facts.kl.iter().map(|prompt| prompt.kl_nats).collect();
    let log_ratio: Vec<f64> = facts.kl.iter().map(|prompt| prompt.log_ratio_nats).collect();
    let is_steered = matches!(procedure, EvalProcedure::Blocks(_));
    let row = WinRateRow {
        procedure: procedure.to_string(),
        win_rate: mean(&by_prompt),
        ci: bootstrap.share_interval(&by_prompt),
        kl_nats: mean(&kl),
        reward: mean(&rewards),
        policy: facts.policy.to_owned(),
        method: facts.card.map_or_else(
            || facts.policy.to_owned(),
            |card| format!("{} {}", card.objective, card.transform),
        ),
        reward_ci: bootstrap.mean_interval(&rewards),
        reference_reward: mean(&of_judge(0, &|_, reference| reference.mean())),
        reward_name: facts.rewards[0].name.clone(),
        reward_unit: facts.rewards[0].unit.clone(),
        kl_ci: bootstrap.mean_interval(&kl),
        kl_kind: KlKind::Exact,
        kl_log_ratio_nats: mean(&log_ratio),
        kl_with_blocks_nats: is_steered.then(|| mean(&kl) + policy.drift_nats),
        difference: None,
        difference_ci: None,
        judges: judges.collect(),
        response_len: facts.response_lens.0,
        reference_response_len: facts.response_lens.1,
        num_prompts: by_prompt.len(),
        num_samples: sides.first().map_or(0, |(policy, _)| policy[0].len()),
    };
    Ok(Compared {
        row,
        by_prompt,
        judges_by_prompt,
    })
}

impl Compared {
    /// Adds the difference from the first policy under the same procedure.
    pub(super) fn against(mut self, first: &Self, seed: u64) -> Self {
        let differences = |ours: &[f64], theirs: &[f64]| {
            let differences: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a - b).collect();
            let interval = Bootstrap::of_seed(Seed(seed)).mean_interval(&differences);
            (Some(mean(&differences)), interval)
        };
        (self.row.difference, self.row.difference_ci) = differences(&self.by_prompt, &first.by_prompt);
        let by_judge = self.judges_by_prompt.iter().zip(&first.judges_by_prompt);
        for (judge, (ours, theirs)) in self.row.judges.iter_mut().zip(by_judge) {
            (judge.difference, judge.difference_ci) = differences(ours, theirs);
        }
        self
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The rows as a report; what a judge says of a procedure's answers stands there as a procedure of its own.
pub(super) fn report(rows: &[WinRateRow], reference: &str) -> InferenceReport {
    let point = |row: &WinRateRow| InferencePoint {
        method: row.method.clone(),
        policy: row.policy.clone(),
        procedure: row.procedure.clone(),
        win_rate: row.win_rate,
        win_rate_ci: row.ci,
        kl_nats: row.kl_nats,
        kl_ci: row.kl_ci,
        reward_mean: row.reward,
        difference: row.difference.map(|difference| (difference, row.difference_ci)),
    };
    let judged = |row: &WinRateRow, judge: &JudgeRow| InferencePoint {
        procedure: format!("{}, judged by {}", row.procedure, judge.reward),
        win_rate: judge.win_rate,
        win_rate_ci: judge.ci,
        reward_mean: judge.mean,
        difference: judge
            .difference
            .map(|difference| (difference, judge.difference_ci)),
        ..point(row)
    };
    // Behind all others: figures are in the order of points.
    let by_judges = rows
        .iter()
        .flat_map(|row| row.judges.iter().map(move |judge| judged(row, judge)));
    InferenceReport {
        reference: reference.to_owned(),
        reward: rows
            .first()
            .map_or_else(String::new, |row| row.reward_name.clone()),
        num_prompts: rows.first().map_or(0, |row| row.num_prompts),
        points: rows.iter().map(point).chain(by_judges).collect(),
    }
}

/// The rows for people.
pub(crate) fn table(rows: &[WinRateRow]) -> String {
    let ends = |interval: Option<Interval>| {
        interval.map_or_else(
            || "-".to_owned(),
            |ends| format!("{:.3} .. {:.3}", ends.lo, ends.hi),
        )
    };
    let judges: Vec<&str> = rows.first().map_or_else(Vec::new, |row| {
        row.judges.iter().map(|judge| judge.reward.as_str()).collect()
    });
    let compares = rows.iter().any(|row| row.difference.is_some());
    let mut table = Table::new();
    let mut header = [
        "policy",
        "procedure",
        "win rate",
        "95% interval",
        "KL (nats)",
        "reward",
        "reference",
    ]
    .map(str::to_owned)
    .to_vec();
    if compares {
        header.extend(["over the first".to_owned(), "95% interval".to_owned()]);
    }
    header.extend(judges.iter().map(|judge| format!("win rate by {judge}")));
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        let mut cells = vec![
            row.policy.clone(),
            row.procedure.clone(),
            format!("{:.3}", row.win_rate),
            ends(row.ci),
            format!("{:.3}", row.kl_nats),
            format!("{:.4}", row.reward),
            format!("{:.4}", row.reference_reward),
        ];
        if compares {
            cells.push(
                row.difference
                    .map_or_else(|| "-".to_owned(), |d| format!("{d:+.3}")),
            );
            cells.push(ends(row.difference_ci));
        }
        let by_judge = |judge: &JudgeRow| format!("{:.3} {}", judge.win_rate, ends(judge.ci));
        cells.extend(row.judges.iter().map(by_judge));
        table.add_row(cells);
    }
    for column in [2, 4, 5, 6] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use trimtab_data::RewardColumn;

    use super::*;

    fn side(prompts: &[&[f64]]) -> SideAnswers {
        SideAnswers {
            prompts: prompts.iter().map(|rewards| vec![rewards.to_vec()]).collect(),
            drift_nats: 0.0,
        }
    }

    fn facts<'a>(rewards: &'a [RewardColumn], kl: &'a [PromptKl]) -> Facts<'a> {
        Facts {
            policy: "p",
            card: None,
            kl,
            rewards,
            response_lens: (1.0, 2.0),
            seed: 0,
        }
    }

    #[test]
    fn win_rates_are_means_over_prompts_and_differences_are_paired() {
        let columns = [RewardColumn {
            name: "r".to_owned(),
            unit: "u".to_owned(),
        }];
        let facts = facts(&columns, &[]);
        let reference = side(&[&[0.0, 1.0], &[0.0, 0.0], &[5.0, 6.0]]);
        let of = |policy: &SideAnswers, procedure: &str| {
            compare(&procedure.parse().unwrap(), policy, &reference, &facts).unwrap()
        };
        let policy = side(&[&[1.0, 2.0], &[0.0, 1.0], &[0.0, 9.0]]);
        let sample = of(&policy, "sample");
        assert_eq!(sample.by_prompt, [0.875, 0.75, 0.5]);
        assert!((sample.row.win_rate - 2.125 / 3.0).abs() < 1e-12);
        let best = of(&policy, "bon:2");
        assert_eq!(best.by_prompt, [1.0, 1.0, 1.0]);
        assert_eq!(best.row.reward, 4.0);
        assert_eq!(best.row.reference_reward, (1.0 + 0.0 + 6.0) / 3.0);
        let worst = of(&policy, "won:2");
        assert_eq!(worst.by_prompt, [1.0, 0.5, 0.0]);
        let paired = worst.against(&best, 0);
        assert_eq!(paired.row.difference, Some(-0.5));
    }

    #[test]
    fn a_judge_compares_what_the_procedure_chose_by_the_first_reward() {
        let column = |name: &str| RewardColumn {
            name: name.to_owned(),
            unit: "u".to_owned(),
        };
        let columns = [column("hacked"), column("clean")];
        let facts = facts(&columns, &[]);
        // The second reward is the first one backwards on the policy's side, and constant on the other.
        let both = |prompts: &[[f64; 2]], clean: &dyn Fn(f64) -> f64| SideAnswers {
            prompts: prompts
                .iter()
                .map(|rewards| {
                    vec![
                        rewards.to_vec(),
                        rewards.iter().map(|&reward| clean(reward)).collect(),
                    ]
                })
                .collect(),
            drift_nats: 0.0,
        };
        let policy = both(&[[5.0, 9.0], [6.0, 8.0]], &|reward| 7.0 - reward);
        let other = both(&[[5.0, 6.0], [6.0, 6.5]], &|reward| 7.0 - reward);
        let reference = both(&[[1.0, 2.0], [1.0, 2.0]], &|_| 0.0);
        let of =
            |policy: &SideAnswers| compare(&"bon:2".parse().unwrap(), policy, &reference, &facts).unwrap();
        let first = of(&policy);
        let judge = &first.row.judges[0];
        assert_eq!((first.row.win_rate, judge.win_rate, judge.mean), (1.0, 0.0, -1.5));
        assert!(judge.ci.is_some() && judge.difference.is_none());
        let second = of(&other).against(&first, 0);
        let judge = &second.row.judges[0];
        assert_eq!((judge.win_rate, judge.difference), (1.0, Some(1.0)));
        let procedures: Vec<String> = report(&[first.row, second.row], "r")
            .points
            .into_iter()
            .map(|point| point.procedure)
            .collect();
        assert_eq!(
            procedures,
            [
                "bon:2",
                "bon:2",
                "bon:2, judged by clean",
                "bon:2, judged by clean"
            ]
        );
    }
}
