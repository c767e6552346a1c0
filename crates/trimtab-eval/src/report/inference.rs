//! Inference-time win rates of policies: page and CSV. Knows how numbers are shown; makes none. Figures are in
//! `inference_figures`.

use std::path::{Path, PathBuf};

use maud::{Markup, html};

use super::figure::series_class;
use super::page::page;
use super::{files, numbers};
use crate::confidence::Interval;
use crate::error::EvalError;
use crate::inference_win_rate::ChoiceOfN;
use crate::kl::KlKind;

/// Columns of the table of values.
const CSV_HEADER: [&str; 16] = [
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
    "kl_kind",
    "reference_procedure",
    "tied_prompts",
];

/// One policy under one procedure.
#[derive(Debug, Clone, PartialEq)]
pub struct InferencePoint {
    /// Its line in the figures, e.g. what it was trained on; policies of one line differ in their KL.
    pub method: String,
    /// What runs have in common that differ by their seed alone.
    pub family: String,
    /// Of its training, where that is known: what pairs runs of two families.
    pub training_seed: Option<u64>,
    /// What it is called.
    pub policy: String,
    /// What was done at inference, and who judges the answers if not the reward that chose them: a figure each.
    pub procedure: String,
    /// What was done to the reference, where that is something else.
    pub reference_procedure: Option<String>,
    /// The choice among N that the procedure is; `None` for others.
    pub choice: Option<ChoiceOfN>,
    /// The reward that judges answers which another one chose; `None` where that is the same.
    pub judge: Option<String>,
    /// Share of comparisons that it wins, ties half.
    pub win_rate: f64,
    /// Over prompts.
    pub win_rate_ci: Option<Interval>,
    /// Prompts to which all answers of both sides have one reward: half won, whatever the policy.
    pub tied_prompts: usize,
    /// From the reference, in nats, with what the procedure adds to that of the policy where it steers.
    pub kl_nats: f64,
    /// What `kl_nats` is.
    pub kl_kind: KlKind,
    /// Over prompts.
    pub kl_ci: Option<Interval>,
    /// KL of the reference under what is done to it from the reference as it is, in nats; 0 for choices among its samples.
    /// A policy that has not moved stands there, with a win rate of 0.5.
    pub reference_kl_nats: f64,
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
    /// Writes `winrate.html`, `winrate.csv` and `equal_kl.csv` into an existing folder; gives the page's path.
    ///
    /// # Errors
    /// [`EvalError::Write`] naming the file, [`EvalError::Csv`].
    pub fn write(&self, folder: &Path) -> Result<PathBuf, EvalError> {
        let page = folder.join("winrate.html");
        files::write_whole(&folder.join("winrate.csv"), self.to_csv()?.as_bytes())?;
        files::write_whole(&folder.join("equal_kl.csv"), self.equal_kl_csv()?.as_bytes())?;
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
                point.kl_kind.name().to_owned(),
                point.reference_procedure.clone().unwrap_or_default(),
                point.tied_prompts.to_string(),
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
                     before a choice among its samples."
                    @if self.points.iter().any(|point| point.reference_procedure.is_some()) {
                        " Where the table names a procedure of the reference, that one was applied to it."
                    }
                    @if self.points.iter().any(|point| point.kl_kind == KlKind::Bound) {
                        " Of blockwise control it is at most (\u{2264}) the policy\u{2019}s and the bound of its \
                         choices among blocks together, since KLs of tilting a policy add."
                    }
                }
            }
            (self.table())
            (self.equal_kl_table())
            section.figures aria-label="Figures" {
                @for shown in self.equal_kl_figures().into_iter().chain(self.figures()) {
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
    pub(super) fn methods(&self) -> Vec<&str> {
        distinct(self.points.iter().map(|point| point.method.as_str()))
    }

    /// Number of a point's line.
    pub(super) fn series(&self, point: &InferencePoint) -> usize {
        let methods = self.methods();
        methods
            .iter()
            .position(|method| *method == point.method)
            .unwrap_or(0)
    }

    fn table(&self) -> Markup {
        let compares = self.points.iter().any(|point| point.difference.is_some());
        let has_ties = self.points.iter().any(|point| point.tied_prompts > 0);
        html! {
            div.scroll tabindex="0" role="region" aria-label="Results by policy and procedure" {
                table {
                    thead {
                        tr {
                            th scope="col" { "Policy" }
                            th scope="col" { "Procedure" }
                            th scope="col" { "Win rate" small { "ties half" } }
                            @if has_ties { th scope="col" { "Tied prompts" small { "all answers one reward" } } }
                            th scope="col" { "KL" small { "nats" } }
                            th scope="col" { "Mean reward" }
                            @if compares { th scope="col" { "Over the first" small { "paired by prompt" } } }
                        }
                    }
                    tbody {
                        @for point in &self.points { (self.row(point, (compares, has_ties))) }
                    }
                }
            }
        }
    }

    fn row(&self, point: &InferencePoint, (compares, has_ties): (bool, bool)) -> Markup {
        let cell = |value: String, interval: Option<Interval>| {
            html! { td { (value) small { (numbers::interval(interval)) } } }
        };
        let kl = numbers::kl_of_kind(point.kl_nats, point.kl_kind);
        html! {
            tr {
                th scope="row" {
                    span class=(series_class("swatch", self.series(point))) aria-hidden="true" {}
                    code { (point.policy) } small { (point.method) }
                }
                td {
                    code { (point.procedure) }
                    @if let Some(other) = &point.reference_procedure { small { "reference: " (other) } }
                }
                (cell(numbers::number(point.win_rate), point.win_rate_ci))
                @if has_ties { td { (point.tied_prompts) } }
                (cell(kl, point.kl_ci))
                (cell(numbers::number(point.reward_mean), None))
                @if compares {
                    @match point.difference {
                        Some((difference, interval)) => (cell(numbers::number(difference), interval)),
                        None => td { "\u{2013}" },
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
}

/// Each name once, in the order of their first places.
pub(super) fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
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
    use super::super::inference_figures::fixture::{point, report};
    use super::*;

    #[test]
    fn pages_show_what_was_done_and_what_was_tied() {
        let mut report = report();
        let page = report.to_html();
        assert!(page.contains("m &lt;1&gt;") && !page.contains("m <1>"));
        assert!(page.contains("Over the first"));
        assert!(!page.contains("Tied prompts") && !page.contains("KLs of tilting"));
        report.points.push(InferencePoint {
            reference_procedure: Some("sample".to_owned()),
            choice: None,
            tied_prompts: 3,
            kl_kind: KlKind::Bound,
            ..point("raw", "a1", "cd-block:k=4,m=16", 0.8, 2.5)
        });
        let page = report.to_html();
        for part in [
            "procedure of the reference",
            "reference: sample",
            "Tied prompts",
            "\u{2264} 2.500",
            "KLs of tilting",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }

    #[test]
    fn tables_have_a_row_a_point() {
        let csv = report().to_csv().unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[1], "raw,a1,bon:4,0.6,0.5,0.7,0.5,,,-1.5,,,,exact,,0");
        assert_eq!(lines[3].split(',').count(), CSV_HEADER.len());
    }
}
