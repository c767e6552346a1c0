//! Scores candidates on a thread of its own, many requests at a time. Knows rewards by their trait, no engine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

use trimtab_base::{RewardError, RewardModel, ScoreInput};

/// Candidates of one job, to be scored.
#[derive(Debug)]
pub(crate) struct ToScore {
    pub(crate) job_idx: usize,
    pub(crate) inputs: Vec<ScoreInput>,
}

/// Rewards of one job, one for each candidate and all of them numbers, or why there are none.
#[derive(Debug)]
pub(crate) struct Scored {
    pub(crate) job_idx: usize,
    pub(crate) rewards: Result<Vec<f64>, RewardError>,
}

/// The sending end; dropping it ends the thread.
pub(crate) struct Scorer {
    questions: Sender<ToScore>,
    answers: Receiver<Vec<Scored>>,
}

/// Failures of a scorer as a whole after which the other jobs of a batch are not tried: it is out of order, and each
/// try may take as long as its time limit.
const MAX_OUTAGES: usize = 2;

impl Scorer {
    /// Starts the thread, which takes whatever has gathered since it last looked as one batch.
    pub(crate) fn start<'scope>(scope: &'scope Scope<'scope, '_>, reward: &'scope dyn RewardModel) -> Self {
        let (questions, inbox) = channel::<ToScore>();
        let (outbox, answers) = channel();
        scope.spawn(move || {
            while let Ok(first) = inbox.recv() {
                let batch: Vec<ToScore> = std::iter::once(first).chain(inbox.try_iter()).collect();
                // A reward that panics ends this thread and with it the channel, which `wait` tells; letting the
                // panic through would take down the thread that runs the engine as well.
                let Ok(scored) = catch_unwind(AssertUnwindSafe(|| score(reward, batch))) else {
                    return;
                };
                if outbox.send(scored).is_err() {
                    return;
                }
            }
        });
        Self { questions, answers }
    }

    pub(crate) fn ask(&self, question: ToScore) {
        // If the thread has died, the next `wait` says so.
        let _ = self.questions.send(question);
    }

    /// Answers that are there: of one batch.
    pub(crate) fn ready(&self) -> Option<Vec<Scored>> {
        self.answers.try_recv().ok()
    }

    /// Waits for the answers of one batch; `None` if the thread has died.
    pub(crate) fn wait(&self) -> Option<Vec<Scored>> {
        self.answers.recv().ok()
    }
}

/// Scores a batch at once, and job by job if that fails: one bad response must not cost the others their rewards.
fn score(reward: &dyn RewardModel, batch: Vec<ToScore>) -> Vec<Scored> {
    let jobs: Vec<(usize, usize)> = batch
        .iter()
        .map(|item| (item.job_idx, item.inputs.len()))
        .collect();
    let inputs: Vec<ScoreInput> = batch.into_iter().flat_map(|item| item.inputs).collect();
    let one_by_one = || {
        let mut inputs = inputs.as_slice();
        let mut num_outages = 0;
        let mut scored = Vec::with_capacity(jobs.len());
        for &(job_idx, len) in &jobs {
            let (own, others) = inputs.split_at(len);
            inputs = others;
            let rewards = rewards_of(reward, own);
            num_outages += usize::from(matches!(rewards, Err(RewardError::External { .. })));
            scored.push(Scored { job_idx, rewards });
            if num_outages == MAX_OUTAGES {
                break;
            }
        }
        scored
    };
    match rewards_of(reward, &inputs) {
        Ok(rewards) => {
            let mut rewards = rewards.into_iter();
            let of_job = |&(job_idx, len): &(usize, usize)| Scored {
                job_idx,
                rewards: Ok(rewards.by_ref().take(len).collect()),
            };
            jobs.iter().map(of_job).collect()
        }
        Err(cause) => match jobs[..] {
            [(job_idx, _)] => vec![Scored {
                job_idx,
                rewards: Err(cause),
            }],
            _ => one_by_one(),
        },
    }
}

/// One number for each of `inputs`.
fn rewards_of(reward: &dyn RewardModel, inputs: &[ScoreInput]) -> Result<Vec<f64>, RewardError> {
    let rewards = reward.score(inputs)?;
    let name = || reward.name().to_owned();
    if rewards.len() != inputs.len() {
        return Err(RewardError::WrongCount {
            reward: name(),
            expected: inputs.len(),
            got: rewards.len(),
        });
    }
    match rewards.iter().position(|reward| reward.is_nan()) {
        Some(item_idx) => Err(RewardError::BadReward {
            reward: name(),
            item_idx,
            got: "NaN".to_owned(),
        }),
        None => Ok(rewards),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::Map;

    use super::*;

    /// Rewards are what responses say; `bad` is refused, `down` takes the whole batch down.
    #[derive(Default)]
    struct Parses {
        batch_lens: Mutex<Vec<usize>>,
    }

    impl RewardModel for Parses {
        fn name(&self) -> &'static str {
            "parses"
        }

        fn unit(&self) -> &'static str {
            "points"
        }

        fn score(&self, batch: &[ScoreInput]) -> Result<Vec<f64>, RewardError> {
            self.batch_lens.lock().unwrap().push(batch.len());
            let (reward, problem) = ("parses".to_owned(), "is down".to_owned());
            if batch.iter().any(|input| input.response == "down") {
                return Err(RewardError::External { reward, problem });
            }
            let score = |(item_idx, input): (usize, &ScoreInput)| {
                input.response.parse().map_err(|_| RewardError::BadReward {
                    reward: "parses".to_owned(),
                    item_idx,
                    got: input.response.clone(),
                })
            };
            batch.iter().enumerate().map(score).collect()
        }
    }

    /// Scores jobs of these responses: rewards, or the item that was refused, and the batches that were asked.
    fn check(responses: &[&[&str]], expect: &[Result<&[f64], Option<usize>>], batch_lens: &[usize]) {
        let to_score = |(idx, responses): (usize, &&[&str])| {
            let input = |response: &&str| ScoreInput {
                prompt: String::new(),
                response: (*response).to_owned(),
                token_ids: Vec::new(),
                reference_log_prob: 0.0,
                record: Map::new(),
            };
            ToScore {
                job_idx: 10 * (idx + 1),
                inputs: responses.iter().map(input).collect(),
            }
        };
        let reward = Parses::default();
        let scored = score(&reward, responses.iter().enumerate().map(to_score).collect());
        let got: Vec<Result<&[f64], Option<usize>>> = scored
            .iter()
            .map(|scored| match &scored.rewards {
                Ok(rewards) => Ok(rewards.as_slice()),
                Err(RewardError::BadReward { item_idx, .. }) => Err(Some(*item_idx)),
                Err(_) => Err(None),
            })
            .collect();
        assert_eq!(got, expect, "{responses:?}");
        assert_eq!(*reward.batch_lens.lock().unwrap(), batch_lens, "{responses:?}");
        assert!(scored.iter().zip(1..).all(|(scored, n)| scored.job_idx == 10 * n));
    }

    #[test]
    fn a_bad_response_is_found_job_by_job() {
        check(&[&["1", "2"], &["3"]], &[Ok(&[1.0, 2.0]), Ok(&[3.0])], &[3]);
        check(
            &[&["1", "2"], &["3", "bad"], &["5"]],
            &[Ok(&[1.0, 2.0]), Err(Some(1)), Ok(&[5.0])],
            &[5, 2, 2, 1],
        );
        check(&[&["1", "nan"], &["2"]], &[Err(Some(1)), Ok(&[2.0])], &[3, 2, 1]);
        check(&[&["1", "bad"]], &[Err(Some(1))], &[2]);
    }

    #[test]
    fn a_scorer_that_is_down_is_not_asked_for_every_job() {
        check(
            &[&["1"], &["down"], &["3"]],
            &[Ok(&[1.0]), Err(None), Ok(&[3.0])],
            &[3, 1, 1, 1],
        );
        let down: &[&str] = &["down"];
        check(&[down; 5], &[Err(None), Err(None)], &[5, 1, 1]);
    }
}
