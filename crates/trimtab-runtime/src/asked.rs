//! Values that are asked of scorers outside the engine. Knows who is asked what, not how values are found.

use std::fmt;

use trimtab_base::{RewardModel, ScoreInput};
use trimtab_decode::{Prefix, ValueSource};

use crate::error::RuntimeError;
use crate::jobs::Job;

/// A response as far as it goes, and the job it answers.
#[derive(Debug, Clone, Copy)]
pub struct AskedPrefix<'a> {
    /// Its prompt, record and stop rules.
    pub job: &'a Job,
    /// The response.
    pub prefix: &'a Prefix,
}

impl AskedPrefix<'_> {
    /// Whether its author ended it, as opposed to a limit or a stop string.
    pub fn is_ended(&self) -> bool {
        let last = self.prefix.token_ids.last();
        self.prefix.is_finished && last.is_some_and(|last| self.job.stop.stop_tokens.contains(last))
    }
}

/// Says `V([x, y^t])` of texts: a scorer with weights and a tokenizer of its own, or a reward.
pub trait AskedScorer {
    /// The steering term that it answers, see [`trimtab_decode::SteeringTerm::name`].
    fn name(&self) -> &str;

    /// Unit of its values.
    fn unit(&self) -> &str;

    /// Values of `asked`, in order; of several jobs at once.
    ///
    /// # Errors
    /// Whatever keeps it from a value; the run ends with it.
    fn values(&mut self, asked: &[AskedPrefix<'_>]) -> Result<Vec<f64>, RuntimeError>;
}

/// A reward as scorer: the reward of the response as far as it goes.
pub struct AskedReward {
    name: String,
    reward: Box<dyn RewardModel>,
}

impl AskedReward {
    /// `reward`, answering the steering term `name`.
    pub fn new(name: String, reward: Box<dyn RewardModel>) -> Self {
        Self { name, reward }
    }
}

impl AskedScorer for AskedReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn unit(&self) -> &str {
        self.reward.unit()
    }

    fn values(&mut self, asked: &[AskedPrefix<'_>]) -> Result<Vec<f64>, RuntimeError> {
        let input = |asked: &AskedPrefix<'_>| ScoreInput {
            prompt: asked.job.prompt.clone(),
            response: asked.prefix.text.clone(),
            token_ids: asked.prefix.token_ids.clone(),
            // Unknown before the end; rewards that need it answer NaN, which is refused with their name.
            reference_log_prob: f64::NAN,
            record: asked.job.record.clone(),
        };
        let inputs: Vec<ScoreInput> = asked.iter().map(input).collect();
        self.reward.score(&inputs).map_err(|cause| RuntimeError::Reward {
            label: asked
                .first()
                .map(|asked| asked.job.label.clone())
                .unwrap_or_default(),
            cause: Box::new(cause),
        })
    }
}

impl fmt::Debug for AskedReward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AskedReward")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Who judges while jobs run.
#[derive(Default)]
pub struct Judges<'a> {
    /// Scores every candidate, on a thread of its own.
    pub reward: Option<&'a dyn RewardModel>,
    /// Answer steering terms that are [`ValueSource::Asked`], found by name; on the thread that runs the engine, which
    /// has nothing to do for the branches that wait.
    pub asked: Vec<&'a mut dyn AskedScorer>,
}

impl<'a> Judges<'a> {
    /// Nobody but a reward.
    pub fn by_reward(reward: Option<&'a dyn RewardModel>) -> Self {
        Self {
            reward,
            asked: Vec::new(),
        }
    }

    /// Refuses a job with a steering term that nobody answers.
    pub(crate) fn check(&self, job: &Job) -> Result<(), RuntimeError> {
        let is_known = |name: &str| self.asked.iter().any(|scorer| scorer.name() == name);
        let asked = job
            .steering
            .terms
            .iter()
            .filter(|term| term.source == ValueSource::Asked);
        match asked.map(|term| &term.name).find(|name| !is_known(name)) {
            None => Ok(()),
            Some(name) => Err(RuntimeError::NoScorer { name: name.clone() }),
        }
    }

    /// One value per prefix and asked term of its job's steering. `[prefixes][asked terms]`
    pub(crate) fn values(&mut self, asked: &[AskedPrefix<'_>]) -> Result<Vec<Vec<f64>>, RuntimeError> {
        let places: Vec<Vec<&str>> = asked
            .iter()
            .map(|asked| {
                let terms = asked.job.steering.terms.iter();
                let asked = terms.filter(|term| term.source == ValueSource::Asked);
                asked.map(|term| term.name.as_str()).collect()
            })
            .collect();
        let mut values: Vec<Vec<f64>> = places.iter().map(|terms| vec![f64::NAN; terms.len()]).collect();
        for scorer in &mut self.asked {
            let name = scorer.name().to_owned();
            let of_scorer = |terms: &Vec<&str>| terms.iter().position(|term| *term == name);
            let own: Vec<(usize, usize)> = places
                .iter()
                .enumerate()
                .filter_map(|(prefix_idx, terms)| Some((prefix_idx, of_scorer(terms)?)))
                .collect();
            if own.is_empty() {
                continue;
            }
            let questions: Vec<AskedPrefix<'_>> =
                own.iter().map(|&(prefix_idx, _)| asked[prefix_idx]).collect();
            let answers = scorer.values(&questions)?;
            for ((&(prefix_idx, term), value), question) in own.iter().zip(answers).zip(&questions) {
                if value.is_nan() {
                    return Err(RuntimeError::NanValue {
                        name,
                        label: question.job.label.clone(),
                        text: question.prefix.text.chars().take(60).collect(),
                    });
                }
                values[prefix_idx][term] = value;
            }
        }
        Ok(values)
    }
}
