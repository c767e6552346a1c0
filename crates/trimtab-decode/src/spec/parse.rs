//! Reading of decoding methods, one function a method. Knows the grammar, not how a method decodes.

use std::str::FromStr;

use super::{DecodeSpec, METHODS};
use crate::DecodeError;
use crate::answer::AnswerExtractor;
use crate::beam::BeamConfig;
use crate::best_of_n::BestOfNConfig;
use crate::cd_block::{BlockChoice, BlockEnd, CdBlockConfig};
use crate::cd_token::CdTokenConfig;
use crate::options::Options;
use crate::sampling::Sampling;

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
            "cd-token" => parse_cd_token(entries),
            "cd-block" => parse_cd_block(entries),
            unknown => Err(unknown_method(unknown)),
        }
    }
}

const SAMPLING_OPTIONS: &[&str] = &["t", "top_k", "top_p", "min_p"];

/// A method's own options and those of sampling.
fn with_sampling(own_options: &[&'static str]) -> Vec<&'static str> {
    own_options.iter().chain(SAMPLING_OPTIONS).copied().collect()
}

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
    let known: Vec<&'static str> = [&["n"], SAMPLING_OPTIONS, own_options].concat();
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

fn parse_cd_token(entries: &str) -> Result<DecodeSpec, DecodeError> {
    let options = Options::parse("cd-token", Some("weight"), &with_sampling(&["weight"]), entries)?;
    let config = CdTokenConfig {
        weight: options.required(
            "weight",
            "a finite number (as in cd-token:weight=4; 0 is plain sampling)",
        )?,
        sampling: parse_sampling(&options)?,
    };
    config.validate()?;
    Ok(DecodeSpec::CdToken(config))
}

fn parse_cd_block(entries: &str) -> Result<DecodeSpec, DecodeError> {
    let known = with_sampling(&[
        "k", "m", "beams", "choose", "temp", "end", "target", "budget", "audit",
    ]);
    let options = Options::parse("cd-block", None, &known, entries)?;
    let whole_number = "a whole number that is at least 1";
    let config = CdBlockConfig {
        num_candidates: options
            .required("k", "a whole number that is at least 1 (as in cd-block:k=6,m=16)")?,
        block_len: parse_block_len(&options)?,
        beams: options.number("beams", whole_number)?.unwrap_or(1),
        choice: parse_choice(&options)?,
        block_end: match options.text("end") {
            None => BlockEnd::Tokens,
            Some("newline") => BlockEnd::Newline,
            Some("sentence") => BlockEnd::Sentence,
            Some(got) => return Err(options.invalid("end", "newline, sentence, or to be left out", &got)),
        },
        target: options.number("target", "a finite number, in the unit of the values")?,
        token_budget: options.number("budget", whole_number)?,
        audit: options
            .number("audit", "a whole number (0, no estimate, if left out)")?
            .unwrap_or(0),
        sampling: parse_sampling(&options)?,
    };
    config.validate()?;
    Ok(DecodeSpec::CdBlock(config))
}

fn parse_block_len(options: &Options) -> Result<Option<usize>, DecodeError> {
    if options.text("m") == Some("whole") {
        return Ok(None);
    }
    let expected = "a whole number that is at least 1, or whole (as in cd-block:k=6,m=16)";
    options.required("m", expected).map(Some)
}

fn parse_choice(options: &Options) -> Result<BlockChoice, DecodeError> {
    let temperature = options.number("temp", "a number above 0")?;
    match (options.text("choose"), temperature) {
        (None | Some("best"), None) => Ok(BlockChoice::Best),
        (Some("proportional"), temperature) => Ok(BlockChoice::Proportional {
            temperature: temperature.unwrap_or(1.0),
        }),
        (None | Some("best"), Some(temperature)) => {
            let expected =
                "to be left out, or choose=proportional with it (t is the temperature of sampling)";
            Err(options.invalid("temp", expected, &temperature))
        }
        (Some(got), _) => Err(options.invalid("choose", "best or proportional", &got)),
    }
}

fn unknown_method(got: &str) -> DecodeError {
    let names: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
    DecodeError::UnknownMethod {
        got: got.to_owned(),
        known: names.join(", "),
        hint: crate::options::nearest_hint(got, &names),
    }
}
