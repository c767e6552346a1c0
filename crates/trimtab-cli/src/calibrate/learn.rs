//! Extension beyond InfAlign: a head that says the calibrated reward of a response to a prompt that was never sampled.
//!
//! It is a classifier on the reference's state at the end of a response whose labels are empirical calibrated rewards, so
//! that its sigmoid is the quantile that it expects. It is compared with the empirical ones on prompts held out: by its
//! error, and by how many samples of the prompt have the same error.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use trimtab_base::rng::Purpose;
use trimtab_base::{PromptKey, SampleStream, Seed, TokenId};
use trimtab_runtime::{LOG_PROBABILITY, PromptStyle};
use trimtab_scorer::{FORMAT_VERSION, ScorerBase, ScorerCard, ScorerWeights, write_scorer};
use trimtab_train::{
    ClassifierTrainConfig, FinalStates, Judgements, RunDir, Verdicts, classifier_data_sha256,
    train_classifier,
};

use super::folder::{CalibrationFolder, PromptSamples};
use crate::args::CalibrateArgs;
use crate::resolve::ReadyModel;
use crate::train::{TextSet, scorer_name, show_event, text_states};

/// Samples of a prompt that are learned from: more of one prompt say little about others.
const PER_PROMPT: usize = 16;
/// Share of prompts that are held out to compare on.
const HELD_OUT: f64 = 0.2;
/// Least prompts, so that both sides have some.
const MIN_PROMPTS: usize = 10;

/// What the head is worth.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Learned {
    /// Its folder.
    pub(crate) head: String,
    pub(crate) train_prompts: u64,
    pub(crate) held_out_prompts: u64,
    pub(crate) held_out_samples: u64,
    /// Root mean square difference from empirical calibrated rewards on held-out prompts.
    pub(crate) rmse: f64,
    /// The same of predicting 1/2 always: what nothing learned is worth.
    pub(crate) rmse_of_one_half: f64,
    /// `rmse` without the part that is the empirical ones' own error.
    pub(crate) rmse_without_noise: f64,
    /// Correlation with the empirical ones.
    pub(crate) correlation: Option<f64>,
    /// Samples of a prompt whose empirical calibrated rewards have the same error: `1 / (6 rmse_without_noise^2)`.
    pub(crate) like_samples: Option<f64>,
    /// The same of predicting 1/2 always: about 2, and what `like_samples` has to pass to be worth anything.
    pub(crate) like_samples_of_one_half: Option<f64>,
}

impl Learned {
    pub(super) fn text(&self) -> String {
        let like = match (self.like_samples, self.like_samples_of_one_half) {
            _ if self.rmse >= self.rmse_of_one_half => ": no better than 1/2 always".to_owned(),
            (Some(num), Some(of_one_half)) => {
                format!(", as good as {num:.1} samples of the prompt (1/2 always: {of_one_half:.1})")
            }
            _ => ", as good as the samples themselves".to_owned(),
        };
        let correlation = self
            .correlation
            .map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        format!(
            "learned (extension): head {} is off by {:.4} on {} held-out prompts (1/2 always: {:.4}), correlation \
             {correlation}{like}; use it as head:{}",
            self.head, self.rmse, self.held_out_prompts, self.rmse_of_one_half, self.head
        )
    }
}

/// Responses with their empirical calibrated rewards.
#[derive(Default)]
struct Data {
    texts: TextSet,
    /// `[texts]`
    calibrated: Vec<f64>,
    /// Variance of each as an estimate. `[texts]`
    variance: Vec<f64>,
    /// `[texts]`
    prompt: Vec<u64>,
    num_prompts: u64,
}

/// Trains the head of `folder`'s reward in `out`, or takes the one that is there.
pub(super) fn train(args: &CalibrateArgs, folder: &CalibrationFolder, out: &Path) -> Result<Learned> {
    let run = &args.run;
    let model = ReadyModel::open(&args.model, run.source.into(), run.precision.plan, run.threads)?;
    let style = PromptStyle {
        raw: args.draw.raw,
        system: args.draw.system.clone(),
    };
    let data = Data::read(folder, &model, &style)?;
    let states = text_states(&data.texts, &run.precision.name, &model)?;
    let held_out = held_out(args.draw.seed, data.num_prompts);
    let (train_items, eval_items): (Vec<usize>, Vec<usize>) =
        (0..data.prompt.len()).partition(|&item| !held_out[data.prompt[item] as usize]);
    let judgements = data.judgements(&train_items);
    let config = ClassifierTrainConfig {
        seed: args.draw.seed,
        eval_fraction: 0.2,
        ..ClassifierTrainConfig::default()
    };
    let run_dir = RunDir::new(out, env!("CARGO_PKG_VERSION"));
    let mut progress = None;
    let trained = train_classifier(&config, (&states, &judgements), &run_dir, &mut |event| {
        show_event(&mut progress, &event);
        ControlFlow::Continue(())
    })?;
    if let Some(progress) = &progress {
        progress.finish();
    }
    let learned = data.compare(&trained.weights, &states, &eval_items, out);
    let learned = Learned {
        train_prompts: held_out.iter().filter(|held_out| !*held_out).count() as u64,
        held_out_prompts: held_out.iter().filter(|held_out| **held_out).count() as u64,
        ..learned
    };
    let loaded = model.loaded.config();
    let card = ScorerCard {
        format_version: FORMAT_VERSION,
        name: scorer_name(None, out)?,
        objective: "classifier".to_owned(),
        reward: format!("calibrated {}", folder.column.name),
        // Its log-sigmoid is the log of the quantile that it expects.
        reward_unit: LOG_PROBABILITY.to_owned(),
        base: ScorerBase {
            name: model.stored.name.clone(),
            sha256: model.sha256(),
            hidden_len: loaded.hidden_len,
            vocab_len: loaded.vocab_len,
            precision: run.precision.name.clone(),
        },
        data_sha256: classifier_data_sha256(&states, &judgements),
        num_prefixes: train_items.len() as u64,
        metrics: [
            ("rmse".to_owned(), learned.rmse),
            ("rmse_of_one_half".to_owned(), learned.rmse_of_one_half),
        ]
        .into(),
        seed: args.draw.seed,
        source_revision: env!("CARGO_PKG_VERSION").to_owned(),
        weights_sha256: String::new(),
        model: None,
        planted: None,
    };
    write_scorer(out, &card, &trained.weights)
        .with_context(|| format!("cannot write the head in {}", out.display()))?;
    Ok(learned)
}

/// Which prompts are held out. `[num_prompts]`
fn held_out(seed: u64, num_prompts: u64) -> Vec<bool> {
    let coin =
        |prompt| SampleStream::new(Seed(seed), PromptKey(prompt), u64::MAX, Purpose::Training).uniform(0);
    let mut by_coin: Vec<(f64, usize)> = (0..num_prompts).map(|p| (coin(p), p as usize)).collect();
    by_coin.sort_by(|a, b| a.0.total_cmp(&b.0));
    let num_held_out = ((num_prompts as f64 * HELD_OUT) as usize).max(1);
    let mut held_out = vec![false; by_coin.len()];
    for &(_, prompt) in by_coin.iter().take(num_held_out) {
        held_out[prompt] = true;
    }
    held_out
}

impl Data {
    fn read(folder: &CalibrationFolder, model: &ReadyModel, style: &PromptStyle) -> Result<Self> {
        let mut data = Self::default();
        for prompt in folder.prompts()? {
            let prompt = prompt?;
            // Where nothing differs there is nothing to learn.
            if !prompt.quantiles.is_degenerate() {
                data.add(&prompt, model, style)?;
                data.num_prompts += 1;
            }
        }
        if (data.num_prompts as usize) < MIN_PROMPTS {
            bail!(
                "{} prompts have samples of different rewards, expected at least {MIN_PROMPTS} to learn quantiles from",
                data.num_prompts
            );
        }
        Ok(data)
    }

    fn add(&mut self, prompt: &PromptSamples, model: &ReadyModel, style: &PromptStyle) -> Result<()> {
        let tokenizer = model.loaded.tokenizer();
        let num_others = prompt.rewards.len().saturating_sub(1).max(1) as f64;
        let calibrated = prompt.calibrated_left_out(false)?;
        for (row, u) in prompt.rows.iter().zip(calibrated).take(PER_PROMPT) {
            let prompt_ids: Vec<TokenId> = row.prompt_token_ids.iter().map(|&id| TokenId(id)).collect();
            // As the head will read it where it is a reward: with the end of an answer, whatever ended it.
            let encoded = style.encode_behind(tokenizer, (&row.prompt, prompt_ids), &row.response, true)?;
            let mut tokens = [encoded.prompt_ids, encoded.response_ids].concat();
            tokens.truncate(model.loaded.config().context_len);
            self.texts.tokens.push(tokens);
            self.calibrated.push(u);
            self.variance.push(u * (1.0 - u) / num_others);
            self.prompt.push(self.num_prompts);
        }
        Ok(())
    }

    fn judgements(&self, items: &[usize]) -> Judgements {
        Judgements {
            verdicts: Verdicts::Labels {
                texts: items.iter().map(|&item| item as u32).collect(),
                labels: items.iter().map(|&item| self.calibrated[item] as f32).collect(),
            },
            keys: items.iter().map(|&item| self.prompt[item]).collect(),
        }
    }

    fn compare(&self, head: &ScorerWeights, states: &FinalStates, items: &[usize], out: &Path) -> Learned {
        let predicted: Vec<f64> = items
            .iter()
            .map(|&item| {
                let logit = head.state_value(states.state(item as u32));
                1.0 / (1.0 + (-logit).exp())
            })
            .collect();
        let empirical: Vec<f64> = items.iter().map(|&item| self.calibrated[item]).collect();
        let noise = mean(items.iter().map(|&item| self.variance[item]));
        let squared = |predicted: &[f64]| {
            mean(
                predicted
                    .iter()
                    .zip(&empirical)
                    .map(|(predicted, empirical)| (predicted - empirical).powi(2)),
            )
        };
        let like = |own_error: f64| (own_error > 0.0).then(|| 1.0 / (6.0 * own_error));
        let (error, of_one_half) = (squared(&predicted), squared(&vec![0.5; empirical.len()]));
        let own_error = (error - noise).max(0.0);
        Learned {
            head: out.display().to_string(),
            train_prompts: 0,
            held_out_prompts: 0,
            held_out_samples: items.len() as u64,
            rmse: error.sqrt(),
            rmse_of_one_half: of_one_half.sqrt(),
            rmse_without_noise: own_error.sqrt(),
            correlation: correlation(&predicted, &empirical),
            like_samples: like(own_error),
            like_samples_of_one_half: like((of_one_half - noise).max(0.0)),
        }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, num) = values.fold((0.0, 0_u64), |(sum, num), value| (sum + value, num + 1));
    sum / num.max(1) as f64
}

/// Pearson's; `None` where one side does not vary.
fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let (mean_a, mean_b) = (mean(a.iter().copied()), mean(b.iter().copied()));
    let product = |x: &[f64], mean_x: f64, y: &[f64], mean_y: f64| -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum()
    };
    let spread = product(a, mean_a, a, mean_a) * product(b, mean_b, b, mean_b);
    (spread > 0.0).then(|| product(a, mean_a, b, mean_b) / spread.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_prompts_is_held_out() {
        let held = held_out(3, 40);
        assert_eq!(held.iter().filter(|held| **held).count(), 8);
        assert_eq!(held, held_out(3, 40));
        assert_ne!(held, held_out(4, 40));
        assert_eq!(held_out(0, 5).iter().filter(|held| **held).count(), 1);
    }

    #[test]
    fn a_head_is_never_praised_for_what_a_constant_does() {
        let learned = |rmse: f64, like_samples: Option<f64>| Learned {
            head: "h".to_owned(),
            train_prompts: 8,
            held_out_prompts: 2,
            held_out_samples: 20,
            rmse,
            rmse_of_one_half: 0.29,
            rmse_without_noise: 0.2,
            correlation: Some(0.001),
            like_samples,
            like_samples_of_one_half: Some(2.1),
        };
        let worse = learned(0.291, Some(2.4)).text();
        assert!(
            worse.contains("no better than 1/2") && !worse.contains("as good as"),
            "{worse}"
        );
        let better = learned(0.2, Some(7.0)).text();
        assert!(
            better.contains("as good as 7.0 samples of the prompt (1/2 always: 2.1)"),
            "{better}"
        );
    }

    #[test]
    fn correlations_are_pearsons() {
        let check = |a: &[f64], b: &[f64], expect: Option<f64>| {
            let got = correlation(a, b);
            assert!(
                got.zip(expect)
                    .is_none_or(|(got, expect)| (got - expect).abs() < 1e-12)
                    && got.is_some() == expect.is_some(),
                "{got:?} {expect:?}"
            );
        };
        check(&[0.0, 1.0, 2.0], &[1.0, 3.0, 5.0], Some(1.0));
        check(&[0.0, 1.0, 2.0], &[5.0, 3.0, 1.0], Some(-1.0));
        check(&[0.0, 1.0, 0.0, 1.0], &[0.0, 0.0, 1.0, 1.0], Some(0.0));
        check(&[1.0, 1.0], &[0.0, 1.0], None);
    }
}
