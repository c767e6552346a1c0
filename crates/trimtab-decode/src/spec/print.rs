//! Writing of decoding methods: the shortest text that reads back as the same value. Knows the grammar alone.

use std::fmt;

use super::DecodeSpec;
use crate::answer::AnswerExtractor;
use crate::cd_block::{BlockChoice, BlockEnd, CdBlockConfig};
use crate::sampling::Sampling;
use crate::selection::Selection;

type Entries = Vec<(&'static str, String)>;

impl fmt::Display for DecodeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut entries = Vec::new();
        push_own(self, &mut entries);
        match self {
            Self::Greedy | Self::Beam(_) => {}
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
            [("n" | "width" | "weight", value)] => write!(f, ":{value}"),
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

/// What comes before the options of sampling.
fn push_own(spec: &DecodeSpec, entries: &mut Entries) {
    match spec {
        DecodeSpec::Sample { .. } | DecodeSpec::Greedy => {}
        DecodeSpec::BestOfN { num_candidates, .. }
        | DecodeSpec::WorstOfN { num_candidates, .. }
        | DecodeSpec::Majority { num_candidates, .. } => entries.push(("n", num_candidates.to_string())),
        DecodeSpec::Beam(config) => {
            entries.push(("width", config.width.to_string()));
            if config.length_power != 0.0 {
                entries.push(("length_power", config.length_power.to_string()));
            }
        }
        DecodeSpec::CdToken(config) => entries.push(("weight", config.weight.to_string())),
        DecodeSpec::CdBlock(config) => push_cd_block(config, entries),
    }
}

fn push_cd_block(config: &CdBlockConfig, entries: &mut Entries) {
    entries.push(("k", config.num_candidates.to_string()));
    let block_len = config.block_len.map_or("whole".to_owned(), |len| len.to_string());
    entries.push(("m", block_len));
    if config.beams != 1 {
        entries.push(("beams", config.beams.to_string()));
    }
    if let BlockChoice::Proportional { temperature } = config.choice {
        entries.push(("choose", "proportional".to_owned()));
        if temperature != 1.0 {
            entries.push(("temp", temperature.to_string()));
        }
    }
    match config.block_end {
        BlockEnd::Tokens => {}
        BlockEnd::Newline => entries.push(("end", "newline".to_owned())),
        BlockEnd::Sentence => entries.push(("end", "sentence".to_owned())),
    }
    entries.extend(config.target.map(|target| ("target", target.to_string())));
    entries.extend(config.token_budget.map(|budget| ("budget", budget.to_string())));
    if config.audit != 0 {
        entries.push(("audit", config.audit.to_string()));
    }
}

fn push_sampling(sampling: &Sampling, entries: &mut Entries) {
    if sampling.temperature != 1.0 {
        entries.push(("t", sampling.temperature.to_string()));
    }
    entries.extend(sampling.top_k.map(|top_k| ("top_k", top_k.to_string())));
    entries.extend(sampling.top_p.map(|top_p| ("top_p", top_p.to_string())));
    entries.extend(sampling.min_p.map(|min_p| ("min_p", min_p.to_string())));
}
