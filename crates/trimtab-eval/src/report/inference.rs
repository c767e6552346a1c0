//! Inference-time win rates against KL, a line for each method: page and CSV. Knows how numbers are shown; makes none.

use std::path::{Path, PathBuf};

use maud::{Markup, html};

use super::figure::{Curve, Figure, Level, Mark, series_class};
use super::page::page;
use super::{files, numbers};
use crate::confidence::Interval;
use crate::error::EvalError;
use crate::kl::KlKind;

/// Names of figures on the page; procedures beyond them have rows in the table alone.
const FIGURE_IDS: [&str; 12] = [
    "procedure-1",
    "procedure-2",
    "procedure-3",
    "procedure-4",
    "procedure-5",
    "procedure-6",
    "procedure-7",
    "procedure-8",
    "procedure-9",
    "procedure-10",
    "procedure-11",
    "procedure-12",
];

/// Columns of the table of values.
const CSV_HEADER: [&str; 13] = [
    "method",
    "policy",
    "procedure",
    "win_rate",
    "win_rate_ci_lo",
    "win_rate_ci_hi",
    "kl_nats",
    "kl_ci_lo",
    "kl_ci_hi",
    "reward_mean",
    "difference",
    "difference_ci_lo",
    "difference_ci_hi",
];

/// One policy under one procedure.
#[derive(Debug, Clone, PartialEq)]
pub struct InferencePoint {
    /// Its line in the figures, e.g. what it was trained on; policies of one line differ in their KL.
    pub method: String,
    /// What it is called.
    pub policy: String,
    /// What was done at inference, on both sides.
    pub procedure: String,
    /// Share of comparisons that it wins, ties half.
    pub win_rate: f64,
    /// Over prompts.
    pub win_rate_ci: Option<Interval>,
    /// From the reference, of the policy before the procedure.
    pub kl_nats: f64,
    /// Over prompts.
    pub kl_ci: Option<Interval>,
    /// Under the procedure.
    pub reward_mean: f64,
    /// Win rate less that of the first policy, with its paired interval.
    pub difference: Option<(f64, Option<Interval>)>,
}

/// Win rates of policies under procedures.
#[derive(Debug, Clone, PartialEq)]
pub struct InferenceReport {
    /// What the policies are compared with.
    pub reference: String,
    /// What is compared.
    pub reward: String,
    /// Prompts that all means are over.
    pub num_prompts: usize,
    /// In the order of policies, then procedures.
    pub points: Vec<InferencePoint>,
}

impl InferenceReport {
    /// Writes `winrate.html` and `winrate.csv` into an existing folder; gives the page's path.
    ///
    /// # Errors
    /// [`EvalError::Write`] naming the file, [`EvalError::Csv`].
    pub fn write(&self, folder: &Path) -> Result<PathBuf, EvalError> {
        let page = folder.join("winrate.html");
        files::write_whole(&folder.join("winrate.csv"), self.to_csv()?.as_bytes())?;
        files::write_whole(&page, self.to_html().as_bytes())?;
        Ok(page)
    }

    /// The points as CSV with a header; what is missing is empty.
    ///
    /// # Errors
    /// [`EvalError::Csv`].
    pub fn to_csv(&self) -> Result<String, EvalError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(CSV_HEADER)?;
        for point in &self.points {
            let ends = |interval: Option<Interval>| {
                interval.map_or_else(Default::default, |ends| {
                    [ends.lo.to_string(), ends.hi.to_string()]
                })
            };
            let [win_lo, win_hi] = ends(point.win_rate_ci);
            let [kl_lo, kl_hi] = ends(point.kl_ci);
            let difference = point.difference.map(|(difference, _)| difference.to_string());
            let [difference_lo, difference_hi] = ends(point.difference.and_then(|(_, interval)| interval));
            writer.write_record([
                point.method.clone(),
                point.policy.clone(),
                point.procedure.clone(),
                point.win_rate.to_string(),
                win_lo,
                win_hi,
                point.kl_nats.to_string(),
                kl_lo,
                kl_hi,
                point.reward_mean.to_string(),
                difference.unwrap_or_default(),
                difference_lo,
                difference_hi,
            ])?;
        }
        let bytes = writer
            .into_inner()
            .map_err(|error| csv::Error::from(error.into_error()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The page: no script, nothing fetched.
    pub fn to_html(&self) -> String {
        let content = html! {
            header {
                h1 { "Win rates at inference, against " (self.reference) }
                p.lead {
                    "Each procedure is applied to the policy and to the reference, and what comes out is compared \
                     by reward " code { (self.reward) } ", ties half. Means over " (self.num_prompts)
                    " prompts; brackets and bars are 95% intervals over prompts. KL is that of the policy, \
                     before the procedure."
                }
            }
            (self.table())
            section.figures aria-label="Figures" {
                @for shown in self.figures() {
                    figure {
                        figcaption { b { (shown.title) } " " (shown.caption) }
                        (shown.to_svg())
                    }
                }
                (self.legend())
            }
        };
        page(
            &format!("Inference-time win rates against {}", self.reference),
            &content,
        )
    }

    /// Lines in order of their first points.
    fn methods(&self) -> Vec<&str> {
        distinct(self.points.iter().map(|point| point.method.as_str()))
    }

    fn series(&self, point: &InferencePoint) -> usize {
        let methods = self.methods();
        methods
            .iter()
            .position(|method| *method == point.method)
            .unwrap_or(0)
    }

    fn table(&self) -> Markup {
        let cell = |value: f64, interval: Option<Interval>| {
            html! { td { (numbers::number(value)) small { (numbers::interval(interval)) } } }
        };
        let compares = self.points.iter().any(|point| point.difference.is_some());
        html! {
            div.scroll tabindex="0" role="region" aria-label="Results by policy and procedure" {
                table {
                    thead {
                        tr {
                            th scope="col" { "Policy" }
                            th scope="col" { "Procedure" }
                            th scope="col" { "Win rate" small { "ties half" } }
                            th scope="col" { "KL" small { "nats" } }
                            th scope="col" { "Mean reward" }
                            @if compares { th scope="col" { "Over the first" small { "paired by prompt" } } }
                        }
                    }
                    tbody {
                        @for point in &self.points {
                            tr {
                                th scope="row" {
                                    span class=(series_class("swatch", self.series(point))) aria-hidden="true" {}
                                    code { (point.policy) } small { (point.method) }
                                }
                                td { code { (point.procedure) } }
                                (cell(point.win_rate, point.win_rate_ci))
                                (cell(point.kl_nats, point.kl_ci))
                                (cell(point.reward_mean, None))
                                @if compares {
                                    @match point.difference {
                                        Some((difference, interval)) => (cell(difference, interval)),
                                        None => td { "\u{2013}" },
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn legend(&self) -> Markup {
        html! {
            section.legend aria-label="How to read the figures" {
                ul {
                    @for (series, method) in self.methods().iter().enumerate() {
                        li { span class=(series_class("swatch", series)) aria-hidden="true" {} " " (method) }
                    }
                }
            }
        }
    }

    /// A figure for each procedure.
    fn figures(&self) -> Vec<Figure> {
        let procedures = distinct(self.points.iter().map(|point| point.procedure.as_str()));
        procedures
            .iter()
            .zip(FIGURE_IDS)
            .map(|(procedure, id)| self.figure(procedure, id))
            .collect()
    }

    fn figure(&self, procedure: &str, id: &'static str) -> Figure {
        let points: Vec<&InferencePoint> = self
            .points
            .iter()
            .filter(|point| point.procedure == procedure)
            .collect();
        // A line is named once, at its end; paths of policies are long and many.
        let is_last = |point: &InferencePoint| {
            let mut others = points.iter().filter(|other| other.method == point.method);
            others.all(|other| other.kl_nats <= point.kl_nats)
        };
        let mark = |point: &&InferencePoint| Mark {
            label: point.policy.clone(),
            beside: Some(if is_last(point) {
                point.method.clone()
            } else {
                String::new()
            }),
            series: self.series(point),
            x: point.kl_nats,
            x_interval: point.kl_ci,
            x_estimate: None,
            kind: KlKind::Exact,
            y: point.win_rate,
            y_interval: point.win_rate_ci,
        };
        let line = |(series, method): (usize, &&str)| {
            let mut line: Vec<(f64, f64)> = points
                .iter()
                .filter(|point| point.method == **method)
                .map(|point| (point.kl_nats, point.win_rate))
                .collect();
            line.sort_by(|a, b| a.0.total_cmp(&b.0));
            // All begin at the reference.
            line.insert(0, (0.0, 0.5));
            Curve {
                class: series_class("through", series),
                points: line,
                ..Curve::default()
            }
        };
        Figure {
            id,
            description: format!("Win rate against KL in nats under {procedure}, by method"),
            title: "Win rate against distance.",
            caption: format!("{procedure} on both sides; one line per method, from the reference at 0.5."),
            level: Level::FromZero,
            x_label: "KL of the policy from the reference (nats)".to_owned(),
            y_label: format!("win rate under {procedure}"),
            y_limits: (0.0, 1.0),
            curves: self.methods().iter().enumerate().map(line).collect(),
            marks: points.iter().map(mark).collect(),
        }
    }
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut distinct = Vec::new();
    for name in names {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(method: &str, policy: &str, procedure: &str, win_rate: f64, kl_nats: f64) -> InferencePoint {
        InferencePoint {
            method: method.to_owned(),
            policy: policy.to_owned(),
            procedure: procedure.to_owned(),
            win_rate,
            win_rate_ci: Some(Interval {
                lo: win_rate - 0.1,
                hi: win_rate + 0.1,
            }),
            kl_nats,
            kl_ci: None,
            reward_mean: -1.5,
            difference: (policy != "a1").then_some((0.25, None)),
        }
    }

    fn report() -> InferenceReport {
        InferenceReport {
            reference: "m <1>".to_owned(),
            reward: "length".to_owned(),
            num_prompts: 7,
            points: vec![
                point("raw", "a1", "bon:4", 0.6, 0.5),
                point("raw", "a1", "sample", 0.7, 0.5),
                point("exp:10", "b1", "bon:4", 0.8, 1.0),
                point("exp:10", "b1", "sample", 0.65, 1.0),
            ],
        }
    }

    #[test]
    fn there_is_a_figure_a_procedure_with_a_line_a_method() {
        let report = report();
        let figures = report.figures();
        assert_eq!(figures.len(), 2);
        for figure in &figures {
            assert_eq!((figure.marks.len(), figure.curves.len()), (2, 2));
            assert_eq!(figure.curves[1].points[0], (0.0, 0.5));
        }
        assert_eq!(figures[0].curves[1].points[1], (1.0, 0.8));
        assert_eq!(figures[0].marks[0].beside.as_deref(), Some("raw"));
        let mut longer = report.clone();
        longer.points.push(point("raw", "a2", "bon:4", 0.65, 0.8));
        let names: Vec<Option<String>> = longer.figures()[0]
            .marks
            .iter()
            .map(|mark| mark.beside.clone())
            .collect();
        assert_eq!(names, ["", "exp:10", "raw"].map(|name| Some(name.to_owned())));
        let page = report.to_html();
        assert!(page.contains("m &lt;1&gt;") && !page.contains("m <1>"));
        assert!(page.contains("Over the first"));
    }

    #[test]
    fn tables_have_a_row_a_point() {
        let csv = report().to_csv().unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[1], "raw,a1,bon:4,0.6,0.5,0.7,0.5,,,-1.5,,,");
        assert_eq!(lines[3].split(',').count(), CSV_HEADER.len());
    }
}
