//! `trimtab analyze infalign`: win rates of transforms under procedures, at KLs or betas. Knows how they are shown.

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use trimtab_infalign::{
    Analysis, Certificate, Density, InfalignError, Transform, policy_at_beta, policy_at_kl,
};

use super::procedure::{AnyProcedure, read_transform, split_list};
use crate::Verdict;
use crate::args::AnalyzeInfalignArgs;
use crate::output;

/// A line; the content of `--json` is one of these or a list of them.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Line {
    Answer {
        #[serde(flatten)]
        analysis: Analysis,
        /// Of a simulated win rate.
        #[serde(skip_serializing_if = "Option::is_none")]
        win_rate_standard_error: Option<f64>,
    },
    None(NoAnswer),
}

/// A line whose policy is beyond what can be solved. The numbers that were not asked for are null.
#[derive(Debug, Serialize)]
struct NoAnswer {
    procedure: String,
    transform: Transform,
    kl_nats: Option<f64>,
    beta: Option<f64>,
    win_rate: Option<f64>,
    standard_win_rate: Option<f64>,
    reason: String,
}

/// Where a policy is asked for.
#[derive(Debug, Clone, Copy)]
enum Distance {
    Kl(f64),
    Beta(f64),
}

impl Distance {
    fn policy(self, transform: &Transform) -> Result<Density, InfalignError> {
        match self {
            Self::Kl(kl_nats) => policy_at_kl(transform, kl_nats),
            Self::Beta(beta) => policy_at_beta(transform, beta),
        }
    }

    /// As it is asked for.
    fn name(self) -> String {
        match self {
            Self::Kl(kl_nats) => format!("--kl {kl_nats}"),
            Self::Beta(beta) => format!("--beta {beta}"),
        }
    }
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
    let of_kl = args.kl.iter().map(|&kl_nats| Distance::Kl(kl_nats));
    let of_beta = args.beta.iter().map(|&beta| Distance::Beta(beta));
    let distances: Vec<Distance> = of_kl.chain(of_beta).collect();
    let mut lines = Vec::new();
    // One policy out of reach costs its own lines, and is an error where there are no others.
    let mut first_error = None;
    for transform in &transforms {
        for &distance in &distances {
            let policy = match distance.policy(transform) {
                Err(error) if error.is_out_of_reach() => Err(error),
                policy => Ok(policy.with_context(|| format!("{transform} at {}", distance.name()))?),
            };
            for procedure in &procedures {
                lines.push(line(procedure, (transform, distance), policy.as_ref(), args)?);
            }
            first_error = first_error.or(policy.err().map(|error| (error, transform, distance)));
        }
    }
    let has_answer = lines.iter().any(|line| matches!(line, Line::Answer { .. }));
    if let Some((error, transform, distance)) = first_error.filter(|_| !has_answer) {
        return Err(error).with_context(|| format!("{transform} at {}", distance.name()));
    }
    match lines.as_slice() {
        [line] if args.json => output::json(line)?,
        lines if args.json => output::json(&lines)?,
        lines => show(lines)?,
    }
    Ok(Verdict::Ok)
}

fn line(
    procedure: &AnyProcedure,
    (transform, distance): (&Transform, Distance),
    policy: Result<&Density, &InfalignError>,
    args: &AnalyzeInfalignArgs,
) -> Result<Line> {
    let (kl_nats, beta) = match distance {
        Distance::Kl(kl_nats) => (Some(kl_nats), None),
        Distance::Beta(beta) => (None, Some(beta)),
    };
    Ok(match policy {
        Ok(policy) => {
            let (analysis, win_rate_standard_error) = procedure.analyze(policy, args.simulation)?;
            Line::Answer {
                analysis,
                win_rate_standard_error,
            }
        }
        Err(error) => Line::None(NoAnswer {
            procedure: procedure.name(),
            transform: transform.clone(),
            kl_nats,
            beta,
            win_rate: None,
            standard_win_rate: None,
            reason: error.to_string(),
        }),
    })
}

impl Line {
    fn cells(&self) -> [String; 6] {
        let or_none = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
        match self {
            Self::Answer {
                analysis,
                win_rate_standard_error: error,
            } => [
                analysis.procedure.clone(),
                analysis.transform.to_string(),
                format!("{:.4}", analysis.kl_nats),
                beta(analysis.beta),
                format!("{:.4}", analysis.win_rate)
                    + &error.map_or_else(String::new, |error| format!(" \u{b1} {error:.4}")),
                format!("{:.4}", analysis.standard_win_rate),
            ],
            Self::None(none) => [
                none.procedure.clone(),
                none.transform.to_string(),
                or_none(none.kl_nats.map(|kl_nats| format!("{kl_nats:.4}"))),
                or_none(none.beta.map(beta)),
                or_none(None),
                or_none(None),
            ],
        }
    }
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
        table.add_row(line.cells());
    }
    for column in 2..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    output::line(&table.to_string())?;
    remarks(lines).iter().try_for_each(|remark| output::line(remark))
}

/// How well fixed points are solved, a line each, and why cells are empty.
fn remarks(lines: &[Line]) -> Vec<String> {
    let analyses = || {
        lines.iter().filter_map(|line| match line {
            Line::Answer { analysis, .. } => Some(analysis),
            Line::None(_) => None,
        })
    };
    let of_transform = |named: &Analysis| {
        let same: Vec<&Analysis> = analyses()
            .filter(|analysis| analysis.transform == named.transform)
            .collect();
        certified(&same)
    };
    let reasons = lines.iter().filter_map(|line| match line {
        Line::None(none) => Some(format!("-: {}", none.reason)),
        Line::Answer { .. } => None,
    });
    let mut remarks: Vec<String> = Vec::new();
    for remark in analyses().filter_map(of_transform).chain(reasons) {
        // The same policy stands in a line for each procedure.
        if !remarks.contains(&remark) {
            remarks.push(remark);
        }
    }
    remarks
}

/// How well the policies of one fixed point are solved, at worst; `None` for a transform that is none.
pub(super) fn certified(analyses: &[&Analysis]) -> Option<String> {
    let transform = &analyses.first()?.transform;
    let certificates = || analyses.iter().filter_map(|analysis| analysis.certificate);
    certificates().next()?;
    let worst = |number: fn(Certificate) -> f64| certificates().map(number).fold(f64::EPSILON, f64::max);
    let (residual_nats, gap) = (
        worst(|certificate| certificate.residual_nats),
        worst(|certificate| certificate.gap),
    );
    let of_gap = match transform {
        Transform::BonFixedPoint { .. } => {
            format!("no policy has a win rate - beta KL greater by more than {gap:.0e}")
        }
        _ => format!("one more application gives a policy whose beta KL is {gap:.0e}: stationary"),
    };
    Some(format!(
        "{transform}: solved to {residual_nats:.0e} nats of log-density; {of_gap}"
    ))
}

/// A beta with four significant digits, of which some transforms have very small ones.
pub(super) fn beta(beta: f64) -> String {
    if (1e-3..1e4).contains(&beta) {
        format!("{beta:.4}")
    } else {
        format!("{beta:.3e}")
    }
}
