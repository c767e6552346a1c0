//! Transforms of the calibrated reward, as users write them and as functions. Knows no procedure and no file.
//!
//! | text | `Phi(u)`, `u` the calibrated reward | meaning |
//! |---|---|---|
//! | `identity` | `u` | optimal for the standard win rate; the objective of IPO |
//! | `log` | `log u` | best-of-N distillation with `N = 1/beta + 1` |
//! | `exp:T`, `T > 0` | `exp(T (u - 1))` | stresses high quantiles: for best-of-N |
//! | `exp:T`, `T < 0` | `-exp(T u)` | stresses low quantiles: for worst-of-N |
//! | `power:P` | `u^P` | as `exp`, optimal for best-of-N in the limit of small KL with `P = 2N - 1` |
//! | `bon_fp:N` | `-N^2 int_u^1 F^(N-1) v^(N-1) dv` | the optimum for best-of-N; depends on beta |
//! | `won_fp:N` | `-N^2 int_u^1 (1-F)^(N-1) (1-v)^(N-1) dv` | stationary for worst-of-N; depends on beta |
//! | `table:FILE` | lines between the points of the file | your own |
//!
//! `exp:T` with `T > 0` is `exp(T u)` divided by `exp(T)`: the same policies at a beta smaller by that factor, and no
//! overflow. `F` is the distribution function of the policy itself, so the fixed points are fixed points.

use std::fmt;
use std::str::FromStr;

use serde_with::{DeserializeFromStr, SerializeDisplay};

use crate::error::InfalignError;
use crate::fixed_point::{Certificate, Choice, FixedPoint};
use crate::table::{NamedTable, Table};

/// Every transform: its form and its meaning, for help texts.
pub const TRANSFORMS: &[(&str, &str)] = &[
    ("identity", "u: best for the standard win rate"),
    ("log", "log u: distils best-of-N, N = 1/beta + 1"),
    (
        "exp:T",
        "e^(T(u-1)) for T > 0: for best-of-N; -e^(Tu) for T < 0: for worst-of-N",
    ),
    ("power:P", "u^P: for best-of-N with P near 2N-1, at small KL"),
    ("bon_fp:N", "the optimum for best-of-N, depends on beta"),
    ("won_fp:N", "stationary for worst-of-N, depends on beta"),
    ("table:FILE", "lines between the points `u value` of a file"),
];

/// Greatest `|t|` of `exp:t`.
const MAX_EXPONENT: f64 = 500.0;
/// Greatest `p` of `power:p`.
const MAX_POWER: f64 = 1000.0;
/// Greatest N of fixed points.
const MAX_CANDIDATES: u32 = 1024;
/// Samples that `log` assumes where it is not told: its least value is that of half a sample.
const DEFAULT_NUM_SAMPLES: usize = 100;

/// A transform of the calibrated reward; text in configurations and on the command line, see the module.
#[derive(Debug, Clone, PartialEq, SerializeDisplay, DeserializeFromStr)]
pub enum Transform {
    /// `u`.
    Identity,
    /// `log u`.
    Log,
    /// `exp(t (u - 1))` for positive t, `-exp(t u)` for negative.
    Exp {
        /// Not zero, up to 500 in size.
        t: f64,
    },
    /// `u^p`.
    Power {
        /// Positive, up to 1000.
        p: f64,
    },
    /// The optimum for best-of-n.
    BonFixedPoint {
        /// Candidates, 1 to 1024.
        n: u32,
    },
    /// Stationary for worst-of-n.
    WonFixedPoint {
        /// Candidates, 1 to 1024.
        n: u32,
    },
    /// Linear between given points; the values must not fall.
    Table(NamedTable),
}

impl Transform {
    /// The file whose text [`Self::with_table`] has to be given, if the transform is a table that was not read yet.
    pub fn unread_table(&self) -> Option<&str> {
        match self {
            Self::Table(named) if named.table.is_none() => Some(&named.name),
            _ => None,
        }
    }

    /// The transform with its table read from `text`; itself if it is none.
    ///
    /// # Errors
    /// [`InfalignError::Table`] if that is no table, or one whose values fall.
    pub fn with_table(self, text: &str) -> Result<Self, InfalignError> {
        let Self::Table(named) = self else {
            return Ok(self);
        };
        let table = Table::parse(&named.name, text)?;
        if let Some(idx) = table.values().windows(2).position(|pair| pair[1] < pair[0]) {
            return Err(InfalignError::Table {
                name: named.name,
                line: 0,
                problem: format!(
                    "expected values that do not fall, got {} at u = {} after {}: it would train for worse responses",
                    table.values()[idx + 1],
                    table.levels()[idx + 1],
                    table.values()[idx]
                ),
            });
        }
        Ok(Self::Table(NamedTable {
            name: named.name,
            table: Some(table),
        }))
    }

    /// Whether the transform is another one at another beta.
    pub fn depends_on_beta(&self) -> bool {
        matches!(self, Self::BonFixedPoint { .. } | Self::WonFixedPoint { .. })
    }

    /// The transform as a function, for training or analysis with KL weight `beta` (in units of the transformed reward).
    ///
    /// Fixed points are solved here; all others ignore beta.
    ///
    /// # Errors
    /// [`InfalignError::OutOfRange`] for a beta that is not positive and finite, [`InfalignError::TableNotRead`],
    /// [`InfalignError::NotConverged`].
    pub fn prepare(&self, beta: f64) -> Result<PreparedTransform, InfalignError> {
        self.prepare_from(beta, None)
    }

    /// The same, with a fixed point's iteration starting from that at a neighbouring beta.
    pub(crate) fn prepare_from(
        &self,
        beta: f64,
        neighbour: Option<&PreparedTransform>,
    ) -> Result<PreparedTransform, InfalignError> {
        if !(beta.is_finite() && beta > 0.0) {
            return Err(InfalignError::OutOfRange {
                what: "beta",
                value: beta,
                expected: "a positive number",
            });
        }
        let start = neighbour
            .filter(|prepared| prepared.transform == *self)
            .and_then(|prepared| prepared.solved.as_ref());
        let solved = match self {
            Self::BonFixedPoint { n } => Some(FixedPoint::solve(Choice::BestOf(*n), beta, start)?),
            Self::WonFixedPoint { n } => Some(FixedPoint::solve(Choice::WorstOf(*n), beta, start)?),
            Self::Table(named) => named.content().map(|_| None)?,
            _ => None,
        };
        Ok(PreparedTransform {
            transform: self.clone(),
            solved,
            least_level: least_level(DEFAULT_NUM_SAMPLES),
        })
    }
}

/// A transform as a function of the calibrated reward; made by [`Transform::prepare`].
#[derive(Debug, Clone)]
pub struct PreparedTransform {
    transform: Transform,
    solved: Option<FixedPoint>,
    /// Below this, `log` does not fall further in [`Self::transformed_reward`].
    least_level: f64,
}

impl PreparedTransform {
    /// The same for calibrated rewards that were estimated from `num_samples` responses of the reference. It matters to
    /// `log` alone, see [`Self::transformed_reward`].
    #[must_use]
    pub fn for_samples(mut self, num_samples: usize) -> Self {
        self.least_level = least_level(num_samples);
        self
    }

    /// `Phi` of an *estimated* calibrated reward, always finite: what a policy is trained on.
    ///
    /// `log` is clipped at half a sample, `log(1 / (2K))`: a response worse than all K samples has the estimate 0, which
    /// stands for anything below `1/K`. K is 100 unless [`Self::for_samples`] says otherwise.
    pub fn transformed_reward(&self, calibrated_reward: f64) -> f64 {
        let u = calibrated_reward.clamp(0.0, 1.0);
        match self.transform {
            Transform::Log => u.max(self.least_level).ln(),
            _ => self.value(u),
        }
    }

    /// `Phi(u)` on the idealised continuous model, `u` in `[0, 1]`; minus infinity for `log` at 0.
    pub fn value(&self, u: f64) -> f64 {
        match &self.transform {
            Transform::Identity => u,
            Transform::Log => u.ln(),
            Transform::Exp { t } if *t > 0.0 => (t * (u - 1.0)).exp(),
            Transform::Exp { t } => -(t * u).exp(),
            Transform::Power { p } => u.powf(*p),
            Transform::BonFixedPoint { .. } | Transform::WonFixedPoint { .. } => {
                self.solved.as_ref().map_or(f64::NAN, |solved| solved.value(u))
            }
            Transform::Table(named) => named.table.as_ref().map_or(f64::NAN, |table| table.at(u)),
        }
    }

    /// `Phi(u) - Phi(1)`, without cancellation near 1 where that matters.
    pub(crate) fn below_top(&self, u: f64) -> f64 {
        match &self.transform {
            Transform::Identity => u - 1.0,
            Transform::Exp { t } if *t > 0.0 => (t * (u - 1.0)).exp_m1(),
            Transform::Exp { t } => -t.exp() * (t * (u - 1.0)).exp_m1(),
            Transform::Power { p } => (p * u.ln()).exp_m1(),
            _ => self.value(u) - self.value(1.0),
        }
    }

    /// Which transform this is.
    pub fn transform(&self) -> &Transform {
        &self.transform
    }

    /// How well a fixed point satisfies its equation; `None` for other transforms.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.solved.as_ref().map(FixedPoint::certificate)
    }

    /// Places inside `(0, 1)` where the function has a corner.
    pub(crate) fn corners(&self) -> &[f64] {
        match &self.transform {
            Transform::Table(named) => named.table.as_ref().map_or(&[], Table::levels),
            _ => &[],
        }
    }
}

/// The calibrated reward that half a sample stands for.
fn least_level(num_samples: usize) -> f64 {
    0.5 / num_samples.max(1) as f64
}

impl FromStr for Transform {
    type Err = InfalignError;

    fn from_str(text: &str) -> Result<Self, InfalignError> {
        let (name, setting) = match text.trim().split_once(':') {
            Some((name, setting)) => (name, Some(setting.trim())),
            None => (text.trim(), None),
        };
        let candidates = |setting| {
            parse_setting(name, "a whole number from 1 to 1024", setting, |&n| {
                (1..=MAX_CANDIDATES).contains(&n)
            })
        };
        match (name, setting) {
            ("identity", None) => Ok(Self::Identity),
            ("log", None) => Ok(Self::Log),
            ("exp", Some(setting)) => {
                let in_range = |t: &f64| t.abs() <= MAX_EXPONENT && *t != 0.0;
                parse_setting(name, "a number from -500 to 500 that is not 0", setting, in_range)
                    .map(|t| Self::Exp { t })
            }
            ("power", Some(setting)) => {
                let in_range = |p: &f64| *p > 0.0 && *p <= MAX_POWER;
                parse_setting(name, "a positive number up to 1000", setting, in_range)
                    .map(|p| Self::Power { p })
            }
            ("bon_fp", Some(setting)) => candidates(setting).map(|n| Self::BonFixedPoint { n }),
            ("won_fp", Some(setting)) => candidates(setting).map(|n| Self::WonFixedPoint { n }),
            ("table", Some(file)) if !file.is_empty() => Ok(Self::Table(NamedTable::unread(file))),
            _ => Err(InfalignError::Unknown {
                what: "transform",
                text: text.to_owned(),
                known: forms(TRANSFORMS),
            }),
        }
    }
}

/// The number after a name's colon, if it is in range.
pub(crate) fn parse_setting<T: FromStr>(
    name: &str,
    expected: &'static str,
    setting: &str,
    in_range: impl Fn(&T) -> bool,
) -> Result<T, InfalignError> {
    setting
        .parse::<T>()
        .ok()
        .filter(in_range)
        .ok_or_else(|| InfalignError::BadSetting {
            what: name.to_owned(),
            expected,
            text: setting.to_owned(),
        })
}

/// The forms of a table of help, in one line.
pub(crate) fn forms(help: &[(&str, &str)]) -> String {
    let forms: Vec<&str> = help.iter().map(|(form, _)| *form).collect();
    forms.join(", ")
}

impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity => f.write_str("identity"),
            Self::Log => f.write_str("log"),
            Self::Exp { t } => write!(f, "exp:{t}"),
            Self::Power { p } => write!(f, "power:{p}"),
            Self::BonFixedPoint { n } => write!(f, "bon_fp:{n}"),
            Self::WonFixedPoint { n } => write!(f, "won_fp:{n}"),
            Self::Table(named) => write!(f, "table:{}", named.name),
        }
    }
}

#[cfg(test)]
mod tests;
