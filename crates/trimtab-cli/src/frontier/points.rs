//! From journalled candidates to the report: which candidates each method had, and what it chose among them.
//! Knows methods and rewards; the arithmetic is `trimtab-eval`'s.

use anyhow::{Context, Result};
use trimtab_decode::{Candidate, DecodeSpec, Outcome};
use trimtab_eval::{
    Example, ExampleAnswer, Frontier, FrontierInput, KlRule, MethodRuns, PromptRun, ReferenceSamples, Report,
    RunFacts,
};

use super::config::FrontierConfig;
use super::identity::sha256_hex;
use super::plan::{Plan, REFERENCE_GROUP, is_drawn};
use super::run::Entry;
use crate::prompts::PromptRecord;

/// Prompts shown in full in the report.
const NUM_EXAMPLES: usize = 4;

/// What the report says of model and reward.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// SHA-256 of the weights, in hexadecimal.
    pub(super) model_sha256: String,
    /// Unit of the reward.
    pub(super) reward_unit: String,
}

/// The report of a whole run. `entries` hold each group's candidates for each prompt, sorted by group and prompt.
pub(super) fn report(
    config: &FrontierConfig,
    prompts: &[PromptRecord],
    plan: &Plan,
    entries: &[Entry],
    identity: Identity,
) -> Result<Report> {
    let of_group = |group: usize| entries.iter().filter(move |entry| entry.group == group);
    let mut methods = Vec::new();
    let mut outcomes = Vec::new();
    for (method, &group) in config.methods.iter().zip(&plan.group_of_method) {
        let chosen: Vec<Vec<Outcome>> = of_group(group).map(|entry| answers(method, entry)).collect();
        let runs = chosen.iter().zip(of_group(group)).map(|(outcomes, entry)| {
            PromptRun::of_outcomes(entry.prompt as u64, outcomes)
                .with_context(|| format!("prompt {}", entry.prompt + 1))
        });
        methods.push(MethodRuns {
            method: method.to_string(),
            num_candidates: method.num_candidates() as u32,
            sampling: method.sampling(),
            kl_rule: KlRule::of_spec(method),
            runs: runs.collect::<Result<_>>()?,
        });
        outcomes.push(chosen);
    }
    let references = of_group(REFERENCE_GROUP).map(|entry| ReferenceSamples {
        prompt_idx: entry.prompt as u64,
        rewards: entry
            .candidates
            .iter()
            .filter_map(|candidate| candidate.reward)
            .collect(),
    });
    let input = FrontierInput {
        facts: facts(config, identity)?,
        methods,
        references: references.collect(),
    };
    let frontier = Frontier::compute(&input)?;
    Ok(Report {
        frontier,
        examples: examples(config, prompts, &outcomes),
    })
}

/// What `method` makes of the candidates drawn for its group: an answer from each part of them that it would draw for
/// itself. Independent answers to one prompt, whose mean has less spread than any; at least one.
fn answers(method: &DecodeSpec, entry: &Entry) -> Vec<Outcome> {
    if !is_drawn(method) {
        return vec![Outcome::unsteered(entry.candidates.clone(), entry.chosen, entry.tokens_generated)];
    }
    // Candidate `i` does not depend on how many are drawn, so the method's own run would have drawn just the first part.
    entry
        .candidates
        .chunks_exact(method.num_candidates())
        .map(|candidates| Outcome::unsteered(candidates.to_vec(), method.selection().choose(candidates), candidates.iter().map(num_tokens).sum()))
        .collect()
}

fn num_tokens(candidate: &Candidate) -> u64 {
    candidate.token_ids.len() as u64
}

fn facts(config: &FrontierConfig, identity: Identity) -> Result<RunFacts> {
    let fields =
        serde_json::to_vec(&config.result_fields()?).context("cannot serialise the configuration")?;
    Ok(RunFacts {
        model: config.model_label(),
        model_sha256: identity.model_sha256,
        seed: config.seed,
        precision: config.precision.clone(),
        reward: config.reward.to_string(),
        reward_unit: identity.reward_unit,
        config_sha256: sha256_hex(&fields),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

fn examples(
    config: &FrontierConfig,
    prompts: &[PromptRecord],
    outcomes: &[Vec<Vec<Outcome>>],
) -> Vec<Example> {
    let answer = |method: &DecodeSpec, outcome: &Outcome| {
        let chosen = &outcome.candidates[outcome.chosen];
        ExampleAnswer {
            method: method.to_string(),
            text: chosen.text.clone(),
            reward: chosen.reward.unwrap_or(f64::NAN),
        }
    };
    let of_prompt = |(idx, record): (usize, &PromptRecord)| Example {
        prompt: record.prompt.clone(),
        answers: config
            .methods
            .iter()
            .zip(outcomes)
            .map(|(method, all)| answer(method, &all[idx][0]))
            .collect(),
    };
    prompts
        .iter()
        .enumerate()
        .take(NUM_EXAMPLES)
        .map(of_prompt)
        .collect()
}

#[cfg(test)]
mod tests {
    use trimtab_base::TokenId;
    use trimtab_decode::FinishReason;

    use super::*;

    fn candidate(idx: u64, reward: f64, num_tokens: usize) -> Candidate {
        Candidate {
            candidate_idx: idx,
            token_ids: vec![TokenId(1); num_tokens],
            text: format!("answer {idx}"),
            log_prob: -1.0,
            reference_log_prob: -1.0,
            kl_nats: 0.0,
            finish: FinishReason::StopToken,
            reward: Some(reward),
        }
    }

    fn entry(group: usize, prompt: usize, rewards: &[f64]) -> Entry {
        let candidates = rewards
            .iter()
            .enumerate()
            .map(|(idx, &reward)| candidate(idx as u64, reward, idx + 1));
        Entry {
            group,
            prompt,
            chosen: 0,
            tokens_generated: 0,
            candidates: candidates.collect(),
        }
    }

    #[test]
    fn methods_answer_from_each_part_and_pay_for_it_alone() {
        let entry = entry(1, 0, &[0.2, 0.1, 0.9, 0.5]);
        let check = |method: &str, expect: &[(u64, u64)]| {
            let outcomes = answers(&method.parse().unwrap(), &entry);
            let seen: Vec<(u64, u64)> = outcomes
                .iter()
                .map(|outcome| {
                    (
                        outcome.candidates[outcome.chosen].candidate_idx,
                        outcome.tokens_generated,
                    )
                })
                .collect();
            assert_eq!(seen, expect, "{method}");
        };
        check("sample", &[(0, 1), (1, 2), (2, 3), (3, 4)]);
        check("bon:2", &[(0, 3), (2, 7)]);
        check("bon:3", &[(2, 6)]);
        check("bon:4", &[(2, 10)]);
        check("won:4", &[(1, 10)]);
    }

    #[test]
    fn a_report_has_a_point_per_method_and_keeps_the_order() {
        let config = FrontierConfig::parse(
            "reward = \"length\"\nmethods = [\"bon:4\", \"sample\"]\nreference_samples = 2",
        )
        .unwrap();
        let plan = Plan::new(&config.methods, 2, 0);
        let prompts: Vec<PromptRecord> = (0..3)
            .map(|idx| PromptRecord {
                prompt: format!("prompt {idx}"),
                record: serde_json::Map::new(),
                line: idx + 1,
            })
            .collect();
        let mut entries: Vec<Entry> = (0..3).map(|prompt| entry(0, prompt, &[0.4, 0.6])).collect();
        entries.extend((0..3).map(|prompt| entry(1, prompt, &[0.2, 0.1, 0.9, 0.5])));
        let identity = Identity {
            model_sha256: "00".to_owned(),
            reward_unit: "nats".to_owned(),
        };
        let report = report(&config, &prompts, &plan, &entries, identity).unwrap();
        let points = &report.frontier.points;
        assert_eq!(
            points
                .iter()
                .map(|point| point.method.as_str())
                .collect::<Vec<_>>(),
            ["bon:4", "sample"]
        );
        // Plain sampling is the mean of the four draws, at the cost of one: two and a half tokens.
        assert_eq!((points[0].win_rate, points[1].win_rate), (1.0, 0.375));
        assert_eq!((points[0].tokens_generated, points[1].tokens_generated), (30, 8));
        assert_eq!(report.examples[2].answers[0].text, "answer 2");
    }
}
