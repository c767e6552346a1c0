//! Procedures that can be measured, as users write them. Knows their names, not how they are computed.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use trimtab_decode::DecodeSpec;
use trimtab_eval::ChoiceOfN;
use trimtab_infalign::Procedure;

/// What is done at inference, on both sides.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum EvalProcedure {
    /// The best of so many samples by the reward; one sample for 1.
    Best(usize),
    /// The worst of so many, more than one.
    Worst(usize),
    /// Blockwise control.
    Blocks(DecodeSpec),
}

impl EvalProcedure {
    /// One response as it is.
    pub(super) const SAMPLE: Self = Self::Best(1);

    /// Samples of one side that it needs.
    pub(super) fn num_samples(&self) -> usize {
        match self {
            Self::Best(n) | Self::Worst(n) => *n,
            Self::Blocks(_) => 0,
        }
    }

    /// Whether a scorer decides, which no set of samples gives.
    pub(super) fn is_steered(&self) -> bool {
        matches!(self, Self::Blocks(_))
    }

    /// The choice among samples that it is; `None` for what samples cannot give.
    pub(super) fn choice(&self) -> Option<ChoiceOfN> {
        let num = |n: usize| u32::try_from(n).ok();
        match self {
            Self::Best(n) => num(*n).map(ChoiceOfN::Best),
            Self::Worst(n) => num(*n).map(ChoiceOfN::Worst),
            Self::Blocks(_) => None,
        }
    }
}

impl FromStr for EvalProcedure {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.starts_with("cd-block") {
            return Ok(Self::Blocks(text.parse()?));
        }
        match text.parse::<Procedure>()? {
            // The worst of one is that one.
            Procedure::Sample | Procedure::WorstOf { n: 1 } => Ok(Self::Best(1)),
            Procedure::BestOf { n } => Ok(Self::Best(n as usize)),
            Procedure::WorstOf { n } => Ok(Self::Worst(n as usize)),
            other => bail!(
                "procedure {other} is known to trimtab analyze alone; expected sample, bon:N, won:N or cd-block:k=K,m=M"
            ),
        }
    }
}

impl fmt::Display for EvalProcedure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Best(1) => f.write_str("sample"),
            Self::Best(n) => write!(f, "bon:{n}"),
            Self::Worst(n) => write!(f, "won:{n}"),
            Self::Blocks(spec) => write!(f, "{spec}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn procedures_are_named_as_everywhere() {
        let again = |text: &str| text.parse::<EvalProcedure>().unwrap().to_string();
        assert_eq!(again("sample"), "sample");
        assert_eq!(again("bon:1"), "sample");
        assert_eq!(again(" won:4"), "won:4");
        assert_eq!(again("won:1"), "sample");
        assert_eq!(again("cd-block:k=4,m=16"), "cd-block:k=4,m=16");
        let bad = |text: &str| text.parse::<EvalProcedure>().unwrap_err().to_string();
        assert!(bad("rewind:0.9").contains("analyze"));
        assert!(bad("beam:4").contains("sample"));
    }
}
