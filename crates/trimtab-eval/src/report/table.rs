//! The frontier as a table for a terminal.

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::numbers;
use crate::frontier::Frontier;

impl Frontier {
    /// One row a method, with units and the coverage of intervals in the header.
    ///
    /// `max_width` is the terminal's in columns; longer lines wrap inside their cells. `None` does not wrap.
    pub fn to_table(&self, max_width: Option<u16>) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY);
        if let Some(width) = max_width {
            table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(width);
        }
        let percent = numbers::number(self.confidence_level * 100.0);
        let percent = percent.trim_end_matches('0').trim_end_matches('.').to_owned();
        table.set_header([
            "method".to_owned(),
            format!("{} ({})", self.facts.reward, self.facts.reward_unit),
            format!("[{percent}%]"),
            "win rate".to_owned(),
            format!("[{percent}%]"),
            "KL (nats)".to_owned(),
            "tokens/answer".to_owned(),
        ]);
        for point in &self.points {
            let estimate = point
                .kl_estimate_nats
                .map(|estimate| format!(", est. {}", numbers::number(estimate)))
                .unwrap_or_default();
            table.add_row([
                point.method.clone(),
                numbers::number(point.reward_mean),
                numbers::interval(point.reward_ci),
                numbers::number(point.win_rate),
                numbers::interval(point.win_rate_ci),
                format!("{} {}{estimate}", numbers::kl(point), point.kl_kind.name()),
                numbers::number(point.tokens_per_answer),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }
}
