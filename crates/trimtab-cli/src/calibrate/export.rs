//! Calibrated and transformed rewards as rows for other trainers, a prompt in memory at a time. Knows their layouts.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use trimtab_data::{Message, Rollout};
use trimtab_infalign::{PreparedTransform, Transform};

use super::folder::{CalibrationFolder, PromptSamples};
use crate::args::{ExportRewardsArgs, Trainer};
use crate::output;

/// Of numbers that are not the paper's.
pub(crate) const INTERPOLATED: &str = "calibrated rewards are interpolated, a variant of InfAlign's: lines between samples \
                                       instead of steps, which are not invariant to the reward's scale";

/// Columns of the table.
const CSV_COLUMNS: &str = "prompt_idx,sample_idx,prompt,response,reward,calibrated_reward,transformed_reward";

/// One response with everything that is said of it.
struct Row<'a> {
    rollout: &'a Rollout,
    reward: f64,
    calibrated_reward: f64,
    transformed_reward: f64,
    /// Ascending. `[K]`
    reference_rewards: &'a [f64],
}

/// Runs `trimtab export rewards`; gives the number of rows.
pub(crate) fn export(args: &ExportRewardsArgs) -> Result<u64> {
    let folder = CalibrationFolder::open(&args.calibration, args.reward.as_deref())?;
    let export = Export {
        transform: prepared(args)?,
        trainer: args.trainer,
        interpolated: args.interpolated,
        style: Style::of(&folder),
    };
    let rows = match &args.out {
        None => {
            let mut out = std::io::stdout().lock();
            let rows = export.write_rows(&folder, &mut out)?;
            out.flush().context("cannot write to standard output")?;
            rows
        }
        Some(path) => {
            let part = path.with_extension("part");
            let rows = write_file(&part, |out| export.write_rows(&folder, out)).inspect_err(|_| {
                // Half a file is nobody's; that it cannot be removed is not what went wrong.
                let _ = std::fs::remove_file(&part);
            })?;
            std::fs::rename(&part, path).with_context(|| format!("cannot write {}", path.display()))?;
            rows
        }
    };
    export.notes().iter().for_each(|note| output::note(note));
    Ok(rows)
}

fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<u64>) -> Result<u64> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut out = BufWriter::new(file);
    let rows = write(&mut out)?;
    out.flush()
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(rows)
}

/// The transform, with its table read.
fn prepared(args: &ExportRewardsArgs) -> Result<PreparedTransform> {
    if args.transform.depends_on_beta() && args.beta.is_none() {
        bail!(
            "transform {} is another one at another KL weight; say which with --beta",
            args.transform
        );
    }
    prepare(args.transform.clone(), args.beta.unwrap_or(1.0))
}

/// A transform at a KL weight, its table read from its file.
pub(crate) fn prepare(transform: Transform, beta: f64) -> Result<PreparedTransform> {
    let transform = match transform.unread_table() {
        Some(file) => {
            let text =
                std::fs::read_to_string(file).with_context(|| format!("cannot read the table {file}"))?;
            transform.with_table(&text)?
        }
        None => transform,
    };
    Ok(transform.prepare(beta)?)
}

/// What is written.
struct Export<'a> {
    transform: PreparedTransform,
    trainer: Trainer,
    /// Lines between samples instead of steps.
    interpolated: bool,
    style: Style<'a>,
}

impl Export<'_> {
    fn write_rows(&self, folder: &CalibrationFolder, out: &mut dyn Write) -> Result<u64> {
        let write = |out: &mut dyn Write, line: &str| writeln!(out, "{line}").context("cannot write a row");
        let mut num_rows = 0;
        for prompt in folder.prompts()? {
            let prompt = prompt?;
            let rows = self.rows(&prompt)?;
            if num_rows == 0 && self.trainer == Trainer::Csv {
                write(out, CSV_COLUMNS)?;
            }
            for row in rows {
                let line = match self.trainer {
                    Trainer::Trl => self.style.trl(&row).to_string(),
                    Trainer::Verl => self.style.verl(&row, num_rows).to_string(),
                    Trainer::Csv => csv(&row),
                };
                write(out, &line)?;
                num_rows += 1;
            }
        }
        Ok(num_rows)
    }

    /// The rows of a prompt.
    fn rows<'a>(&self, prompt: &'a PromptSamples) -> Result<Vec<Row<'a>>> {
        let transform = self.transform.clone().for_samples(prompt.rewards.len());
        let calibrated = prompt.calibrated_left_out(self.interpolated)?;
        let both = prompt.rows.iter().zip(&prompt.rewards).zip(calibrated);
        let rows = both.map(|((rollout, &reward), calibrated_reward)| Row {
            rollout,
            reward,
            calibrated_reward,
            transformed_reward: transform.transformed_reward(calibrated_reward),
            reference_rewards: prompt.quantiles.sorted_rewards(),
        });
        Ok(rows.collect())
    }

    /// What whoever reads the rows has to know.
    fn notes(&self) -> Vec<&'static str> {
        let interpolated = self.interpolated.then_some(INTERPOLATED);
        let is_templated = self.trainer == Trainer::Verl && self.style.is_raw;
        let templated = is_templated.then_some(
            "the prompts are raw, and verl puts every prompt into the model's chat template, which the reference never \
             saw; train with actor_rollout_ref.model.custom_chat_template=\"{{ messages[0]['content'] }}\"",
        );
        interpolated.into_iter().chain(templated).collect()
    }
}

/// How the reference was asked, which other trainers have to repeat.
struct Style<'a> {
    is_raw: bool,
    system: Option<&'a str>,
}

impl<'a> Style<'a> {
    /// As the folder was drawn.
    fn of(folder: &'a CalibrationFolder) -> Self {
        let config = &folder.manifest.identity.config;
        Self {
            is_raw: config.get("raw") == Some(&Value::Bool(true)),
            system: config.get("system").and_then(Value::as_str),
        }
    }

    /// The prompt as messages.
    fn messages(&self, rollout: &Rollout) -> Vec<Message> {
        let system = self.system.map(|content| Message {
            role: "system".to_owned(),
            content: content.to_owned(),
        });
        system.into_iter().chain(rollout.turns()).collect()
    }

    /// The prompt-completion type of TRL's data sets, of texts for raw prompts and of conversations for others.
    fn trl(&self, row: &Row<'_>) -> Value {
        let rollout = row.rollout;
        let (prompt, completion) = if self.is_raw {
            (json!(rollout.prompt), json!(rollout.response))
        } else {
            let answer = json!([{"role": "assistant", "content": rollout.response}]);
            (json!(self.messages(rollout)), answer)
        };
        json!({
            "prompt": prompt,
            "completion": completion,
            "reward": row.reward,
            "calibrated_reward": row.calibrated_reward,
            "transformed_reward": row.transformed_reward,
            "reference_rewards": row.reference_rewards,
        })
    }

    /// The columns of verl's data sets.
    fn verl(&self, row: &Row<'_>, index: u64) -> Value {
        json!({
            "data_source": "trimtab",
            "prompt": self.messages(row.rollout),
            "ability": "alignment",
            "reward_model": {"style": "rule", "ground_truth": ""},
            "responses": [row.rollout.response],
            "extra_info": {
                "index": index,
                "prompt": row.rollout.prompt_idx,
                "sample": row.rollout.sample_idx,
                "reward": row.reward,
                "calibrated_reward": row.calibrated_reward,
                "transformed_reward": row.transformed_reward,
                "reference_rewards": row.reference_rewards,
            },
        })
    }
}

fn csv(row: &Row<'_>) -> String {
    let rollout = row.rollout;
    format!(
        "{},{},{},{},{},{},{}",
        rollout.prompt_idx,
        rollout.sample_idx,
        quoted(&rollout.prompt),
        quoted(&rollout.response),
        row.reward,
        row.calibrated_reward,
        row.transformed_reward
    )
}

/// A cell of RFC 4180.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use trimtab_infalign::ReferenceQuantiles;

    use super::*;

    fn samples(rewards: &[f64]) -> PromptSamples {
        let row = |idx: usize| Rollout {
            sample_idx: idx as u64,
            prompt: "say \"a\"".to_owned(),
            response: format!("r{idx}"),
            ..Rollout::default()
        };
        PromptSamples {
            rows: (0..rewards.len()).map(row).collect(),
            rewards: rewards.to_vec(),
            quantiles: ReferenceQuantiles::new(rewards).unwrap(),
        }
    }

    fn export_of(transform: &str, interpolated: bool) -> Export<'static> {
        Export {
            transform: prepare(transform.parse().unwrap(), 1.0).unwrap(),
            trainer: Trainer::Verl,
            interpolated,
            style: Style {
                is_raw: false,
                system: None,
            },
        }
    }

    #[test]
    fn one_sample_has_no_place_among_others() {
        for interpolated in [false, true] {
            let refused = export_of("exp:10", interpolated)
                .rows(&samples(&[3.0]))
                .err()
                .unwrap();
            assert!(refused.to_string().contains("--per-prompt"), "{refused}");
        }
    }

    #[test]
    fn interpolated_quantiles_are_among_the_others_too() {
        let rows = |rewards: &[f64]| -> Vec<f64> {
            let prompt = samples(rewards);
            let rows = export_of("identity", true).rows(&prompt).unwrap();
            rows.iter().map(|row| row.calibrated_reward).collect()
        };
        // Of 0, 2 and 4, the sample 1 is half-way from 1/6 to 1/2, and 3 from 1/2 to 5/6 if it is in its place.
        assert!((rows(&[0.0, 1.0, 2.0, 4.0])[1] - 1.0 / 3.0).abs() < 1e-12);
        assert!((rows(&[0.0, 3.0, 2.0, 4.0])[1] - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn notes_say_what_readers_must_know() {
        let mut export = export_of("identity", false);
        assert!(export.notes().is_empty());
        export.style.is_raw = true;
        export.interpolated = true;
        let notes = export.notes().join("\n");
        assert!(
            notes.contains("interpolated") && notes.contains("custom_chat_template"),
            "{notes}"
        );
    }

    #[test]
    fn rows_hold_quantiles_among_the_other_samples_and_their_transform() {
        let prompt = samples(&[3.0, 1.0, 3.0, 2.0]);
        let rows = export_of("exp:-2", false).rows(&prompt).unwrap();
        let calibrated: Vec<f64> = rows.iter().map(|row| row.calibrated_reward).collect();
        // Of the three others the first beats two and ties one.
        let expect = [2.5 / 3.0, 0.0, 2.5 / 3.0, 1.0 / 3.0];
        for (got, expect) in calibrated.iter().zip(expect) {
            assert!((got - expect).abs() < 1e-12, "{calibrated:?}");
        }
        for row in &rows {
            let expect = -(-2.0 * row.calibrated_reward).exp();
            assert!((row.transformed_reward - expect).abs() < 1e-12);
        }
    }

    #[test]
    fn conversations_and_texts_are_told_apart() {
        let prompt = samples(&[1.0, 2.0]);
        let row = &export_of("identity", false).rows(&prompt).unwrap()[1];
        let raw = Style {
            is_raw: true,
            system: None,
        };
        assert_eq!(raw.trl(row)["prompt"], "say \"a\"");
        assert_eq!(raw.trl(row)["transformed_reward"], 1.0);
        let chat = Style {
            is_raw: false,
            system: Some("be brief"),
        };
        let line = chat.trl(row);
        assert_eq!(line["prompt"][0]["role"], "system");
        assert_eq!(line["prompt"][1]["content"], "say \"a\"");
        assert_eq!(line["completion"][0]["content"], "r1");
        assert_eq!(
            chat.verl(row, 7)["extra_info"]["reference_rewards"],
            json!([1.0, 2.0])
        );
        assert_eq!(csv(row), "0,1,\"say \"\"a\"\"\",\"r1\",2,1,1");
    }

    #[test]
    fn fixed_points_need_a_beta() {
        let args = |transform: &str, beta| ExportRewardsArgs {
            calibration: "cal".into(),
            transform: transform.parse().unwrap(),
            beta,
            interpolated: false,
            trainer: Trainer::Csv,
            reward: None,
            out: None,
        };
        assert!(prepared(&args("bon_fp:4", None)).is_err());
        assert!(prepared(&args("exp:10", None)).is_ok());
        let missing = prepared(&args("table:no-such-file", None)).unwrap_err();
        assert!(format!("{missing:#}").contains("no-such-file"));
    }
}
