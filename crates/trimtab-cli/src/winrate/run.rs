//! An evaluation from its arguments to its rows. Knows the order of its parts, none of their inside.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use trimtab_reward::RewardSpec;
use trimtab_runtime::{Job, PromptStyle};

use super::divergence::{KlRun, PromptKl, measure};
use super::methods::{Named, names};
use super::procedure::EvalProcedure;
use super::results::{Compared, Facts, SideAnswers, WinRateRow, compare};
use super::settings::Settings;
use super::shown::report;
use super::sides::{PromptRewards, Side, draw, rollout_args};
use super::steered::Steered;
use crate::args::EvalWinrateArgs;
use crate::output;
use crate::resolve::ReadyModel;
use crate::rollout::{self, Rewards};
use crate::steering::Models;

/// Runs `trimtab eval winrate`.
///
/// # Errors
/// What cannot be used; samples that were drawn are kept where --out is given.
pub(crate) fn run(args: &EvalWinrateArgs) -> Result<Vec<WinRateRow>> {
    let settings = Settings::of(args)?;
    let specs: Vec<RewardSpec> = std::iter::once(&settings.reward)
        .chain(&args.judge)
        .cloned()
        .collect();
    Rewards::check(&specs)?;
    settings.compare_with_trainings()?;
    let place = Place::of(args)?;
    let reference = open(args, &args.reference)?;
    let style = style(&settings);
    let models = models(args, &reference, &style);
    let rewards = Rewards::new(&specs, &models)?;
    let run = Run {
        settings: &settings,
        place: &place,
        reference: &reference,
        rewards: &rewards,
    };
    let rows = run.rows()?;
    if args.out.is_some() {
        crate::whole_file::write_json(&place.folder.join("winrate.json"), &rows)?;
        let page = report(&rows, &args.reference).write(&place.folder)?;
        output::note(&format!("report: {}", page.display()));
    }
    Ok(rows)
}

/// Where samples lie.
struct Place {
    folder: PathBuf,
    is_temporary: bool,
}

impl Place {
    fn of(args: &EvalWinrateArgs) -> Result<Self> {
        let temporary = || std::env::temp_dir().join(format!("trimtab-winrate-{}", std::process::id()));
        let place = Self {
            folder: args.out.clone().unwrap_or_else(temporary),
            is_temporary: args.out.is_none(),
        };
        std::fs::create_dir_all(&place.folder)
            .with_context(|| format!("cannot make {}", place.folder.display()))?;
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_temporary {
            // What is left behind is the system's to clear.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn open(args: &EvalWinrateArgs, name: &str) -> Result<ReadyModel> {
    let run = &args.run;
    ReadyModel::open(name, run.source.into(), run.precision.plan, run.threads)
}

fn style(settings: &Settings<'_>) -> PromptStyle {
    PromptStyle {
        raw: settings.draw.raw,
        system: settings.draw.system.clone(),
    }
}

fn models<'a>(args: &EvalWinrateArgs, generator: &'a ReadyModel, style: &'a PromptStyle) -> Models<'a> {
    Models {
        generator,
        policy: args.run.source.into(),
        plan: args.run.precision.plan,
        threads: args.run.threads,
        style,
    }
}

struct Run<'a> {
    settings: &'a Settings<'a>,
    place: &'a Place,
    reference: &'a ReadyModel,
    rewards: &'a Rewards,
}

/// One side: its samples, and its answers under each procedure.
struct DrawnSide {
    samples: Vec<PromptRewards>,
    /// `[procedures]`
    answers: Vec<SideAnswers>,
}

impl DrawnSide {
    fn response_len(&self) -> f64 {
        let lens = self.samples.iter().map(|prompt| prompt.response_len);
        lens.sum::<f64>() / self.samples.len().max(1) as f64
    }
}

impl Run<'_> {
    fn rows(&self) -> Result<Vec<WinRateRow>> {
        let (settings, args) = (self.settings, self.settings.args);
        let reference = self.side(self.reference, Side::Reference, "reference")?;
        let names = names(&args.policy, &settings.cards);
        let policies = args.policy.iter().zip(self.folder_names()).zip(&names);
        let mut first: Vec<Compared> = Vec::new();
        let mut rows = Vec::new();
        for ((policy, name), named) in policies {
            let model = open(args, policy)?;
            let side = self.side(&model, Side::Policy, &name)?;
            same_prompts(&side, &reference, policy)?;
            let kl = self
                .divergence(&model, &name)
                .with_context(|| format!("KL of {policy} from {}", args.reference))?;
            let compared = self.compared((policy, named), &side, &reference, &kl)?;
            if first.is_empty() {
                rows.extend(compared.iter().map(|compared| compared.row.clone()));
                first = compared;
            } else {
                let paired = compared.into_iter().zip(&first);
                rows.extend(paired.map(|(compared, first)| compared.against(first, settings.draw.seed).row));
            }
        }
        Ok(rows)
    }

    /// A folder for each policy: the last part of its name, and a number where that is taken.
    fn folder_names(&self) -> Vec<String> {
        let mut names: Vec<String> = vec!["reference".to_owned()];
        for policy in &self.settings.args.policy {
            let last = Path::new(policy)
                .file_name()
                .map_or_else(|| "policy".to_owned(), |name| name.to_string_lossy().into_owned());
            let taken = names
                .iter()
                .filter(|name| **name == last || name.starts_with(&format!("{last}-")))
                .count();
            names.push(if taken == 0 {
                last
            } else {
                format!("{last}-{}", taken + 1)
            });
        }
        names.split_off(1)
    }

    fn side(&self, model: &ReadyModel, side: Side, name: &str) -> Result<DrawnSide> {
        output::note(&format!("{name}: {}", model.stored.name));
        let folder = self.place.folder.join(name);
        let samples = draw(self.settings, (model, side), self.rewards, &folder)?;
        let is_plain = side == Side::Reference && self.settings.leaves_reference();
        let mut prompts: Option<Vec<Job>> = None;
        let mut answers = Vec::with_capacity(self.settings.procedures.len());
        for (idx, procedure) in self.settings.procedures.iter().enumerate() {
            let spec = match procedure {
                EvalProcedure::Blocks(spec) if !is_plain => spec,
                _ => {
                    let rewards = samples.iter().map(|prompt| prompt.rewards.clone()).collect();
                    let procedure = if is_plain {
                        EvalProcedure::SAMPLE
                    } else {
                        procedure.clone()
                    };
                    answers.push(SideAnswers::of_samples(procedure, rewards));
                    continue;
                }
            };
            if prompts.is_none() {
                let args = rollout_args(self.settings, (model, side), folder.clone());
                prompts = Some(rollout::jobs(&args, model, self.rewards)?);
            }
            let steered = Steered {
                settings: self.settings,
                spec,
                prompts: prompts.as_deref().unwrap_or_default(),
                rewards: self.rewards,
            };
            let path = self.place.folder.join(format!("{name}.steered-{}", idx + 1));
            let style = style(self.settings);
            let drawn = steered.answers(&models(self.settings.args, model, &style), side, &path)?;
            answers.push(SideAnswers::of_steered(procedure.clone(), &drawn));
        }
        Ok(DrawnSide { samples, answers })
    }

    fn divergence(&self, model: &ReadyModel, name: &str) -> Result<Vec<PromptKl>> {
        let samples = self.place.folder.join(name);
        let manifest = trimtab_data::Manifest::open(&samples)?.context("samples were drawn just now")?;
        let run = KlRun {
            version: env!("CARGO_PKG_VERSION"),
            policy_sha256: model.sha256(),
            reference_sha256: self.reference.sha256(),
            precision: self.settings.args.run.precision.name.clone(),
            samples_sha256: manifest.content_sha256(),
            per_prompt: self.settings.args.kl_per_prompt,
        };
        let path = self.place.folder.join(format!("{name}.kl"));
        measure((&model.loaded, &self.reference.loaded), &samples, (&path, &run))
    }

    fn compared(
        &self,
        (policy, named): (&str, &Named),
        side: &DrawnSide,
        reference: &DrawnSide,
        kl: &[PromptKl],
    ) -> Result<Vec<Compared>> {
        let args = self.settings.args;
        let facts = Facts {
            policy,
            method: &named.method,
            family: &named.family,
            training_seed: named.training_seed,
            kl,
            kl_num_samples: args.kl_per_prompt.min(args.per_prompt),
            rewards: self.rewards.columns(),
            response_lens: (side.response_len(), reference.response_len()),
            seed: self.settings.draw.seed,
        };
        let answers = side.answers.iter().zip(&reference.answers);
        answers
            .map(|(policy, reference)| compare(policy, reference, &facts))
            .collect()
    }
}

/// Refuses sides that were asked other things: models of other tokenizers or templates.
fn same_prompts(policy: &DrawnSide, reference: &DrawnSide, name: &str) -> Result<()> {
    let tokens = |side: &DrawnSide| {
        let prompts = side.samples.iter().map(|prompt| prompt.prompt_token_ids.clone());
        prompts.collect::<Vec<_>>()
    };
    if tokens(policy) != tokens(reference) {
        bail!(
            "{name} tokenises the prompts otherwise than the reference does, so that there is no KL; take the model that the \
             policy was tuned from as --reference"
        );
    }
    Ok(())
}
