//! What can be wrong with a transform, a procedure, a table or a question about them.

/// Why there is no number.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InfalignError {
    /// A name that is none of the known ones.
    #[error("expected one of {known} as {what}, got {text:?}")]
    Unknown {
        /// `transform` or `procedure`.
        what: &'static str,
        /// What was written.
        text: String,
        /// The forms that exist.
        known: String,
    },
    /// A setting that is no number of its range.
    #[error("{what}: expected {expected}, got {text:?}")]
    BadSetting {
        /// Whose setting, as written, e.g. `exp`.
        what: String,
        /// The range.
        expected: &'static str,
        /// What was written.
        text: String,
    },
    /// A table whose text does not hold the promised columns.
    #[error("table {name}, line {line}: {problem}")]
    Table {
        /// Name of the table, as the user wrote it.
        name: String,
        /// Line of its text, from 1; 0 for the table as a whole.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A table that is only a name so far.
    #[error("table {name} was named but not read; its text has to be supplied before it is used")]
    TableNotRead {
        /// Name of the table.
        name: String,
    },
    /// A sample with nothing in it.
    #[error("no {what}, expected at least one")]
    Empty {
        /// What is missing, e.g. `reference rewards`.
        what: &'static str,
    },
    /// A value that is NaN or infinite.
    #[error("{what} number {idx} is {value}, expected a finite number")]
    NotFinite {
        /// What the value is.
        what: &'static str,
        /// Its place.
        idx: usize,
        /// The value.
        value: f64,
    },
    /// A quantity outside its range.
    #[error("{what} is {value}, expected {expected}")]
    OutOfRange {
        /// What the value is, e.g. `beta`.
        what: &'static str,
        /// The value.
        value: f64,
        /// The range.
        expected: &'static str,
    },
    /// A KL that no beta reaches.
    #[error(
        "{transform} reaches no KL of {kl_nats} nats: {nearest_kl_nats:.9} at beta {nearest_beta:.3e} is the nearest \
         found; {remedy}"
    )]
    KlUnreachable {
        /// The transform.
        transform: String,
        /// What was asked for.
        kl_nats: f64,
        /// The nearest KL found.
        nearest_kl_nats: f64,
        /// Its beta.
        nearest_beta: f64,
        /// What to do.
        remedy: &'static str,
    },
    /// A fixed point whose iteration did not settle.
    #[error(
        "the fixed point for {procedure} at beta {beta:.3e} did not settle in {num_iterations} iterations: the last \
         changed its log-density by {residual_nats:.1e} nats; take a greater beta (a smaller KL)"
    )]
    NotConverged {
        /// The procedure.
        procedure: String,
        /// The beta.
        beta: f64,
        /// Iterations made.
        num_iterations: usize,
        /// Greatest change of the last one, in nats.
        residual_nats: f64,
    },
}

impl InfalignError {
    /// Whether the question was a good one and its numbers are beyond what can be solved: others may be answered still.
    pub fn is_out_of_reach(&self) -> bool {
        matches!(self, Self::KlUnreachable { .. } | Self::NotConverged { .. })
    }
}
