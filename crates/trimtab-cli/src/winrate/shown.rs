//! Win rates for people and figures: the report and the terminal's table. Knows rows, makes no number.

use comfy_table::{CellAlignment, Table, presets};
use trimtab_eval::{AtKl, DifferenceAtKl, EqualKlRow, InferencePoint, InferenceReport, Interval, KlKind};

use super::results::{JudgeRow, WinRateRow};

/// The KL of what was compared, with what it is: with blocks, that of the policy and the bound of their choices together.
fn kl(row: &WinRateRow) -> (f64, KlKind, Option<Interval>) {
    match row.kl_with_blocks_nats {
        Some(kl_nats) => (kl_nats, KlKind::Bound, row.kl_with_blocks_ci),
        None => (row.kl_nats, row.kl_kind, row.kl_ci),
    }
}

/// The rows as a report; what a judge says of a procedure's answers stands there as a procedure of its own.
pub(super) fn report(rows: &[WinRateRow], reference: &str) -> InferenceReport {
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

fn point(row: &WinRateRow) -> InferencePoint {
    let (kl_nats, kl_kind, kl_ci) = kl(row);
    InferencePoint {
        method: row.method.clone(),
        family: row.family.clone(),
        training_seed: row.training_seed,
        policy: row.policy.clone(),
        procedure: row.procedure.clone(),
        reference_procedure: row.reference_procedure.clone(),
        choice: row.choice,
        judge: None,
        win_rate: row.win_rate,
        win_rate_ci: row.ci,
        tied_prompts: row.tied_prompts,
        kl_nats,
        kl_kind,
        kl_ci,
        reference_kl_nats: row.reference_kl_with_blocks_nats.unwrap_or(0.0),
        reward_mean: row.reward,
        difference: row.difference.map(|difference| (difference, row.difference_ci)),
    }
}

fn judged(row: &WinRateRow, judge: &JudgeRow) -> InferencePoint {
    InferencePoint {
        procedure: format!("{}, judged by {}", row.procedure, judge.reward),
        judge: Some(judge.reward.clone()),
        win_rate: judge.win_rate,
        win_rate_ci: judge.ci,
        tied_prompts: judge.tied_prompts,
        reward_mean: judge.mean,
        difference: judge
            .difference
            .map(|difference| (difference, judge.difference_ci)),
        ..point(row)
    }
}

/// The rows for people.
pub(crate) fn table(rows: &[WinRateRow]) -> String {
    let compares = rows.iter().any(|row| row.difference.is_some());
    let has_ties = rows.iter().any(|row| row.tied_prompts > 0);
    let mut table = Table::new();
    let mut header = ["policy", "procedure", "win rate", "95% interval"]
        .map(str::to_owned)
        .to_vec();
    header.extend(has_ties.then(|| "tied prompts".to_owned()));
    header.extend(["KL (nats)", "reward", "reference"].map(str::to_owned));
    if compares {
        header.extend(["over the first".to_owned(), "95% interval".to_owned()]);
    }
    let judges = rows.first().map_or(&[][..], |row| &row.judges);
    header.extend(judges.iter().map(|judge| format!("win rate by {}", judge.reward)));
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(cells(row, (compares, has_ties)));
    }
    let numbers = 4 + usize::from(has_ties);
    for column in [2].into_iter().chain(4..numbers + 3) {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = table.to_string();
    for remark in remarks(rows) {
        text.push('\n');
        text.push_str(&remark);
    }
    let equal_kl = report(rows, "").equal_kl();
    if !equal_kl.is_empty() {
        text.push_str("\n\n");
        text.push_str(&equal_kl_table(&equal_kl));
    }
    if equal_kl.iter().any(|row| !row.differences.is_empty()) {
        text.push_str("\n\n");
        text.push_str(&differences_table(&equal_kl, &rows[0].family));
    }
    text
}

/// Methods where they are equally far from the reference.
fn equal_kl_table(rows: &[EqualKlRow]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "procedure",
        "method",
        "runs",
        "win rate at equal KL (nats), 95% over runs",
    ]);
    let shown = |at: &AtKl| {
        let ci = at
            .ci
            .map_or_else(String::new, |ci| format!(" ({})", ends(Some(ci))));
        format!("{}: {:.3}{ci}", at.kl_nats, at.win_rate)
    };
    for row in rows.iter().filter(|row| !row.at.is_empty()) {
        let at: Vec<String> = row.at.iter().map(shown).collect();
        table.add_row([
            row.procedure.clone(),
            row.family.clone(),
            row.num_runs.to_string(),
            at.join("  "),
        ]);
    }
    table.to_string()
}

/// Methods less the first one, where they are equally far from the reference.
fn differences_table(rows: &[EqualKlRow], first: &str) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "procedure".to_owned(),
        "method".to_owned(),
        format!("over {first} at equal KL (nats), paired by seed, 95% over seeds"),
    ]);
    let shown = |at: &DifferenceAtKl| {
        let (kl_nats, num_seeds) = (at.kl_nats, at.num_seeds);
        format!(
            "{kl_nats}: {:+.3} ({}, {num_seeds} seeds)",
            at.difference,
            ends(Some(at.ci))
        )
    };
    for row in rows.iter().filter(|row| !row.differences.is_empty()) {
        let differences: Vec<String> = row.differences.iter().map(shown).collect();
        table.add_row([row.procedure.clone(), row.family.clone(), differences.join("  ")]);
    }
    table.to_string()
}

fn cells(row: &WinRateRow, (compares, has_ties): (bool, bool)) -> Vec<String> {
    let other = row.reference_procedure.as_ref();
    let mut cells = vec![
        row.policy.clone(),
        other.map_or_else(
            || row.procedure.clone(),
            |other| format!("{} against {other}", row.procedure),
        ),
        format!("{:.3}", row.win_rate),
        ends(row.ci),
    ];
    cells.extend(has_ties.then(|| row.tied_prompts.to_string()));
    let (kl_nats, kind, _) = kl(row);
    let sign = if kind == KlKind::Bound { "<= " } else { "" };
    cells.extend([
        format!("{sign}{kl_nats:.3}"),
        format!("{:.4}", row.reward),
        format!("{:.4}", row.reference_reward),
    ]);
    if compares {
        cells.push(
            row.difference
                .map_or_else(|| "-".to_owned(), |d| format!("{d:+.3}")),
        );
        cells.push(ends(row.difference_ci));
    }
    let by_judge = |judge: &JudgeRow| format!("{:.3} {}", judge.win_rate, ends(judge.ci));
    cells.extend(row.judges.iter().map(by_judge));
    cells
}

fn ends(interval: Option<Interval>) -> String {
    interval.map_or_else(
        || "-".to_owned(),
        |ends| format!("{:.3} .. {:.3}", ends.lo, ends.hi),
    )
}

/// What the numbers do not say of themselves.
fn remarks(rows: &[WinRateRow]) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(row) = rows
        .iter()
        .max_by_key(|row| row.tied_prompts)
        .filter(|row| row.tied_prompts > 0)
    {
        remarks.push(format!(
            "tied prompts: to {} of {} all answers of both sides have one {}, so that half is won there, whatever the policy",
            row.tied_prompts, row.num_prompts, row.reward_name
        ));
    }
    let mut judges: Vec<&JudgeRow> = Vec::new();
    for judge in rows
        .iter()
        .flat_map(|row| &row.judges)
        .filter(|judge| judge.tied_prompts > 0)
    {
        match judges.iter_mut().find(|known| known.reward == judge.reward) {
            Some(known) if known.tied_prompts < judge.tied_prompts => *known = judge,
            Some(_) => {}
            None => judges.push(judge),
        }
    }
    let num_prompts = rows.first().map_or(0, |row| row.num_prompts);
    remarks.extend(judges.iter().map(|judge| {
        format!(
            "by {} the answers to {} of {num_prompts} prompts are tied",
            judge.reward, judge.tied_prompts
        )
    }));
    if rows.iter().any(|row| row.kl_with_blocks_nats.is_some()) {
        remarks
            .push("<=: the KL of the policy and the bound of its choices among blocks together".to_owned());
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(procedure: &str) -> WinRateRow {
        WinRateRow {
            procedure: procedure.to_owned(),
            reference_procedure: None,
            choice: None,
            win_rate: 0.75,
            ci: None,
            tied_prompts: 0,
            kl_nats: 1.0,
            reward: 2.0,
            policy: "p".to_owned(),
            method: "rl raw".to_owned(),
            family: "rl raw".to_owned(),
            training_seed: None,
            reward_ci: None,
            reference_reward: 1.5,
            reward_name: "length".to_owned(),
            reward_unit: "tokens".to_owned(),
            kl_ci: Some(Interval { lo: 0.5, hi: 1.5 }),
            kl_kind: KlKind::Exact,
            kl_num_samples: 8,
            kl_log_ratio_nats: 1.1,
            kl_with_blocks_nats: None,
            kl_with_blocks_ci: None,
            reference_kl_with_blocks_nats: None,
            difference: None,
            difference_ci: None,
            judges: vec![JudgeRow {
                reward: "clean".to_owned(),
                win_rate: 0.5,
                ci: None,
                tied_prompts: 6,
                mean: -1.0,
                difference: None,
                difference_ci: None,
            }],
            response_len: 10.0,
            reference_response_len: 11.0,
            num_prompts: 8,
            num_samples: 32,
            reference_num_samples: None,
        }
    }

    fn steered() -> WinRateRow {
        WinRateRow {
            reference_procedure: Some("sample".to_owned()),
            kl_with_blocks_nats: Some(1.75),
            kl_with_blocks_ci: Some(Interval { lo: 1.25, hi: 2.25 }),
            reference_kl_with_blocks_nats: Some(0.0),
            ..row("cd-block:k=4,m=16")
        }
    }

    #[test]
    fn judges_are_procedures_of_their_own_behind_the_others() {
        let report = report(&[row("bon:2"), row("sample")], "m");
        let procedures: Vec<&str> = report
            .points
            .iter()
            .map(|point| point.procedure.as_str())
            .collect();
        assert_eq!(
            procedures,
            [
                "bon:2",
                "sample",
                "bon:2, judged by clean",
                "sample, judged by clean"
            ]
        );
        let judged = &report.points[2];
        assert_eq!(
            (judged.tied_prompts, judged.win_rate, judged.kl_nats),
            (6, 0.5, 1.0)
        );
        assert_eq!(judged.judge.as_deref(), Some("clean"));
    }

    #[test]
    fn with_blocks_the_kl_is_that_of_both_together() {
        let report = report(&[steered()], "m");
        let point = &report.points[0];
        assert_eq!((point.kl_nats, point.kl_kind), (1.75, KlKind::Bound));
        assert_eq!(point.kl_ci, steered().kl_with_blocks_ci);
        let text = table(&[steered()]);
        assert!(
            text.contains("<= 1.750") && text.contains("against sample"),
            "{text}"
        );
        assert!(text.contains("together"), "{text}");
    }

    /// A policy of a run, under best-of-2.
    fn of_run(family: &str, training_seed: u64, (kl_nats, win_rate): (f64, f64)) -> WinRateRow {
        WinRateRow {
            method: format!("{family} of training {training_seed}"),
            family: family.to_owned(),
            training_seed: Some(training_seed),
            kl_nats,
            win_rate,
            judges: Vec::new(),
            ..row("bon:2")
        }
    }

    #[test]
    fn methods_are_compared_with_the_first_by_the_seeds_of_their_cards() {
        let ends = [(0, 0.70, 0.75), (1, 0.80, 0.78), (2, 0.72, 0.78)];
        let runs = |family: &'static str, end: fn((u64, f64, f64)) -> f64| {
            ends.into_iter().flat_map(move |run| {
                let end = end(run);
                [(0.5, 0.25 + end / 2.0), (1.0, end)].map(|point| of_run(family, run.0, point))
            })
        };
        let rows: Vec<WinRateRow> = runs("raw", |run| run.1).chain(runs("exp", |run| run.2)).collect();
        let text = table(&rows);
        // 0.05, -0.02 and 0.06: the mean is 0.03, the standard deviation 0.043589, and t(2) at 97.5% 4.302653.
        assert!(text.contains("1: +0.030 (-0.078 .. 0.138, 3 seeds)"), "{text}");
        assert!(text.contains("0.5: +0.015 (-0.039 .. 0.069, 3 seeds)"), "{text}");
        assert!(text.contains("over raw at equal KL"), "{text}");
        assert_eq!(text.matches("3 seeds").count(), 2, "{text}");
        let alone = table(&rows[..6]);
        assert!(
            alone.contains("at equal KL") && !alone.contains("paired by seed"),
            "{alone}"
        );
    }

    #[test]
    fn ties_are_told() {
        let plain = table(&[row("sample")]);
        assert!(
            !plain.contains("tied prompts:") && plain.contains("6 of 8 prompts are tied"),
            "{plain}"
        );
        let tied = WinRateRow {
            tied_prompts: 8,
            ..row("sample")
        };
        let text = table(&[row("bon:2"), tied]);
        assert!(
            text.contains("to 8 of 8 all answers of both sides have one length"),
            "{text}"
        );
    }
}
