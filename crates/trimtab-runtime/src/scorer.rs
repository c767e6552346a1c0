//! Scores candidates on a thread of its own, many requests at a time. Knows rewards by their trait, no engine.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

use trimtab_base::{RewardError, RewardModel, ScoreInput};

/// Candidates of one job, to be scored.
#[derive(Debug)]
pub(crate) struct ToScore {
    pub(crate) job_idx: usize,
    pub(crate) inputs: Vec<ScoreInput>,
}

/// Rewards of the jobs of one batch, in their order, or why there are none.
#[derive(Debug)]
pub(crate) struct Scored {
    pub(crate) jobs: Vec<usize>,
    pub(crate) rewards: Result<Vec<Vec<f64>>, RewardError>,
}

/// The sending end; dropping it ends the thread.
pub(crate) struct Scorer {
    questions: Sender<ToScore>,
    answers: Receiver<Scored>,
}

impl Scorer {
    /// Starts the thread, which takes whatever has gathered since it last looked as one batch.
    pub(crate) fn start<'scope>(scope: &'scope Scope<'scope, '_>, reward: &'scope dyn RewardModel) -> Self {
        let (questions, inbox) = channel::<ToScore>();
        let (outbox, answers) = channel();
        scope.spawn(move || {
            while let Ok(first) = inbox.recv() {
                let batch: Vec<ToScore> = std::iter::once(first).chain(inbox.try_iter()).collect();
                if outbox.send(score(reward, batch)).is_err() {
                    return;
                }
            }
        });
        Self { questions, answers }
    }

    pub(crate) fn ask(&self, question: ToScore) {
        // The thread ends only after this end is dropped, or by a panic that the scope passes on.
        let _ = self.questions.send(question);
    }

    /// An answer that is there.
    pub(crate) fn ready(&self) -> Option<Scored> {
        self.answers.try_recv().ok()
    }

    /// Waits for an answer; `None` if the thread has died.
    pub(crate) fn wait(&self) -> Option<Scored> {
        self.answers.recv().ok()
    }
}

fn score(reward: &dyn RewardModel, batch: Vec<ToScore>) -> Scored {
    let jobs = batch.iter().map(|item| item.job_idx).collect();
    let lens: Vec<usize> = batch.iter().map(|item| item.inputs.len()).collect();
    let inputs: Vec<ScoreInput> = batch.into_iter().flat_map(|item| item.inputs).collect();
    let rewards = reward.score(&inputs).and_then(|rewards| {
        if rewards.len() != inputs.len() {
            let (expected, got) = (inputs.len(), rewards.len());
            return Err(RewardError::WrongCount {
                reward: reward.name().to_owned(),
                expected,
                got,
            });
        }
        let mut rewards = rewards.into_iter();
        Ok(lens
            .iter()
            .map(|&len| rewards.by_ref().take(len).collect())
            .collect())
    });
    Scored { jobs, rewards }
}
