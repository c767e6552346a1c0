//! From journalled candidates to the report: which candidates each method had, and what it chose among them.
//! Knows methods and rewards; the arithmetic is `trimtab-eval`'s.

use anyhow::{Context, Result};
use trimtab_decode::{Candidate, DecodeSpec, Outcome};
use trimtab_eval::{
    Example, ExampleAnswer, Frontier, FrontierInput, KlRule, MethodRuns, PromptRun, ReferenceSamples, Report,
    RewardName, RunFacts,
};

use super::config::FrontierConfig;
use super::entry::Entry;
use super::identity::sha256_hex;
use super::methods::Method;
use super::plan::{Plan, SeedPlan, is_drawn};
use crate::prompts::PromptRecord;

/// Prompts shown in full in the report.
const NUM_EXAMPLES: usize = 4;

/// What the report says of model, rewards and scorers.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// SHA-256 of the weights, in hexadecimal.
    pub(super) model_sha256: String,
    /// Unit of the reward.
    pub(super) reward_unit: String,
    /// Names and units of the further rewards.
    pub(super) rewards_also: Vec<RewardName>,
    /// Names and units of each method's scorers, in the methods' order.
    pub(super) values_of_method: Vec<Vec<RewardName>>,
}

/// A run's samples with what they are of.
pub(super) struct Samples<'a> {
    pub(super) config: &'a FrontierConfig,
    pub(super) methods: &'a [Method],
    pub(super) prompts: &'a [PromptRecord],
    pub(super) plan: &'a Plan,
    /// Each group's candidates for each prompt, sorted by group and prompt.
    pub(super) entries: &'a [Entry],
    pub(super) identity: Identity,
}

/// One answer of a method with its further rewards.
struct Answer {
    outcome: Outcome,
    rewards_also: Vec<f64>,
}

impl Samples<'_> {
    /// The report of a whole run.
    pub(super) fn report(&self) -> Result<Report> {
        let inputs = self
            .plan
            .seeds
            .iter()
            .map(|seed| self.input(seed))
            .collect::<Result<Vec<_>>>()?;
        Ok(Report {
            frontier: Frontier::over_seeds(&inputs)?,
            examples: self.examples(),
        })
    }

    fn of_group(&self, group: usize) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.group == group)
    }

    fn input(&self, of_seed: &SeedPlan) -> Result<FrontierInput> {
        let methods = self.methods.iter().enumerate().map(|(idx, method)| {
            let runs = self.of_group(of_seed.group_of_method[idx]).map(|entry| {
                prompt_run(&method.decode, entry).with_context(|| format!("prompt {}", entry.prompt + 1))
            });
            Ok(MethodRuns {
                method: method.name.clone(),
                num_candidates: num_candidates(&method.decode),
                sampling: method.decode.sampling(),
                kl_rule: KlRule::of_spec(&method.decode),
                value_names: self.identity.values_of_method[idx].clone(),
                varies_by_seed: method.varies_by_seed(),
                shown_as: method.shown_as.clone(),
                runs: runs.collect::<Result<_>>()?,
            })
        });
        let references = self
            .of_group(of_seed.reference_group)
            .map(|entry| ReferenceSamples {
                prompt_idx: entry.prompt as u64,
                rewards: entry
                    .candidates
                    .iter()
                    .filter_map(|candidate| candidate.reward)
                    .collect(),
            });
        Ok(FrontierInput {
            facts: self.facts(of_seed.seed)?,
            methods: methods.collect::<Result<_>>()?,
            references: references.collect(),
            rewards_also: self.identity.rewards_also.clone(),
            x_axis: self.config.x_axis.clone(),
        })
    }

    fn facts(&self, seed: u64) -> Result<RunFacts> {
        let config = self.config;
        let fields =
            serde_json::to_vec(&config.result_fields()?).context("cannot serialise the configuration")?;
        Ok(RunFacts {
            model: config.model_label(),
            model_sha256: self.identity.model_sha256.clone(),
            seed,
            precision: config.precision.clone(),
            reward: config.reward.to_string(),
            reward_unit: self.identity.reward_unit.clone(),
            config_sha256: sha256_hex(&fields),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// The first prompts with the methods' first answers of the first seed that answers them.
    fn examples(&self) -> Vec<Example> {
        let answering = |prompt| {
            let of_seed = |&(seed_idx, _): &(usize, &SeedPlan)| self.plan.seed_answers(seed_idx, prompt);
            self.plan.seeds.iter().enumerate().find(of_seed)
        };
        let answer = |(method, &group): (&Method, &usize), prompt: usize| {
            let entry = self.of_group(group).find(|entry| entry.prompt == prompt)?;
            let answer = answers(&method.decode, entry).into_iter().next()?;
            let chosen = &answer.outcome.candidates[answer.outcome.chosen];
            Some(ExampleAnswer {
                method: method.name.clone(),
                text: chosen.text.clone(),
                reward: chosen.reward.unwrap_or(f64::NAN),
            })
        };
        let of_prompt = |(idx, record): (usize, &PromptRecord)| Example {
            prompt: record.prompt.clone(),
            answers: self
                .methods
                .iter()
                .zip(answering(idx).map_or(&[][..], |(_, seed)| &seed.group_of_method))
                .filter_map(|pair| answer(pair, idx))
                .collect(),
        };
        self.prompts
            .iter()
            .enumerate()
            .take(NUM_EXAMPLES)
            .map(of_prompt)
            .collect()
    }
}

/// Candidates drawn for an answer: of blocks, those of one choice.
fn num_candidates(decode: &DecodeSpec) -> u32 {
    let count = match decode {
        DecodeSpec::CdBlock(config) => config.num_candidates,
        other => other.num_candidates(),
    };
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn prompt_run(decode: &DecodeSpec, entry: &Entry) -> Result<PromptRun> {
    let answers = answers(decode, entry);
    let rewards_also = answers.iter().map(|answer| answer.rewards_also.clone()).collect();
    let outcomes: Vec<Outcome> = answers.into_iter().map(|answer| answer.outcome).collect();
    Ok(PromptRun {
        rewards_also,
        ..PromptRun::of_outcomes(entry.prompt as u64, &outcomes)?
    })
}

/// What `method` makes of the candidates drawn for its group: an answer from each part of them that it would draw for
/// itself. Independent answers to one prompt, whose mean has less spread than any; at least one.
fn answers(method: &DecodeSpec, entry: &Entry) -> Vec<Answer> {
    let rewards_also = |candidate: usize| entry.rewards_also.get(candidate).cloned().unwrap_or_default();
    if !is_drawn(method) {
        return vec![Answer {
            outcome: entry.outcome(),
            rewards_also: rewards_also(entry.chosen),
        }];
    }
    // Candidate `i` does not depend on how many are drawn, so the method's own run would have drawn just the first part.
    let part_len = method.num_candidates();
    let of_part = |(part, candidates): (usize, &[Candidate])| {
        let chosen = method.selection().choose(candidates);
        let tokens_generated = candidates.iter().map(num_tokens).sum();
        Answer {
            outcome: Outcome::unsteered(candidates.to_vec(), chosen, tokens_generated),
            rewards_also: rewards_also(part * part_len + chosen),
        }
    };
    entry
        .candidates
        .chunks_exact(part_len)
        .enumerate()
        .map(of_part)
        .collect()
}

fn num_tokens(candidate: &Candidate) -> u64 {
    candidate.token_ids.len() as u64
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
            token_log_probs: Vec::new(),
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
            candidates: candidates.collect(),
            ..Entry::default()
        }
    }

    #[test]
    fn methods_answer_from_each_part_and_pay_for_it_alone() {
        let entry = entry(1, 0, &[0.2, 0.1, 0.9, 0.5]);
        let check = |method: &str, expect: &[(u64, u64)]| {
            let outcomes = answers(&method.parse().unwrap(), &entry);
            let seen: Vec<(u64, u64)> = outcomes
                .iter()
                .map(|Answer { outcome, .. }| {
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
        let methods = config.methods().unwrap();
        let plan = Plan::new(&methods, 2, &[0]);
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
            rewards_also: vec![RewardName {
                name: "place".to_owned(),
                unit: "places".to_owned(),
            }],
            values_of_method: vec![Vec::new(); 2],
        };
        for entry in &mut entries {
            entry.rewards_also = (0..entry.candidates.len()).map(|idx| vec![idx as f64]).collect();
        }
        let samples = Samples {
            config: &config,
            methods: &methods,
            prompts: &prompts,
            plan: &plan,
            entries: &entries,
            identity,
        };
        let report = samples.report().unwrap();
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
        // The chosen one is the third of four; plain sampling takes each in its turn.
        let also = |idx: usize| points[idx].rewards_also[0].mean;
        assert_eq!((also(0), also(1)), (2.0, 1.5));
    }
}
