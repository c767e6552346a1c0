//! `trimtab eval preference`: how often rewards and scorers prefer what people preferred (CD Table 1), beside what length
//! alone says. Knows pairs and values.

use anyhow::{Context, Result, bail};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use trimtab_eval::{Calibration, Interval, LengthBias, PairAgreement};
use trimtab_runtime::classifier_weights;
use trimtab_scorer::ScorerWeights;

use crate::Verdict;
use crate::args::EvalPreferenceArgs;
use crate::head_place::HeadPlace;
use crate::output;
use crate::resolve::ReadyModel;
use crate::train::reward::{
    Agreement, DataConfig, Dropped, Reads, TextSet, agreement, read_judgements, text_states, with_interval,
};

/// One scorer's line; the content of `--json` is a list of these.
#[derive(Debug, Serialize)]
struct Line {
    scorer: String,
    objective: String,
    reward: String,
    /// Pairs whose chosen response has the greater value, of all pairs.
    accuracy: f64,
    /// 95%: exact, or over groups of pairs that are alike.
    accuracy_ci: Option<Interval>,
    num_pairs: u64,
    /// Pairs of equal values, which count as wrong.
    num_ties: u64,
    /// What "longer is better" says of the same pairs, and what length has to do with this scorer.
    length: LengthBias,
    /// Of rewards whose differences are log-odds.
    calibration: Option<Calibration>,
    /// Rows that were left out.
    dropped: Dropped,
}

/// A head that is to be evaluated, with the name of the model that it reads.
struct Head {
    place: String,
    lies_at: HeadPlace,
    model: String,
}

pub(super) fn run(args: &EvalPreferenceArgs) -> Result<Verdict> {
    // Heads first: a folder that is none is found before minutes of reading states.
    let heads = args
        .scorers
        .iter()
        .map(|place| {
            let lies_at = HeadPlace::read(place)?;
            let model = match &lies_at {
                HeadPlace::Trained(folder) => folder.model_name().unwrap_or_else(|| args.model.clone()),
                HeadPlace::Classifier { model, .. } => model.clone(),
            };
            Ok(Head {
                place: place.clone(),
                lies_at,
                model,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let mut lines: Vec<Option<Line>> = heads.iter().map(|_| None).collect();
    for (idx, head) in heads.iter().enumerate() {
        if lines[idx].is_none() {
            evaluate_on(&head.model, &heads, args, &mut lines)?;
        }
    }
    let lines: Vec<Line> = lines.into_iter().flatten().collect();
    if args.json {
        output::json(&lines)?;
    } else {
        show(&lines)?;
    }
    Ok(Verdict::Ok)
}

/// Reads the pairs once with a model, and compares every head on it.
fn evaluate_on(
    name: &str,
    heads: &[Head],
    args: &EvalPreferenceArgs,
    lines: &mut [Option<Line>],
) -> Result<()> {
    let model = ReadyModel::open(name, args.source.into(), args.precision.plan, args.threads)?;
    let on_it = || heads.iter().enumerate().filter(|(_, head)| head.model == name);
    let weights = on_it()
        .map(|(_, head)| head.weights(&model).with_context(|| head.place.clone()))
        .collect::<Result<Vec<_>>>()?;
    let data = data(args);
    let mut texts = TextSet::default();
    let said = read_judgements(&data, Reads::of(&model.loaded), &mut texts)?;
    for note in said.dropped.notes(data.file()) {
        output::note(&note);
    }
    let states = text_states(&texts, &args.precision.name, &model)?;
    for ((idx, head), weights) in on_it().zip(&weights) {
        let agreement = agreement(weights, &states, &said, head.are_logits());
        let Agreement::Pairs(agreement) = agreement else {
            bail!("{} holds labels, expected pairs", data.file().display());
        };
        lines[idx] = Some(head.line(agreement, said.dropped.clone()));
    }
    Ok(())
}

fn data(args: &EvalPreferenceArgs) -> DataConfig {
    DataConfig {
        pairs: Some(args.pairs.clone()),
        skip: args.skip,
        limit: args.limit,
        drop_long: args.drop_long,
        drop_bad: args.drop_bad,
        held_out: args.group.clone(),
        ..DataConfig::default()
    }
}

impl Head {
    /// What gives its values, after checks.
    fn weights(&self, model: &ReadyModel) -> Result<ScorerWeights> {
        match &self.lies_at {
            HeadPlace::Trained(folder) => {
                folder.note_planted();
                if folder.card.model.is_none() {
                    folder.check_base(model)?;
                }
                Ok(folder.weights.clone())
            }
            HeadPlace::Classifier { label, .. } => {
                let head = model.loaded.score_head();
                let head = head.context("no sequence classifier, expected one with a score head")?;
                Ok(classifier_weights(head, label.as_deref())?)
            }
        }
    }

    /// Whether differences of its values are log-odds of a preference.
    fn are_logits(&self) -> bool {
        match &self.lies_at {
            HeadPlace::Trained(folder) => folder.card.objective == "classifier",
            HeadPlace::Classifier { .. } => true,
        }
    }

    fn line(&self, agreement: PairAgreement, dropped: Dropped) -> Line {
        let (objective, reward) = match &self.lies_at {
            HeadPlace::Trained(folder) => (folder.card.objective.clone(), folder.card.reward.clone()),
            HeadPlace::Classifier { label, .. } => {
                let label = label.clone().unwrap_or_else(|| "score".to_owned());
                ("sequence-classifier".to_owned(), label)
            }
        };
        let PairAgreement {
            accuracy,
            calibration,
            length,
        } = agreement;
        Line {
            scorer: self.place.clone(),
            objective,
            reward,
            accuracy: accuracy.accuracy,
            accuracy_ci: accuracy.accuracy_ci,
            num_pairs: accuracy.num_items,
            num_ties: accuracy.num_ties,
            length,
            calibration,
            dropped,
        }
    }
}

fn show(lines: &[Line]) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "scorer",
        "objective",
        "reward",
        "accuracy (95%)",
        "chosen longer",
        "chosen shorter",
        "corr. with length",
        "calibration error",
        "pairs",
        "ties",
    ]);
    let share = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.3}"));
    for line in lines {
        let length = &line.length;
        let part = |part: &Option<trimtab_eval::Accuracy>| share(part.as_ref().map(|part| part.accuracy));
        table.add_row([
            line.scorer.clone(),
            line.objective.clone(),
            line.reward.clone(),
            with_interval(line.accuracy, line.accuracy_ci),
            part(&length.where_chosen_is_longer),
            part(&length.where_chosen_is_shorter),
            share(length.correlation),
            share(line.calibration.as_ref().map(|calibration| calibration.ece)),
            line.num_pairs.to_string(),
            line.num_ties.to_string(),
        ]);
    }
    // Scorers on other models may have left out other pairs; what length says is of those of the first.
    if let Some(first) = lines.first() {
        for (name, accuracy) in [
            ("longer is better", &first.length.longer_is_better),
            ("shorter is better", &first.length.shorter_is_better),
        ] {
            table.add_row([
                name.to_owned(),
                "baseline".to_owned(),
                "characters".to_owned(),
                with_interval(accuracy.accuracy, accuracy.accuracy_ci),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
                accuracy.num_items.to_string(),
                accuracy.num_ties.to_string(),
            ]);
        }
    }
    for column in 3..10 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    output::line(&table.to_string())
}
