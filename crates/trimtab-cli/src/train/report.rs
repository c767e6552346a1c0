//! What a training run left, for people and programs. Knows cards, no training.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use trimtab_scorer::ScorerCard;

use crate::output;

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct TrainReport {
    scorer: PathBuf,
    /// The step whose weights are kept.
    best_step: u64,
    card: ScorerCard,
    #[serde(skip)]
    use_it: String,
}

impl TrainReport {
    pub(super) fn new(scorer: &Path, card: ScorerCard, best_step: u64, use_it: String) -> Self {
        Self {
            scorer: scorer.to_owned(),
            best_step,
            card,
            use_it,
        }
    }

    /// For people: what it is, how good, and how to use it.
    pub(crate) fn show(&self) -> Result<()> {
        let card = &self.card;
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_header(["held-out prompts", ""]);
        for (name, value) in &card.metrics {
            table.add_row([name.clone(), format!("{value:.5}")]);
        }
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        output::line(&format!(
            "{}: {} of reward {} ({}) on the states of {} ({}), from {} prefixes\n\n{table}",
            self.scorer.display(),
            card.objective,
            card.reward,
            card.reward_unit,
            card.base.name,
            card.base.precision,
            card.num_prefixes
        ))?;
        output::note(&format!("\nuse it: {}", self.use_it));
        Ok(())
    }
}

/// Metrics that are numbers: JSON has no word for others, and one that is none says nothing.
pub(super) fn finite(metrics: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let numbers = metrics.iter().filter(|(_, value)| value.is_finite());
    numbers.map(|(name, &value)| (name.clone(), value)).collect()
}
