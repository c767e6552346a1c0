//! `trimtab eval preference`: how often scorers prefer what people preferred (CD Table 1). Knows pairs and values.

use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use trimtab_data::RowRange;
use trimtab_eval::{DEFAULT_LEVEL, Interval, clopper_pearson};
use trimtab_scorer::{ScorerWeights, read_scorer};
use trimtab_train::PairedStates;

use crate::Verdict;
use crate::args::{EvalCommand, EvalPreferenceArgs};
use crate::output;
use crate::resolve::ReadyModel;
use crate::train::{PairSource, final_states};

/// One scorer's line; the content of `--json` is a list of these.
#[derive(Debug, Serialize)]
struct Agreement {
    scorer: String,
    objective: String,
    reward: String,
    /// Pairs whose chosen response has the greater value, of all pairs.
    accuracy: f64,
    /// Exact, 95%.
    accuracy_ci: Interval,
    num_pairs: u64,
    /// Pairs of equal values, which count as wrong.
    num_ties: u64,
}

pub(crate) fn run(command: &EvalCommand) -> Result<Verdict> {
    let EvalCommand::Preference(args) = command;
    // Scorers first: a folder that is none is found before minutes of reading states.
    let mut scorers = Vec::with_capacity(args.scorers.len());
    for folder in &args.scorers {
        let read = read_scorer(folder).with_context(|| format!("scorer {}", folder.display()))?;
        scorers.push((folder, read));
    }
    let model = ReadyModel::open(&args.model, args.source.into(), args.precision.plan, args.threads)?;
    let config = model.loaded.config();
    for (folder, (card, _)) in &scorers {
        card.check_base(
            &model.stored.name,
            &model.sha256(),
            config.hidden_len,
            config.vocab_len,
        )
        .with_context(|| folder.display().to_string())?;
    }
    let states = final_states(&source(args), &model)?;
    let agreements: Vec<Agreement> = scorers
        .iter()
        .map(|(folder, (card, weights))| {
            let (num_right, num_ties) = count(weights, &states);
            agreement(
                folder,
                (&card.objective, &card.reward),
                (num_right, num_ties),
                states.keys.len() as u64,
            )
        })
        .collect();
    if args.json {
        output::json(&agreements)?;
    } else {
        show(&agreements)?;
    }
    Ok(Verdict::Ok)
}

fn source(args: &EvalPreferenceArgs) -> PairSource<'_> {
    PairSource {
        path: &args.pairs,
        range: RowRange {
            skip: args.skip,
            limit: args.limit,
        },
        drop_long: args.drop_long,
        precision: &args.precision.name,
    }
}

/// Pairs whose chosen response has the greater value, and pairs of equal values.
fn count(weights: &ScorerWeights, states: &PairedStates) -> (u64, u64) {
    let chosen = states.chosen.chunks_exact(states.hidden_len);
    let rejected = states.rejected.chunks_exact(states.hidden_len);
    let (mut num_right, mut num_ties) = (0, 0);
    for (chosen, rejected) in chosen.zip(rejected) {
        let margin = weights.state_value(chosen) - weights.state_value(rejected);
        num_right += u64::from(margin > 0.0);
        num_ties += u64::from(margin == 0.0);
    }
    (num_right, num_ties)
}

fn agreement(
    folder: &Path,
    (objective, reward): (&str, &str),
    (num_right, num_ties): (u64, u64),
    num_pairs: u64,
) -> Agreement {
    Agreement {
        scorer: folder.display().to_string(),
        objective: objective.to_owned(),
        reward: reward.to_owned(),
        accuracy: num_right as f64 / num_pairs as f64,
        accuracy_ci: clopper_pearson(num_right, num_pairs, DEFAULT_LEVEL),
        num_pairs,
        num_ties,
    }
}

fn show(agreements: &[Agreement]) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "scorer",
        "objective",
        "reward",
        "accuracy",
        "95% interval",
        "pairs",
        "ties",
    ]);
    for line in agreements {
        table.add_row([
            line.scorer.clone(),
            line.objective.clone(),
            line.reward.clone(),
            format!("{:.3}", line.accuracy),
            format!("{:.3} .. {:.3}", line.accuracy_ci.lo, line.accuracy_ci.hi),
            line.num_pairs.to_string(),
            line.num_ties.to_string(),
        ]);
    }
    for column in 3..7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    output::line(&table.to_string())
}

#[cfg(test)]
mod tests {
    use trimtab_scorer::{Layer, StateHead};

    use super::*;

    #[test]
    fn pairs_are_counted_by_the_sign_of_their_margin() {
        // The value is the second coordinate, times 2.
        let weights = ScorerWeights {
            mean: vec![0.0; 2],
            std: vec![1.0; 2],
            scale: 2.0,
            offset: 5.0,
            state: StateHead {
                trunk: None,
                out: Layer {
                    in_len: 2,
                    out_len: 1,
                    weight: vec![0.0, 1.0],
                    bias: vec![0.0],
                },
            },
            action: None,
            token_features: None,
        };
        let states = PairedStates {
            hidden_len: 2,
            chosen: vec![0.0, 1.0, 9.0, 0.0, 0.0, 3.0],
            rejected: vec![9.0, 0.5, 0.0, 0.25, 7.0, 3.0],
            keys: vec![1, 2, 3],
        };
        assert_eq!(count(&weights, &states), (1, 1));
        let line = agreement(Path::new("x"), ("cd-q", "length"), (1, 1), 3);
        assert!((line.accuracy - 1.0 / 3.0).abs() < 1e-12);
        assert!(line.accuracy_ci.lo < line.accuracy && line.accuracy < line.accuracy_ci.hi);
    }
}
