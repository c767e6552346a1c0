//! Heads on a model's states as users name them: what lies at a place, and which model it reads. Knows folders and model
//! files, no request.
//!
//! ```text
//! place = DIR                     a scorer or a reward that training left
//!       | DIR#HEAD                one of several heads that were trained together
//!       | place@MODEL             the same on a model of its own, where the folder holds none
//!       | MODEL[#LABEL]           a sequence classifier of the hub: a folder with config.json, or org/name
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use trimtab_model::ModelFile;
use trimtab_scorer::{CARD_FILE, ScorerCard, ScorerWeights, read_scorer};
use trimtab_store::{ModelRef, SourcePolicy};

use crate::output;
use crate::resolve::{ReadyModel, fetch, open_store};
use crate::steering::Models;

/// What lies at a place.
pub(crate) enum HeadPlace {
    /// What training left.
    Trained(Box<HeadFolder>),
    /// A sequence classifier of the hub, by the name of its model.
    Classifier {
        model: String,
        /// The label whose score is the reward.
        label: Option<String>,
    },
}

/// A folder that training left, as read.
pub(crate) struct HeadFolder {
    pub(crate) card: ScorerCard,
    pub(crate) weights: ScorerWeights,
    /// The model behind the `@`.
    model: Option<String>,
    pub(crate) path: PathBuf,
}

impl HeadPlace {
    /// Finds out what `place` is.
    ///
    /// # Errors
    /// A folder that is none of these, is damaged, or holds several heads of which none is named.
    pub(crate) fn read(place: &str) -> Result<Self> {
        if let Some(classifier) = classifier_at(place) {
            return Ok(classifier);
        }
        Ok(Self::Trained(Box::new(HeadFolder::read(place)?)))
    }

    /// SHA-256 of the weights, in hexadecimal.
    ///
    /// # Errors
    /// Those of [`Self::read`]; a model that cannot be had.
    pub(crate) fn sha256(place: &str) -> Result<String> {
        match Self::read(place)? {
            Self::Trained(folder) => Ok(folder.card.weights_sha256),
            Self::Classifier { model, label } => {
                let stored = fetch(&open_store()?, &model, SourcePolicy::Any)?;
                Ok(format!("{}{}", stored.weights_sha256, label.unwrap_or_default()))
            }
        }
    }
}

impl HeadFolder {
    /// Reads `DIR`, `DIR#HEAD` or one of them with `@MODEL`.
    ///
    /// # Errors
    /// A folder that is no scorer or is damaged, or holds several heads of which none is named.
    pub(crate) fn read(place: &str) -> Result<Self> {
        let (path, model) = match place.rsplit_once('@') {
            Some((path, model)) if !Path::new(place).exists() => (path, Some(model.to_owned())),
            _ => (place, None),
        };
        let folder = folder_of(path)?;
        let (card, weights) = read_scorer(&folder).with_context(|| format!("scorer {}", folder.display()))?;
        Ok(Self {
            card,
            weights,
            model,
            path: folder,
        })
    }

    /// The folder or file of the model beside the card, where the head has one of its own.
    fn model_path(&self) -> Option<PathBuf> {
        let entry = self.card.model.as_ref()?;
        let beside = self.path.join(entry);
        // Heads that were trained together share the model beside their folders.
        let shared = self.path.parent().map(|parent| parent.join(entry));
        Some(
            shared
                .filter(|shared| !beside.exists() && shared.exists())
                .unwrap_or(beside),
        )
    }

    /// The name of a model that the place itself says: beside the card, or behind the `@`.
    pub(crate) fn model_name(&self) -> Option<String> {
        let beside = self.model_path().map(|path| path.display().to_string());
        beside.or_else(|| self.model.clone())
    }

    /// The name of the model that it runs on, if that is not the generator.
    ///
    /// # Errors
    /// A generator that the head was not trained on.
    pub(crate) fn own_model_name(&self, generator: &ReadyModel) -> Result<Option<String>> {
        if let Some(name) = self.model_name() {
            return Ok(Some(name));
        }
        self.check_base(generator).map(|()| None).with_context(|| {
            format!(
                "a scorer for another model steers by text: give {}@{} to run it on its own",
                self.path.display(),
                self.card.base.name
            )
        })
    }

    /// The model that it runs on, if that is not the generator.
    ///
    /// # Errors
    /// A model that cannot be opened, or that the scorer was not trained on.
    pub(crate) fn own_model(&self, models: &Models<'_>) -> Result<Option<ReadyModel>> {
        let Some(name) = self.own_model_name(models.generator)? else {
            return Ok(None);
        };
        let own = ReadyModel::open(&name, models.policy, models.plan, models.threads);
        let own = own.with_context(|| format!("scorer {}", self.path.display()))?;
        if self.card.model.is_none() {
            self.check_base(&own)?;
        }
        Ok(Some(own))
    }

    /// [`Self::own_model`] of a scorer that steers: on the states of a policy that was tuned from the model it was trained
    /// on it may steer as it is (CD 2310.17022v3, section 5), where a reward would be refused.
    ///
    /// # Errors
    /// Those of [`Self::own_model`].
    pub(crate) fn steering_model(&self, models: &Models<'_>) -> Result<Option<ReadyModel>> {
        let generator = models.generator;
        let base = &self.card.base;
        let tuned_from = generator.policy.as_ref().map(|policy| &policy.base);
        let config = generator.loaded.config();
        let is_tuned =
            self.model_name().is_none() && tuned_from.is_some_and(|tuned| tuned.sha256 == base.sha256);
        if !is_tuned {
            return self.own_model(models);
        }
        self.card.check_base(
            &generator.stored.name,
            &base.sha256,
            config.hidden_len,
            config.vocab_len,
        )?;
        output::note(&format!(
            "scorer {} was trained on the states of {}; it steers {}, which was tuned from that model, by states that have moved",
            self.path.display(),
            base.name,
            generator.stored.name
        ));
        Ok(None)
    }

    /// Says where the head is opened that its data were not what they seem, if they were not.
    pub(crate) fn note_planted(&self) {
        if let Some(planted) = &self.card.planted {
            output::note(&format!(
                "{} was trained on data with a planted phrase, {:?} in {} of {} {} texts: a reward that is wrong on purpose",
                self.path.display(),
                planted.phrase,
                planted.num_planted,
                planted.num_texts,
                planted.side
            ));
        }
    }

    /// Refuses a model other than the one that it was trained on.
    pub(crate) fn check_base(&self, model: &ReadyModel) -> Result<()> {
        let config = model.loaded.config();
        self.card.check_base(
            &model.stored.name,
            &model.sha256(),
            config.hidden_len,
            config.vocab_len,
        )?;
        Ok(())
    }
}

/// The folder of a card: `DIR`, or `DIR/HEAD` for `DIR#HEAD`.
fn folder_of(path: &str) -> Result<PathBuf> {
    if !Path::new(path).exists()
        && let Some((folder, head)) = path.rsplit_once('#')
    {
        let own = Path::new(folder).join(head);
        if own.join(CARD_FILE).is_file() || head.is_empty() {
            return Ok(own);
        }
        bail!(
            "scorer {folder} has no head {head:?}, expected one of {}",
            heads_in(Path::new(folder)).join(", ")
        );
    }
    let folder = PathBuf::from(path);
    let heads = heads_in(&folder);
    if !folder.join(CARD_FILE).is_file() && !heads.is_empty() {
        bail!(
            "scorer {path} has the heads {}; name one, as in {path}#{}",
            heads.join(", "),
            heads[0]
        );
    }
    Ok(folder)
}

/// Heads that were trained together and lie in `folder`, in order of their names.
fn heads_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut heads: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join(CARD_FILE).is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    heads.sort();
    heads
}

/// A sequence classifier, if that is what a place names: a folder of the hub's form with a score head, or a name of the
/// hub where no folder is.
fn classifier_at(place: &str) -> Option<HeadPlace> {
    let (model, label) = match place.rsplit_once('#') {
        Some((model, label)) if !Path::new(place).exists() => (model, Some(label.to_owned())),
        _ => (place, None),
    };
    let folder = Path::new(model);
    let is_classifier = if folder.exists() {
        folder.join("config.json").is_file()
            && !folder.join(CARD_FILE).is_file()
            && ModelFile::open(folder).is_ok_and(|file| matches!(file.score_head(), Ok(Some(_))))
    } else {
        // A path with a slip in it is no name of the hub.
        let is_path = folder
            .parent()
            .is_some_and(|parent| parent.is_dir() && parent != Path::new(""));
        !is_path && matches!(open_store().ok()?.resolve(model), Ok(ModelRef::Hub(_)))
    };
    is_classifier.then(|| HeadPlace::Classifier {
        model: model.to_owned(),
        label,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_several_heads_name_one() {
        let folder = tempfile::tempdir().unwrap();
        for head in ["kind", "brief"] {
            std::fs::create_dir(folder.path().join(head)).unwrap();
            std::fs::write(folder.path().join(head).join(CARD_FILE), "{}").unwrap();
        }
        let path = folder.path().display().to_string();
        assert_eq!(
            folder_of(&format!("{path}#kind")).unwrap(),
            folder.path().join("kind")
        );
        assert_eq!(
            folder_of(&format!("{path}/kind")).unwrap(),
            folder.path().join("kind")
        );
        let check = |place: String, expect: &str| {
            let message = folder_of(&place).unwrap_err().to_string();
            assert!(message.contains(expect), "{message:?} lacks {expect:?}");
        };
        check(path.clone(), "has the heads brief, kind; name one");
        check(format!("{path}#rude"), "expected one of brief, kind");
    }
}
