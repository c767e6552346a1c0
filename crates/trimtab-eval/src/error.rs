//! What can be wrong with the samples an evaluation is given, or with writing its report.

use std::path::PathBuf;

/// Why there is no number or no report.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A reward, log-probability or KL that is NaN or infinite; a mean of such would say nothing.
    #[error("{what} number {idx} is {value}, expected a finite number")]
    NotFinite {
        /// What the value is, e.g. `reward`.
        what: &'static str,
        /// Its place in the sample.
        idx: usize,
        /// The value.
        value: f64,
    },
    /// A sample with nothing in it.
    #[error("no {what}, expected at least one")]
    Empty {
        /// What is missing, e.g. `answers`.
        what: &'static str,
    },
    /// A candidate whose reward was never scored.
    #[error("candidate {candidate_idx} has no reward")]
    Unscored {
        /// Which candidate.
        candidate_idx: u64,
    },
    /// A fault in the samples of one prompt.
    #[error("method {method:?}, prompt {prompt_idx}: {source}")]
    InPrompt {
        /// The method as written in the configuration.
        method: String,
        /// The prompt.
        prompt_idx: u64,
        /// The fault.
        source: Box<EvalError>,
    },
    /// A method that was not run on exactly the prompts that have reference samples; pairing by prompt needs both.
    #[error(
        "method {method:?}: expected one run for each of the {expected} prompts with reference samples, {problem}"
    )]
    PromptMismatch {
        /// The method as written in the configuration.
        method: String,
        /// Number of prompts with reference samples.
        expected: usize,
        /// The prompt that is missing, strange or there twice.
        problem: String,
    },
    /// Runs of one configuration that do not have the same methods.
    #[error("seed {seed} has other methods than seed {first}, expected the same ones in the same order")]
    SeedMismatch {
        /// The seed that differs.
        seed: u64,
        /// The seed it is compared with.
        first: u64,
    },
    /// A choice among more responses than there are samples, or among none.
    #[error(
        "a choice among {num_candidates} responses needs {num_candidates} samples of policy and reference for each \
         prompt, got {num_samples}"
    )]
    TooFewSamples {
        /// N.
        num_candidates: u32,
        /// Samples of the side that has fewer.
        num_samples: u64,
    },
    /// Numbers by prompt that belong to different prompts.
    #[error("expected win rates on the same prompts, got {these} and {others} of them")]
    Unpaired {
        /// Prompts of one.
        these: usize,
        /// Prompts of the other.
        others: usize,
    },
    /// A file of the report could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The table could not be formatted as CSV.
    #[error("cannot format the frontier as CSV")]
    Csv(#[from] csv::Error),
    /// The frontier could not be formatted as JSON.
    #[error("cannot format the frontier as JSON")]
    Json(#[from] serde_json::Error),
}

impl EvalError {
    /// Names the method and the prompt the fault is in.
    pub(crate) fn in_prompt(self, method: &str, prompt_idx: u64) -> Self {
        Self::InPrompt {
            method: method.to_owned(),
            prompt_idx,
            source: Box::new(self),
        }
    }
}

/// The values, if they are there and finite.
pub(crate) fn all_finite(what: &'static str, values: &[f64]) -> Result<(), EvalError> {
    if values.is_empty() {
        return Err(EvalError::Empty { what });
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(idx) => Err(EvalError::NotFinite {
            what,
            idx,
            value: values[idx],
        }),
        None => Ok(()),
    }
}
