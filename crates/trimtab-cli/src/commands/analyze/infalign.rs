//! `trimtab analyze infalign`: win rates of transforms under procedures, at KLs or betas. Knows how they are shown.

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use trimtab_infalign::{Analysis, Density, Transform, policy_at_beta, policy_at_kl};

use super::procedure::{AnyProcedure, read_transform, split_list};
use crate::Verdict;
use crate::args::AnalyzeInfalignArgs;
use crate::output;

/// A line; the content of `--json` is one of these or a list of them.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    analysis: Analysis,
    /// Of a simulated win rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    win_rate_standard_error: Option<f64>,
}

pub(crate) fn run(args: &AnalyzeInfalignArgs) -> Result<Verdict> {
    let procedures = split_list(&args.procedure)
        .iter()
        .map(|text| AnyProcedure::read(text))
        .collect::<Result<Vec<_>>>()?;
    let transforms = split_list(&args.transform)
        .iter()
        .map(|text| read_transform(text))
        .collect::<Result<Vec<_>>>()?;
    let mut lines = Vec::new();
    for transform in &transforms {
        for policy in policies(args, transform)? {
            for procedure in &procedures {
                let (analysis, win_rate_standard_error) = procedure.analyze(&policy, args.simulation)?;
                lines.push(Line {
                    analysis,
                    win_rate_standard_error,
                });
            }
        }
    }
    match lines.as_slice() {
        [line] if args.json => output::json(line)?,
        lines if args.json => output::json(&lines)?,
        lines => show(lines)?,
    }
    Ok(Verdict::Ok)
}

fn policies(args: &AnalyzeInfalignArgs, transform: &Transform) -> Result<Vec<Density>> {
    let at_kl = args.kl.iter().map(|&kl_nats| {
        policy_at_kl(transform, kl_nats).with_context(|| format!("{transform} at --kl {kl_nats}"))
    });
    let at_beta = args.beta.iter().map(|&beta| {
        policy_at_beta(transform, beta).with_context(|| format!("{transform} at --beta {beta}"))
    });
    at_kl.chain(at_beta).collect()
}

fn show(lines: &[Line]) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "procedure",
        "transform",
        "KL (nats)",
        "beta",
        "win rate",
        "standard",
    ]);
    for line in lines {
        let analysis = &line.analysis;
        let error = line.win_rate_standard_error;
        table.add_row([
            analysis.procedure.clone(),
            analysis.transform.to_string(),
            format!("{:.4}", analysis.kl_nats),
            beta(analysis.beta),
            format!("{:.4}", analysis.win_rate)
                + &error.map_or_else(String::new, |error| format!(" \u{b1} {error:.4}")),
            format!("{:.4}", analysis.standard_win_rate),
        ]);
    }
    for column in 2..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    output::line(&table.to_string())
}

/// A beta with four significant digits, of which some transforms have very small ones.
pub(super) fn beta(beta: f64) -> String {
    if (1e-3..1e4).contains(&beta) {
        format!("{beta:.4}")
    } else {
        format!("{beta:.3e}")
    }
}
