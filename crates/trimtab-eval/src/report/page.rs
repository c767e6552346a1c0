//! The frame of every page: no script, nothing fetched, readable on a phone and in the dark. Knows no results.

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Colours, type and lines of pages and of figures that stand alone.
pub(super) const STYLE: &str = include_str!("style.css");

/// A page of `content`.
pub(super) fn page(title: &str, content: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (content) } }
        }
    };
    page.into_string() + "\n"
}
