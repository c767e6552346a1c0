//! The report as one page: no script, nothing fetched, readable on a phone and in the dark.
//!
//! Every text passes through the template's escaping; nothing of a model's output is ever markup.

use maud::{Markup, html};

use super::figure::{Figure, series_class};
use super::page::page;
use super::shades::shades;
use super::{Example, ExampleAnswer, Report, figures, numbers};
use crate::confidence::Interval;
use crate::frontier::{Frontier, FrontierPoint};
use crate::kl::KlKind;

impl Report {
    /// The page.
    pub fn to_html(&self) -> String {
        let frontier = &self.frontier;
        let facts = &frontier.facts;
        let content = html! {
            (header(frontier))
            (points_table(frontier))
            section.figures aria-label="Figures" {
                @for shown in figures::figures(frontier) { (figure(&shown)) }
                (legend(frontier))
            }
            (examples(&self.examples, frontier))
            (facts_list(frontier))
        };
        page(&format!("Reward frontier of {}", facts.model), &content)
    }
}

fn percent(frontier: &Frontier) -> String {
    numbers::percent(frontier.confidence_level)
}

fn header(frontier: &Frontier) -> Markup {
    let facts = &frontier.facts;
    html! {
        header {
            h1 { "What decoding buys: " (facts.model) }
            p.lead {
                "Reward " code { (facts.reward) } " (" (facts.reward_unit) ") of the answers, how often they beat the \
                 model\u{2019}s own, and how far each method moves from the model. Means over "
                (frontier.num_prompts) " prompts" (over_seeds(frontier)) "; brackets and bars are " (percent(frontier))
                " intervals over prompts."
            }
        }
    }
}

/// ` and 3 seeds`, if there are several.
fn over_seeds(frontier: &Frontier) -> String {
    match frontier.seeds.len() {
        0 | 1 => String::new(),
        several => format!(" and {several} seeds"),
    }
}

fn points_table(frontier: &Frontier) -> Markup {
    let facts = &frontier.facts;
    let further = frontier
        .points
        .first()
        .map_or(&[][..], |point| &point.rewards_also);
    let commits = frontier
        .points
        .iter()
        .any(|point| point.first_commit_tokens.is_some());
    let shades = shades(frontier);
    html! {
        div.scroll tabindex="0" role="region" aria-label="Results by method" {
            table {
                thead {
                    tr {
                        th scope="col" { "Method" }
                        th scope="col" { "Mean reward" small { (facts.reward_unit) } }
                        th scope="col" { "Gain over reference" small { (facts.reward_unit) ", paired by prompt" } }
                        th scope="col" { "Win rate" small { "against the reference, ties half" } }
                        th scope="col" { "KL from reference" small { "nats" } }
                        @for reward in further {
                            th scope="col" { (numbers::shortened(&reward.name)) small { (reward.unit) } }
                        }
                        th scope="col" { "Tokens per answer" small { "discarded ones included" } }
                        @if commits { th scope="col" { "Tokens to first words" small { "that no later choice changes" } } }
                        th scope="col" { "Tokens" small { "in all" } }
                    }
                }
                tbody {
                    @for (shade, point) in shades.of_point.iter().zip(&frontier.points) {
                        (point_row(*shade, point, commits))
                    }
                }
            }
        }
    }
}

fn point_row(shade: usize, point: &FrontierPoint, commits: bool) -> Markup {
    html! {
        tr {
            th scope="row" {
                span class=(series_class("swatch", shade)) aria-hidden="true" {}
                code { (point.name()) }
                @if let Some(series) = &point.shown_as.series { small { (series) } }
            }
            td {
                (numbers::number(point.reward_mean)) small { (numbers::interval(point.reward_ci)) }
                @if let Some(n) = point.like_best_of.filter(|_| point.shown_as.series.is_some()) {
                    small { "as best of " (n) }
                }
            }
            (number_cell(point.reward_gain, point.reward_gain_ci))
            (number_cell(point.win_rate, point.win_rate_ci))
            (kl_cell(point))
            @for reward in &point.rewards_also { (number_cell(reward.mean, reward.ci)) }
            (number_cell(point.tokens_per_answer, point.tokens_per_answer_ci))
            @if commits {
                @match point.first_commit_tokens {
                    Some(tokens) => (number_cell(tokens, point.first_commit_tokens_ci)),
                    None => td { "\u{2013}" },
                }
            }
            td { (numbers::count(point.tokens_generated)) }
        }
    }
}

fn number_cell(value: f64, interval: Option<Interval>) -> Markup {
    html! { td { (numbers::number(value)) small { (numbers::interval(interval)) } } }
}

fn kl_cell(point: &FrontierPoint) -> Markup {
    html! {
        td {
            (numbers::kl(point)) " " span.kind { (point.kl_kind.name()) }
            @if let Some(estimate) = point.kl_estimate_nats {
                small {
                    "estimate " (numbers::number(estimate))
                    @if point.kl_estimate_ci.is_some() { " " (numbers::interval(point.kl_estimate_ci)) }
                }
            } @else if point.kl_ci.is_some() {
                small { (numbers::interval(point.kl_ci)) }
            }
        }
    }
}

fn figure(figure: &Figure) -> Markup {
    html! {
        figure {
            figcaption { b { (figure.title) } " " (figure.caption) }
            (figure.to_svg())
        }
    }
}

fn legend(frontier: &Frontier) -> Markup {
    let has = |kind: KlKind| frontier.points.iter().any(|point| point.kl_kind == kind);
    let most = frontier
        .best_of_n_curve
        .last()
        .map_or(0, |point| point.num_candidates);
    html! {
        section.legend aria-label="How to read the figures" {
            ul {
                (series_keys(frontier))
                @if has(KlKind::Exact) {
                    li { (key(&html! { circle cx="13" cy="8" r="4.5" {} }))
                        b { "exact" } ": divergences of each step summed in full; the interval is from the responses drawn." }
                }
                @if has(KlKind::Bound) {
                    li { (key(&html! { polygon points="7,8 17,2.5 17,13.5" {} }))
                        b { "bound" } ": the true KL is at most this. Best of N: log N \u{2212} (N\u{2212}1)/N; any other \
                        choice among N: log N; best of K blocks: log K \u{2212} (K\u{2212}1)/K for each choice that was made." }
                }
                @if frontier.points.iter().any(|point| point.kl_estimate_nats.is_some()) {
                    li { (key(&html! { line.to-estimate x1="6" x2="26" y1="8" y2="8" {} circle.hollow cx="6" cy="8" r="3.5" {} }))
                        b { "estimate" } ": where ties put it, by all of the reference\u{2019}s draws; answers of equal reward are not told \
                        apart, which costs less KL." }
                }
                @if has(KlKind::Estimate) {
                    li { (key(&html! { polygon points="7.5,8 13,2.5 18.5,8 13,13.5" {} }))
                        b { "estimate only" } ": mean log-ratio of the answers under the policy they are drawn from and the reference; \
                        a choice among draws adds its estimate by ties, or its bound where it is not by reward." }
                }
                @if most > 1 {
                    li { (key(&html! { line.curve x1="0" x2="26" y1="8" y2="8" {} }))
                        b { "best-of-N in closed form" } ": N from 1 to " (most)
                        ", at its bound, by order statistics of the reference\u{2019}s rewards; dots at powers of two, the band is the \
                        interval." }
                    li { (key(&html! { line.curve.ideal x1="0" x2="26" y1="8" y2="8" {} }))
                        b { "N/(N+1)" } ": the same if no two rewards were equal." }
                }
            }
        }
    }
}

/// A line for each series: its colour, its name and what the numbers along it are.
fn series_keys(frontier: &Frontier) -> Markup {
    let of_series = |name: &str| {
        frontier
            .points
            .iter()
            .find(|point| point.shown_as.series.as_deref() == Some(name))
            .map(|point| {
                point
                    .shown_as
                    .variables
                    .keys()
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ")
            })
            .unwrap_or_default()
    };
    html! {
        @for (shade, name) in shades(frontier).series {
            @let along = of_series(&name);
            li {
                svg.key viewBox="0 0 26 16" width="26" height="16" aria-hidden="true" {
                    line class=(series_class("through", shade)) x1="0" x2="26" y1="8" y2="8" {}
                }
                b { (name) }
                @if !along.is_empty() { ": numbers along the line are " (along) "." }
            }
        }
    }
}

fn key(shape: &Markup) -> Markup {
    html! { svg.key viewBox="0 0 26 16" width="26" height="16" aria-hidden="true" { g.mark { (shape) } } }
}

fn examples(examples: &[Example], frontier: &Frontier) -> Markup {
    html! {
        @if !examples.is_empty() {
            section aria-labelledby="examples" {
                h2 id="examples" { "Answers" }
                @for (idx, example) in examples.iter().enumerate() {
                    details open[idx == 0] {
                        summary { (example.prompt) }
                        div.answers { @for answer in &example.answers { (example_answer(answer, frontier)) } }
                    }
                }
            }
        }
    }
}

fn example_answer(answer: &ExampleAnswer, frontier: &Frontier) -> Markup {
    let place = frontier
        .points
        .iter()
        .position(|point| point.method == answer.method);
    let shade = place.map_or(0, |place| shades(frontier).of_point[place]);
    let name = place.map_or(answer.method.as_str(), |place| frontier.points[place].name());
    html! {
        article class=(series_class("answer", shade)) {
            h3 {
                code { (name) }
                span { "reward " (numbers::number(answer.reward)) " " (frontier.facts.reward_unit) }
            }
            p { @if answer.text.trim().is_empty() { i { "(empty)" } } @else { (answer.text) } }
        }
    }
}

fn facts_list(frontier: &Frontier) -> Markup {
    let facts = &frontier.facts;
    let rows = [
        ("model", facts.model.clone()),
        ("weights (SHA-256)", facts.model_sha256.clone()),
        ("precision", facts.precision.clone()),
        ("reward", format!("{} ({})", facts.reward, facts.reward_unit)),
        ("prompts", frontier.num_prompts.to_string()),
        (
            "reference answers",
            format!(
                "{} in all, drawn apart from every method\u{2019}s",
                frontier.num_references
            ),
        ),
        (
            "intervals",
            format!(
                "{}, BCa bootstrap over prompts, expanded for few prompts, {} resamples; exact (Clopper\u{2013}Pearson) \
                 where all values are 0 or 1; none where all are equal",
                percent(frontier),
                frontier.num_resamples
            ),
        ),
        (
            "seed",
            if frontier.seeds.is_empty() {
                facts.seed.to_string()
            } else {
                let seeds: Vec<String> = frontier.seeds.iter().map(u64::to_string).collect();
                format!(
                    "{}; a prompt\u{2019}s value is the mean over them",
                    seeds.join(", ")
                )
            },
        ),
        ("configuration (SHA-256)", facts.config_sha256.clone()),
        ("program", format!("trimtab {}", facts.version)),
    ];
    html! {
        section aria-labelledby="run" {
            h2 id="run" { "The run" }
            dl { @for (name, value) in rows { div { dt { (name) } dd { (value) } } } }
        }
    }
}
