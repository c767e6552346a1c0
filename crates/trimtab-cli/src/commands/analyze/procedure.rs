//! Procedures and transforms as typed, with the files they name read. Knows texts and files, integrates nothing.

use std::path::Path;

use anyhow::{Context, Result, bail};
use trimtab_base::Seed;
use trimtab_infalign::{
    Analysis, Density, InfalignError, Procedure, SIMULATED_PROCEDURES, Simulated, Transform, analyze,
    simulated_win_rate,
};

use crate::args::SimulationArgs;

/// Largest file of a table; ten thousand points fit well.
const MAX_TABLE_BYTES: u64 = 4 << 20;

/// A procedure with a formula, or one that is simulated.
#[derive(Debug)]
pub(super) enum AnyProcedure {
    Formula(Procedure),
    Simulation(Simulated),
}

impl AnyProcedure {
    pub(super) fn read(text: &str) -> Result<Self> {
        let is_simulated = |form: &str| form.split(':').next() == text.trim().split(':').next();
        if SIMULATED_PROCEDURES.iter().any(|(form, _)| is_simulated(form)) {
            return Ok(Self::Simulation(text.parse::<Simulated>()?));
        }
        let procedure: Procedure = text.parse().map_err(|error| match error {
            InfalignError::Unknown { what, text, known } => InfalignError::Unknown {
                what,
                text,
                known: format!("{known}, or by simulation {}", simulated_forms()),
            },
            other => other,
        })?;
        Ok(Self::Formula(match procedure.unread_table().map(read_table) {
            Some(table) => procedure.with_table(&table?)?,
            None => procedure,
        }))
    }

    /// The analysis of a policy, and the standard error of its win rate if that is simulated.
    pub(super) fn analyze(
        &self,
        policy: &Density,
        simulation: SimulationArgs,
    ) -> Result<(Analysis, Option<f64>), InfalignError> {
        match self {
            Self::Formula(procedure) => Ok((analyze(policy, procedure)?, None)),
            Self::Simulation(procedure) => {
                let seed = Seed(simulation.seed);
                let simulated = simulated_win_rate(policy, procedure, simulation.outcomes, seed);
                let analysis = Analysis::with_win_rate(procedure.to_string(), policy, simulated.win_rate);
                Ok((analysis, Some(simulated.standard_error)))
            }
        }
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::Formula(procedure) => procedure.to_string(),
            Self::Simulation(procedure) => procedure.to_string(),
        }
    }
}

fn simulated_forms() -> String {
    let forms: Vec<&str> = SIMULATED_PROCEDURES.iter().map(|(form, _)| *form).collect();
    forms.join(", ")
}

/// A transform with its table.
pub(super) fn read_transform(text: &str) -> Result<Transform> {
    let transform: Transform = text.parse()?;
    Ok(match transform.unread_table().map(read_table) {
        Some(table) => transform.with_table(&table?)?,
        None => transform,
    })
}

/// Splits values at commas, except before a number that goes on with the value before it (`majority:8,4`).
pub(super) fn split_list(values: &[String]) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    for value in values {
        for (place, part) in value.split(',').enumerate() {
            let part = part.trim();
            let goes_on = place > 0 && part.starts_with(|first: char| first.is_ascii_digit() || first == '.');
            match items.last_mut() {
                Some(last) if goes_on => {
                    last.push(',');
                    last.push_str(part);
                }
                _ => items.push(part.to_owned()),
            }
        }
    }
    items
}

fn read_table(file: &str) -> Result<String> {
    let path = Path::new(file);
    let size = std::fs::metadata(path)
        .with_context(|| format!("table {file}"))?
        .len();
    if size > MAX_TABLE_BYTES {
        bail!("table {file} has {size} bytes, expected at most {MAX_TABLE_BYTES}: thin out its points");
    }
    std::fs::read_to_string(path).with_context(|| format!("table {file}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_at_commas_but_not_inside_a_value() {
        let check = |values: &[&str], expect: &[&str]| {
            let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            assert_eq!(split_list(&values), expect);
        };
        check(&["bon:4"], &["bon:4"]);
        check(&["bon:4,won:4, sample"], &["bon:4", "won:4", "sample"]);
        check(
            &["majority:8,4,bon:2", "retry:.9,.5"],
            &["majority:8,4", "bon:2", "retry:.9,.5"],
        );
        check(&["exp:-10,exp:5"], &["exp:-10", "exp:5"]);
    }

    #[test]
    fn procedures_that_are_none_say_which_there_are() {
        let error = AnyProcedure::read("best:4").unwrap_err().to_string();
        assert!(
            error.contains("bon:N") && error.contains("cd-block:K,B"),
            "{error}"
        );
        let error = AnyProcedure::read("cd-block:4").unwrap_err().to_string();
        assert!(error.contains("cd-block:K,B"), "{error}");
        let error = format!("{:#}", AnyProcedure::read("weight:/absent.csv").unwrap_err());
        assert!(error.contains("table /absent.csv"), "{error}");
    }
}
