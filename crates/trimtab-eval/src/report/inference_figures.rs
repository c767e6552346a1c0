//! Figures of inference-time win rates: against KL, one for each procedure, and against N where there are several. Knows
//! points and words, no layout of the page.

use super::figure::{Curve, Figure, Level, Mark, series_class};
use super::inference::{InferencePoint, InferenceReport, distinct};
use super::numbers;
use crate::inference_win_rate::ChoiceOfN;
use crate::kl::KlKind;

/// Values of N from which a figure of them says more than one figure for each.
const LEAST_COUNTS: usize = 3;

/// Choices of one kind among N, by one judge: what a figure against N shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Family<'a> {
    is_best: bool,
    judge: Option<&'a str>,
}

impl Family<'_> {
    /// N of a point that belongs to it; one sample is the best and the worst of one.
    fn count_of(self, point: &InferencePoint) -> Option<u32> {
        if point.judge.as_deref() != self.judge {
            return None;
        }
        let choice = point.choice?;
        let is_ours = match choice {
            ChoiceOfN::Best(1) | ChoiceOfN::Worst(1) => true,
            ChoiceOfN::Best(_) => self.is_best,
            ChoiceOfN::Worst(_) => !self.is_best,
        };
        is_ours.then(|| choice.num_candidates())
    }

    fn name(self) -> &'static str {
        if self.is_best { "best" } else { "worst" }
    }
}

impl InferenceReport {
    /// Win rates against N first, then against KL, a figure for each procedure.
    pub(super) fn figures(&self) -> Vec<Figure> {
        let families = self.families().into_iter().enumerate();
        let by_count =
            families.map(|(idx, family)| self.figure_by_count(family, format!("by-n-{}", idx + 1)));
        let procedures = distinct(self.points.iter().map(|point| point.procedure.as_str()));
        let by_kl = procedures
            .iter()
            .enumerate()
            .map(|(idx, procedure)| self.figure_by_kl(procedure, format!("procedure-{}", idx + 1)));
        by_count.chain(by_kl).collect()
    }

    /// Those of which there are values of N enough for a figure.
    fn families(&self) -> Vec<Family<'_>> {
        let mut judges: Vec<Option<&str>> = Vec::new();
        for point in &self.points {
            if !judges.contains(&point.judge.as_deref()) {
                judges.push(point.judge.as_deref());
            }
        }
        let families = judges
            .into_iter()
            .flat_map(|judge| [true, false].map(|is_best| Family { is_best, judge }));
        families
            .filter(|family| {
                let counts = self.points.iter().filter_map(|point| family.count_of(point));
                counts.collect::<std::collections::BTreeSet<u32>>().len() >= LEAST_COUNTS
            })
            .collect()
    }

    /// Points of each policy by growing N.
    fn by_count(&self, family: Family<'_>) -> Vec<Vec<(u32, &InferencePoint)>> {
        let mut lines: Vec<Vec<(u32, &InferencePoint)>> = Vec::new();
        for point in &self.points {
            let Some(count) = family.count_of(point) else {
                continue;
            };
            match lines.iter_mut().find(|line| line[0].1.policy == point.policy) {
                Some(line) => line.push((count, point)),
                None => lines.push(vec![(count, point)]),
            }
        }
        for line in &mut lines {
            line.sort_by_key(|(count, _)| *count);
        }
        lines
    }

    /// A line for each policy: N is what moves, so that the KL is told in words.
    fn figure_by_count(&self, family: Family<'_>, id: String) -> Figure {
        let lines = self.by_count(family);
        let curve = |line: &Vec<(u32, &InferencePoint)>| Curve {
            class: series_class("through", self.series(line[0].1)),
            points: line
                .iter()
                .map(|(count, point)| (f64::from(*count), point.win_rate))
                .collect(),
            ..Curve::default()
        };
        let mark = |(count, point): &(u32, &InferencePoint)| Mark {
            beside: Some(String::new()),
            x: f64::from(*count),
            x_interval: None,
            ..self.mark(point)
        };
        let marks = lines.iter().flat_map(|line| {
            let mut marks: Vec<Mark> = line.iter().map(mark).collect();
            if let Some((last, (_, point))) = marks.last_mut().zip(line.last()) {
                last.beside = Some(self.name_of_policy(point));
            }
            marks
        });
        let name = family.name();
        // N = 1 is one sample on both sides in any case.
        let mut points = lines.iter().flatten();
        let other = points.find_map(|(_, point)| point.reference_procedure.as_deref());
        let judged = family
            .judge
            .map_or_else(String::new, |judge| format!(", judged by {judge}"));
        Figure {
            id,
            description: format!("Win rate of the {name} of N{judged} against N, by policy"),
            title: "Win rate against N.",
            caption: format!(
                "{}{judged}; one line per policy, each from one set of samples.",
                sides(&format!("The {name} of N by the reward"), other)
            ),
            level: Level::Doublings,
            x_label: format!("N: the {name} of so many is kept"),
            y_label: "win rate".to_owned(),
            y_limits: (0.0, 1.0),
            curves: lines.iter().map(curve).collect(),
            marks: marks.collect(),
        }
    }

    /// The method, and the KL where several policies of it are shown.
    fn name_of_policy(&self, point: &InferencePoint) -> String {
        let mut others = self.points.iter();
        if others.any(|other| other.method == point.method && other.policy != point.policy) {
            format!("{}, {} nats", point.method, numbers::number(point.kl_nats))
        } else {
            point.method.clone()
        }
    }

    /// A point against its KL.
    fn mark(&self, point: &InferencePoint) -> Mark {
        Mark {
            label: point.policy.clone(),
            beside: None,
            series: self.series(point),
            x: point.kl_nats,
            x_interval: point.kl_ci,
            x_estimate: None,
            kind: point.kl_kind,
            y: point.win_rate,
            y_interval: point.win_rate_ci,
        }
    }

    fn figure_by_kl(&self, procedure: &str, id: String) -> Figure {
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
            beside: Some(if is_last(point) {
                point.method.clone()
            } else {
                String::new()
            }),
            ..self.mark(point)
        };
        let line = |(series, method): (usize, &&str)| {
            let of_method = points.iter().filter(|point| point.method == **method);
            let mut line: Vec<(f64, f64)> = of_method.map(|point| (point.kl_nats, point.win_rate)).collect();
            line.sort_by(|a, b| a.0.total_cmp(&b.0));
            line.splice(0..0, start(&points));
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
            caption: caption(procedure, &points),
            level: Level::FromZero,
            x_label: "KL from the reference (nats)".to_owned(),
            y_label: format!("win rate under {procedure}"),
            y_limits: (0.0, 1.0),
            curves: self.methods().iter().enumerate().map(line).collect(),
            marks: points.iter().map(mark).collect(),
        }
    }
}

/// Where a policy that has not moved stands, for the points under one procedure: where steering has taken the reference. A
/// choice among samples on one side alone is worth something by itself, and how much no point says.
fn start(points: &[&InferencePoint]) -> Option<(f64, f64)> {
    let first = points.first()?;
    let is_one_sided = first.choice.is_some() && first.reference_procedure.is_some();
    (!is_one_sided).then_some((first.reference_kl_nats, 0.5))
}

/// Which sides a procedure was applied to.
fn sides(procedure: &str, reference_procedure: Option<&str>) -> String {
    match reference_procedure {
        Some(other) => format!("{procedure} on the policy, {other} on the reference"),
        None => format!("{procedure} on both sides"),
    }
}

/// What a figure against KL shows, for the points under one procedure.
fn caption(procedure: &str, points: &[&InferencePoint]) -> String {
    let first = points.first();
    let sides = sides(
        procedure,
        first.and_then(|point| point.reference_procedure.as_deref()),
    );
    let from = start(points).map_or("", |_| ", from the reference at 0.5");
    let is_bound = first.is_some_and(|point| point.kl_kind == KlKind::Bound);
    let kl = if is_bound {
        " KL is that of the policy and the bound of its choices among blocks together: at most this."
    } else {
        ""
    };
    format!("{sides}; one line per method{from}.{kl}")
}

#[cfg(test)]
pub(super) mod fixture {
    use super::*;
    use crate::confidence::Interval;

    pub(in super::super) fn point(
        method: &str,
        policy: &str,
        procedure: &str,
        win_rate: f64,
        kl_nats: f64,
    ) -> InferencePoint {
        InferencePoint {
            method: method.to_owned(),
            family: method.split(", seed").next().unwrap().to_owned(),
            training_seed: method
                .split_once(", seed ")
                .map(|(_, seed)| seed.parse().unwrap()),
            policy: policy.to_owned(),
            procedure: procedure.to_owned(),
            reference_procedure: None,
            choice: choice(procedure),
            judge: None,
            win_rate,
            win_rate_ci: Some(Interval {
                lo: win_rate - 0.1,
                hi: win_rate + 0.1,
            }),
            tied_prompts: 0,
            kl_nats,
            kl_kind: KlKind::Exact,
            kl_ci: None,
            reference_kl_nats: 0.0,
            reward_mean: -1.5,
            difference: (policy != "a1").then_some((0.25, None)),
        }
    }

    fn choice(procedure: &str) -> Option<ChoiceOfN> {
        match procedure.split_once(':') {
            None => Some(ChoiceOfN::SAMPLE),
            Some(("bon", n)) => Some(ChoiceOfN::Best(n.parse().unwrap())),
            Some(("won", n)) => Some(ChoiceOfN::Worst(n.parse().unwrap())),
            Some(_) => None,
        }
    }

    pub(in super::super) fn report() -> InferenceReport {
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
}

#[cfg(test)]
mod tests {
    use super::fixture::{point, report};
    use super::*;

    fn names(figure: &Figure) -> Vec<&str> {
        let beside = figure.marks.iter().map(|mark| mark.beside.as_deref());
        beside.map(Option::unwrap_or_default).collect()
    }

    #[test]
    fn there_is_a_figure_a_procedure_with_a_line_a_method() {
        let report = report();
        let figures = report.figures();
        assert_eq!(figures.len(), 2);
        for figure in &figures {
            assert_eq!((figure.marks.len(), figure.curves.len()), (2, 2));
            assert_eq!(figure.curves[1].points[0], (0.0, 0.5));
            assert!(figure.caption.contains("on both sides") && !figure.caption.contains("at most"));
        }
        assert_eq!(figures[0].curves[1].points[1], (1.0, 0.8));
        assert_eq!(names(&figures[0])[0], "raw");
        let mut longer = report;
        longer.points.push(point("raw", "a2", "bon:4", 0.65, 0.8));
        assert_eq!(names(&longer.figures()[0]), ["", "exp:10", "raw"]);
    }

    #[test]
    fn no_procedure_goes_without_its_figure() {
        let mut report = report();
        report.points = (1..=40)
            .map(|m| point("raw", "a1", &format!("cd-block:k=4,m={m}"), 0.6, 0.5))
            .collect();
        let figures = report.figures();
        assert_eq!(figures.len(), 40);
        let ids: std::collections::HashSet<&str> = figures.iter().map(|figure| figure.id.as_str()).collect();
        assert_eq!(ids.len(), 40);
    }

    #[test]
    fn choices_of_three_counts_have_a_figure_against_n() {
        let mut report = report();
        report.points = Vec::new();
        for (policy, kl_nats) in [("a1", 0.5), ("a2", 2.0)] {
            for procedure in ["bon:8", "bon:2", "sample", "won:2", "cd-block:k=4,m=16"] {
                report.points.push(point("raw", policy, procedure, 0.6, kl_nats));
            }
        }
        report.points.push(point("exp:10", "b1", "bon:2", 0.7, 1.0));
        let judged: Vec<InferencePoint> = report.points.iter().map(by_length).collect();
        report.points.extend(judged);
        let figures = report.figures();
        // Two against N, the worst of 1 and of 2 being too few; then five procedures by two judges.
        assert_eq!(figures.len(), 2 + 10);
        let by_count = &figures[0];
        let places: Vec<f64> = by_count.curves[0].points.iter().map(|point| point.0).collect();
        assert_eq!(places, [1.0, 2.0, 8.0]);
        assert_eq!((by_count.curves.len(), by_count.marks.len()), (3, 7));
        let named: Vec<&str> = names(by_count)
            .into_iter()
            .filter(|name| !name.is_empty())
            .collect();
        assert_eq!(named, ["raw, 0.500 nats", "raw, 2.000 nats", "exp:10"]);
        assert!(by_count.marks[1].x_interval.is_none() && by_count.caption.contains("best of N"));
        assert!(figures[1].caption.contains("judged by length"));
        assert_eq!(
            (figures[0].id.as_str(), figures[1].id.as_str()),
            ("by-n-1", "by-n-2")
        );
    }

    fn by_length(point: &InferencePoint) -> InferencePoint {
        InferencePoint {
            procedure: format!("{}, judged by length", point.procedure),
            judge: Some("length".to_owned()),
            ..point.clone()
        }
    }

    #[test]
    fn steered_policies_stand_at_their_bound_and_lines_begin_where_the_reference_is() {
        let steered = |reference_procedure: Option<&str>, reference_kl_nats: f64| {
            let point = InferencePoint {
                reference_procedure: reference_procedure.map(str::to_owned),
                kl_kind: KlKind::Bound,
                reference_kl_nats,
                ..point("raw", "a1", "cd-block:k=4,m=16", 0.8, 2.5)
            };
            InferenceReport {
                points: vec![point],
                ..report()
            }
        };
        let figures = steered(None, 0.9).figures();
        assert_eq!(figures[0].curves[0].points, [(0.9, 0.5), (2.5, 0.8)]);
        assert!(figures[0].caption.contains("on both sides") && figures[0].caption.contains("at most this"));
        assert_eq!(figures[0].marks[0].kind, KlKind::Bound);
        let figures = steered(Some("sample"), 0.0).figures();
        assert_eq!(figures[0].curves[0].points[0], (0.0, 0.5));
        assert!(figures[0].caption.contains("sample on the reference"));
    }

    #[test]
    fn a_choice_on_one_side_has_no_start_at_one_half() {
        let mut report = report();
        for procedure in ["bon:2", "won:4", "bon:8"] {
            report.points.push(point("raw", "a1", procedure, 0.9, 0.5));
        }
        for point in &mut report.points {
            let is_choice = point.procedure != "sample";
            point.reference_procedure = is_choice.then(|| "sample".to_owned());
        }
        let figures = report.figures();
        let (by_count, best, sample) = (&figures[0], &figures[1], &figures[2]);
        assert!(
            by_count.caption.contains("sample on the reference"),
            "{}",
            by_count.caption
        );
        assert_eq!(best.curves[0].points, [(0.5, 0.6)]);
        assert!(!best.caption.contains("at 0.5"), "{}", best.caption);
        assert_eq!(sample.curves[0].points[0], (0.0, 0.5));
    }
}
