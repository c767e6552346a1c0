//! Win rates with their intervals, from rewards of both sides prompt by prompt. Knows numbers, no samples' texts.

use anyhow::Result;
use serde::Serialize;
use trimtab_base::Seed;
use trimtab_eval::{Bootstrap, ChoiceOfN, Interval, KlKind, inference_win_rate};

use super::divergence::PromptKl;
use super::procedure::EvalProcedure;
use super::selection::{Weighted, weights};
use super::steered::SteeredAnswer;

/// One policy under one procedure; `--json` prints a list of these.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct WinRateRow {
    /// What was done at inference, on both sides unless `reference_procedure` says otherwise.
    pub(crate) procedure: String,
    /// What was done to the reference, where that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reference_procedure: Option<String>,
    /// The choice among samples that the procedure is.
    #[serde(skip)]
    pub(crate) choice: Option<ChoiceOfN>,
    /// Share of comparisons with the reference under the same procedure that the policy wins, ties half.
    pub(crate) win_rate: f64,
    /// 95%, over prompts; `null` where prompts say nothing about spread.
    pub(crate) ci: Option<Interval>,
    /// Prompts to which all answers of both sides have one reward: won half, whatever the policy.
    pub(crate) tied_prompts: usize,
    /// `KL(policy || reference)` of a response, before the procedure, in nats.
    pub(crate) kl_nats: f64,
    /// Mean reward of the policy's answers under the procedure.
    pub(crate) reward: f64,
    /// As it was named.
    pub(crate) policy: String,
    /// What it was trained on, if it is a policy of `train align`, and what tells it from the other policies of the run.
    pub(crate) method: String,
    /// The same without its seed.
    pub(crate) family: String,
    /// Seed of its training, if its card tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) training_seed: Option<u64>,
    /// Of `reward`.
    pub(crate) reward_ci: Option<Interval>,
    /// Mean reward of the reference's answers under the procedure.
    pub(crate) reference_reward: f64,
    pub(crate) reward_name: String,
    pub(crate) reward_unit: String,
    /// Over prompts.
    pub(crate) kl_ci: Option<Interval>,
    /// What `kl_nats` is: exact at each token, averaged over samples, so that it has an interval.
    pub(crate) kl_kind: KlKind,
    /// Samples of the policy to each prompt along which it was measured.
    pub(crate) kl_num_samples: usize,
    /// The same KL as the mean of sequence log-ratios: an estimate with more noise.
    pub(crate) kl_log_ratio_nats: f64,
    /// For blocks: `kl_nats` plus the bound of the choices among blocks, since KLs of tilting a policy add up (CD 2310.17022v3).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kl_with_blocks_nats: Option<f64>,
    /// Over prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kl_with_blocks_ci: Option<Interval>,
    /// For blocks: the same of the reference under what was done to it, in nats; 0 where it answers as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reference_kl_with_blocks_nats: Option<f64>,
    /// Win rate less that of the first policy under this procedure, paired by prompt; not for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) difference: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) difference_ci: Option<Interval>,
    /// The same answers by rewards that neither chose them nor were trained on.
    pub(crate) judges: Vec<JudgeRow>,
    /// Mean tokens of a sample of the policy, and of the reference.
    pub(crate) response_len: f64,
    pub(crate) reference_response_len: f64,
    pub(crate) num_prompts: usize,
    /// Answers of the policy to each prompt that were compared, before the choice among them.
    pub(crate) num_samples: usize,
    /// Those of the reference, where they are not as many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reference_num_samples: Option<usize>,
}

/// Win rate by another reward.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct JudgeRow {
    pub(crate) reward: String,
    /// Of the answers that the procedure chose by the first reward.
    pub(crate) win_rate: f64,
    pub(crate) ci: Option<Interval>,
    /// Prompts to which all answers of both sides have one value of this reward.
    pub(crate) tied_prompts: usize,
    /// Mean of this reward over those answers of the policy.
    pub(crate) mean: f64,
    /// Win rate less that of the first policy, paired by prompt; not for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) difference: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) difference_ci: Option<Interval>,
}

impl JudgeRow {
    /// Of win rates and mean rewards by prompt.
    fn of(
        reward: &str,
        (win_rates, rewards): (&[f64], &[f64]),
        (tied_prompts, bootstrap): (usize, Bootstrap),
    ) -> Self {
        Self {
            reward: reward.to_owned(),
            win_rate: mean(win_rates),
            ci: bootstrap.share_interval(win_rates),
            tied_prompts,
            mean: mean(rewards),
            difference: None,
            difference_ci: None,
        }
    }
}

/// Rewards of one side to one prompt. `[rewards][answers]`
pub(super) type Answers = Vec<Vec<f64>>;

/// One side under one procedure.
pub(super) struct SideAnswers {
    /// What was done to this side.
    pub(super) procedure: EvalProcedure,
    /// `[prompts]`
    pub(super) prompts: Vec<Answers>,
    /// Drift of its own choices among blocks, the mean of a prompt's answers, in nats; 0 without. `[prompts]`
    pub(super) drift_nats: Vec<f64>,
}

impl SideAnswers {
    /// Of samples, among which the procedure chooses.
    pub(super) fn of_samples(procedure: EvalProcedure, prompts: Vec<Answers>) -> Self {
        Self {
            procedure,
            drift_nats: vec![0.0; prompts.len()],
            prompts,
        }
    }

    /// Of answers by blockwise control.
    pub(super) fn of_steered(procedure: EvalProcedure, answers: &[Vec<SteeredAnswer>]) -> Self {
        let of_prompt = |answers: &Vec<SteeredAnswer>| {
            let num_rewards = answers.first().map_or(0, |answer| answer.rewards.len());
            let of_reward = |reward: usize| answers.iter().map(|answer| answer.rewards[reward]).collect();
            (0..num_rewards).map(of_reward).collect()
        };
        let drift = |answers: &Vec<SteeredAnswer>| {
            let drifts: Vec<f64> = answers.iter().map(|answer| answer.drift_nats).collect();
            mean(&drifts)
        };
        Self {
            procedure,
            prompts: answers.iter().map(of_prompt).collect(),
            drift_nats: answers.iter().map(drift).collect(),
        }
    }

    /// Answers to a prompt.
    fn num_samples(&self) -> usize {
        self.prompts.first().map_or(0, |answers| answers[0].len())
    }
}

/// What a comparison knows besides rewards.
pub(super) struct Facts<'a> {
    pub(super) policy: &'a str,
    /// What it is called in figures.
    pub(super) method: &'a str,
    /// The same without its seed.
    pub(super) family: &'a str,
    pub(super) training_seed: Option<u64>,
    pub(super) kl: &'a [PromptKl],
    /// Samples of a prompt that `kl` is along.
    pub(super) kl_num_samples: usize,
    /// Names of the rewards, the one that procedures choose by first.
    pub(super) rewards: &'a [trimtab_data::RewardColumn],
    /// Of the policy's samples and of the reference's.
    pub(super) response_lens: (f64, f64),
    pub(super) seed: u64,
}

/// A row and what pairs it with those of other policies.
pub(super) struct Compared {
    pub(super) row: WinRateRow,
    /// Win rate of each prompt.
    pub(super) by_prompt: Vec<f64>,
    /// The same by each judge. `[judges][prompts]`
    judges_by_prompt: Vec<Vec<f64>>,
}

/// Both sides under one procedure, with the weights of their answers.
struct Sides<'a> {
    /// `[prompts]`
    prompts: Vec<(&'a Answers, &'a Answers)>,
    /// `[prompts][answers]`
    weights: Vec<(Vec<f64>, Vec<f64>)>,
}

impl<'a> Sides<'a> {
    fn of(policy: &'a SideAnswers, reference: &'a SideAnswers) -> Self {
        let prompts: Vec<(&Answers, &Answers)> = policy.prompts.iter().zip(&reference.prompts).collect();
        let weights = prompts
            .iter()
            .map(|(ours, theirs)| {
                (
                    weights(&policy.procedure, &ours[0]),
                    weights(&reference.procedure, &theirs[0]),
                )
            })
            .collect();
        Self { prompts, weights }
    }

    /// A number of each prompt from both sides' answers by one reward.
    fn by_prompt(&self, reward: usize, of: impl Fn(Weighted<'_>, Weighted<'_>) -> f64) -> Vec<f64> {
        let weighted = |rewards, weights| Weighted { rewards, weights };
        let of_prompt = |idx: usize| {
            let ((policy, reference), (ours, theirs)) = (self.prompts[idx], &self.weights[idx]);
            of(
                weighted(&policy[reward], ours),
                weighted(&reference[reward], theirs),
            )
        };
        (0..self.prompts.len()).map(of_prompt).collect()
    }

    fn win_rates(&self, reward: usize) -> Vec<f64> {
        self.by_prompt(reward, |policy, reference| policy.win_rate(&reference))
    }

    fn rewards(&self, reward: usize) -> Vec<f64> {
        self.by_prompt(reward, |policy, _| policy.mean())
    }

    /// Prompts to which all answers have one reward.
    fn num_tied(&self, reward: usize) -> usize {
        let is_tied = |(policy, reference): &&(&Answers, &Answers)| {
            let mut all = policy[reward].iter().chain(&reference[reward]);
            let first = all.next();
            all.all(|value| Some(value) == first)
        };
        self.prompts.iter().filter(is_tied).count()
    }
}

/// Of each prompt, by the reward that chose.
fn win_rates(sides: &Sides<'_>, (policy, reference): (&SideAnswers, &SideAnswers)) -> Result<Vec<f64>> {
    // The closed form is of one choice on both sides.
    let choice = policy.procedure.choice();
    match choice.filter(|_| policy.procedure == reference.procedure) {
        Some(choice) => Ok(sides
            .prompts
            .iter()
            .map(|(policy, reference)| inference_win_rate(choice, &policy[0], &reference[0]))
            .collect::<Result<_, _>>()?),
        None => Ok(sides.win_rates(0)),
    }
}

/// Compares two sides, each under its procedure.
///
/// # Errors
/// Fewer samples than the procedure takes.
pub(super) fn compare(policy: &SideAnswers, reference: &SideAnswers, facts: &Facts<'_>) -> Result<Compared> {
    let bootstrap = Bootstrap::of_seed(Seed(facts.seed));
    let sides = Sides::of(policy, reference);
    let choice = policy.procedure.choice();
    let by_prompt = win_rates(&sides, (policy, reference))?;
    let rewards = sides.rewards(0);
    let judges_by_prompt: Vec<Vec<f64>> = (1..facts.rewards.len())
        .map(|judge| sides.win_rates(judge))
        .collect();
    let judges = (1..).zip(&judges_by_prompt).map(|(judge, by_prompt)| {
        let numbers = (sides.num_tied(judge), bootstrap);
        JudgeRow::of(
            &facts.rewards[judge].name,
            (by_prompt, &sides.rewards(judge)),
            numbers,
        )
    });
    let kl: Vec<f64> = facts.kl.iter().map(|prompt| prompt.kl_nats).collect();
    let log_ratio: Vec<f64> = facts.kl.iter().map(|prompt| prompt.log_ratio_nats).collect();
    let with_blocks: Vec<f64> = kl
        .iter()
        .zip(&policy.drift_nats)
        .map(|(kl, drift)| kl + drift)
        .collect();
    let is_steered = policy.procedure.is_steered();
    let (num_samples, reference_num_samples) = (policy.num_samples(), reference.num_samples());
    let row = WinRateRow {
        procedure: policy.procedure.to_string(),
        reference_procedure: (policy.procedure != reference.procedure)
            .then(|| reference.procedure.to_string()),
        choice,
        win_rate: mean(&by_prompt),
        ci: bootstrap.share_interval(&by_prompt),
        tied_prompts: sides.num_tied(0),
        kl_nats: mean(&kl),
        reward: mean(&rewards),
        policy: facts.policy.to_owned(),
        method: facts.method.to_owned(),
        family: facts.family.to_owned(),
        training_seed: facts.training_seed,
        reward_ci: bootstrap.mean_interval(&rewards),
        reference_reward: mean(&sides.by_prompt(0, |_, reference| reference.mean())),
        reward_name: facts.rewards[0].name.clone(),
        reward_unit: facts.rewards[0].unit.clone(),
        kl_ci: bootstrap.mean_interval(&kl),
        kl_kind: KlKind::Exact,
        kl_num_samples: facts.kl_num_samples,
        kl_log_ratio_nats: mean(&log_ratio),
        kl_with_blocks_nats: is_steered.then(|| mean(&with_blocks)),
        kl_with_blocks_ci: bootstrap.mean_interval(&with_blocks).filter(|_| is_steered),
        reference_kl_with_blocks_nats: is_steered.then(|| mean(&reference.drift_nats)),
        difference: None,
        difference_ci: None,
        judges: judges.collect(),
        response_len: facts.response_lens.0,
        reference_response_len: facts.response_lens.1,
        num_prompts: by_prompt.len(),
        num_samples,
        reference_num_samples: (reference_num_samples != num_samples).then_some(reference_num_samples),
    };
    Ok(Compared {
        row,
        by_prompt,
        judges_by_prompt,
    })
}

impl Compared {
    /// Adds the difference from the first policy under the same procedure.
    pub(super) fn against(mut self, first: &Self, seed: u64) -> Self {
        let differences = |ours: &[f64], theirs: &[f64]| {
            let differences: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a - b).collect();
            let interval = Bootstrap::of_seed(Seed(seed)).mean_interval(&differences);
            (Some(mean(&differences)), interval)
        };
        (self.row.difference, self.row.difference_ci) = differences(&self.by_prompt, &first.by_prompt);
        let by_judge = self.judges_by_prompt.iter().zip(&first.judges_by_prompt);
        for (judge, (ours, theirs)) in self.row.judges.iter_mut().zip(by_judge) {
            (judge.difference, judge.difference_ci) = differences(ours, theirs);
        }
        self
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use trimtab_data::RewardColumn;

    use super::*;

    /// Samples by one reward.
    fn samples(prompts: &[&[f64]]) -> Vec<Answers> {
        prompts.iter().map(|rewards| vec![rewards.to_vec()]).collect()
    }

    fn under(procedure: &str, prompts: &[Answers]) -> SideAnswers {
        SideAnswers::of_samples(procedure.parse().unwrap(), prompts.to_vec())
    }

    fn column(name: &str) -> RewardColumn {
        RewardColumn {
            name: name.to_owned(),
            unit: "u".to_owned(),
        }
    }

    fn facts<'a>(rewards: &'a [RewardColumn], kl: &'a [PromptKl]) -> Facts<'a> {
        Facts {
            policy: "p",
            method: "m",
            family: "m",
            training_seed: None,
            kl,
            kl_num_samples: 8,
            rewards,
            response_lens: (1.0, 2.0),
            seed: 0,
        }
    }

    #[test]
    fn win_rates_are_means_over_prompts_and_differences_are_paired() {
        let columns = [column("r")];
        let facts = facts(&columns, &[]);
        let reference = samples(&[&[0.0, 1.0], &[0.0, 0.0], &[5.0, 6.0]]);
        let policy = samples(&[&[1.0, 2.0], &[0.0, 1.0], &[0.0, 9.0]]);
        let of = |procedure: &str| {
            compare(&under(procedure, &policy), &under(procedure, &reference), &facts).unwrap()
        };
        let sample = of("sample");
        assert_eq!(sample.by_prompt, [0.875, 0.75, 0.5]);
        assert!((sample.row.win_rate - 2.125 / 3.0).abs() < 1e-12);
        assert_eq!(
            (sample.row.tied_prompts, &sample.row.reference_procedure),
            (0, &None)
        );
        let best = of("bon:2");
        assert_eq!(best.by_prompt, [1.0, 1.0, 1.0]);
        assert_eq!(best.row.reward, 4.0);
        assert_eq!(best.row.reference_reward, (1.0 + 0.0 + 6.0) / 3.0);
        let worst = of("won:2");
        assert_eq!(worst.by_prompt, [1.0, 0.5, 0.0]);
        let paired = worst.against(&best, 0);
        assert_eq!(paired.row.difference, Some(-0.5));
    }

    #[test]
    fn a_judge_compares_what_the_procedure_chose_by_the_first_reward() {
        let columns = [column("hacked"), column("clean")];
        let facts = facts(&columns, &[]);
        // The second reward is the first one backwards on the policy's side, and constant on the other.
        let both = |prompts: &[[f64; 2]], clean: &dyn Fn(f64) -> f64| {
            let of_prompt = |rewards: &[f64; 2]| vec![rewards.to_vec(), rewards.map(clean).to_vec()];
            let prompts: Vec<Answers> = prompts.iter().map(of_prompt).collect();
            under("bon:2", &prompts)
        };
        let policy = both(&[[5.0, 9.0], [6.0, 8.0]], &|reward| 7.0 - reward);
        let other = both(&[[5.0, 6.0], [6.0, 6.5]], &|reward| 7.0 - reward);
        let reference = both(&[[1.0, 2.0], [1.0, 2.0]], &|_| 0.0);
        let of = |policy: &SideAnswers| compare(policy, &reference, &facts).unwrap();
        let first = of(&policy);
        let judge = &first.row.judges[0];
        assert_eq!((first.row.win_rate, judge.win_rate, judge.mean), (1.0, 0.0, -1.5));
        assert!(judge.ci.is_some() && judge.difference.is_none());
        let second = of(&other).against(&first, 0);
        let judge = &second.row.judges[0];
        assert_eq!((judge.win_rate, judge.difference), (1.0, Some(1.0)));
    }

    #[test]
    fn prompts_whose_answers_are_all_alike_are_counted() {
        let columns = [column("r")];
        let facts = facts(&columns, &[]);
        // One side alone that is alike is no tie.
        let policy = samples(&[&[3.0, 3.0], &[3.0, 3.0], &[0.0, 1.0]]);
        let reference = samples(&[&[3.0, 3.0], &[2.0, 2.0], &[0.0, 1.0]]);
        let row = compare(&under("sample", &policy), &under("sample", &reference), &facts)
            .unwrap()
            .row;
        assert_eq!((row.tied_prompts, row.num_prompts), (1, 3));
    }

    #[test]
    fn a_procedure_on_one_side_meets_single_samples_of_the_other() {
        let columns = [column("r")];
        let facts = facts(&columns, &[]);
        let policy = under("bon:2", &samples(&[&[1.0, 2.0, 3.0]]));
        let reference = under("sample", &samples(&[&[1.5, 2.5]]));
        // Of the three pairs one is best in 2, which beats one of two, and two in 3, which beats both.
        let row = compare(&policy, &reference, &facts).unwrap().row;
        assert!((row.win_rate - 5.0 / 6.0).abs() < 1e-12, "{}", row.win_rate);
        assert_eq!(row.reference_procedure.as_deref(), Some("sample"));
    }

    #[test]
    fn a_steered_policy_is_compared_with_the_reference_as_it_is() {
        let columns = [column("r")];
        let kl = [1.0, 2.0].map(PromptKl::of);
        let facts = facts(&columns, &kl);
        let answers = |drifts: [f64; 2]| -> Vec<Vec<SteeredAnswer>> {
            let answer = |drift_nats: f64| vec![SteeredAnswer::of(vec![1.0], drift_nats)];
            drifts.map(answer).to_vec()
        };
        let blocks = || "cd-block:k=4,m=16".parse().unwrap();
        let policy = SideAnswers::of_steered(blocks(), &answers([0.5, 1.0]));
        let reference = under("sample", &samples(&[&[0.0, 1.0], &[0.0, 0.0]]));
        let row = compare(&policy, &reference, &facts).unwrap().row;
        assert_eq!(row.win_rate, 0.875);
        assert_eq!(row.reference_procedure.as_deref(), Some("sample"));
        assert_eq!((row.kl_nats, row.kl_with_blocks_nats), (1.5, Some(2.25)));
        assert_eq!(row.reference_kl_with_blocks_nats, Some(0.0));
        let ends = row.kl_with_blocks_ci.unwrap();
        assert!(
            ends.lo >= 1.5 && ends.hi <= 3.0 && ends.contains(2.25),
            "{ends:?}"
        );
        assert_eq!((row.num_samples, row.reference_num_samples), (1, Some(2)));
        let both = SideAnswers::of_steered(blocks(), &answers([0.25, 0.25]));
        let row = compare(&policy, &both, &facts).unwrap().row;
        assert_eq!((row.reference_procedure, row.reference_num_samples), (None, None));
        assert_eq!(row.reference_kl_with_blocks_nats, Some(0.25));
    }
}
