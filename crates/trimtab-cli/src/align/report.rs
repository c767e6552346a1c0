//! What `train align` left, for people and programs. Knows cards and numbers, no training.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::watch::Watched;
use crate::policy_card::PolicyCard;

/// Repetition that rose by this share of runs is a warning.
const REPETITION_RISE: f64 = 0.1;
/// A watched reward that agrees in less than this share of pairs is a warning.
const LEAST_AGREEMENT: f64 = 0.5;
/// A length that changed by this factor is a warning.
const LENGTH_FACTOR: f64 = 1.5;

/// What `--json` prints, and `align.json`.
#[derive(Debug, Serialize)]
pub(crate) struct AlignReport {
    pub(crate) out: String,
    /// One a beta.
    pub(crate) runs: Vec<RunReport>,
}

/// One policy.
#[derive(Debug, Serialize)]
pub(crate) struct RunReport {
    /// Its folder, which `generate --model` opens.
    pub(crate) policy: String,
    pub(crate) card: PolicyCard,
    /// The same weights in the other formats that were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) others: Vec<String>,
    /// Weights kept on the way, by rising KL; each is a policy's folder too.
    pub(crate) kept: Vec<KeptReport>,
    /// The first round of responses and the last.
    pub(crate) watched: Option<(Watched, Watched)>,
}

/// Weights kept on the way.
#[derive(Debug, Serialize)]
pub(crate) struct KeptReport {
    pub(crate) policy: String,
    pub(crate) target_kl_nats: f64,
    pub(crate) kl_nats: f64,
    pub(crate) step: u64,
}

impl AlignReport {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let runs = self.runs.iter().map(RunReport::text);
        runs.collect::<Vec<_>>().join("\n\n")
    }
}

impl RunReport {
    fn text(&self) -> String {
        let card = &self.card;
        let beta = card
            .beta
            .map_or_else(String::new, |beta| format!(", beta {beta}"));
        let kl = card
            .kl_nats
            .map_or_else(|| "not measured".to_owned(), |kl| format!("{kl:.3} nats"));
        let mut lines = vec![format!(
            "{}: {} from {}, reward {} ({}) for {}{beta}, {} steps, KL {kl}",
            self.policy,
            card.objective,
            card.base.name,
            card.reward,
            card.transform,
            card.procedure,
            card.step
        )];
        lines.extend(card.stopped.iter().map(|why| format!("ended early: {why}")));
        lines.extend(self.others.iter().map(|path| format!("also written: {path}")));
        lines.extend(self.kept.iter().map(|kept| {
            format!(
                "kept at KL {:.3} (asked for {}), step {}: {}",
                kept.kl_nats, kept.target_kl_nats, kept.step, kept.policy
            )
        }));
        if let Some((first, last)) = &self.watched {
            lines.push(table(first, last));
            lines.extend(warnings(first, last));
        }
        lines.join("\n")
    }
}

fn table(first: &Watched, last: &Watched) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["responses of the policy", "first round", "last round"]);
    let mut row = |name: &str, first: f64, last: f64| {
        let shown = |value: f64| {
            if value.is_nan() {
                "-".to_owned()
            } else {
                format!("{value:.4}")
            }
        };
        table.add_row([name.to_owned(), shown(first), shown(last)]);
    };
    row("reward", first.reward, last.reward);
    if let Some((first, last)) = first.calibrated_reward.zip(last.calibrated_reward) {
        row("calibrated reward", first, last);
    }
    row("trained on", first.trained_reward, last.trained_reward);
    row("tokens", first.response_len, last.response_len);
    row("repetition", first.repetition, last.repetition);
    for (name, judged) in &last.watch {
        let before = first.watch.get(name);
        row(
            &format!("watched {name}"),
            before.map_or(f64::NAN, |judged| judged.mean),
            judged.mean,
        );
        let agreement = |judged: Option<f64>| judged.unwrap_or(f64::NAN);
        row(
            &format!("agreement of {name}"),
            agreement(before.and_then(|judged| judged.agreement)),
            agreement(judged.agreement),
        );
    }
    for column in 1..3 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// Signs that the reward is being gamed.
fn warnings(first: &Watched, last: &Watched) -> Vec<String> {
    let mut warnings = Vec::new();
    if last.reward <= first.reward {
        return warnings;
    }
    if last.repetition > first.repetition + REPETITION_RISE {
        warnings.push(format!(
            "watch: responses repeat themselves ({:.0}% of runs of four tokens, {:.0}% at first)",
            100.0 * last.repetition,
            100.0 * first.repetition
        ));
    }
    let ratio = last.response_len / first.response_len.max(1.0);
    if !(1.0 / LENGTH_FACTOR..=LENGTH_FACTOR).contains(&ratio) {
        warnings.push(format!(
            "watch: responses have {:.1} tokens, {:.1} at first: is it length that is rewarded?",
            last.response_len, first.response_len
        ));
    }
    for (name, judged) in &last.watch {
        let before = first.watch.get(name).map_or(f64::NAN, |judged| judged.mean);
        if judged.mean < before {
            warnings.push(format!(
                "watch: the reward rises and {name} falls ({before:.4} to {:.4})",
                judged.mean
            ));
        }
        if let Some(agreement) = judged.agreement.filter(|share| *share < LEAST_AGREEMENT) {
            warnings.push(format!(
                "watch: {name} orders only {:.0}% of pairs as the reward does",
                100.0 * agreement
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::super::watch::Judged;
    use super::*;

    fn watched(reward: f64, response_len: f64, repetition: f64, judge: (f64, f64)) -> Watched {
        let judged = Judged {
            mean: judge.0,
            agreement: Some(judge.1),
        };
        Watched {
            step: 0,
            reward,
            calibrated_reward: None,
            trained_reward: reward,
            response_len,
            repetition,
            uniform_prompts: 0.0,
            watch: [("judge".to_owned(), judged)].into(),
        }
    }

    #[test]
    fn a_reward_that_rises_alone_is_told() {
        let first = watched(0.0, 50.0, 0.1, (1.0, 0.8));
        let check = |last: Watched, expect: &[&str]| {
            let warnings = warnings(&first, &last);
            assert_eq!(warnings.len(), expect.len(), "{warnings:?}");
            for (warning, expect) in warnings.iter().zip(expect) {
                assert!(warning.contains(expect), "{warning:?} lacks {expect:?}");
            }
        };
        check(watched(1.0, 52.0, 0.12, (1.1, 0.7)), &[]);
        check(
            watched(1.0, 100.0, 0.5, (1.1, 0.7)),
            &["repeat themselves", "length"],
        );
        check(
            watched(1.0, 20.0, 0.1, (0.5, 0.3)),
            &["length", "judge falls", "only 30%"],
        );
        // A reward that does not rise is not hacked.
        check(watched(-1.0, 100.0, 0.9, (0.0, 0.0)), &[]);
    }
}
