//! The part of a report that compares methods at equal KL: which points are runs of one method, table, figure and CSV.
//! Knows points, makes no win rate.

use maud::{Markup, html};

use super::figure::{Curve, Figure, Level, Mark, series_class};
use super::inference::{InferencePoint, InferenceReport, distinct};
use super::numbers;
use crate::confidence::{DEFAULT_LEVEL, Interval};
use crate::equal_kl::{AtKl, DifferenceAtKl, Run, at_equal_kl, difference_at_equal_kl};
use crate::error::EvalError;
use crate::kl::KlKind;

/// Where methods are compared, in nats.
const GRID: [f64; 10] = [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];

/// Columns of the table of values.
const CSV_HEADER: [&str; 11] = [
    "procedure",
    "method",
    "kl_nats",
    "win_rate",
    "win_rate_ci_lo",
    "win_rate_ci_hi",
    "num_runs",
    "difference",
    "difference_ci_lo",
    "difference_ci_hi",
    "difference_num_seeds",
];

/// A method under a procedure, where its runs reach.
#[derive(Debug, Clone, PartialEq)]
pub struct EqualKlRow {
    /// As in the points.
    pub procedure: String,
    /// What its runs have in common.
    pub family: String,
    /// Runs whose mean it is.
    pub num_runs: usize,
    /// By growing KL, as far as all runs reach.
    pub at: Vec<AtKl>,
    /// Over the family of the report's first point, by growing KL, as far as two runs of each from the same seeds reach; none
    /// of that family itself.
    pub differences: Vec<DifferenceAtKl>,
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
            let families: Vec<(&str, Vec<Run>)> = distinct(points.iter().map(|point| point.family.as_str()))
                .into_iter()
                .filter_map(|family| Some((family, runs(family, &points)?)))
                .collect();
            let is_first = |family: &str| Some(family) == self.first_family();
            let first = families.iter().find(|(family, _)| is_first(family));
            let of_procedure: Vec<EqualKlRow> = families
                .iter()
                .filter_map(|(family, runs)| {
                    let first = first
                        .filter(|_| !is_first(family))
                        .map_or(&[][..], |(_, runs)| runs);
                    row((procedure, family), runs, first)
                })
                .collect();
            if of_procedure.len() > 1 || of_procedure.iter().any(EqualKlRow::is_of_several_runs) {
                rows.extend(of_procedure);
            }
        }
        rows
    }

    /// The one that others are compared with.
    fn first_family(&self) -> Option<&str> {
        self.points.first().map(|point| point.family.as_str())
    }

    /// The rows as CSV, a line for each KL.
    pub(super) fn equal_kl_csv(&self) -> Result<String, EvalError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(CSV_HEADER)?;
        for row in self.equal_kl() {
            for kl_nats in reached(std::slice::from_ref(&row)) {
                writer.write_record(row.fields(kl_nats))?;
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
        let has_differences = rows.iter().any(|row| !row.differences.is_empty());
        let first = self.first_family().filter(|_| has_differences);
        html! {
            @if !rows.is_empty() {
                h2 { "At equal KL" }
                p {
                    "Straight lines between the policies of a run, the reference at 0.5 first; means over runs that differ \
                     by their seed alone, with Student\u{2019}s 95% interval over them."
                    @if let Some(first) = first {
                        " Below them the difference from " (first) ", the mean over seeds from which both have a run that \
                         goes so far, paired by seed, with Student\u{2019}s 95% interval over those seeds."
                    }
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
                                    td { (row.num_runs) }
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
            let of_procedure: Vec<&EqualKlRow> = rows
                .iter()
                .filter(|row| row.procedure == **procedure && !row.at.is_empty())
                .collect();
            figure(format!("equal-kl-{}", idx + 1), procedure, &of_procedure)
        };
        procedures.iter().enumerate().map(figure).collect()
    }
}

impl EqualKlRow {
    fn is_of_several_runs(&self) -> bool {
        self.num_runs > 1
    }

    fn at(&self, kl_nats: f64) -> Option<&AtKl> {
        self.at.iter().find(|at| at.kl_nats == kl_nats)
    }

    fn difference_at(&self, kl_nats: f64) -> Option<&DifferenceAtKl> {
        self.differences.iter().find(|at| at.kl_nats == kl_nats)
    }

    /// A line of the CSV; what is missing is empty.
    fn fields(&self, kl_nats: f64) -> [String; CSV_HEADER.len()] {
        let ends = |interval: Option<Interval>| {
            interval.map_or_else(Default::default, |ci| [ci.lo.to_string(), ci.hi.to_string()])
        };
        let (at, over_first) = (self.at(kl_nats), self.difference_at(kl_nats));
        let [lo, hi] = ends(at.and_then(|at| at.ci));
        let [difference_lo, difference_hi] = ends(over_first.map(|at| at.ci));
        [
            self.procedure.clone(),
            self.family.clone(),
            kl_nats.to_string(),
            at.map_or_else(String::new, |at| at.win_rate.to_string()),
            lo,
            hi,
            at.map_or_else(String::new, |at| at.num_runs.to_string()),
            over_first.map_or_else(String::new, |at| at.difference.to_string()),
            difference_lo,
            difference_hi,
            over_first.map_or_else(String::new, |at| at.num_seeds.to_string()),
        ]
    }
}

/// A family's; `None` where one of them is a single policy, which is no line.
fn runs(family: &str, points: &[&InferencePoint]) -> Option<Vec<Run>> {
    let of_family: Vec<&&InferencePoint> = points.iter().filter(|point| point.family == family).collect();
    let run = |method: &str| {
        let of_run = of_family.iter().filter(|point| point.method == method);
        Run {
            seed: of_run.clone().find_map(|point| point.training_seed),
            points: of_run.map(|point| (point.kl_nats, point.win_rate)).collect(),
        }
    };
    let methods = distinct(of_family.iter().map(|point| point.method.as_str()));
    let runs: Vec<Run> = methods.into_iter().map(run).collect();
    runs.iter().all(|run| run.points.len() > 1).then_some(runs)
}

/// What a family's runs say; `None` where they reach nothing.
fn row((procedure, family): (&str, &str), runs: &[Run], first: &[Run]) -> Option<EqualKlRow> {
    let at: Vec<AtKl> = GRID
        .iter()
        .filter_map(|&kl_nats| at_equal_kl(runs, kl_nats, DEFAULT_LEVEL))
        .collect();
    let differences: Vec<DifferenceAtKl> = GRID
        .iter()
        .filter_map(|&kl_nats| difference_at_equal_kl(runs, first, kl_nats, DEFAULT_LEVEL))
        .collect();
    (!at.is_empty() || !differences.is_empty()).then(|| EqualKlRow {
        procedure: procedure.to_owned(),
        family: family.to_owned(),
        num_runs: runs.len(),
        at,
        differences,
    })
}

/// The part of the grid that any method reaches.
fn reached(rows: &[EqualKlRow]) -> Vec<f64> {
    let is_reached = |kl: &f64| {
        rows.iter()
            .any(|row| row.at(*kl).is_some() || row.difference_at(*kl).is_some())
    };
    GRID.into_iter().filter(is_reached).collect()
}

fn cell(row: &EqualKlRow, kl_nats: f64) -> Markup {
    html! {
        td {
            @if let Some(at) = row.at(kl_nats) {
                (numbers::number(at.win_rate)) small { (numbers::interval(at.ci)) }
            } @else { "\u{2013}" }
            @if let Some(at) = row.difference_at(kl_nats) {
                small {
                    (numbers::signed(at.difference)) " " (numbers::interval(Some(at.ci))) ", " (at.num_seeds) " seeds"
                }
            }
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
            .map(|row| (row.family.as_str(), row.num_runs))
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
        assert!(csv.contains("\nbon:4,c,1,0.55,,,1,,,,\n"), "{csv}");
    }

    /// Two points of each run, the second at its end.
    fn run(method: &str, procedure: &str, (kl_nats, win_rate): (f64, f64)) -> [InferencePoint; 2] {
        [
            point(
                method,
                "p",
                procedure,
                f64::midpoint(0.5, win_rate),
                kl_nats / 2.0,
            ),
            point(method, "p", procedure, win_rate, kl_nats),
        ]
    }

    #[test]
    fn methods_are_compared_with_the_first_by_seed_as_far_as_two_of_each_go() {
        let of_procedure = |procedure| {
            [
                run("b, seed 0", procedure, (2.0, 0.7)),
                run("b, seed 1", procedure, (2.0, 0.8)),
                run("b, seed 2", procedure, (1.0, 0.6)),
                // Of another order, and one seed that the first has not.
                run("a, seed 9", procedure, (4.0, 0.9)),
                run("a, seed 1", procedure, (2.0, 0.9)),
                run("a, seed 0", procedure, (1.5, 0.725)),
                run("a, seed 2", procedure, (2.0, 0.8)),
            ]
            .into_iter()
            .flatten()
        };
        let mut report = report(of_procedure("bon:4").chain(of_procedure("sample")).collect());
        let rows = report.equal_kl();
        let names: Vec<(&str, &str, usize, usize)> = rows
            .iter()
            .map(|row| {
                (
                    row.procedure.as_str(),
                    row.family.as_str(),
                    row.num_runs,
                    row.differences.len(),
                )
            })
            .collect();
        assert_eq!(
            names,
            [
                ("bon:4", "b", 3, 0),
                ("bon:4", "a", 4, 3),
                ("sample", "b", 3, 0),
                ("sample", "a", 4, 3)
            ]
        );
        // By seed: at 1 nat 0.05, 0.05 and 0.05 of three, at 1.5 nats 0.075 and 0.075 of the two that go so far.
        let found: Vec<(f64, usize)> = rows[1]
            .differences
            .iter()
            .map(|at| (at.kl_nats, at.num_seeds))
            .collect();
        assert_eq!(found, [(0.5, 3), (1.0, 3), (1.5, 2)]);
        for (at, expect) in rows[1].differences.iter().zip([0.025, 0.05, 0.075]) {
            assert!((at.difference - expect).abs() < 1e-12, "{at:?}");
        }
        let page = report.to_html();
        assert!(
            page.contains("the difference from b,") && page.contains(", 2 seeds"),
            "{page}"
        );
        // Without the first policy's family there is nothing to compare with.
        report.points.insert(0, point("c", "c", "bon:4", 0.5, 1.0));
        assert!(report.equal_kl().iter().all(|row| row.differences.is_empty()));
        assert!(!report.to_html().contains("the difference from"));
    }

    #[test]
    fn lines_tell_differences_and_leave_empty_what_is_not_there() {
        let report = report(
            [
                run("b, seed 0", "bon:4", (1.0, 0.7)),
                run("b, seed 1", "bon:4", (1.0, 0.75)),
                run("a, seed 0", "bon:4", (1.0, 0.75)),
                run("a, seed 1", "bon:4", (1.0, 0.75)),
                run("a, seed 2", "bon:4", (0.75, 0.6)),
            ]
            .into_iter()
            .flatten()
            .collect(),
        );
        let csv = report.equal_kl_csv().unwrap();
        let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(lines[0], CSV_HEADER);
        assert_eq!(lines.len(), 1 + 2 + 2, "{csv}");
        assert_eq!(lines[2][..3], ["bon:4", "b", "1"]);
        assert_eq!(lines[2][6..], ["2", "", "", "", ""]);
        // One of three runs ends before 1 nat: no mean over runs, and two pairs.
        assert_eq!(lines[4][..7], ["bon:4", "a", "1", "", "", "", ""]);
        let numbers: Vec<f64> = lines[4][7..].iter().map(|field| field.parse().unwrap()).collect();
        // 0.05 and 0: the standard error is 0.025, t(1) at 97.5% 12.706205.
        let half = 12.706_205 * 0.025;
        for (got, expect) in numbers.iter().zip([0.025, 0.025 - half, 0.025 + half, 2.0]) {
            assert!((got - expect).abs() < 1e-6, "{csv}");
        }
    }
}
