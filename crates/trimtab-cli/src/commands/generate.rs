//! `trimtab generate`: one prompt, one answer, and what it cost.

use anyhow::Result;
use serde::Serialize;
use trimtab_base::TokenId;
use trimtab_decode::{BlockKl, DecodeSpec, FinishReason, TraceStep};
use trimtab_engine::Usage;
use trimtab_eval::{KlKind, drift_nats};
use trimtab_runtime::JobResult;

use crate::Verdict;
use crate::answer::{Answered, ScorerReport, Shown, answer};
use crate::args::GenerateArgs;
use crate::output;

/// What `--json` prints. The keys up to `model_sha256` are stable.
#[derive(Debug, Serialize)]
pub(super) struct GenerateReport {
    text: String,
    candidates: Vec<CandidateReport>,
    /// Index into `candidates`.
    chosen: usize,
    /// Drift of the answer's law from the reference, in nats.
    kl_nats: f64,
    tokens_generated: u64,
    seed: u64,
    model_sha256: String,
    /// What kind of number `kl_nats` is.
    kl_kind: KlKind,
    model: String,
    decode: DecodeSpec,
    reward: Option<String>,
    reward_unit: Option<String>,
    precision: String,
    prompt_tokens: u64,
    cached_prompt_tokens: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) scorers: Vec<ScorerReport>,
    /// Value of the answer under each of `scorers`, in its unit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<f64>,
    /// For methods that choose among blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    block_kl: Option<BlockKl>,
    /// Tokens drawn until the first part of the answer was certain.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_to_first_commit: Option<u64>,
    /// Every decision, if asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) trace: Vec<TraceStep>,
}

#[derive(Debug, Serialize)]
struct CandidateReport {
    text: String,
    token_ids: Vec<TokenId>,
    /// Under the policy it was drawn from, in nats.
    log_prob: f64,
    reward: Option<f64>,
    /// Under the reference at temperature 1, in nats.
    reference_log_prob: f64,
    /// Sum of the steps' exact KL divergences from the reference, in nats.
    kl_nats: f64,
    finish: FinishReason,
}

pub(crate) fn run(args: &GenerateArgs) -> Result<Verdict> {
    let shown = Shown {
        trace: args.steering.trace,
        streams: !args.json && output::terminal_width().is_some(),
    };
    let mut answered = answer(args, shown)?;
    let shown = std::mem::take(&mut answered.shown);
    let report = GenerateReport::new(args, answered);
    if args.json {
        output::json(&report)?;
    } else {
        report.show_text(&shown)?;
        output::note(&format!("\n{}", report.remarks().join("; ")));
    }
    Ok(Verdict::Ok)
}

/// A sum of divergences, of which each is at least 0 but for its rounding.
fn at_least_zero(kl_nats: f64) -> f64 {
    if kl_nats < 0.0 { 0.0 } else { kl_nats }
}

impl GenerateReport {
    pub(super) fn new(args: &GenerateArgs, answered: Answered) -> Self {
        let JobResult { outcome, usage, .. } = answered.result;
        let Usage {
            prompt_positions,
            cached_positions,
            ..
        } = usage;
        let (kl_nats, kl_kind) = drift_nats(&args.decode, &outcome);
        let kl_nats = match kl_kind {
            KlKind::Exact => at_least_zero(kl_nats),
            KlKind::Bound | KlKind::Estimate => kl_nats,
        };
        let candidates: Vec<CandidateReport> = outcome
            .candidates
            .into_iter()
            .map(|candidate| CandidateReport {
                text: candidate.text,
                token_ids: candidate.token_ids,
                log_prob: candidate.log_prob,
                reward: candidate.reward,
                reference_log_prob: candidate.reference_log_prob,
                kl_nats: at_least_zero(candidate.kl_nats),
                finish: candidate.finish,
            })
            .collect();
        Self {
            text: candidates[outcome.chosen].text.clone(),
            candidates,
            chosen: outcome.chosen,
            kl_nats,
            tokens_generated: outcome.tokens_generated,
            seed: args.seed,
            model_sha256: answered.model.sha256(),
            kl_kind,
            model: args.model.clone(),
            decode: args.decode.clone(),
            reward: args.reward.as_ref().map(ToString::to_string),
            reward_unit: answered.reward_unit,
            precision: args.run.precision.name.clone(),
            prompt_tokens: prompt_positions,
            cached_prompt_tokens: cached_positions,
            scorers: answered.scorers,
            values: outcome.values,
            block_kl: outcome.block_kl,
            tokens_to_first_commit: outcome.tokens_to_first_commit,
            trace: outcome.trace,
        }
    }

    /// The answer, of which `shown` is on the terminal.
    fn show_text(&self, shown: &str) -> Result<()> {
        match self.text.strip_prefix(shown) {
            Some(rest) => output::line(rest),
            // What was certain was cut at a stop string afterwards, or holds bytes that are no text.
            None => output::line(&format!("\n{}", self.text)),
        }
    }

    /// Cost, drift, reward and values for people.
    pub(super) fn remarks(&self) -> Vec<String> {
        let chosen = &self.candidates[self.chosen];
        let mut remarks = vec![format!(
            "{}: {}; log-probability {} nats under the model; KL {} nats ({})",
            self.decode,
            self.counts(),
            rounded(chosen.reference_log_prob, 2),
            rounded(self.kl_nats, 3),
            self.kl_kind.name(),
        )];
        if let Some(estimate) = self.block_kl.and_then(|blocks| blocks.estimate_nats)
            && self.kl_kind == KlKind::Bound
        {
            remarks.push(format!("estimate {} nats", rounded(estimate, 3)));
        }
        if let (Some(name), Some(unit), Some(value)) = (&self.reward, &self.reward_unit, chosen.reward) {
            remarks.push(format!("{name} {} ({unit})", rounded(value, 4)));
        }
        for (scorer, &value) in self.scorers.iter().zip(&self.values) {
            remarks.push(format!(
                "value {} {} ({})",
                scorer.name,
                rounded(value, 4),
                scorer.unit
            ));
        }
        if let Some(tokens) = self.tokens_to_first_commit {
            remarks.push(format!("first part certain after {tokens} tokens"));
        }
        if chosen.finish == FinishReason::Length {
            let limit = chosen.token_ids.len();
            remarks.push(format!("cut at the limit of {limit} tokens (--max-new-tokens)"));
        }
        remarks
    }

    /// Tokens of the answer, and of what it was chosen from.
    fn counts(&self) -> String {
        let own = self.candidates[self.chosen].token_ids.len();
        match self.candidates.len() {
            1 if own as u64 == self.tokens_generated => format!("{own} tokens"),
            1 => format!("{own} tokens ({} generated in all)", self.tokens_generated),
            num_candidates => format!(
                "{own} tokens, candidate {} of {num_candidates} ({} tokens generated in all)",
                self.chosen + 1,
                self.tokens_generated
            ),
        }
    }
}

/// A number for people: one that rounds to zero has no sign.
pub(super) fn rounded(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let is_zero = text.chars().all(|ch| matches!(ch, '-' | '0' | '.'));
    if is_zero {
        text.trim_start_matches('-').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shown_as_minus_zero() {
        let check = |value: f64, expect: &str| assert_eq!(rounded(value, 3), expect);
        check(-0.000_4, "0.000");
        check(-0.0, "0.000");
        check(-0.000_6, "-0.001");
        check(10.0, "10.000");
        check(f64::NEG_INFINITY, "-inf");
    }
}
