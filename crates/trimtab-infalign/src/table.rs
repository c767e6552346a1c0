//! Functions on `[0, 1]` given by points, linear between them. Knows text, opens no file.

use crate::error::InfalignError;

/// Most points a table may have; each is a corner that quadrature has to respect.
const MAX_POINTS: usize = 10_000;

/// A piecewise linear function on `[0, 1]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Ascending from 0 to 1.
    levels: Vec<f64>,
    /// Value at each level.
    values: Vec<f64>,
}

impl Table {
    /// A table of `(u, value)`, ascending in `u` from 0 to 1, at least two of them.
    ///
    /// # Errors
    /// [`InfalignError::Table`] naming the offending point (by its number, from 1).
    pub fn try_new(name: &str, points: &[(f64, f64)]) -> Result<Self, InfalignError> {
        let fault = |line: usize, problem: String| InfalignError::Table {
            name: name.to_owned(),
            line,
            problem,
        };
        if points.len() < 2 || points.len() > MAX_POINTS {
            return Err(fault(
                0,
                format!("expected 2 to {MAX_POINTS} points, got {}", points.len()),
            ));
        }
        for (idx, &(level, value)) in points.iter().enumerate() {
            if !level.is_finite() || !value.is_finite() {
                return Err(fault(
                    idx + 1,
                    format!("expected two finite numbers, got {level} and {value}"),
                ));
            }
            if idx > 0 && level <= points[idx - 1].0 {
                return Err(fault(
                    idx + 1,
                    format!("expected rising u, got {level} after {}", points[idx - 1].0),
                ));
            }
        }
        let (first, last) = (points[0].0, points[points.len() - 1].0);
        if first != 0.0 || last != 1.0 {
            return Err(fault(0, format!("expected u from 0 to 1, got {first} to {last}")));
        }
        let (levels, values) = points.iter().copied().unzip();
        Ok(Self { levels, values })
    }

    /// Reads lines of `u value`, separated by spaces, tabs, commas or semicolons; `#` starts a comment, and a first line
    /// of words is a header.
    ///
    /// # Errors
    /// [`InfalignError::Table`] naming the line.
    pub fn parse(name: &str, text: &str) -> Result<Self, InfalignError> {
        let fault = |line: usize, problem: String| InfalignError::Table {
            name: name.to_owned(),
            line,
            problem,
        };
        let mut points: Vec<(f64, f64)> = Vec::new();
        let mut may_be_header = true;
        for (idx, line) in text.lines().enumerate() {
            let content = line.split('#').next().unwrap_or("").trim();
            if content.is_empty() {
                continue;
            }
            let fields: Vec<&str> = content
                .split([' ', '\t', ',', ';'])
                .filter(|field| !field.is_empty())
                .collect();
            let numbers: Result<Vec<f64>, _> = fields.iter().map(|field| field.parse::<f64>()).collect();
            match numbers.as_deref() {
                Ok(&[level, value]) => points.push((level, value)),
                Err(_) if may_be_header => {}
                _ => return Err(fault(idx + 1, format!("expected `u value`, got {content:?}"))),
            }
            may_be_header = false;
            if points.len() > MAX_POINTS {
                return Err(fault(idx + 1, format!("expected at most {MAX_POINTS} points")));
            }
        }
        Self::try_new(name, &points)
    }

    /// The function at `u`, which is taken into `[0, 1]`.
    pub fn at(&self, u: f64) -> f64 {
        let u = u.clamp(0.0, 1.0);
        let next = self
            .levels
            .partition_point(|&level| level <= u)
            .clamp(1, self.levels.len() - 1);
        let (from, to) = (self.levels[next - 1], self.levels[next]);
        let share = (u - from) / (to - from);
        self.values[next - 1] + share * (self.values[next] - self.values[next - 1])
    }

    /// The `u` of its points, ascending from 0 to 1.
    pub fn levels(&self) -> &[f64] {
        &self.levels
    }

    /// The values of its points.
    pub fn values(&self) -> &[f64] {
        &self.values
    }
}

/// A table by name, whose text somebody else reads.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTable {
    /// As the user wrote it, usually a path.
    pub name: String,
    /// The content, once it was read.
    pub table: Option<Table>,
}

impl NamedTable {
    /// A name without content.
    pub fn unread(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            table: None,
        }
    }

    /// The content.
    ///
    /// # Errors
    /// [`InfalignError::TableNotRead`].
    pub fn content(&self) -> Result<&Table, InfalignError> {
        self.table.as_ref().ok_or_else(|| InfalignError::TableNotRead {
            name: self.name.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_with_headers_and_comments() {
        let table = Table::parse("t", "u,value\n# nothing\n0, -1\n0.5;3 # corner\n1\t3\n").unwrap();
        let check = |u: f64, expect: f64| assert_eq!(table.at(u), expect, "{u}");
        check(-1.0, -1.0);
        check(0.0, -1.0);
        check(0.25, 1.0);
        check(0.5, 3.0);
        check(0.9, 3.0);
        check(1.0, 3.0);
        check(2.0, 3.0);
    }

    #[test]
    fn tables_that_are_none_name_the_line() {
        let check = |text: &str, expect: &str| {
            let error = Table::parse("my.csv", text).unwrap_err().to_string();
            assert!(
                error.starts_with("table my.csv") && error.contains(expect),
                "{text:?}: {error}"
            );
        };
        check("", "expected 2 to 10000 points, got 0");
        check("0 1\n", "got 1");
        check("0 1\n1 2 3\n", "line 2: expected `u value`, got \"1 2 3\"");
        check("u v\nw x\n0 1\n1 2", "line 2: expected `u value`");
        check("0 1\n0 2\n1 2", "rising u, got 0 after 0");
        check("0 1\n0.5 NaN\n1 2", "expected two finite numbers");
        check("0.1 1\n1 2", "expected u from 0 to 1, got 0.1 to 1");
        check("0 1\n0.9 2", "expected u from 0 to 1, got 0 to 0.9");
    }
}
