//! `trimtab analyze design`: the transform to train with for a procedure. Knows how the answer is shown.

use std::path::PathBuf;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use trimtab_eval::{WinRateLine, WinRateLines};
use trimtab_infalign::{Analysis, Design, design, design_by};

use super::infalign::{beta, certified};
use super::procedure::AnyProcedure;
use crate::Verdict;
use crate::args::AnalyzeDesignArgs;
use crate::output;

/// The content of `--json`.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    procedure: String,
    #[serde(flatten)]
    design: &'a Design,
}

pub(crate) fn run(args: &AnalyzeDesignArgs) -> Result<Verdict> {
    let procedure = AnyProcedure::read(&args.procedure)?;
    let num_points = u32::try_from(args.points).context("--points")?;
    let found = match &procedure {
        AnyProcedure::Formula(formula) => design(formula, args.kl_max, num_points),
        AnyProcedure::Simulation(_) => {
            let by_simulation = |policy: &_| {
                procedure
                    .analyze(policy, args.simulation)
                    .map(|(analysis, _)| analysis)
            };
            design_by(&by_simulation, None, args.kl_max, num_points)
        }
    }
    .with_context(|| format!("{} within --kl-max {}", procedure.name(), args.kl_max))?;
    let out = figure_path(args, &procedure.name());
    if let Some(path) = &out {
        figure(&procedure.name(), &found).write(path)?;
    }
    if args.json {
        output::json(&Answer {
            procedure: procedure.name(),
            design: &found,
        })?;
    } else {
        output::line(&table(&found))?;
        output::line("")?;
        for line in advice(&procedure.name(), &found) {
            output::line(&line)?;
        }
        if let Some(path) = &out {
            output::line(&format!("Figure: {}", path.display()))?;
        }
    }
    Ok(Verdict::Ok)
}

/// Where the figure goes: as asked, or for people beside where they are, under the procedure's name.
fn figure_path(args: &AnalyzeDesignArgs, procedure: &str) -> Option<PathBuf> {
    let of_name = |letter: char| {
        if letter.is_ascii_alphanumeric() {
            letter
        } else {
            '_'
        }
    };
    let named = || {
        let name: String = procedure.chars().map(of_name).collect();
        PathBuf::from(format!("design_{name}.html"))
    };
    args.out.clone().or_else(|| (!args.json).then(named))
}

/// What a transform is to the answer.
fn role(found: &Design, transform: &str) -> String {
    let is = |point: &Analysis| point.transform.to_string() == transform;
    let is_missing = found
        .missing_fixed_point
        .as_ref()
        .is_some_and(|missing| missing.transform == transform);
    if is(&found.recommended) {
        "recommended".to_owned()
    } else if is_missing || found.fixed_point.as_ref().is_some_and(is) {
        if transform.starts_with("bon") {
            "the most that any policy can reach".to_owned()
        } else {
            "stationary among all policies".to_owned()
        }
    } else if is(&found.identity) {
        "what training for the standard win rate gets".to_owned()
    } else {
        String::new()
    }
}

fn table(found: &Design) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["transform", "beta", "win rate", "standard", ""]);
    // A line that ends before the budget has no number to compare.
    let at_budget = |point: &&Analysis| point.kl_nats >= found.kl_max_nats * (1.0 - 1e-3);
    let last_points = found.lines.iter().filter_map(|line| line.points.last());
    for point in last_points.filter(at_budget) {
        let name = point.transform.to_string();
        table.add_row([
            name.clone(),
            beta(point.beta),
            format!("{:.4}", point.win_rate),
            format!("{:.4}", point.standard_win_rate),
            role(found, &name),
        ]);
    }
    for column in 1..4 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// What to do, and what it buys; a line for each.
fn advice(procedure: &str, found: &Design) -> Vec<String> {
    let (best, plain) = (&found.recommended, &found.identity);
    let percent = |point: &Analysis| format!("{:.1}%", 100.0 * point.win_rate);
    let mut advice = vec![format!(
        "For {procedure} within {} nats: train with transform = \"{}\" and beta = {}.",
        found.kl_max_nats,
        best.transform,
        beta(best.beta)
    )];
    if best.transform != plain.transform {
        let sooner = found
            .kl_nats_for_identity_win_rate
            .map(|kl_nats| format!(", and reaches identity's at {kl_nats:.3} nats"));
        advice.push(format!(
            "It wins {} under {procedure} where identity wins {}{}.",
            percent(best),
            percent(plain),
            sooner.unwrap_or_default()
        ));
    }
    if found.is_at_edge_of_search {
        advice.push(format!(
            "{} is at the edge of what was searched: a transform beyond it may win more.",
            best.transform
        ));
    }
    if let Some(point) = &found.fixed_point {
        advice.push(format!(
            "{} gets {}; its transform depends on beta.",
            point.transform,
            percent(point)
        ));
        advice.extend(certified(&[point]).map(|line| format!("{line}.")));
    }
    if let Some(missing) = &found.missing_fixed_point {
        advice.push(format!(
            "{} is not there to compare with at this budget: {}.",
            missing.transform, missing.reason
        ));
    }
    advice
}

fn figure(procedure: &str, found: &Design) -> WinRateLines {
    let lines = found.lines.iter().map(|line| {
        let label = line.transform.to_string();
        WinRateLine {
            note: role(found, &label),
            points: line
                .points
                .iter()
                .map(|point| (point.kl_nats, point.win_rate))
                .collect(),
            label,
        }
    });
    WinRateLines {
        title: format!("What a transform buys under {procedure}"),
        lead: format!(
            "{procedure} is applied to the policy and to the reference, on the idealised continuous model; the policy was \
             trained on a transform of the calibrated reward, and its KL is before the procedure. {}",
            advice(procedure, found).join(" ")
        ),
        y_label: format!("win rate under {procedure}"),
        lines: lines.collect(),
    }
}
