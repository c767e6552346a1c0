//! What a run left in its folder, for people and programs. Reads the folder once, whoever wrote it and when.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use trimtab_base::Seed;
use trimtab_data::{Manifest, RewardColumn, Rollout, RolloutReader};
use trimtab_eval::{Bootstrap, Interval};

use crate::args::RolloutArgs;

/// What a run leaves out, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Dropped {
    /// Rows whose prompt an earlier row has.
    pub(crate) duplicates: u64,
    /// Rows that do not fit the context.
    pub(crate) too_long: u64,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    out: String,
    rows: u64,
    prompts: u64,
    shards: usize,
    /// Tokens of all responses.
    tokens: u64,
    /// Responses by why they ended.
    finish: BTreeMap<String, u64>,
    rewards: Vec<RewardSummary>,
    dropped: Dropped,
    model_sha256: String,
    /// Name of the data by its content.
    content_sha256: String,
    seed: u64,
}

#[derive(Debug, Serialize)]
struct RewardSummary {
    name: String,
    unit: String,
    /// Mean over prompts of the means over their responses.
    mean: f64,
    /// 95%, over prompts; `None` for fewer than two, or if all are equal.
    interval: Option<Interval>,
    least: f64,
    greatest: f64,
}

impl Summary {
    /// Of a finished folder.
    pub(super) fn of(args: &RolloutArgs, manifest: &Manifest, dropped: Dropped) -> Result<Self> {
        let mut totals = Totals::read(&args.out)?;
        let seed = args.draw.seed;
        let rewards = manifest
            .rewards
            .iter()
            .map(|column| totals.reward(column, seed))
            .collect();
        Ok(Self {
            out: args.out.display().to_string(),
            rows: manifest.num_rows(),
            prompts: manifest.num_prompts(),
            shards: manifest.shards.len(),
            tokens: totals.tokens,
            finish: totals.finish,
            rewards,
            dropped,
            model_sha256: manifest.identity.model_sha256.clone(),
            content_sha256: manifest.content_sha256(),
            seed,
        })
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![format!(
            "{} to {}, {:.1} tokens each, in {} ({}, content {})",
            counted(self.rows, "response"),
            counted(self.prompts, "prompt"),
            self.tokens as f64 / self.rows.max(1) as f64,
            self.out,
            counted(self.shards as u64, "shard"),
            &self.content_sha256[..12]
        )];
        let ends: Vec<String> = self
            .finish
            .iter()
            .map(|(why, num)| format!("{why} {num}"))
            .collect();
        lines.push(format!("ended by {}", ends.join(", ")));
        let Dropped { duplicates, too_long } = self.dropped;
        if duplicates > 0 {
            lines.push(format!(
                "{} with the prompt of an earlier one left out",
                counted(duplicates, "row")
            ));
        }
        if too_long > 0 {
            lines.push(format!(
                "left out as too long for the context: {}",
                counted(too_long, "row")
            ));
        }
        if !self.rewards.is_empty() {
            lines.push(self.table());
        }
        lines.join("\n")
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["reward", "mean", "95% interval", "least", "greatest", "unit"]);
        for reward in &self.rewards {
            let number = |value: f64| Cell::new(format!("{value:.4}")).set_alignment(CellAlignment::Right);
            let interval = reward
                .interval
                .map_or_else(|| "-".to_owned(), |i| format!("{:.4} .. {:.4}", i.lo, i.hi));
            table.add_row([
                Cell::new(&reward.name),
                number(reward.mean),
                Cell::new(interval),
                number(reward.least),
                number(reward.greatest),
                Cell::new(&reward.unit),
            ]);
        }
        table.to_string()
    }
}

/// A number of things in words.
fn counted(num: u64, what: &str) -> String {
    let plural = if num == 1 { "" } else { "s" };
    format!("{num} {what}{plural}")
}

/// Sums over a folder; one number per prompt and reward is kept.
#[derive(Default)]
struct Totals {
    tokens: u64,
    finish: BTreeMap<String, u64>,
    rewards: BTreeMap<String, RewardTotals>,
}

#[derive(Default)]
struct RewardTotals {
    prompt_means: Vec<f64>,
    range: Option<(f64, f64)>,
}

impl Totals {
    fn read(folder: &Path) -> Result<Self> {
        let mut totals = Self::default();
        let mut prompt: Vec<Rollout> = Vec::new();
        for row in RolloutReader::open(folder)? {
            let row = row?;
            totals.tokens += row.response_token_ids.len() as u64;
            *totals.finish.entry(row.finish.clone()).or_default() += 1;
            if prompt
                .last()
                .is_some_and(|last| last.prompt_idx != row.prompt_idx)
            {
                totals.add_prompt(&prompt);
                prompt.clear();
            }
            prompt.push(row);
        }
        totals.add_prompt(&prompt);
        Ok(totals)
    }

    fn add_prompt(&mut self, rows: &[Rollout]) {
        let names = rows.first().map(|row| row.rewards.keys()).into_iter().flatten();
        for name in names {
            let values = || rows.iter().filter_map(|row| row.rewards.get(name)).copied();
            let totals = self.rewards.entry(name.clone()).or_default();
            totals
                .prompt_means
                .push(values().sum::<f64>() / rows.len() as f64);
            for value in values() {
                let (least, greatest) = totals.range.unwrap_or((value, value));
                totals.range = Some((least.min(value), greatest.max(value)));
            }
        }
    }

    fn reward(&mut self, column: &RewardColumn, seed: u64) -> RewardSummary {
        let totals = self.rewards.remove(&column.name).unwrap_or_default();
        let means = &totals.prompt_means;
        let (least, greatest) = totals.range.unwrap_or((0.0, 0.0));
        RewardSummary {
            name: column.name.clone(),
            unit: column.unit.clone(),
            mean: means.iter().sum::<f64>() / means.len().max(1) as f64,
            interval: interval(means, seed),
            least,
            greatest,
        }
    }
}

/// Prompts from which on the resampling, whose time grows with them, gives the normal law's interval to all digits shown.
const MANY_PROMPTS: usize = 20_000;

/// 97.5% quantile of the normal law.
const NORMAL_97_5: f64 = 1.959963984540054;

/// 95% interval of a mean of independent values.
fn interval(values: &[f64], seed: u64) -> Option<Interval> {
    if values.len() < MANY_PROMPTS {
        return Bootstrap::of_seed(Seed(seed)).mean_interval(values);
    }
    let num = values.len() as f64;
    let mean = values.iter().sum::<f64>() / num;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (num - 1.0);
    let half = NORMAL_97_5 * (variance / num).sqrt();
    Some(Interval {
        lo: mean - half,
        hi: mean + half,
    })
}
