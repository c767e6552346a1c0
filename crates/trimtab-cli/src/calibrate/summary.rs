//! What a calibration is worth: how many prompts and samples, its error, and the prompts that teach nothing.

use anyhow::Result;
use serde::Serialize;
use trimtab_infalign::estimator_rmse;

use super::folder::{CalibrationFolder, PromptSamples};
use super::learn::Learned;

/// Degenerate prompts that are named; the others are counted.
const MAX_NAMED: usize = 20;
/// Characters of a prompt that is named.
const MAX_SHOWN_CHARS: usize = 60;

/// What `--json` prints, and `calibration.json`.
#[derive(Debug, Serialize)]
pub(crate) struct CalibrationSummary {
    pub(crate) out: String,
    /// Reward whose quantiles are known now.
    pub(crate) reward: String,
    pub(crate) reward_unit: String,
    pub(crate) prompts: u64,
    /// Samples of all prompts.
    pub(crate) samples: u64,
    /// K, the samples of a prompt; `None` if prompts have different numbers of them.
    pub(crate) per_prompt: Option<usize>,
    /// Root of the mean of `u (1-u) / K` over the samples: the standard error of a calibrated reward.
    pub(crate) estimator_rmse: f64,
    /// The same if no rewards tied: `sqrt(1 / (6 K))`.
    pub(crate) estimator_rmse_without_ties: Option<f64>,
    /// Share of pairs of samples of one prompt with equal rewards; each counts as half a win.
    pub(crate) tied_pairs: f64,
    /// Prompts all of whose samples have one reward: every response of that reward has the calibrated reward 1/2, a
    /// better one 1 and a worse one 0.
    pub(crate) degenerate_prompts: u64,
    /// The first of them.
    pub(crate) degenerate: Vec<NamedPrompt>,
    pub(crate) model_sha256: String,
    /// Name of the samples by their content.
    pub(crate) content_sha256: String,
    pub(crate) seed: u64,
    /// Extension: a head that predicts calibrated rewards, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) learned: Option<Learned>,
}

/// A prompt in messages.
#[derive(Debug, Serialize)]
pub(crate) struct NamedPrompt {
    pub(crate) prompt_idx: u64,
    /// Its beginning.
    pub(crate) prompt: String,
    /// The reward that all its samples have.
    pub(crate) reward: f64,
}

/// Sums over prompts.
#[derive(Default)]
struct Totals {
    prompts: u64,
    samples: u64,
    /// `K` of the first prompt, and whether all have it.
    per_prompt: Option<(usize, bool)>,
    squared_error: f64,
    pairs: f64,
    tied: f64,
    num_degenerate: u64,
    degenerate: Vec<NamedPrompt>,
}

impl CalibrationSummary {
    /// Of a folder, which is read once.
    pub(crate) fn of(folder: &CalibrationFolder) -> Result<Self> {
        let mut totals = Totals::default();
        for prompt in folder.prompts()? {
            totals.add(&prompt?);
        }
        let per_prompt = totals.per_prompt.filter(|&(_, is_same)| is_same).map(|(k, _)| k);
        Ok(Self {
            out: folder.path.display().to_string(),
            reward: folder.column.name.clone(),
            reward_unit: folder.column.unit.clone(),
            prompts: totals.prompts,
            samples: totals.samples,
            per_prompt,
            estimator_rmse: (totals.squared_error / totals.samples.max(1) as f64).sqrt(),
            estimator_rmse_without_ties: per_prompt.map(estimator_rmse),
            tied_pairs: if totals.pairs > 0.0 {
                totals.tied / totals.pairs
            } else {
                0.0
            },
            degenerate_prompts: totals.num_degenerate,
            degenerate: totals.degenerate,
            model_sha256: folder.manifest.identity.model_sha256.clone(),
            content_sha256: folder.manifest.content_sha256(),
            seed: folder.manifest.identity.seed,
            learned: None,
        })
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let per_prompt = self
            .per_prompt
            .map_or_else(|| "different numbers of".to_owned(), |k| k.to_string());
        let mut lines = vec![
            format!(
                "{} prompts with {per_prompt} samples each, reward {} ({}), in {} (content {})",
                self.prompts,
                self.reward,
                self.reward_unit,
                self.out,
                &self.content_sha256[..12]
            ),
            format!(
                "error of a calibrated reward: {:.4} (root mean square); {:.1}% of pairs of samples tie and share their win",
                self.estimator_rmse,
                100.0 * self.tied_pairs
            ),
        ];
        if self.degenerate_prompts > 0 {
            lines.push(format!(
                "{} of {} prompts are degenerate: all their samples have one reward, so that a response of that reward \
                 has the calibrated reward 1/2, any better one 1 and any worse one 0",
                self.degenerate_prompts, self.prompts
            ));
            lines.extend(self.degenerate.iter().map(|named| {
                format!(
                    "  prompt {} ({:?}): all samples have {}",
                    named.prompt_idx + 1,
                    named.prompt,
                    named.reward
                )
            }));
            let unnamed = self.degenerate_prompts - self.degenerate.len() as u64;
            if unnamed > 0 {
                lines.push(format!("  and {unnamed} more"));
            }
        }
        lines.extend(self.learned.as_ref().map(Learned::text));
        lines.join("\n")
    }
}

impl Totals {
    fn add(&mut self, prompt: &PromptSamples) {
        let num_samples = prompt.rewards.len();
        self.prompts += 1;
        self.samples += num_samples as u64;
        let (first, is_same) = self.per_prompt.unwrap_or((num_samples, true));
        self.per_prompt = Some((first, is_same && first == num_samples));
        for &reward in &prompt.rewards {
            let u = prompt.quantiles.calibrated_reward(reward);
            self.squared_error += u * (1.0 - u) / num_samples as f64;
        }
        let pairs = |n: usize| (n * n.saturating_sub(1)) as f64;
        self.pairs += pairs(num_samples);
        let classes = prompt.quantiles.sorted_rewards().chunk_by(|a, b| a == b);
        self.tied += classes.map(|class| pairs(class.len())).sum::<f64>();
        if prompt.quantiles.is_degenerate() {
            self.num_degenerate += 1;
            if self.degenerate.len() < MAX_NAMED {
                self.degenerate.push(NamedPrompt::of(prompt));
            }
        }
    }
}

impl NamedPrompt {
    fn of(prompt: &PromptSamples) -> Self {
        let text = prompt.prompt();
        let end = text.char_indices().nth(MAX_SHOWN_CHARS).map(|(end, _)| end);
        Self {
            prompt_idx: prompt.rows.first().map_or(0, |row| row.prompt_idx),
            prompt: end.map_or_else(|| text.to_owned(), |end| format!("{}...", &text[..end])),
            reward: prompt.rewards.first().copied().unwrap_or(0.0),
        }
    }
}
