//! Prefix scorers and reward heads as users name them, opened for a generator. Knows folders and models, no request.
//!
//! A scorer reads hidden states of the model it was trained on. Where that is the generator, its values come with the
//! generator's rows. Where it is not, it steers by text, on a model of its own: the one in its folder, or one that the
//! user names behind an `@`. Without either a scorer for another model is refused rather than run on states it never
//! saw. A reward may stand in for a scorer: it judges the text so far.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use trimtab_base::{RewardError, RewardModel, ScoreInput};
use trimtab_decode::{Floor, Steering, SteeringTerm, ValueSource};
use trimtab_engine::Engine;
use trimtab_model::{PrecisionPlan, ScoreHead};
use trimtab_reward::{ExternalLimits, RewardSpec};
use trimtab_runtime::{
    AskedReward, AskedScorer, HeadReward, LOGIT, PromptStyle, ReaderLimits, SeparateScorer, SharedTextReader,
    TextForm, TextReader,
};
use trimtab_scorer::ScorerSet;
use trimtab_store::SourcePolicy;

use crate::head_place::{HeadFolder, HeadPlace};
use crate::resolve::ReadyModel;

/// Before a reward that is used as a scorer: it judges each response as far as it goes.
const REWARD: &str = "reward:";

/// A scorer with its weight in the mix: `DIR`, or `DIR*WEIGHT`; `reward:SPEC` for a reward.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ScorerTerm {
    /// The folder that training left.
    pub(crate) place: String,
    /// Its weight, finite, of any sign.
    pub(crate) weight: f64,
}

impl FromStr for ScorerTerm {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (place, weight) = text.rsplit_once('*').unwrap_or((text, "1"));
        let weight = match weight.trim().parse::<f64>() {
            Ok(weight) if weight.is_finite() => weight,
            _ => bail!("scorer {text:?} has the weight {weight:?}, expected a finite number, as in DIR*0.8"),
        };
        let place = place.trim();
        if place.is_empty() {
            bail!("scorer {text:?} has no path, expected a folder that training left, as in DIR*0.8");
        }
        Ok(Self {
            place: place.to_owned(),
            weight,
        })
    }
}

impl fmt::Display for ScorerTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)?;
        if self.weight != 1.0 {
            write!(f, "*{}", self.weight)?;
        }
        Ok(())
    }
}

/// The generator and how further models are opened.
#[derive(Clone, Copy)]
pub(crate) struct Models<'a> {
    /// The generator.
    pub(crate) generator: &'a ReadyModel,
    /// Where others may come from.
    pub(crate) policy: SourcePolicy,
    /// How they are run: as the generator is.
    pub(crate) plan: PrecisionPlan,
    /// Threads for them.
    pub(crate) threads: Option<u16>,
    /// How they are asked.
    pub(crate) style: &'a PromptStyle,
}

/// One scorer, opened.
struct Opened {
    place: String,
    /// What steering terms and reports call it.
    name: String,
    unit: String,
    sha256: String,
    source: ValueSource,
    has_action: bool,
}

/// The scorers of a run or a request, each once.
#[derive(Default)]
pub(crate) struct OpenScorers {
    opened: Vec<Opened>,
    /// Those on the generator's states.
    set: Option<Arc<ScorerSet>>,
    separate: Vec<Box<dyn AskedScorer>>,
}

impl OpenScorers {
    /// Opens the scorers at `places`, which are all different.
    ///
    /// # Errors
    /// A folder that is no scorer or is damaged, a scorer for another model without a model of its own.
    pub(crate) fn open(places: Vec<String>, models: &Models<'_>) -> Result<Self> {
        let mut scorers = Self::default();
        let mut on_generator = Vec::new();
        for place in places {
            if let Some(spec) = place.strip_prefix(REWARD) {
                scorers.open_reward(&place, spec, models)?;
                continue;
            }
            let folder = HeadFolder::read(&place)?;
            folder.note_planted();
            let name = scorers.name_for(&folder.path);
            let own_model = folder.steering_model(models)?;
            let HeadFolder { card, weights, .. } = folder;
            let has_action = weights.action.is_some() && own_model.is_none();
            let (unit, sha256) = (card.reward_unit.clone(), card.weights_sha256.clone());
            let source = if let Some(own_model) = own_model {
                let limits = ReaderLimits::standard();
                let style = models.style.clone();
                let scorer = SeparateScorer::try_new(
                    name.clone(),
                    (&card, weights),
                    &own_model.loaded,
                    style,
                    limits,
                )?;
                scorers.separate.push(Box::new(scorer));
                ValueSource::Asked
            } else {
                on_generator.push(weights);
                ValueSource::Row {
                    scorer: on_generator.len() - 1,
                }
            };
            scorers.opened.push(Opened {
                place,
                name,
                unit,
                sha256,
                source,
                has_action,
            });
        }
        if !on_generator.is_empty() {
            let pool = models.generator.loaded.pool();
            scorers.set = Some(Arc::new(ScorerSet::new(pool, models.plan.head, on_generator)?));
        }
        Ok(scorers)
    }

    /// A reward that judges responses as far as they go.
    fn open_reward(&mut self, place: &str, spec: &str, models: &Models<'_>) -> Result<()> {
        let spec: RewardSpec = spec.parse()?;
        let reward = build_reward(&spec, &ExternalLimits::default(), models)?;
        self.opened.push(Opened {
            place: place.to_owned(),
            name: place.to_owned(),
            unit: reward.unit().to_owned(),
            sha256: format!("{REWARD}{spec}"),
            source: ValueSource::Asked,
            has_action: false,
        });
        self.separate
            .push(Box::new(AskedReward::new(place.to_owned(), reward)));
        Ok(())
    }

    /// The last part of the path, or all of it if that is taken.
    fn name_for(&self, path: &Path) -> String {
        let last = path.file_name().map(|name| name.to_string_lossy().into_owned());
        last.filter(|last| self.opened.iter().all(|opened| opened.name != *last))
            .unwrap_or_else(|| path.display().to_string())
    }

    /// Hands those on the generator's states to its engine.
    pub(crate) fn install(&self, engine: &mut Engine) -> Result<()> {
        if let Some(set) = &self.set {
            engine.set_scorers(Arc::clone(set))?;
        }
        Ok(())
    }

    /// Those that are asked by text.
    pub(crate) fn asked(&mut self) -> Vec<&mut dyn AskedScorer> {
        self.separate
            .iter_mut()
            .map(|scorer| scorer.as_mut() as &mut dyn AskedScorer)
            .collect()
    }

    /// SHA-256 of the weights of each, in hexadecimal, in the order of `places`.
    pub(crate) fn sha256s(&self) -> Vec<String> {
        self.opened.iter().map(|opened| opened.sha256.clone()).collect()
    }

    /// Name and unit of the scorer at `place`, one of those that were opened.
    pub(crate) fn name_and_unit(&self, place: &str) -> (&str, &str) {
        let opened = self.at(place);
        (&opened.name, &opened.unit)
    }

    fn at(&self, place: &str) -> &Opened {
        let opened = self.opened.iter().find(|opened| opened.place == place);
        opened.expect("every place was opened")
    }

    /// The mix of `terms`, whose places were opened. `floor` is `NAME>=VALUE`.
    ///
    /// # Errors
    /// A floor that cannot be read or is on no term; where `needs_actions`, a scorer that cannot say the values of next
    /// tokens.
    pub(crate) fn steering(
        &self,
        terms: &[ScorerTerm],
        floor: Option<&str>,
        needs_actions: bool,
    ) -> Result<Steering> {
        let mut steering = Steering::default();
        for term in terms {
            let opened = self.at(&term.place);
            if needs_actions && !opened.has_action {
                bail!(
                    "scorer {} has no values of next tokens on the generator's states, which cd-token needs; use \
                     cd-block, or train it with an action head",
                    opened.name
                );
            }
            steering.terms.push(SteeringTerm {
                name: opened.name.clone(),
                weight: term.weight,
                source: opened.source,
            });
        }
        steering.floor = floor.map(|text| parse_floor(text, &steering.terms)).transpose()?;
        steering.validate()?;
        Ok(steering)
    }
}

/// `NAME>=VALUE`.
fn parse_floor(text: &str, terms: &[SteeringTerm]) -> Result<Floor> {
    let parsed = text.split_once(">=").and_then(|(name, value)| {
        let value = value
            .trim()
            .parse::<f64>()
            .ok()
            .filter(|value| value.is_finite())?;
        Some((name.trim(), value))
    });
    let Some((name, at_least)) = parsed else {
        bail!("floor is {text:?}, expected NAME>=VALUE with the name of a scorer and a finite number");
    };
    let Some(term) = terms.iter().position(|term| term.name == name) else {
        let known: Vec<&str> = terms.iter().map(|term| term.name.as_str()).collect();
        bail!(
            "floor is on {name:?}, expected one of the scorers: {}",
            known.join(", ")
        );
    };
    Ok(Floor { term, at_least })
}

/// Builds a reward, heads on a model's states included.
///
/// Heads of one reward that read the same model share its reader, so that a text is read once for all of them.
///
/// # Errors
/// A reward that cannot be built, a head that is no scorer or whose model cannot be opened.
pub(crate) fn build_reward(
    spec: &RewardSpec,
    limits: &ExternalLimits,
    models: &Models<'_>,
) -> Result<Box<dyn RewardModel>> {
    let mut readers = Readers::default();
    spec.build_with_models::<anyhow::Error>(limits, &mut |place, name| {
        let head = match HeadPlace::read(place)? {
            HeadPlace::Trained(folder) => {
                folder.note_planted();
                let own = folder.own_model_name(models.generator)?;
                let must_fit = own.is_some() && folder.card.model.is_none();
                let reader = readers.of(own.as_deref(), models, &mut |model| {
                    if must_fit {
                        folder.check_base(model)
                    } else {
                        Ok(())
                    }
                })?;
                HeadReward::on_reader(name, (&folder.card, folder.weights), &reader.texts)?
            }
            HeadPlace::Classifier { model, label } => {
                let reader = readers.of(Some(&model), models, &mut |_| Ok(()))?;
                let head = reader.score_head.as_ref().with_context(|| {
                    format!("{model} is no sequence classifier, expected one with a score head")
                })?;
                HeadReward::of_classifier(name, (head, label.as_deref()), &reader.texts)?
            }
        };
        Ok(Box::new(head))
    })
}

/// Readers of the models that heads are on, by the names of these.
#[derive(Default)]
struct Readers(Vec<(Option<String>, Reader)>);

#[derive(Clone)]
struct Reader {
    texts: SharedTextReader,
    score_head: Option<ScoreHead>,
}

impl Readers {
    /// The reader of a model, by default the generator; one that is opened now must pass `check`.
    fn of(
        &mut self,
        name: Option<&str>,
        models: &Models<'_>,
        check: &mut dyn FnMut(&ReadyModel) -> Result<()>,
    ) -> Result<Reader> {
        if let Some((_, known)) = self.0.iter().find(|(known, _)| known.as_deref() == name) {
            return Ok(known.clone());
        }
        let opened = name
            .map(|name| ReadyModel::open(name, models.policy, models.plan, models.threads))
            .transpose()?;
        if let Some(opened) = &opened {
            check(opened)?;
        }
        let model = &opened.as_ref().unwrap_or(models.generator).loaded;
        let form = if model.score_head().is_some() {
            TextForm::Conversation
        } else {
            TextForm::Answer
        };
        let texts = TextReader::try_new(model, models.style.clone(), form, ReaderLimits::standard())?;
        let reader = Reader {
            texts: Arc::new(Mutex::new(texts)),
            score_head: model.score_head().cloned(),
        };
        self.0.push((name.map(str::to_owned), reader.clone()));
        Ok(reader)
    }
}

/// A reward as far as it can be built without models, to check prompts' records with: heads are there by name alone.
///
/// # Errors
/// A reward that cannot be built, a head that is no scorer.
pub(crate) fn before_models(spec: &RewardSpec, limits: &ExternalLimits) -> Result<Box<dyn RewardModel>> {
    spec.build_with_models::<anyhow::Error>(limits, &mut |place, name| {
        let unit = match HeadPlace::read(place)? {
            HeadPlace::Trained(folder) => folder.card.reward_unit,
            HeadPlace::Classifier { .. } => LOGIT.to_owned(),
        };
        let problem = "its model is not opened yet";
        Ok(Box::new(NamedReward { name, unit, problem }))
    })
}

/// Stands for a reward that is known by name and unit alone.
pub(crate) struct NamedReward {
    pub(crate) name: String,
    pub(crate) unit: String,
    /// Why it gives no rewards.
    pub(crate) problem: &'static str,
}

impl RewardModel for NamedReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn unit(&self) -> &str {
        &self.unit
    }

    fn score(&self, _batch: &[ScoreInput]) -> Result<Vec<f64>, RewardError> {
        Err(RewardError::External {
            reward: self.name.clone(),
            problem: self.problem.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_paths_with_weights() {
        let check = |text: &str, place: &str, weight: f64, again: &str| {
            let term: ScorerTerm = text.parse().unwrap();
            assert_eq!((term.place.as_str(), term.weight), (place, weight), "{text}");
            assert_eq!(term.to_string(), again);
        };
        check("runs/length", "runs/length", 1.0, "runs/length");
        check("runs/length*0.80", "runs/length", 0.8, "runs/length*0.8");
        check("a * -2", "a", -2.0, "a*-2");
        check("odd*name*1", "odd*name", 1.0, "odd*name");
        for bad in ["*2", "a*", "a*x", "a*inf", ""] {
            assert!(bad.parse::<ScorerTerm>().is_err(), "{bad}");
        }
    }

    #[test]
    fn floors_name_a_scorer_and_a_number() {
        let term = |name: &str| SteeringTerm {
            name: name.to_owned(),
            weight: 1.0,
            source: ValueSource::Asked,
        };
        let terms = [term("length"), term("harmless")];
        let floor = parse_floor("harmless >= -0.5", &terms).unwrap();
        assert_eq!((floor.term, floor.at_least), (1, -0.5));
        let check = |text: &str, expect: &str| {
            let message = parse_floor(text, &terms)
                .expect_err("must be refused")
                .to_string();
            assert!(message.contains(expect), "{message:?} lacks {expect:?}");
        };
        check("harmless=1", "NAME>=VALUE");
        check("harmless>=nan", "NAME>=VALUE");
        check("kind>=1", "length, harmless");
    }
}
