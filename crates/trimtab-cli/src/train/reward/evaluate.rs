//! A head against judgements that were held out, as numbers and as a table. Knows values and judgements, no training.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use trimtab_base::Seed;
use trimtab_eval::{
    Accuracy, Bootstrap, Calibration, Interval, LabelAgreement, PairAgreement, label_agreement,
    pair_agreement,
};
use trimtab_scorer::ScorerWeights;
use trimtab_train::{FinalStates, Verdicts};

use super::texts::Said;

/// Resamples of intervals that have no exact form.
const NUM_RESAMPLES: u32 = 1000;

/// Agreement with judgements of either kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Agreement {
    /// With preferences.
    Pairs(PairAgreement),
    /// With labels.
    Labels(LabelAgreement),
}

/// Compares the values of a head with `said`. `are_logits`: whether the values are logits, so that pairs can be calibrated.
pub(crate) fn agreement(
    weights: &ScorerWeights,
    states: &FinalStates,
    said: &Said,
    are_logits: bool,
) -> Agreement {
    let bootstrap = Bootstrap {
        num_resamples: NUM_RESAMPLES,
        ..Bootstrap::of_seed(Seed(0))
    };
    let value = |&text: &u32| weights.state_value(states.state(text));
    let keys = &said.judgements.keys;
    match &said.judgements.verdicts {
        Verdicts::Pairs { chosen, rejected, .. } => {
            let pairs = chosen.iter().zip(rejected);
            let margins: Vec<f64> = pairs
                .map(|(chosen, rejected)| value(chosen) - value(rejected))
                .collect();
            Agreement::Pairs(pair_agreement(
                &margins,
                &said.lengths,
                keys,
                are_logits,
                bootstrap,
            ))
        }
        Verdicts::Labels { texts, labels } => {
            let logits: Vec<f64> = texts.iter().map(value).collect();
            let are_positive: Vec<bool> = labels.iter().map(|&label| label >= 0.5).collect();
            let lengths: Vec<f64> = said.lengths.iter().map(|[length, _]| *length).collect();
            Agreement::Labels(label_agreement(&logits, &are_positive, &lengths, keys, bootstrap))
        }
    }
}

/// `0.712  (0.671 .. 0.751)`.
pub(crate) fn with_interval(value: f64, interval: Option<Interval>) -> String {
    match interval {
        Some(Interval { lo, hi }) => format!("{value:.3}  ({lo:.3} .. {hi:.3})"),
        None => format!("{value:.3}"),
    }
}

fn of_accuracy(accuracy: &Accuracy) -> String {
    with_interval(accuracy.accuracy, accuracy.accuracy_ci)
}

impl Agreement {
    /// Lines of what was measured, and the reliability curve below.
    pub(crate) fn to_text(&self) -> String {
        let mut lines: Vec<(String, String)> = Vec::new();
        let mut put = |name: &str, value: String| lines.push((name.to_owned(), value));
        let calibration = match self {
            Self::Pairs(pairs) => {
                let length = &pairs.length;
                put("pairs", pairs.accuracy.num_items.to_string());
                put("accuracy", of_accuracy(&pairs.accuracy));
                if pairs.accuracy.num_ties > 0 {
                    put("ties, which count as wrong", pairs.accuracy.num_ties.to_string());
                }
                put("\"longer is better\"", of_accuracy(&length.longer_is_better));
                put("\"shorter is better\"", of_accuracy(&length.shorter_is_better));
                for (name, part) in [
                    (
                        "accuracy where the chosen one is longer",
                        &length.where_chosen_is_longer,
                    ),
                    (
                        "accuracy where the chosen one is shorter",
                        &length.where_chosen_is_shorter,
                    ),
                ] {
                    if let Some(part) = part {
                        put(name, format!("{}  of {}", of_accuracy(part), part.num_items));
                    }
                }
                if let Some(correlation) = length.correlation {
                    let shown = with_interval(correlation, length.correlation_ci);
                    put("correlation of margin and length", shown);
                }
                pairs.calibration.as_ref()
            }
            Self::Labels(labels) => {
                put("texts", labels.accuracy.num_items.to_string());
                put("accuracy", of_accuracy(&labels.accuracy));
                if let Some(auc) = labels.auc {
                    put("positive above negative", with_interval(auc, labels.auc_ci));
                }
                if let Some(auc) = labels.length_auc {
                    put("\"longer is positive\"", with_interval(auc, labels.length_auc_ci));
                }
                if let Some(correlation) = labels.length_correlation {
                    put("correlation of logit and length", format!("{correlation:.3}"));
                }
                Some(&labels.calibration)
            }
        };
        if let Some(calibration) = calibration {
            put(
                "log-loss, nats (a coin: 0.693)",
                with_interval(calibration.log_loss_nats, calibration.log_loss_ci),
            );
            put(
                "expected calibration error",
                with_interval(calibration.ece, calibration.ece_ci),
            );
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        for (name, value) in lines {
            table.add_row([name, value]);
        }
        let curve = calibration.map(|calibration| format!("\n\n{}", curve_of(calibration)));
        format!("{table}{}", curve.unwrap_or_default())
    }
}

/// A reliability curve as a table.
fn curve_of(calibration: &Calibration) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["predicted", "came about", "95% interval", "items"]);
    for bin in &calibration.bins {
        table.add_row([
            format!("{:.3}", bin.predicted),
            format!("{:.3}", bin.observed),
            bin.observed_ci
                .map_or_else(String::new, |Interval { lo, hi }| format!("{lo:.3} .. {hi:.3}")),
            bin.num_items.to_string(),
        ]);
    }
    for column in 0..4 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
