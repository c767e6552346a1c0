//! How an evaluation differs from the trainings of its policies, and whether it asks what they were trained on. Knows
//! cards and settings, no model.

use std::collections::HashSet;

use anyhow::Result;
use trimtab_base::PromptKey;
use trimtab_reward::RewardSpec;

use super::settings::Settings;
use crate::args::DrawArgs;
use crate::head_place::HeadPlace;
use crate::output;
use crate::policy_card::{PolicyCard, TrainedOn};
use crate::rollout::prompt_keys;

/// A policy with its card.
#[derive(Clone, Copy)]
pub(super) struct Training<'a> {
    pub(super) policy: &'a str,
    pub(super) card: &'a PolicyCard,
}

/// Says on standard error what differs, and how many prompts were trained on; policies of which the same is to be said share
/// a line.
///
/// # Errors
/// The evaluation's own prompts if they cannot be read.
pub(super) fn compare(settings: &Settings<'_>, trainings: &[Training<'_>]) -> Result<()> {
    for (policies, differences) in alike(trainings, |training| differences(settings, training.card)) {
        if !differences.is_empty() {
            output::note(&format!(
                "{policies}: trained otherwise than measured: {}",
                differences.join("; ")
            ));
        }
    }
    if trainings
        .iter()
        .all(|training| training.card.trained_on.is_none())
    {
        return Ok(());
    }
    let asked = prompt_keys(&settings.prompts, &settings.draw)?;
    let mut known: Vec<(Place<'_>, Option<String>)> = Vec::new();
    let overlaps = alike(trainings, |training| {
        let trained_on = training.card.trained_on.as_ref()?;
        let place = Place::of(trained_on);
        if let Some((_, found)) = known.iter().find(|(other, _)| *other == place) {
            return found.clone();
        }
        let found = place.overlap(&asked, &settings.draw);
        known.push((place, found.clone()));
        found
    });
    for (policies, overlap) in overlaps {
        if let Some(overlap) = overlap {
            output::note(&format!("{policies}: {overlap}"));
        }
    }
    Ok(())
}

/// What is to be said of each policy, and of which ones, as `first and 2 more`.
fn alike<'a, T: PartialEq>(
    trainings: &[Training<'a>],
    mut of: impl FnMut(Training<'a>) -> T,
) -> Vec<(String, T)> {
    let mut groups: Vec<(&str, usize, T)> = Vec::new();
    for &training in trainings {
        let said = of(training);
        match groups.iter_mut().find(|(_, _, other)| *other == said) {
            Some((_, more, _)) => *more += 1,
            None => groups.push((training.policy, 0, said)),
        }
    }
    let named = groups.into_iter().map(|(first, more, said)| match more {
        0 => (first.to_owned(), said),
        _ => (format!("{first} and {more} more"), said),
    });
    named.collect()
}

/// `what: there, here` for everything that is not as in training.
fn differences(settings: &Settings<'_>, card: &PolicyCard) -> Vec<String> {
    let mut differences = Vec::new();
    let mut compare = |what: &str, there: String, here: String| {
        if there != here {
            differences.push(format!("{what} {there} there, {here} here"));
        }
    };
    if !is_reward_of(&settings.reward, card) {
        compare("reward", card.reward.clone(), settings.reward.to_string());
    }
    if let Some(trained_on) = &card.trained_on {
        let draw = &settings.draw;
        compare("raw", trained_on.raw.to_string(), draw.raw.to_string());
        compare(
            "system",
            text(trained_on.system.as_ref()),
            text(draw.system.as_ref()),
        );
        compare(
            "stop",
            format!("{:?}", trained_on.stop),
            format!("{:?}", draw.stop),
        );
        let limit = |num: Option<usize>| num.map_or_else(|| "the default".to_owned(), |num| num.to_string());
        compare(
            "max_new_tokens",
            limit(trained_on.max_new_tokens),
            limit(draw.max_new_tokens),
        );
        let precision = settings.args.run.precision.name.clone();
        compare("precision", trained_on.precision.clone(), precision);
    }
    differences
}

fn text(text: Option<&String>) -> String {
    text.map_or_else(|| "none".to_owned(), |text| format!("{text:?}"))
}

/// Whether a reward is the card's: the same terms on the same heads, wherever these lie now.
fn is_reward_of(reward: &RewardSpec, card: &PolicyCard) -> bool {
    let Ok(trained) = card.reward.parse::<RewardSpec>() else {
        return false;
    };
    let without_places = |spec: &RewardSpec| {
        let places = spec.head_folders();
        places.fold(spec.to_string(), |text, place| {
            text.replace(&format!("head:{place}"), "head:")
        })
    };
    let heads: Result<Vec<String>> = reward.head_folders().map(HeadPlace::sha256).collect();
    match heads {
        Ok(heads) if !card.reward_heads_sha256.is_empty() => {
            heads == card.reward_heads_sha256 && without_places(reward) == without_places(&trained)
        }
        _ => *reward == trained,
    }
}

/// Prompts of a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place<'a> {
    file: &'a str,
    skip: u64,
    num_prompts: Option<u64>,
    dialogue: bool,
}

impl<'a> Place<'a> {
    fn of(trained_on: &'a TrainedOn) -> Self {
        Self {
            file: &trained_on.prompts,
            skip: trained_on.skip,
            num_prompts: trained_on.num_prompts,
            dialogue: trained_on.dialogue,
        }
    }

    /// What is to be said about the prompts of both; `None` if there are no common ones.
    fn overlap(self, asked: &[PromptKey], draw: &DrawArgs) -> Option<String> {
        let draw = DrawArgs {
            skip: self.skip,
            num_prompts: self.num_prompts,
            dialogue: self.dialogue,
            ..draw.clone()
        };
        // Standard input is gone, and a file may be.
        let trained = if self.file == "-" {
            None
        } else {
            prompt_keys(self.file, &draw).ok()
        };
        let Some(trained) = trained else {
            return Some(format!(
                "the prompts that it was trained on ({}) cannot be read, so that nobody knows whether it is asked them again",
                self.file
            ));
        };
        let trained: HashSet<PromptKey> = trained.into_iter().collect();
        let num_common = asked.iter().filter(|&key| trained.contains(key)).count();
        (num_common > 0).then(|| {
            format!(
                "trained on {num_common} of the {} prompts that it is measured on; take others with --skip or --prompts",
                asked.len()
            )
        })
    }
}
