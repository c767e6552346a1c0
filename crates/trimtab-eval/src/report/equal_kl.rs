//! The part of a report that compares methods at equal KL: which points are runs of one method, table, figure and CSV.
//! Knows points, makes no win rate.

use maud::{Markup, html};

use super::figure::{Curve, Figure, Level, Mark, series_class};
use super::inference::{InferencePoint, InferenceReport, distinct};
use super::numbers;
use crate::confidence::DEFAULT_LEVEL;
use crate::equal_kl::{AtKl, Curve as Run, at_equal_kl};
use crate::error::EvalError;
use crate::kl::KlKind;

/// Where methods are compared, in nats.
const GRID: [f64; 10] = [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];

/// A method under a procedure, where its runs reach.
#[derive(Debug, Clone, PartialEq)]
pub struct EqualKlRow {
    /// As in the points.
    pub procedure: String,
    /// What its runs have in common.
    pub family: String,
    /// By growing KL.
    pub at: Vec<AtKl>,
}

impl InferenceReport {
    /// Win rates at equal KL of every method with at least two policies a run; none where there is nothing to compare.
    pub fn equal_kl(&self) -> Vec<EqualKlRow> {
        let mut rows = Vec::new();
        for procedure in distinct(self.points.iter().map(|point| point.procedure.as_str())) {
            let points: Vec<&InferencePoint> = self
                .points
                .iter()
                // Where the reference is left as it is, a policy that has not moved does not stand at one half.
                .filter(|point| point.procedure == procedure && point.kl_kind != KlKind::Bound)
                .filter(|point| point.reference_procedure.is_none())
                .collect();
            let of_procedure: Vec<EqualKlRow> = distinct(points.iter().map(|point| point.family.as_str()))
                .into_iter()
                .filter_map(|family| row(procedure, family, &points))
                .collect();
            if of_procedure.len() > 1 || of_procedure.iter().any(EqualKlRow::is_of_several_runs) {
                rows.extend(of_procedure);
            }
        }
        rows
    }

    /// The rows as CSV, a line for each KL.
    pub(super) fn equal_kl_csv(&self) -> Result<String, EvalError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record([
            "procedure",
            "method",
            "kl_nats",
            "win_rate",
            "win_rate_ci_lo",
            "win_rate_ci_hi",
            "num_runs",
        ])?;
        for row in self.equal_kl() {
            for at in &row.at {
                let end = |of: fn(crate::confidence::Interval) -> f64| {
                    at.ci.map_or_else(String::new, |ci| of(ci).to_string())
                };
                writer.write_record([
                    row.procedure.clone(),
                    row.family.clone(),
                    at.kl_nats.to_string(),
                    at.win_rate.to_string(),
                    end(|ci| ci.lo),
                    end(|ci| ci.hi),
                    at.num_runs.to_string(),
                ])?;
            }
        }
        let bytes = writer
            .into_inner()
            .map_err(|error| csv::Error::from(error.into_error()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The table, or nothing where there is nothing to compare.
    pub(super) fn equal_kl_table(&self) -> Markup {
        let rows = self.equal_kl();
        let grid = reached(&rows);
        html! {
            @if !rows.is_empty() {
                h2 { "At equal KL" }
                p {
                    "Straight lines between the policies of a run, the reference at 0.5 first; means over runs that differ \
                     by their seed alone, with Student\u{2019}s 95% interval over them."
                }
                div.scroll tabindex="0" role="region" aria-label="Win rates at equal KL" {
                    table {
                        thead { tr {
                            th scope="col" { "Procedure" }
                            th scope="col" { "Method" }
                            th scope="col" { "Runs" }
                            @for kl in &grid { th scope="col" { (numbers::number(*kl)) " nats" } }
                        } }
                        tbody {
                            @for row in &rows {
                                tr {
                                    th scope="row" { (row.procedure) }
                                    td { (row.family) }
                                    td { (row.num_runs()) }
                                    @for kl in &grid { (cell(row, *kl)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// A figure for each procedure under which methods have several runs.
    pub(super) fn equal_kl_figures(&self) -> Vec<Figure> {
        let rows = self.equal_kl();
        let procedures = distinct(
            rows.iter()
                .filter(|row| row.is_of_several_runs())
                .map(|row| row.procedure.as_str()),
        );
        let figure = |(idx, procedure): (usize, &&str)| {
            let of_procedure: Vec<&EqualKlRow> =
                rows.iter().filter(|row| row.procedure == **procedure).collect();
            figure(format!("equal-kl-{}", idx + 1), procedure, &of_procedure)
        };
        procedures.iter().enumerate().map(figure).collect()
    }
}

impl EqualKlRow {
    /// Runs whose mean it is.
    pub fn num_runs(&self) -> usize {
        self.at.first().map_or(0, |at| at.num_runs)
    }

    fn is_of_several_runs(&self) -> bool {
        self.num_runs() > 1
    }
}

fn row(procedure: &str, family: &str, points: &[&InferencePoint]) -> Option<EqualKlRow> {
    let of_family: Vec<&&InferencePoint> = points.iter().filter(|point| point.family == family).collect();
    let run = |method: &str| -> Run {
        let of_run = of_family.iter().filter(|point| point.method == method);
        of_run.map(|point| (point.kl_nats, point.win_rate)).collect()
    };
    let methods = distinct(of_family.iter().map(|point| point.method.as_str()));
    let runs: Vec<Run> = methods.into_iter().map(run).collect();
    if runs.iter().any(|run| run.len() < 2) {
        return None;
    }
    let at: Vec<AtKl> = GRID
        .iter()
        .filter_map(|&kl_nats| at_equal_kl(&runs, kl_nats, DEFAULT_LEVEL))
        .collect();
    (!at.is_empty()).then(|| EqualKlRow {
        procedure: procedure.to_owned(),
        family: family.to_owned(),
        at,
    })
}

/// The part of the grid that any method reaches.
fn reached(rows: &[EqualKlRow]) -> Vec<f64> {
    let is_reached = |kl: &f64| rows.iter().flat_map(|row| &row.at).any(|at| at.kl_nats == *kl);
    GRID.into_iter().filter(is_reached).collect()
}

fn cell(row: &EqualKlRow, kl_nats: f64) -> Markup {
    let at = row.at.iter().find(|at| at.kl_nats == kl_nats);
    html! {
        td {
            @if let Some(at) = at { (numbers::number(at.win_rate)) small { (numbers::interval(at.ci)) } }
            @else { "\u{2013}" }
        }
    }
}

fn figure(id: String, procedure: &str, rows: &[&EqualKlRow]) -> Figure {
    let curve = |(series, row): (usize, &&EqualKlRow)| Curve {
        class: series_class("through", series),
        points: std::iter::once((0.0, 0.5))
            .chain(row.at.iter().map(|at| (at.kl_nats, at.win_rate)))
            .collect(),
        ..Curve::default()
    };
    let marks = rows.iter().enumerate().flat_map(|(series, row)| {
        row.at.iter().enumerate().map(move |(idx, at)| Mark {
            label: format!("{}, {} nats", row.family, at.kl_nats),
            // A line is named once, at its end.
            beside: Some(if idx + 1 == row.at.len() {
                row.family.clone()
            } else {
                String::new()
            }),
            series,
            x: at.kl_nats,
            x_interval: None,
            x_estimate: None,
            kind: KlKind::Exact,
            y: at.win_rate,
            y_interval: at.ci,
        })
    });
    Figure {
        id,
        description: format!("Win rate at equal KL under {procedure}, means over runs, by method"),
        title: "Win rate at equal KL.",
        caption: format!(
            "{procedure}; means over runs that differ by their seed, bars are Student\u{2019}s intervals over them."
        ),
        level: Level::FromZero,
        x_label: "KL from the reference (nats)".to_owned(),
        y_label: format!("win rate under {procedure}"),
        y_limits: (0.0, 1.0),
        curves: rows.iter().enumerate().map(curve).collect(),
        marks: marks.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::inference_figures::fixture::point;

    fn report(points: Vec<InferencePoint>) -> InferenceReport {
        InferenceReport {
            reference: "m".to_owned(),
            reward: "r".to_owned(),
            num_prompts: 2,
            points,
        }
    }

    #[test]
    fn runs_of_one_family_are_averaged_where_all_of_them_reach() {
        let report = report(vec![
            point("a, seed 0", "a0", "bon:4", 0.6, 1.0),
            point("a, seed 0", "a1", "bon:4", 0.7, 2.0),
            point("a, seed 1", "b0", "bon:4", 0.8, 1.0),
            point("a, seed 1", "b1", "bon:4", 0.9, 3.0),
            point("c", "c0", "bon:4", 0.55, 1.0),
            point("c", "c1", "bon:4", 0.65, 4.0),
            // One policy is no line, and one line nothing to compare.
            point("d", "d0", "bon:4", 0.9, 2.0),
            point("c", "c0", "won:4", 0.55, 1.0),
            point("c", "c1", "won:4", 0.65, 4.0),
        ]);
        let rows = report.equal_kl();
        let names: Vec<(&str, usize)> = rows
            .iter()
            .map(|row| (row.family.as_str(), row.num_runs()))
            .collect();
        assert_eq!(names, [("a", 2), ("c", 1)]);
        let at: Vec<(f64, f64)> = rows[0].at.iter().map(|at| (at.kl_nats, at.win_rate)).collect();
        let expect = [(0.5, 0.6), (1.0, 0.7), (1.5, 0.7375), (2.0, 0.775)];
        for (got, expect) in at.iter().zip(expect) {
            assert!(got.0 == expect.0 && (got.1 - expect.1).abs() < 1e-12, "{at:?}");
        }
        assert_eq!((at.len(), rows[1].at.len()), (4, 6));
        let page = report.to_html();
        assert!(
            page.contains("At equal KL") && page.contains("equal-kl-1"),
            "{page}"
        );
        let csv = report.equal_kl_csv().unwrap();
        assert_eq!(csv.lines().count(), 11);
        assert!(csv.contains("\nbon:4,c,1,0.55,,,1\n"), "{csv}");
    }
}
