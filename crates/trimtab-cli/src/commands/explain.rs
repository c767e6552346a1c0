//! `trimtab explain`: why each block or token of a steered answer won.

use anyhow::{Result, bail};
use comfy_table::{Cell, CellAlignment, Table, presets};
use trimtab_base::TokenBytes;
use trimtab_decode::{TraceStep, TracedBlock};

use super::generate::{GenerateReport, rounded};
use crate::Verdict;
use crate::answer::{ScorerReport, Shown, answer};
use crate::args::GenerateArgs;
use crate::output;

/// Characters of a block in a table.
const MAX_TEXT_CHARS: usize = 60;

pub(crate) fn run(args: &GenerateArgs) -> Result<Verdict> {
    if !args.decode.needs_scorers() {
        bail!(
            "{} decides nothing by values; explain cd-token or cd-block, e.g. --decode cd-block:k=6,m=16 --scorer DIR",
            args.decode
        );
    }
    let shown = Shown {
        trace: true,
        streams: false,
    };
    let answered = answer(args, shown)?;
    let token_bytes = answered.model.loaded.token_bytes();
    let report = GenerateReport::new(args, answered);
    if args.json {
        output::json(&report)?;
        return Ok(Verdict::Ok);
    }
    for text in tables(&report.trace, &report.scorers, token_bytes.as_ref()) {
        output::line(&text)?;
    }
    output::note(&report.remarks().join("; "));
    Ok(Verdict::Ok)
}

/// One table a block, or one of all tokens.
fn tables(trace: &[TraceStep], scorers: &[ScorerReport], token_bytes: &dyn TokenBytes) -> Vec<String> {
    let mut texts = Vec::new();
    let mut tokens = new_table(scorers, &["token", "log-prob"], &["weights", "steered", "KL"]);
    let mut num_tokens = 0;
    for step in trace {
        match step {
            TraceStep::Block {
                committed_len,
                candidates,
            } => {
                let table = block_table(scorers, candidates);
                texts.push(format!("after {committed_len} tokens\n{table}\n"));
            }
            TraceStep::Token {
                token,
                reference_log_prob,
                log_prob,
                values,
                weights,
                kl_nats,
            } => {
                num_tokens += 1;
                let weights: Vec<String> = weights.iter().map(|&weight| rounded(weight, 3)).collect();
                let mut row = vec![
                    Cell::new(shown_text(&token_bytes.text_of(&[*token]))),
                    number(*reference_log_prob),
                ];
                row.extend(values.iter().map(|&value| number(value)));
                row.push(right(&weights.join(" ")));
                row.extend([number(*log_prob), number(*kl_nats)]);
                tokens.add_row(row);
            }
        }
    }
    if num_tokens > 0 {
        texts.push(format!("{tokens}\n"));
    }
    texts
}

fn block_table(scorers: &[ScorerReport], candidates: &[TracedBlock]) -> Table {
    let mut table = new_table(scorers, &["", "block", "log-prob"], &["mixed"]);
    for block in candidates {
        let mut row = vec![
            Cell::new(if block.is_kept { "*" } else { "" }),
            Cell::new(shown_text(&block.text)),
            number(block.reference_log_prob),
        ];
        row.extend(block.values.iter().map(|&value| number(value)));
        row.push(number(block.mixed_value));
        table.add_row(row);
    }
    table
}

/// A table with a column for each scorer between others.
fn new_table(scorers: &[ScorerReport], before: &[&str], after: &[&str]) -> Table {
    let values = scorers.iter().map(|scorer| {
        // What follows a comma explains the unit.
        let unit = scorer.unit.split(',').next().unwrap_or_default();
        format!("{}*{} ({unit})", scorer.name, scorer.weight)
    });
    let before = before.iter().map(|&name| name.to_owned());
    let after = after.iter().map(|&name| name.to_owned());
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(before.chain(values).chain(after).collect::<Vec<String>>());
    table
}

fn number(value: f64) -> Cell {
    right(&rounded(value, 3))
}

fn right(text: &str) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// A text in one short line, its white space to be seen.
fn shown_text(text: &str) -> String {
    let escaped = format!("{text:?}");
    match escaped.char_indices().nth(MAX_TEXT_CHARS) {
        Some((end, _)) => format!("{}...", &escaped[..end]),
        None => escaped,
    }
}

#[cfg(test)]
mod tests {
    use trimtab_base::TokenId;
    use trimtab_base::testing::LetterTokens;

    use super::*;

    fn scorers() -> Vec<ScorerReport> {
        let scorer = |name: &str, weight: f64| ScorerReport {
            name: name.to_owned(),
            weight,
            unit: "nats".to_owned(),
        };
        vec![scorer("length", 1.0), scorer("kind", -0.5)]
    }

    #[test]
    fn blocks_show_text_values_and_who_won() {
        let block = |text: &str, values: [f64; 2], is_kept: bool| TracedBlock {
            parent: 0,
            token_ids: vec![TokenId(1)],
            text: text.to_owned(),
            reference_log_prob: -1.5,
            values: values.to_vec(),
            mixed_value: values[0] - 0.5 * values[1],
            is_kept,
        };
        let step = TraceStep::Block {
            committed_len: 16,
            candidates: vec![block("a\nb", [0.25, 1.0], false), block("c", [2.0, 0.0], true)],
        };
        let texts = tables(&[step], &scorers(), &LetterTokens);
        let [text] = texts.as_slice() else {
            panic!("one block")
        };
        for part in [
            "after 16 tokens",
            "length*1 (nats)",
            "kind*-0.5 (nats)",
            "\"a\\nb\"",
            "-0.250",
        ] {
            assert!(text.contains(part), "{text} lacks {part}");
        }
        let won: Vec<&str> = text
            .lines()
            .filter(|line| line.contains('*') && line.contains("\"c\""))
            .collect();
        assert_eq!(won.len(), 1, "{text}");
        assert!(
            !text
                .lines()
                .any(|line| line.contains('*') && line.contains("a\\nb"))
        );
    }

    #[test]
    fn tokens_share_one_table() {
        let token = |idx: u32| TraceStep::Token {
            token: TokenId(idx),
            reference_log_prob: -2.0,
            log_prob: -0.5,
            values: vec![0.1, 0.2],
            weights: vec![4.0, -2.0],
            kl_nats: 0.3,
        };
        let texts = tables(&[token(1), token(2)], &scorers(), &LetterTokens);
        let [text] = texts.as_slice() else {
            panic!("one table")
        };
        assert_eq!(text.matches("4.000 -2.000").count(), 2, "{text}");
        assert!(text.contains("steered") && text.contains("\"a\""), "{text}");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(shown_text("a b"), "\"a b\"");
        assert_eq!(shown_text(&"x".repeat(100)).chars().count(), MAX_TEXT_CHARS + 3);
    }
}
