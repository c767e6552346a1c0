//! One figure of win rates against KL, a line for each transform or method, as a page or an SVG file of its own. Knows
//! points, not where they come from.

use std::path::Path;

use maud::{Markup, html};

use super::figure::{BOTTOM, Curve, Figure, Level, RIGHT, series_class};
use super::files;
use super::page::{STYLE, page};
use crate::error::EvalError;

/// Room of the key in the figure, in its units.
const KEY_WIDTH: f64 = 110.0;
const KEY_LINE_HEIGHT: f64 = 15.0;

/// A line of the figure.
#[derive(Debug, Clone, PartialEq)]
pub struct WinRateLine {
    /// What it is called.
    pub label: String,
    /// What else is to say about it, in the legend; may be empty.
    pub note: String,
    /// KL in nats and win rate, in order of KL; the reference, at KL 0 and 1/2, is added.
    pub points: Vec<(f64, f64)>,
}

/// Win rates against KL.
#[derive(Debug, Clone, PartialEq)]
pub struct WinRateLines {
    /// Heading of the page.
    pub title: String,
    /// What the figure shows, in a sentence or three.
    pub lead: String,
    /// Label of the upright axis.
    pub y_label: String,
    /// The lines, the most important first.
    pub lines: Vec<WinRateLine>,
}

impl WinRateLines {
    /// Writes an SVG file if the name ends in `.svg`, else a page. It appears only when whole.
    ///
    /// # Errors
    /// [`EvalError::Write`] naming the file.
    pub fn write(&self, path: &Path) -> Result<(), EvalError> {
        let is_svg = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("svg"));
        let content = if is_svg { self.to_svg() } else { self.to_html() };
        files::write_whole(path, content.as_bytes())
    }

    /// The figure alone, with its colours and names inside.
    pub fn to_svg(&self) -> String {
        let svg = self.figure().to_svg().into_string();
        // The element's own attributes follow its name; the style is its first child, the key its last.
        let parts = svg
            .strip_prefix("<svg")
            .and_then(|rest| rest.strip_suffix("</svg>"))
            .and_then(|rest| rest.split_once('>'));
        let Some((attributes, content)) = parts else {
            return svg;
        };
        let key = self.key().into_string();
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\"{attributes}><style>{STYLE}</style>{content}{key}</svg>\n"
        )
    }

    /// Names of the lines at the lower right, where lines that rise from the reference leave room.
    fn key(&self) -> Markup {
        let top = BOTTOM - KEY_LINE_HEIGHT * self.lines.len() as f64;
        let height_of = |series: usize| top + KEY_LINE_HEIGHT * series as f64;
        let (from, to) = (RIGHT - KEY_WIDTH, RIGHT - KEY_WIDTH + 18.0);
        html! {
            @for (series, line) in self.lines.iter().enumerate() {
                @let y = height_of(series);
                line class=(series_class("through", series)) x1=(from) x2=(to) y1=(y) y2=(y) {}
                text class=(series_class("name", series)) x=(to + 6.0) y=(y + 4.0) { (line.label) }
            }
        }
    }

    /// The page: no script, nothing fetched.
    pub fn to_html(&self) -> String {
        let content = html! {
            header {
                h1 { (self.title) }
                p.lead { (self.lead) }
            }
            section.figures aria-label="Figure" {
                figure {
                    figcaption { b { "Win rate against distance." } " One line per transform, from the reference at 0.5." }
                    (self.figure().to_svg())
                }
                (self.legend())
            }
        };
        page(&self.title, &content)
    }

    fn figure(&self) -> Figure {
        let curve = |(series, line): (usize, &WinRateLine)| Curve {
            class: series_class("through", series),
            points: std::iter::once((0.0, 0.5))
                .chain(line.points.iter().copied())
                .collect(),
            ..Curve::default()
        };
        Figure {
            id: "win-rate-by-kl".to_owned(),
            description: format!("{} against KL in nats, by transform", self.y_label),
            title: "Win rate against distance.",
            caption: String::new(),
            level: Level::FromZero,
            x_label: "KL of the policy from the reference (nats)".to_owned(),
            y_label: self.y_label.clone(),
            y_limits: (0.0, 1.0),
            curves: self.lines.iter().enumerate().map(curve).collect(),
            // Names at the ends of lines would lie on each other; there is a key for them.
            marks: Vec::new(),
        }
    }

    fn legend(&self) -> Markup {
        html! {
            section.legend aria-label="How to read the figure" {
                ul {
                    @for (series, line) in self.lines.iter().enumerate() {
                        li {
                            svg.key viewBox="0 0 26 16" width="26" height="16" aria-hidden="true" {
                                line class=(series_class("through", series)) x1="0" x2="26" y1="8" y2="8" {}
                            }
                            b { (line.label) }
                            @if !line.note.is_empty() { ": " (line.note) }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> WinRateLines {
        WinRateLines {
            title: "Under bon:4".to_owned(),
            lead: "a < b".to_owned(),
            y_label: "win rate under bon:4".to_owned(),
            lines: vec![
                WinRateLine {
                    label: "exp:10".to_owned(),
                    note: "recommended".to_owned(),
                    points: vec![(0.25, 0.8), (1.0, 0.9)],
                },
                WinRateLine {
                    label: "identity".to_owned(),
                    note: String::new(),
                    points: vec![(0.25, 0.7), (1.0, 0.85)],
                },
            ],
        }
    }

    #[test]
    fn every_line_begins_at_the_reference_and_has_its_colour() {
        let figure = lines().figure();
        assert_eq!(figure.curves.len(), 2);
        assert_eq!(figure.curves[0].points, [(0.0, 0.5), (0.25, 0.8), (1.0, 0.9)]);
        let page = lines().to_html();
        assert!(
            page.contains("a &lt; b") && page.contains("recommended") && page.contains("through series-1")
        );
    }

    #[test]
    fn files_are_what_their_name_says() {
        let folder = tempfile::tempdir().unwrap();
        let (svg, page) = (folder.path().join("f.SVG"), folder.path().join("f.html"));
        lines().write(&svg).unwrap();
        lines().write(&page).unwrap();
        let svg = std::fs::read_to_string(svg).unwrap();
        assert!(
            svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""),
            "{}",
            &svg[..80]
        );
        assert!(svg.contains(">exp:10</text>") && svg.contains(">identity</text>"));
        assert!(
            svg.contains("viewBox")
                && svg.matches("<style>").count() == 1
                && svg.trim_end().ends_with("</svg>")
        );
        assert!(
            std::fs::read_to_string(page)
                .unwrap()
                .starts_with("<!DOCTYPE html>")
        );
        let absent = folder.path().join("none/f.svg");
        assert!(matches!(lines().write(&absent), Err(EvalError::Write { .. })));
    }
}
