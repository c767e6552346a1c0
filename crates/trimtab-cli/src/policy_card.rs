//! What a trained policy is, in `policy_card.json` beside its weights: from which model, for which reward, how and how far.
//! Knows no training and no model.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use trimtab_train::TrainDevice;
use trimtab_train::policy::Advantage;

/// Name of the card in a policy's folder.
pub(crate) const CARD_FILE: &str = "policy_card.json";

/// Form of the card; another one is not read.
pub(crate) const CARD_VERSION: u32 = 1;

/// The model that a policy was tuned from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TunedFrom {
    /// What users call it.
    pub(crate) name: String,
    /// SHA-256 of its weights, in hexadecimal.
    pub(crate) sha256: String,
}

/// Prompts and sampling of a training as its configuration told them: what an evaluation takes where it is told nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TrainedOn {
    /// As `rollout` takes them; a relative path is from where the training was started.
    pub(crate) prompts: String,
    /// Distinct prompts passed over.
    pub(crate) skip: u64,
    /// Most distinct prompts that were taken after those; all there were if `None`.
    pub(crate) num_prompts: Option<u64>,
    /// Prompts that were trained on, without those that did not fit.
    pub(crate) num_taken: u64,
    /// Whole dialogues as prompts, not their first turns.
    pub(crate) dialogue: bool,
    /// Whether prompts that do not fit were left out.
    pub(crate) drop_long: bool,
    /// Without the chat template.
    pub(crate) raw: bool,
    /// System message before each prompt.
    pub(crate) system: Option<String>,
    /// Texts that end a response.
    pub(crate) stop: Vec<String>,
    /// Most tokens of a response; the model's own limit if `None`.
    pub(crate) max_new_tokens: Option<usize>,
    /// Of the engine that drew responses.
    pub(crate) precision: String,
}

/// `policy_card.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PolicyCard {
    /// [`CARD_VERSION`] of the writer.
    pub(crate) card_version: u32,
    /// What reports call it.
    pub(crate) name: String,
    /// Entry of the folder that opens: `model` (a folder in the hub's layout), `model.gguf` or `model.bin`.
    pub(crate) entry: String,
    /// Model that it was tuned from, and that its KL is from.
    pub(crate) base: TunedFrom,
    /// SHA-256 of the policy's own weights, in hexadecimal.
    pub(crate) weights_sha256: String,
    /// Reward that it was trained for, as written.
    pub(crate) reward: String,
    /// SHA-256 of the heads that the reward reads, in hexadecimal, in the order of its terms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) reward_heads_sha256: Vec<String>,
    /// What was made of calibrated rewards; `raw` where rewards were not calibrated.
    pub(crate) transform: String,
    /// Procedure that it is meant for.
    pub(crate) procedure: String,
    /// `rl`, `dpo`, `ipo`, `sft` or `bonbon`.
    pub(crate) objective: String,
    /// KL weight, where the objective has one.
    pub(crate) beta: Option<f64>,
    /// What is subtracted from rewards, where the objective does that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) advantage: Option<Advantage>,
    /// Where rewards were calibrated: whether by lines between samples instead of steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interpolated: Option<bool>,
    /// Missing in cards of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trained_on: Option<TrainedOn>,
    /// KL from the base that was measured last in training, in nats a response; `eval winrate` measures it on other prompts.
    pub(crate) kl_nats: Option<f64>,
    /// Why the run ended before its last step, if it did.
    pub(crate) stopped: Option<String>,
    /// Optimiser steps that made it.
    pub(crate) step: u64,
    /// Seed of its training.
    pub(crate) seed: u64,
    /// Where its steps were computed; the processor where the card does not say.
    #[serde(default, skip_serializing_if = "TrainDevice::is_cpu")]
    pub(crate) device: TrainDevice,
    /// Content of the calibration that rewards were compared with, if there was one.
    pub(crate) calibration_sha256: Option<String>,
    /// Last numbers of training; units are in the names.
    pub(crate) metrics: BTreeMap<String, f64>,
    /// Version of the program that trained it.
    pub(crate) version: String,
}

impl PolicyCard {
    /// The card in `folder`; `None` if it has none.
    ///
    /// # Errors
    /// A card that cannot be read, or of another form.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(CARD_FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let card: Self = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is no card of a policy", path.display()))?;
        if card.card_version != CARD_VERSION {
            bail!(
                "{}: expected card_version {CARD_VERSION}, got {}",
                path.display(),
                card.card_version
            );
        }
        let is_plain = Path::new(&card.entry)
            .file_name()
            .is_some_and(|name| name == card.entry.as_str());
        if !is_plain {
            bail!("{}: entry {:?} is not in this folder", path.display(), card.entry);
        }
        Ok(Some(card))
    }

    /// The card beside the weights at `path`, if they are a policy's.
    pub(crate) fn beside(path: &Path) -> Result<Option<Self>> {
        let Some((folder, entry)) = path.parent().zip(path.file_name()) else {
            return Ok(None);
        };
        Ok(Self::read(folder)?.filter(|card| entry == card.entry.as_str()))
    }

    /// The card of what users call `name`: a policy's folder, or the weights in it; `None` for any other model.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub(crate) fn of(name: &str) -> Result<Option<Self>> {
        let path = Path::new(name);
        match Self::read(path)? {
            Some(card) => Ok(Some(card)),
            None => Self::beside(path),
        }
    }

    /// Writes it into `folder`, whole or not at all.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        crate::whole_file::write_json(&folder.join(CARD_FILE), self)
    }
}

/// What opens the policy in the folder `name`; `None` if that is no policy's folder.
pub(crate) fn weights_in(name: &str) -> Result<Option<PathBuf>> {
    let folder = Path::new(name);
    Ok(PolicyCard::read(folder)?.map(|card| folder.join(card.entry)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn card(entry: &str) -> PolicyCard {
        PolicyCard {
            card_version: CARD_VERSION,
            name: "p".to_owned(),
            entry: entry.to_owned(),
            base: TunedFrom {
                name: "m".to_owned(),
                sha256: "00".to_owned(),
            },
            weights_sha256: "11".to_owned(),
            reward: "length".to_owned(),
            reward_heads_sha256: Vec::new(),
            transform: "exp:10".to_owned(),
            procedure: "bon:4".to_owned(),
            objective: "rl".to_owned(),
            beta: Some(0.1),
            advantage: Some(Advantage::Group),
            interpolated: Some(false),
            trained_on: Some(TrainedOn {
                prompts: "p.txt".to_owned(),
                skip: 2,
                num_prompts: Some(8),
                num_taken: 7,
                dialogue: false,
                drop_long: true,
                raw: true,
                system: None,
                stop: vec!["\n".to_owned()],
                max_new_tokens: Some(32),
                precision: "int8".to_owned(),
            }),
            kl_nats: None,
            stopped: None,
            step: 3,
            seed: 0,
            device: TrainDevice::Cuda { index: 1 },
            calibration_sha256: None,
            metrics: BTreeMap::new(),
            version: "1".to_owned(),
        }
    }

    #[test]
    fn cards_come_back_and_name_what_opens() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(PolicyCard::read(folder.path()).unwrap(), None);
        card("model.bin").write(folder.path()).unwrap();
        let name = folder.path().display().to_string();
        assert_eq!(weights_in(&name).unwrap(), Some(folder.path().join("model.bin")));
        let beside = |file: &str| PolicyCard::beside(&folder.path().join(file)).unwrap();
        assert_eq!(beside("model.bin"), Some(card("model.bin")));
        assert_eq!(beside("other.bin"), None);
    }

    #[test]
    fn cards_of_earlier_versions_open() {
        let folder = tempfile::tempdir().unwrap();
        let mut old = serde_json::to_value(card("model.bin")).unwrap();
        for field in ["advantage", "interpolated", "trained_on", "device"] {
            assert!(old.as_object_mut().unwrap().remove(field).is_some(), "{field}");
        }
        std::fs::write(folder.path().join(CARD_FILE), old.to_string()).unwrap();
        let read = PolicyCard::of(&folder.path().display().to_string())
            .unwrap()
            .unwrap();
        assert_eq!((&read.trained_on, read.interpolated, read.step), (&None, None, 3));
        let weights = folder.path().join("model.bin").display().to_string();
        assert_eq!(PolicyCard::of(&weights).unwrap(), Some(read));
        assert_eq!(PolicyCard::of("stories15m").unwrap(), None);
    }

    #[test]
    fn cards_that_lead_elsewhere_are_refused() {
        for entry in ["../model", "/etc", "", "a/b"] {
            let folder = tempfile::tempdir().unwrap();
            card(entry).write(folder.path()).unwrap();
            assert!(PolicyCard::read(folder.path()).is_err(), "{entry:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let other = PolicyCard {
            card_version: 9,
            ..card("model")
        };
        other.write(folder.path()).unwrap();
        let error = PolicyCard::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("card_version 1, got 9"), "{error}");
    }
}
