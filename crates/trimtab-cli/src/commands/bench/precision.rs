//! `trimtab bench precision`: how far a precision moves next-token distributions from those of f32 on a text, which
//! kind of layer is to blame, and how the error grows from layer to layer.

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use trimtab_base::TokenId;
use trimtab_base::prob::{kl_nats, log_softmax};
use trimtab_kernels::kv_cache::{BLOCK_LEN, KvCache};
use trimtab_model::{BatchRow, ForwardOutput, PrecisionPlan, RowInput, Workspace};

use crate::Verdict;
use crate::args::{BenchPrecisionArgs, PrecisionName};
use crate::output;
use crate::progress::ItemProgress;
use crate::resolve::ReadyModel;

/// Opening of "Alice's Adventures in Wonderland" (Lewis Carroll, 1865; public domain).
const BUILTIN_TEXT: &str = include_str!("../../../data/precision_text.txt");

/// Positions of one pass.
const CHUNK: usize = 64;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct PrecisionReport {
    model: String,
    model_sha256: String,
    tokens: usize,
    precisions: Vec<Comparison>,
}

/// One precision against f32.
#[derive(Debug, Serialize)]
struct Comparison {
    precision: String,
    #[serde(flatten)]
    whole: Distance,
    /// The same with one kind of layer in this precision and all others in f32.
    only: Vec<(&'static str, Distance)>,
    /// `|r - r_f32| / |r_f32|` of the residual stream after each layer, mean over positions.
    residual_error_by_layer: Vec<f64>,
}

/// Distance of next-token distributions from those of f32.
#[derive(Debug, Clone, Copy, Serialize)]
struct Distance {
    /// Mean of `KL(f32 || precision)`.
    mean_kl_nats: f64,
    max_kl_nats: f64,
    /// Share of positions with the same most probable token.
    argmax_agreement: f64,
}

pub(crate) fn run(args: &BenchPrecisionArgs) -> Result<Verdict> {
    let open = |plan| ReadyModel::open(&args.model, args.source.into(), plan, args.threads);
    let exact_model = open(PrecisionPlan::f32())?;
    let tokens = tokens(args, &exact_model)?;
    let exact = trace(&exact_model, &tokens)?;
    let (sha256, vocab_len) = (exact_model.sha256(), exact_model.loaded.config().vocab_len);
    drop(exact_model);
    let kinds = only_one_kind(PrecisionPlan::f32()).len();
    let what = "comparing";
    let mut progress = ItemProgress::new(what, (args.precisions.len() * (kinds + 1)) as u64, 0);
    let mut precisions = Vec::new();
    for PrecisionName { name, plan } in &args.precisions {
        let traced = trace(&open(*plan)?, &tokens)?;
        progress.advance(what);
        let mut only = Vec::new();
        for (kind, plan) in only_one_kind(*plan) {
            let traced = trace(&open(plan)?, &tokens)?;
            only.push((kind, distance(&exact, &traced, vocab_len)));
            progress.advance(what);
        }
        precisions.push(Comparison {
            precision: name.clone(),
            whole: distance(&exact, &traced, vocab_len),
            only,
            residual_error_by_layer: residual_errors(&exact, &traced),
        });
    }
    progress.finish();
    let report = PrecisionReport {
        model: args.model.clone(),
        model_sha256: sha256,
        tokens: tokens.len(),
        precisions,
    };
    if args.json {
        output::json(&report)?;
    } else {
        show(&report)?;
    }
    Ok(Verdict::Ok)
}

fn tokens(args: &BenchPrecisionArgs, model: &ReadyModel) -> Result<Vec<TokenId>> {
    let text = match &args.text {
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        None => BUILTIN_TEXT.to_owned(),
    };
    let mut tokens = model.loaded.tokenizer().encode_prompt(&text)?;
    tokens.truncate(args.tokens.min(model.loaded.config().context_len));
    if tokens.len() < 2 {
        bail!("expected a text of at least 2 tokens, got {}", tokens.len());
    }
    Ok(tokens)
}

/// `plan` for one kind of layer at a time, f32 for the others.
fn only_one_kind(plan: PrecisionPlan) -> Vec<(&'static str, PrecisionPlan)> {
    let exact = PrecisionPlan {
        smoothed: plan.smoothed,
        ..PrecisionPlan::f32()
    };
    vec![
        (
            "qkv",
            PrecisionPlan {
                qkv: plan.qkv,
                ..exact
            },
        ),
        (
            "attention_output",
            PrecisionPlan {
                attention_output: plan.attention_output,
                ..exact
            },
        ),
        (
            "gate_up",
            PrecisionPlan {
                gate_up: plan.gate_up,
                ..exact
            },
        ),
        (
            "down",
            PrecisionPlan {
                down: plan.down,
                ..exact
            },
        ),
        (
            "head",
            PrecisionPlan {
                head: plan.head,
                ..exact
            },
        ),
        ("keys_and_values", PrecisionPlan { kv: plan.kv, ..exact }),
    ]
}

/// What a model makes of a text.
struct Trace {
    /// `[tokens, vocab]`
    logits: Vec<f32>,
    /// Residual stream after each layer. `[layers][tokens, hidden]`
    residuals: Vec<Vec<f32>>,
    hidden_len: usize,
}

fn trace(ready: &ReadyModel, tokens: &[TokenId]) -> Result<Trace> {
    let model = ready.loaded.model();
    let num_blocks = tokens.len().div_ceil(BLOCK_LEN);
    let blocks: Vec<u32> = (0..num_blocks as u32).collect();
    let mut kv = KvCache::try_new(model.kv_layout(), num_blocks).map_err(|error| anyhow!("{error}"))?;
    let mut workspace = Workspace::default();
    workspace.trace_residuals();
    let mut traced = Trace {
        logits: Vec::new(),
        residuals: vec![Vec::new(); model.config().num_layers()],
        hidden_len: model.config().hidden_len,
    };
    let mut out = ForwardOutput::default();
    for (chunk_idx, chunk) in tokens.chunks(CHUNK).enumerate() {
        let rows: Vec<BatchRow<'_>> = chunk
            .iter()
            .enumerate()
            .map(|(i, &token)| BatchRow {
                input: RowInput::Token(token),
                position: (chunk_idx * CHUNK + i) as u32,
                blocks: &blocks,
            })
            .collect();
        let outputs: Vec<usize> = (0..chunk.len()).collect();
        model.forward(
            ready.loaded.pool(),
            &mut kv,
            &rows,
            &outputs,
            &mut workspace,
            &mut out,
        )?;
        traced.logits.extend_from_slice(&out.logits);
        for (all, layer) in traced.residuals.iter_mut().zip(workspace.traced_residuals()) {
            all.extend_from_slice(layer);
        }
    }
    Ok(traced)
}

fn distance(exact: &Trace, other: &Trace, vocab_len: usize) -> Distance {
    let pairs = exact
        .logits
        .chunks_exact(vocab_len)
        .zip(other.logits.chunks_exact(vocab_len));
    let (mut total, mut largest, mut agreed, mut count) = (0.0, 0.0_f64, 0, 0);
    for (exact, other) in pairs {
        let kl = kl_nats(&log_softmax(exact), &log_softmax(other));
        total += kl;
        largest = largest.max(kl);
        agreed += usize::from(argmax(exact) == argmax(other));
        count += 1;
    }
    let count = f64::from(count);
    Distance {
        mean_kl_nats: total / count,
        max_kl_nats: largest,
        argmax_agreement: agreed as f64 / count,
    }
}

fn argmax(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
}

fn residual_errors(exact: &Trace, other: &Trace) -> Vec<f64> {
    let layers = exact.residuals.iter().zip(&other.residuals);
    layers
        .map(|(exact_layer, other_layer)| {
            let rows = exact_layer
                .chunks_exact(exact.hidden_len)
                .zip(other_layer.chunks_exact(exact.hidden_len));
            let errors: Vec<f64> = rows.map(|(exact, other)| relative_error(exact, other)).collect();
            errors.iter().sum::<f64>() / errors.len() as f64
        })
        .collect()
}

fn relative_error(exact: &[f32], other: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let error: f64 = exact.iter().zip(other).map(|(&a, &b)| square(a - b)).sum();
    let norm: f64 = exact.iter().map(|&a| square(a)).sum();
    (error / norm.max(f64::MIN_POSITIVE)).sqrt()
}

fn show(report: &PrecisionReport) -> Result<()> {
    output::line(&format!(
        "{}, {} tokens of text, against f32",
        report.model, report.tokens
    ))?;
    let line = |name: &str, distance: &Distance| {
        output::line(&format!(
            "{name:<28} mean KL {:.6} nats, max {:.4}, same most probable token {:.1}%",
            distance.mean_kl_nats,
            distance.max_kl_nats,
            100.0 * distance.argmax_agreement
        ))
    };
    for comparison in &report.precisions {
        line(&comparison.precision, &comparison.whole)?;
        for (kind, distance) in &comparison.only {
            line(&format!("  only {kind}"), distance)?;
        }
        let errors: Vec<String> = comparison
            .residual_error_by_layer
            .iter()
            .map(|error| format!("{:.2}", 100.0 * error))
            .collect();
        output::line(&format!(
            "  residual error after each layer, %: {}",
            errors.join(" ")
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_zero_for_equal_traces_and_count_changed_winners() {
        let trace = |logits: &[f32]| Trace {
            logits: logits.to_vec(),
            residuals: vec![vec![3.0, 4.0]],
            hidden_len: 2,
        };
        let exact = trace(&[1.0, 0.0, 0.0, 2.0]);
        let same = distance(&exact, &exact, 2);
        assert_eq!((same.mean_kl_nats, same.argmax_agreement), (0.0, 1.0));
        let changed = distance(&exact, &trace(&[0.0, 1.0, 0.0, 2.0]), 2);
        assert_eq!(changed.argmax_agreement, 0.5);
        assert!(changed.mean_kl_nats > 0.1 && changed.max_kl_nats > changed.mean_kl_nats);
    }

    #[test]
    fn residual_error_is_relative() {
        assert!((relative_error(&[3.0, 4.0], &[3.0, 3.5]) - 0.1).abs() < 1e-7);
        assert_eq!(relative_error(&[0.0], &[0.0]), 0.0);
    }
}
