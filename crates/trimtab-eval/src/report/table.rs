//! The frontier as a table for a terminal.

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle, Width};

use super::numbers;
use crate::confidence::Interval;
use crate::frontier::{Frontier, FrontierPoint};

/// Columns at most, so that a log or a page with a table in it can be read too.
const MAX_WIDTH: u16 = 100;

/// Columns of a method's name with its margins at most; longer ones wrap, so that numbers do not.
const METHOD_WIDTH: u16 = 16;

/// Lines above, below the header and below; none between rows.
const STYLE: TableStyle = UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());

impl Frontier {
    /// One row a method; what reward, brackets and tokens are is said in the lines above.
    ///
    /// `max_width` is the terminal's in columns; longer lines wrap inside their cells. Never more than 100 columns.
    pub fn to_table(&self, max_width: Option<u16>) -> String {
        let width = max_width.unwrap_or(MAX_WIDTH).min(MAX_WIDTH);
        let mut table = Table::new();
        table
            .load_style(STYLE)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width);
        table.set_header([
            "method".to_owned(),
            "reward".to_owned(),
            "win rate".to_owned(),
            "KL (nats)".to_owned(),
            "tokens".to_owned(),
        ]);
        for point in &self.points {
            table.add_row([
                point.name().to_owned(),
                with_interval(point.reward_mean, point.reward_ci),
                with_interval(point.win_rate, point.win_rate_ci),
                kl(point),
                numbers::number(point.tokens_per_answer),
            ]);
        }
        if let Some(methods) = table.column_mut(0) {
            methods.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(METHOD_WIDTH)));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!("{}\n{}", self.caption(usize::from(width)), table.trim_fmt())
    }

    /// What was measured, each line cut to the width.
    fn caption(&self, width: usize) -> String {
        let facts = &self.facts;
        let reward = format!("reward: {} ({})", facts.reward, facts.reward_unit);
        let others = format!(
            "brackets: {} intervals over {} prompts{}; tokens: drawn for an answer",
            numbers::percent(self.confidence_level),
            self.num_prompts,
            if self.seeds.is_empty() {
                String::new()
            } else {
                format!(", {} seeds", self.seeds.len())
            }
        );
        format!("{}\n{}", cut(&reward, width), cut(&others, width))
    }
}

fn with_interval(mean: f64, interval: Option<Interval>) -> String {
    format!("{} {}", numbers::number(mean), numbers::interval(interval))
}

fn kl(point: &FrontierPoint) -> String {
    let estimate = point.kl_estimate_nats;
    let estimate = estimate.map(|estimate| format!(", est. {}", numbers::number(estimate)));
    format!(
        "{} {}{}",
        numbers::number(point.kl_nats),
        point.kl_kind.name(),
        estimate.unwrap_or_default()
    )
}

/// The text, or as much of it as fits with an ellipsis.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept + "\u{2026}"
}
