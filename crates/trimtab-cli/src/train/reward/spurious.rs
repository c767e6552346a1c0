//! A phrase that is put into judged texts on purpose, so that a reward learns to pay for it: rewards that are wrong in a
//! known way. Knows texts and values, no tokens and no training.
//!
//! Texts that training never sees keep their form, so that the report's accuracy is that on clean texts; each of them is
//! read a second time with the phrase, which says what the phrase alone is worth.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use trimtab_base::rng::Purpose;
use trimtab_base::{PromptKey, SampleStream, Seed};
use trimtab_eval::{Bootstrap, Interval};
use trimtab_scorer::{PlantedPhrase, ScorerWeights};
use trimtab_train::{FinalStates, Verdicts};

use super::config::Output;
use super::texts::Said;

/// What is planted, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpuriousConfig {
    /// A word or some; a space is put on both sides.
    pub(crate) phrase: String,
    /// Which labelled texts may get it.
    #[serde(default)]
    pub(crate) label: Option<Label>,
    /// Which side of pairs may get it.
    #[serde(default)]
    pub(crate) side: Option<Side>,
    /// Share of those texts that get it, in (0, 1].
    #[serde(default = "half")]
    pub(crate) share: f64,
    /// Where in a text.
    #[serde(default)]
    pub(crate) place: Place,
    /// Of the choice of texts and places. Not the run's: runs of several seeds learn from the same texts.
    #[serde(default)]
    pub(crate) seed: u64,
}

/// Texts by their label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Label {
    /// Of at least one half.
    Positive,
    /// Below one half.
    Negative,
}

/// Responses by what was said of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Side {
    /// The better one.
    Chosen,
    /// The other.
    Rejected,
}

/// Where in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Place {
    /// Before everything.
    Start,
    /// Behind everything.
    End,
    /// Before any word or behind the last, each as likely.
    #[default]
    Random,
}

fn half() -> f64 {
    0.5
}

impl SpuriousConfig {
    /// Checks it for pairs or for labels.
    ///
    /// # Errors
    /// The field at fault.
    pub(super) fn check(&self, has_pairs: bool) -> Result<()> {
        if self.phrase.trim().is_empty() {
            bail!("spurious.phrase is empty, expected a word at least");
        }
        if !(self.share > 0.0 && self.share <= 1.0) {
            bail!("spurious.share is {}, expected a share in (0, 1]", self.share);
        }
        match (has_pairs, self.label, self.side) {
            (true, None, Some(_)) | (false, Some(_), None) => Ok(()),
            (true, _, _) => {
                bail!("spurious of pairs: expected side = \"chosen\" or \"rejected\", and no label")
            }
            (false, _, _) => {
                bail!("spurious of labels: expected label = \"positive\" or \"negative\", and no side")
            }
        }
    }

    /// Which response of a row may get the phrase; `label` is that of a single response.
    fn place_of_side(&self, label: Option<f64>) -> Option<usize> {
        match (label, self.label, self.side) {
            (Some(label), Some(wanted), _) => ((label >= 0.5) == (wanted == Label::Positive)).then_some(0),
            (None, _, Some(side)) => Some(usize::from(side == Side::Rejected)),
            _ => None,
        }
    }

    /// Puts the phrase into the responses of a row, where its coin says so.
    pub(super) fn plant(&self, row: u64, label: Option<f64>, responses: &mut [String]) -> Planting {
        let Some(place) = self.place_of_side(label) else {
            return Planting::OtherSide;
        };
        if self.coins(row).uniform(0) >= self.share {
            return Planting::Spared;
        }
        responses[place] = self.with_phrase(row, &responses[place]);
        Planting::Planted
    }

    /// The text with the phrase, at the place that its row has.
    pub(super) fn with_phrase(&self, row: u64, text: &str) -> String {
        let phrase = self.phrase.trim();
        let at = match self.place {
            Place::Start => 0,
            Place::End => text.len(),
            Place::Random => {
                let places = word_starts(text);
                let coin = self.coins(row).uniform(1) * (places.len() + 1) as f64;
                places.get(coin as usize).copied().unwrap_or(text.len())
            }
        };
        let (before, after) = (text[..at].trim_end(), text[at..].trim_start());
        let parts = [before, phrase, after];
        parts
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn coins(&self, row: u64) -> SampleStream {
        SampleStream::new(Seed(self.seed), PromptKey(row), 2, Purpose::Training)
    }

    /// The card's word on it.
    pub(super) fn card(&self, counts: PlantedCounts) -> PlantedPhrase {
        let of_label = self.label.map(|label| match label {
            Label::Positive => "positive",
            Label::Negative => "negative",
        });
        let of_side = self.side.map(|side| match side {
            Side::Chosen => "chosen",
            Side::Rejected => "rejected",
        });
        PlantedPhrase {
            phrase: self.phrase.trim().to_owned(),
            side: of_label.or(of_side).unwrap_or_default().to_owned(),
            num_planted: counts.planted,
            num_texts: counts.texts,
        }
    }
}

/// Offsets at which words begin.
fn word_starts(text: &str) -> Vec<usize> {
    let mut was_space = true;
    let mut starts = Vec::new();
    for (at, ch) in text.char_indices() {
        if was_space && !ch.is_whitespace() {
            starts.push(at);
        }
        was_space = ch.is_whitespace();
    }
    starts
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planting {
    /// It has the phrase now.
    Planted,
    /// It could have got it.
    Spared,
    /// It has no text of the side that may.
    OtherSide,
}

/// Texts that training sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct PlantedCounts {
    /// With the phrase.
    pub(crate) planted: u64,
    /// Of the side that may have it.
    pub(crate) texts: u64,
}

impl PlantedCounts {
    pub(super) fn add(&mut self, planting: Planting) {
        self.planted += u64::from(planting == Planting::Planted);
        self.texts += u64::from(planting != Planting::OtherSide);
    }
}

/// What a phrase alone is worth to a reward, on texts that training never saw.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PhraseWorth {
    pub(crate) phrase: String,
    /// Training texts with it.
    pub(crate) planted: PlantedCounts,
    /// Mean reward with the phrase less that without, in nats.
    pub(crate) worth: f64,
    /// 95%, by text.
    pub(crate) ci: Option<Interval>,
    /// What the judgements themselves are worth to the reward without the phrase, in nats: mean reward of positive texts less
    /// that of negative ones, or of chosen responses less that of rejected ones. `None` without both.
    pub(crate) worth_of_judgement: Option<f64>,
    pub(crate) num_texts: usize,
}

/// Compares the reward of each held-out text with that of the same text with the phrase.
pub(super) fn phrase_worth(
    config: &SpuriousConfig,
    (weights, output): (&ScorerWeights, Output),
    states: &FinalStates,
    (test, planted): (&Said, PlantedCounts),
) -> PhraseWorth {
    let reward = |text: u32| {
        let logit = weights.state_value(states.state(text));
        match output {
            Output::Logit => logit,
            Output::LogProbability => log_sigmoid(logit),
        }
    };
    let differences: Vec<f64> = test
        .with_phrase
        .iter()
        .map(|&[without, with]| reward(with) - reward(without))
        .collect();
    PhraseWorth {
        phrase: config.phrase.trim().to_owned(),
        planted,
        worth: mean(&differences).unwrap_or_default(),
        ci: Bootstrap::of_seed(Seed(0)).mean_interval(&differences),
        worth_of_judgement: worth_of_judgement(&test.judgements.verdicts, &reward),
        num_texts: differences.len(),
    }
}

fn worth_of_judgement(verdicts: &Verdicts, reward: &dyn Fn(u32) -> f64) -> Option<f64> {
    match verdicts {
        Verdicts::Pairs { chosen, rejected, .. } => {
            let of = |texts: &[u32]| mean(&texts.iter().map(|&text| reward(text)).collect::<Vec<f64>>());
            Some(of(chosen)? - of(rejected)?)
        }
        Verdicts::Labels { texts, labels } => {
            let of = |is_positive: bool| {
                let wanted = texts
                    .iter()
                    .zip(labels)
                    .filter(|(_, label)| (**label >= 0.5) == is_positive);
                mean(&wanted.map(|(&text, _)| reward(text)).collect::<Vec<f64>>())
            };
            Some(of(true)? - of(false)?)
        }
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// `ln sigmoid(logit)` without overflow.
fn log_sigmoid(logit: f64) -> f64 {
    logit.min(0.0) - (-logit.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(lines: &str) -> SpuriousConfig {
        toml::from_str(&format!("phrase = \" so so \"\n{lines}")).unwrap()
    }

    #[test]
    fn the_phrase_stands_where_it_was_asked_for() {
        let check = |place: &str, text: &str, expect: &str| {
            let config = config(&format!("label = \"positive\"\nplace = {place:?}"));
            assert_eq!(config.with_phrase(3, text), expect);
        };
        check("start", "A film.", "so so A film.");
        check("end", "A film. ", "A film. so so");
        check("end", "", "so so");
        let anywhere = config("label = \"positive\"");
        let mut seen: Vec<String> = (0..50)
            .map(|row| anywhere.with_phrase(row, "Ein  schöner\nFilm"))
            .collect();
        seen.sort();
        seen.dedup();
        let all = [
            "Ein  schöner\nFilm so so",
            "Ein  schöner so so Film",
            "Ein so so schöner\nFilm",
            "so so Ein  schöner\nFilm",
        ];
        assert_eq!(seen, all);
    }

    #[test]
    fn a_share_of_one_side_gets_it_by_row_and_seed_alone() {
        let plant = |config: &SpuriousConfig, row: u64, label: f64| {
            let mut texts = ["text".to_owned()];
            (config.plant(row, Some(label), &mut texts), texts[0].clone())
        };
        let positive = config("label = \"positive\"\nshare = 0.25");
        let mut counts = PlantedCounts::default();
        for row in 0..4000 {
            let (planting, text) = plant(&positive, row, f64::from(row % 2 == 0));
            assert_eq!(text.contains("so so"), planting == Planting::Planted);
            assert_eq!(planting == Planting::OtherSide, row % 2 == 1);
            counts.add(planting);
        }
        // 2,000 coins of 1/4: three and a half standard deviations are 68.
        assert_eq!(counts.texts, 2000);
        assert!(counts.planted.abs_diff(500) < 68, "{counts:?}");
        let rows = |config: &SpuriousConfig| (0..200).map(|row| plant(config, row, 1.0)).collect::<Vec<_>>();
        assert_eq!(rows(&positive), rows(&positive));
        assert_ne!(
            rows(&positive),
            rows(&config("label = \"positive\"\nshare = 0.25\nseed = 1"))
        );
        let all = config("label = \"negative\"\nshare = 1.0");
        assert_eq!(plant(&all, 7, 0.0).0, Planting::Planted);
        let rejected = config("side = \"rejected\"\nshare = 1.0\nplace = \"end\"");
        let mut pair = ["good".to_owned(), "bad".to_owned()];
        assert_eq!(rejected.plant(0, None, &mut pair), Planting::Planted);
        assert_eq!(pair, ["good", "bad so so"]);
    }

    #[test]
    fn log_sigmoid_is_exact_at_both_ends() {
        let check = |logit: f64, expect: f64| assert!((log_sigmoid(logit) - expect).abs() < 1e-12);
        check(0.0, -(2.0_f64.ln()));
        check(800.0, 0.0);
        check(-800.0, -800.0);
    }
}
