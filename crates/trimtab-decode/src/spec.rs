//! Decoding methods as users write them: `sample:t=0.7`, `greedy`, `bon:16`, `majority:n=8,t=0.7`, `beam:4`.
//!
//! Grammar: `method[:entry,entry,...]`, an entry being `option=value`, or a bare number for the method's main option.
//! `Display` writes the shortest text that parses to the same value. Knows no file and no command line.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::DecodeError;
use crate::answer::AnswerExtractor;
use crate::beam::{Beam, BeamConfig};
use crate::best_of_n::{BestOfN, BestOfNConfig};
use crate::cd_block::CdBlockConfig;
use crate::cd_token::CdTokenConfig;
use crate::inputs::DecoderInputs;
use crate::need::Decoder;
use crate::options::Options;
use crate::sampling::Sampling;
use crate::selecting::Scoring;
use crate::selection::Selection;

/// A decoding method with its settings, checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DecodeSpec {
    /// One response drawn from a sampling policy.
    Sample {
        /// The policy.
        sampling: Sampling,
    },
    /// The most probable token at each step.
    Greedy,
    /// The response with the greatest reward among N.
    BestOfN {
        /// N.
        num_candidates: usize,
        /// The policy each is drawn from.
        sampling: Sampling,
    },
    /// The response with the least reward among N.
    WorstOfN {
        /// N.
        num_candidates: usize,
        /// The policy each is drawn from.
        sampling: Sampling,
    },
    /// The response with the most frequent answer among N.
    Majority {
        /// N.
        num_candidates: usize,
        /// The policy each is drawn from.
        sampling: Sampling,
        /// How an answer is read off a response.
        answer: AnswerExtractor,
    },
    /// The most probable response that beam search finds.
    Beam(BeamConfig),
    /// Tokenwise controlled decoding: each token drawn from probabilities tilted by values.
    CdToken(CdTokenConfig),
    /// Blockwise controlled decoding: the best of K blocks after blocks.
    CdBlock(CdBlockConfig),
}

/// A decoding method for help texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodHelp {
    /// Name before the colon.
    pub name: &'static str,
    /// A complete example.
    pub example: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
}

/// Every decoding method.
pub const METHODS: &[MethodHelp] = &[
    MethodHelp {
        name: "sample",
        example: "sample:t=0.7,top_p=0.9",
        summary: "draw one response; options t (temperature), top_k, top_p, min_p, also in bon, won and majority",
    },
    MethodHelp {
        name: "greedy",
        example: "greedy",
        summary: "take the most probable token at each step",
    },
    MethodHelp {
        name: "bon",
        example: "bon:16",
        summary: "draw N responses, answer with the one of greatest reward",
    },
    MethodHelp {
        name: "won",
        example: "won:4",
        summary: "draw N responses, answer with the one of least reward (the view of a jailbreak)",
    },
    MethodHelp {
        name: "majority",
        example: "majority:n=8,t=0.7,answer=number",
        summary: "draw N responses, answer with the most frequent answer; options answer=number|text, pattern=REGEX (last)",
    },
    MethodHelp {
        name: "beam",
        example: "beam:width=4,length_power=0.6",
        summary: "search the most probable response; score is log-probability / tokens^length_power",
    },
];

impl DecodeSpec {
    /// A decoder for one request; rewards are asked for only where the choice depends on them.
    ///
    /// # Errors
    /// [`DecodeError::InvalidSetting`] if a setting or a stop rule is out of range.
    pub fn build(&self, inputs: DecoderInputs) -> Result<Box<dyn Decoder>, DecodeError> {
        self.build_with(Scoring::WhenChoosing, inputs)
    }

    /// A decoder for one request that asks for the reward of every candidate, so that reports can show it.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn build_scored(&self, inputs: DecoderInputs) -> Result<Box<dyn Decoder>, DecodeError> {
        self.build_with(Scoring::Always, inputs)
    }

    fn build_with(&self, scoring: Scoring, inputs: DecoderInputs) -> Result<Box<dyn Decoder>, DecodeError> {
        match *self {
            Self::Beam(config) => return Ok(Box::new(Beam::try_new(config, scoring, inputs)?)),
            Self::CdToken(_) | Self::CdBlock(_) => return Err(unknown_method(self.method())),
            _ => {}
        }
        let config = BestOfNConfig {
            num_candidates: self.num_candidates(),
            sampling: self.sampling(),
            selection: self.selection(),
            scoring,
        };
        Ok(Box::new(BestOfN::try_new(config, inputs)?))
    }

    /// Name before the colon.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Sample { .. } => "sample",
            Self::Greedy => "greedy",
            Self::BestOfN { .. } => "bon",
            Self::WorstOfN { .. } => "won",
            Self::Majority { .. } => "majority",
            Self::Beam(_) => "beam",
            Self::CdToken(_) => "cd-token",
            Self::CdBlock(_) => "cd-block",
        }
    }

    /// Most candidates that the decoder finishes.
    pub fn num_candidates(&self) -> usize {
        match self {
            Self::Sample { .. } | Self::Greedy | Self::CdToken(_) => 1,
            Self::BestOfN { num_candidates, .. }
            | Self::WorstOfN { num_candidates, .. }
            | Self::Majority { num_candidates, .. } => *num_candidates,
            Self::Beam(config) => config.width,
            Self::CdBlock(config) => config.beams,
        }
    }

    /// The policy candidates are drawn from; beam search, which draws nothing, counts as greedy.
    pub fn sampling(&self) -> Sampling {
        match self {
            Self::Sample { sampling }
            | Self::BestOfN { sampling, .. }
            | Self::WorstOfN { sampling, .. }
            | Self::Majority { sampling, .. } => *sampling,
            Self::CdToken(config) => config.sampling,
            Self::CdBlock(config) => config.sampling,
            Self::Greedy | Self::Beam(_) => Sampling::GREEDY,
        }
    }

    /// The rule that chooses among the candidates.
    pub fn selection(&self) -> Selection {
        match self {
            Self::Sample { .. } | Self::Greedy | Self::Beam(_) | Self::CdToken(_) | Self::CdBlock(_) => {
                Selection::First
            }
            Self::BestOfN { .. } => Selection::Best,
            Self::WorstOfN { .. } => Selection::Worst,
            Self::Majority { answer, .. } => Selection::Majority(answer.clone()),
        }
    }

    /// Whether prefix scorers steer it.
    pub fn needs_scorers(&self) -> bool {
        matches!(self, Self::CdToken(_) | Self::CdBlock(_))
    }

    /// Whether the choice depends on rewards.
    pub fn needs_rewards(&self) -> bool {
        self.selection().needs_rewards()
    }
}

impl FromStr for DecodeSpec {
    type Err = DecodeError;

    fn from_str(text: &str) -> Result<Self, DecodeError> {
        let (method, entries) = text.split_once(':').unwrap_or((text, ""));
        match method {
            "sample" => parse_sample(entries),
            "greedy" => Options::parse("greedy", None, &[], entries).map(|_| Self::Greedy),
            "bon" => {
                let (num_candidates, sampling, _) = parse_drawn("bon", &[], entries)?;
                Ok(Self::BestOfN {
                    num_candidates,
                    sampling,
                })
            }
            "won" => {
                let (num_candidates, sampling, _) = parse_drawn("won", &[], entries)?;
                Ok(Self::WorstOfN {
                    num_candidates,
                    sampling,
                })
            }
            "majority" => parse_majority(entries),
            "beam" => parse_beam(entries),
            unknown => Err(unknown_method(unknown)),
        }
    }
}

const SAMPLING_OPTIONS: &[&str] = &["t", "top_k", "top_p", "min_p"];

fn parse_sample(entries: &str) -> Result<DecodeSpec, DecodeError> {
    let options = Options::parse("sample", None, SAMPLING_OPTIONS, entries)?;
    Ok(DecodeSpec::Sample {
        sampling: parse_sampling(&options)?,
    })
}

fn parse_sampling(options: &Options) -> Result<Sampling, DecodeError> {
    let sampling = Sampling {
        temperature: options.number("t", "a number that is at least 0")?.unwrap_or(1.0),
        top_k: options.number("top_k", "a whole number that is at least 1")?,
        top_p: options.number("top_p", "a number above 0 and at most 1")?,
        min_p: options.number("min_p", "a number that is at least 0 and below 1")?,
    };
    sampling.validate()?;
    Ok(sampling)
}

/// The part that all methods with N drawn candidates share.
fn parse_drawn<'a>(
    method: &'static str,
    own_options: &[&'static str],
    entries: &'a str,
) -> Result<(usize, Sampling, Options<'a>), DecodeError> {
    let known: Vec<&'static str> = ["n"]
        .iter()
        .chain(SAMPLING_OPTIONS)
        .chain(own_options)
        .copied()
        .collect();
    let options = Options::parse(method, Some("n"), &known, entries)?;
    let expected = format!(
        "a whole number from 1 to {} (as in {method}:16)",
        BestOfNConfig::MAX_CANDIDATES
    );
    let num_candidates = options.required("n", &expected)?;
    if num_candidates == 0 || num_candidates > BestOfNConfig::MAX_CANDIDATES {
        return Err(options.invalid("n", &expected, &num_candidates));
    }
    let sampling = parse_sampling(&options)?;
    Ok((num_candidates, sampling, options))
}

fn parse_majority(entries: &str) -> Result<DecodeSpec, DecodeError> {
    // A pattern may contain commas and equals signs, so it comes last and takes all that follows.
    let (entries, pattern) = match entries.find("pattern=") {
        Some(0) => ("", entries.strip_prefix("pattern=")),
        Some(start) if entries[..start].ends_with(',') => {
            (&entries[..start - 1], entries[start..].strip_prefix("pattern="))
        }
        _ => (entries, None),
    };
    let (num_candidates, sampling, options) = parse_drawn("majority", &["answer"], entries)?;
    let expected = "number, text, or pattern=REGEX in its place as the last entry";
    let answer = match (options.text("answer"), pattern) {
        (None | Some("number"), None) => AnswerExtractor::LastNumber,
        (Some("text"), None) => AnswerExtractor::Text,
        (None, Some(pattern)) => AnswerExtractor::pattern(pattern)?,
        (Some(got), _) => return Err(options.invalid("answer", expected, &got)),
    };
    Ok(DecodeSpec::Majority {
        num_candidates,
        sampling,
        answer,
    })
}

fn parse_beam(entries: &str) -> Result<DecodeSpec, DecodeError> {
    let options = Options::parse("beam", Some("width"), &["width", "length_power"], entries)?;
    let config = BeamConfig {
        width: options.required("width", "a whole number that is at least 1 (as in beam:4)")?,
        length_power: options
            .number("length_power", "a number that is at least 0")?
            .unwrap_or(0.0),
    };
    config.validate()?;
    Ok(DecodeSpec::Beam(config))
}

fn unknown_method(got: &str) -> DecodeError {
    let names: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
    DecodeError::UnknownMethod {
        got: got.to_owned(),
        known: names.join(", "),
        hint: crate::options::nearest_hint(got, &names),
    }
}

impl fmt::Display for DecodeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut entries = Vec::new();
        match self {
            Self::Sample { .. } | Self::Greedy => {}
            Self::BestOfN { num_candidates, .. }
            | Self::WorstOfN { num_candidates, .. }
            | Self::Majority { num_candidates, .. } => entries.push(("n", num_candidates.to_string())),
            Self::Beam(config) => entries.push(("width", config.width.to_string())),
            Self::CdToken(config) => entries.push(("weight", config.weight.to_string())),
            Self::CdBlock(config) => entries.push(("k", config.num_candidates.to_string())),
        }
        match self {
            Self::Greedy => {}
            Self::Beam(config) if config.length_power == 0.0 => {}
            Self::Beam(config) => entries.push(("length_power", config.length_power.to_string())),
            _ => push_sampling(&self.sampling(), &mut entries),
        }
        match self.selection() {
            Selection::Majority(AnswerExtractor::Text) => entries.push(("answer", "text".to_owned())),
            Selection::Majority(AnswerExtractor::Pattern(pattern)) => {
                entries.push(("pattern", pattern.as_str().to_owned()));
            }
            _ => {}
        }
        f.write_str(self.method())?;
        match entries.as_slice() {
            [] => Ok(()),
            [("n" | "width", value)] => write!(f, ":{value}"),
            entries => {
                let written: Vec<String> = entries
                    .iter()
                    .map(|(option, value)| format!("{option}={value}"))
                    .collect();
                write!(f, ":{}", written.join(","))
            }
        }
    }
}

fn push_sampling(sampling: &Sampling, entries: &mut Vec<(&'static str, String)>) {
    if sampling.temperature != 1.0 {
        entries.push(("t", sampling.temperature.to_string()));
    }
    entries.extend(sampling.top_k.map(|top_k| ("top_k", top_k.to_string())));
    entries.extend(sampling.top_p.map(|top_p| ("top_p", top_p.to_string())));
    entries.extend(sampling.min_p.map(|min_p| ("min_p", min_p.to_string())));
}

impl TryFrom<String> for DecodeSpec {
    type Error = DecodeError;

    fn try_from(text: String) -> Result<Self, DecodeError> {
        text.parse()
    }
}

impl From<DecodeSpec> for String {
    fn from(spec: DecodeSpec) -> Self {
        spec.to_string()
    }
}

#[cfg(test)]
mod tests;
