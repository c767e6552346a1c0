//! The frontier as a table for a terminal.

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

use super::numbers;
use crate::confidence::Interval;
use crate::frontier::{Frontier, FrontierPoint};

/// Columns at most, so that a log or a page with a table in it can be read too.
const MAX_WIDTH: u16 = 100;

/// Lines above, below the header and below; none between rows.
const STYLE: TableStyle = UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());

impl Frontier {
    /// One row a method, units in the header's second line, what was measured in the line above.
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
            format!("reward\n({})", self.facts.reward_unit),
            "win rate".to_owned(),
            "KL\n(nats)".to_owned(),
            "tokens per\nanswer".to_owned(),
        ]);
        for point in &self.points {
            table.add_row([
                point.method.clone(),
                with_interval(point.reward_mean, point.reward_ci),
                with_interval(point.win_rate, point.win_rate_ci),
                kl(point),
                numbers::number(point.tokens_per_answer),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!("{}\n{table}", self.caption(usize::from(width)))
    }

    /// What was measured, cut to the width.
    fn caption(&self, width: usize) -> String {
        let intervals = format!(
            "brackets: {} intervals over {} prompts",
            numbers::percent(self.confidence_level),
            self.num_prompts
        );
        let reward = format!("reward: {}", self.facts.reward);
        if reward.chars().count() + 2 + intervals.chars().count() <= width {
            format!("{reward}; {intervals}")
        } else {
            format!("{}\n{}", cut(&reward, width), cut(&intervals, width))
        }
    }
}

fn with_interval(mean: f64, interval: Option<Interval>) -> String {
    match interval {
        Some(_) => format!("{} {}", numbers::number(mean), numbers::interval(interval)),
        None => numbers::number(mean),
    }
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
