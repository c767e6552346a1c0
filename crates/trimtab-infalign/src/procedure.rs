//! Inference-time procedures as users write them and as weights on the policy's own quantiles. Knows no transform.
//!
//! A *calibrated* procedure `T` turns a policy into `T(pi)(y) = pi(y) g(q) / Z` where `q` is the quantile of the
//! response's reward among the policy's own responses (InfAlign B4). Its distribution function in `q` is
//! `G(q) = int_0^q g / int_0^1 g`; applied to a policy whose distribution function in the reference's quantiles is `F`,
//! the outcome has `G(F(u))`, applied to the reference `G(u)`.
//!
//! | text | `g(q)` | what it does |
//! |---|---|---|
//! | `sample` | 1 | one draw: the standard win rate |
//! | `bon:N` | `N q^(N-1)` | the best of N draws |
//! | `won:N` | `N (1-q)^(N-1)` | the worst of N draws: a jailbreak that tries N times |
//! | `rewind:PHI` | 1 where `q >= PHI`, else 0 | draw again until the reward is among the policy's top `1 - PHI` |
//! | `weight:FILE` | lines between the points of the file | a black box, known by what it accepts |

use std::fmt;
use std::str::FromStr;

use serde_with::{DeserializeFromStr, SerializeDisplay};

use crate::error::InfalignError;
use crate::table::{NamedTable, Table};
use crate::transform::{forms, parse_setting};

/// Every procedure: its form and its meaning, for help texts.
pub const PROCEDURES: &[(&str, &str)] = &[
    ("sample", "one response; its win rate is the standard one"),
    ("bon:N", "the best of N responses"),
    (
        "won:N",
        "the worst of N responses: a jailbreak that tries N times",
    ),
    (
        "rewind:PHI",
        "draw again until the reward is in the policy's own top 1-PHI",
    ),
    (
        "weight:FILE",
        "a black box by its acceptance weight: points `q g` of a file, q the quantile among the policy's responses",
    ),
];

/// Greatest N.
const MAX_CANDIDATES: u32 = 1 << 20;

/// What happens to a policy at inference; text in configurations and on the command line, see the module.
#[derive(Debug, Clone, PartialEq, SerializeDisplay, DeserializeFromStr)]
pub enum Procedure {
    /// One draw.
    Sample,
    /// The best of n draws.
    BestOf {
        /// At least 1.
        n: u32,
    },
    /// The worst of n draws.
    WorstOf {
        /// At least 1.
        n: u32,
    },
    /// Draw until the policy's quantile is at least the threshold.
    Rewind {
        /// In `[0, 1)`.
        threshold: f64,
    },
    /// Accept in proportion to a weight on the policy's quantiles.
    Weight(NamedTable),
}

impl Procedure {
    /// The file whose text [`Self::with_table`] has to be given, if the procedure is a table that was not read yet.
    pub fn unread_table(&self) -> Option<&str> {
        match self {
            Self::Weight(named) if named.table.is_none() => Some(&named.name),
            _ => None,
        }
    }

    /// The procedure with its table read from `text`; itself if it is none.
    ///
    /// # Errors
    /// [`InfalignError::Table`] if that is no table, has a negative weight, or none that is positive.
    pub fn with_table(self, text: &str) -> Result<Self, InfalignError> {
        let Self::Weight(named) = self else {
            return Ok(self);
        };
        let table = Table::parse(&named.name, text)?;
        Self::of_weights(&named.name, table)
    }

    /// A black box by its weights.
    ///
    /// # Errors
    /// [`InfalignError::Table`] if a weight is negative, or none is positive.
    pub fn of_weights(name: &str, table: Table) -> Result<Self, InfalignError> {
        let fault = |problem: String| InfalignError::Table {
            name: name.to_owned(),
            line: 0,
            problem,
        };
        if let Some(idx) = table.values().iter().position(|&weight| weight < 0.0) {
            let (weight, level) = (table.values()[idx], table.levels()[idx]);
            return Err(fault(format!(
                "expected weights of at least 0, got {weight} at {level}"
            )));
        }
        if table.values().iter().all(|&weight| weight == 0.0) {
            return Err(fault("expected a positive weight somewhere".to_owned()));
        }
        Ok(Self::Weight(NamedTable {
            name: name.to_owned(),
            table: Some(table),
        }))
    }

    /// The procedure as functions.
    ///
    /// # Errors
    /// [`InfalignError::TableNotRead`].
    pub fn prepare(&self) -> Result<PreparedProcedure, InfalignError> {
        let form = match self {
            Self::Sample => Form::Best(1.0),
            Self::BestOf { n } => Form::Best(f64::from(*n)),
            Self::WorstOf { n } => Form::Worst(f64::from(*n)),
            Self::Rewind { threshold } => Form::Above(*threshold),
            Self::Weight(named) => Form::weights(named.content()?.clone()),
        };
        Ok(PreparedProcedure { form })
    }
}

/// A procedure as functions of the policy's quantile `q` in `[0, 1]`; made by [`Procedure::prepare`].
#[derive(Debug, Clone)]
pub struct PreparedProcedure {
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    /// Best of so many.
    Best(f64),
    /// Worst of so many.
    Worst(f64),
    /// Above a threshold.
    Above(f64),
    /// By weights that integrate to 1, with the integral up to each point.
    Weights { table: Table, cumulative: Vec<f64> },
}

impl Form {
    fn weights(table: Table) -> Self {
        let areas = table
            .levels()
            .windows(2)
            .zip(table.values().windows(2))
            .map(|(levels, values)| (levels[1] - levels[0]) * f64::midpoint(values[0], values[1]));
        let mut cumulative = vec![0.0];
        let mut total = 0.0;
        for area in areas {
            total += area;
            cumulative.push(total);
        }
        Self::Weights { table, cumulative }
    }
}

impl PreparedProcedure {
    /// `g(q)`, scaled to integrate to 1.
    pub fn weight(&self, q: f64) -> f64 {
        match &self.form {
            Form::Best(n) => n * q.powf(n - 1.0),
            Form::Worst(n) => n * (1.0 - q).powf(n - 1.0),
            Form::Above(threshold) => {
                if q >= *threshold {
                    (1.0 - threshold).recip()
                } else {
                    0.0
                }
            }
            Form::Weights { table, cumulative } => table.at(q) / cumulative[cumulative.len() - 1],
        }
    }

    /// `G(q)`, from 0 to 1.
    pub fn cumulative(&self, q: f64) -> f64 {
        let q = q.clamp(0.0, 1.0);
        match &self.form {
            Form::Best(n) => q.powf(*n),
            // 1 - (1-q)^n without cancellation.
            Form::Worst(n) => -(n * (-q).ln_1p()).exp_m1(),
            Form::Above(threshold) => ((q - threshold) / (1.0 - threshold)).max(0.0),
            Form::Weights { table, cumulative } => {
                let levels = table.levels();
                let next = levels
                    .partition_point(|&level| level <= q)
                    .clamp(1, levels.len() - 1);
                let width = q - levels[next - 1];
                let area = width * f64::midpoint(table.values()[next - 1], table.at(q));
                (cumulative[next - 1] + area) / cumulative[cumulative.len() - 1]
            }
        }
    }

    /// Quantiles at which the weight has a step or a corner.
    pub(crate) fn corners(&self) -> &[f64] {
        match &self.form {
            Form::Best(_) | Form::Worst(_) => &[],
            Form::Above(threshold) => std::slice::from_ref(threshold),
            Form::Weights { table, .. } => table.levels(),
        }
    }
}

impl FromStr for Procedure {
    type Err = InfalignError;

    fn from_str(text: &str) -> Result<Self, InfalignError> {
        let (name, setting) = match text.trim().split_once(':') {
            Some((name, setting)) => (name, Some(setting.trim())),
            None => (text.trim(), None),
        };
        let candidates = |setting| {
            parse_setting(name, "a whole number from 1 to 1048576", setting, |&n| {
                (1..=MAX_CANDIDATES).contains(&n)
            })
        };
        match (name, setting) {
            ("sample", None) => Ok(Self::Sample),
            ("bon", Some(setting)) => candidates(setting).map(|n| Self::BestOf { n }),
            ("won", Some(setting)) => candidates(setting).map(|n| Self::WorstOf { n }),
            ("rewind", Some(setting)) => {
                let in_range = |threshold: &f64| (0.0..1.0).contains(threshold);
                parse_setting(name, "a number from 0 to below 1", setting, in_range)
                    .map(|threshold| Self::Rewind { threshold })
            }
            ("weight", Some(file)) if !file.is_empty() => Ok(Self::Weight(NamedTable::unread(file))),
            _ => Err(InfalignError::Unknown {
                what: "procedure",
                text: text.to_owned(),
                known: forms(PROCEDURES),
            }),
        }
    }
}

impl fmt::Display for Procedure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sample => f.write_str("sample"),
            Self::BestOf { n } => write!(f, "bon:{n}"),
            Self::WorstOf { n } => write!(f, "won:{n}"),
            Self::Rewind { threshold } => write!(f, "rewind:{threshold}"),
            Self::Weight(named) => write!(f, "weight:{}", named.name),
        }
    }
}

#[cfg(test)]
mod tests;
