//! What is averaged for a point: one value a prompt for each quantity. Knows runs and references, no interval.

use super::compute::{MethodRuns, References};
use crate::error::EvalError;
use crate::samples::PromptRun;
use crate::win_rate::win_rate;

/// Values of one method, one a prompt, in order of prompt.
pub(super) struct Columns {
    pub(super) reward: Vec<f64>,
    pub(super) gain: Vec<f64>,
    pub(super) win: Vec<f64>,
    pub(super) tokens: Vec<f64>,
    /// Choices among blocks for an answer; `None` where some prompt has none.
    pub(super) choices: Option<Vec<f64>>,
    pub(super) first_commit: Option<Vec<f64>>,
    /// `[terms][prompts]`
    pub(super) values: Vec<Vec<f64>>,
    /// `[rewards_also][prompts]`
    pub(super) rewards_also: Vec<Vec<f64>>,
}

impl Columns {
    pub(super) fn of(
        method: &MethodRuns,
        runs: &[&PromptRun],
        references: &References,
        num_rewards_also: usize,
    ) -> Result<Self, EvalError> {
        let (mut reward, mut gain, mut win, mut tokens) = (vec![], vec![], vec![], vec![]);
        for run in runs {
            let reference = &references[&run.prompt_idx];
            let in_prompt = |error: EvalError| error.in_prompt(&method.method, run.prompt_idx);
            let answers = run.answer_sample().map_err(in_prompt)?;
            reward.push(answers.mean());
            gain.push(answers.mean() - reference.mean());
            win.push(win_rate(&answers, reference));
            tokens.push(run.tokens_per_answer());
        }
        let beside = |of: &dyn Fn(&PromptRun) -> Result<Option<f64>, EvalError>| {
            let of_run = |run: &&PromptRun| of(run).map_err(|e| e.in_prompt(&method.method, run.prompt_idx));
            let values = runs.iter().map(of_run).collect::<Result<Vec<_>, _>>()?;
            Ok::<_, EvalError>(values.into_iter().collect::<Option<Vec<f64>>>())
        };
        let value = |term: usize| {
            beside(&|run| run.mean_beside("value", &run.values, |values| values.get(term).copied()))
        };
        let reward_also = |idx: usize| {
            beside(&|run| run.mean_beside("reward", &run.rewards_also, |rewards| rewards.get(idx).copied()))?
                .ok_or(EvalError::Empty {
                    what: "further rewards",
                })
        };
        // A method may leave values of its scorers out; what was asked of every method may not be missing.
        let values = (0..method.value_names.len())
            .map(value)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            reward,
            gain,
            win,
            tokens,
            choices: beside(&|run| {
                run.mean_beside("number of choices", &run.block_kl, |blocks| {
                    Some(blocks.num_choices as f64)
                })
            })?,
            first_commit: beside(&|run| {
                run.mean_beside("number of tokens", &run.first_commit_tokens, |&tokens| {
                    Some(tokens as f64)
                })
            })?,
            values: values.into_iter().collect::<Option<Vec<_>>>().unwrap_or_default(),
            rewards_also: (0..num_rewards_also).map(reward_also).collect::<Result<_, _>>()?,
        })
    }
}
