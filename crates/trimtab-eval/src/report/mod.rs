//! A run's result for people and programs: `frontier.json`, `frontier.csv`, `report.html`, a terminal's table.
//! Knows how numbers are shown; makes none.

mod axis;
mod csv;
pub mod equal_kl;
mod figure;
mod figures;
mod files;
mod html;
pub mod inference;
mod inference_figures;
mod labels;
mod numbers;
mod page;
mod shades;
mod table;
pub mod win_rate_lines;

use std::path::{Path, PathBuf};

use crate::error::EvalError;
use crate::frontier::Frontier;

/// One method's answer to an example prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct ExampleAnswer {
    /// The method as written in the configuration.
    pub method: String,
    /// The answer.
    pub text: String,
    /// Its reward.
    pub reward: f64,
}

/// A prompt with answers, to see what the numbers stand for.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// What was asked.
    pub prompt: String,
    /// Answers by method, in the order of the configuration.
    pub answers: Vec<ExampleAnswer>,
}

/// A frontier with examples.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The numbers.
    pub frontier: Frontier,
    /// A few prompts with answers.
    pub examples: Vec<Example>,
}

/// Where the files of a report are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportFiles {
    /// `frontier.json`.
    pub json: PathBuf,
    /// `frontier.csv`.
    pub csv: PathBuf,
    /// `report.html`.
    pub html: PathBuf,
}

impl Frontier {
    /// The content of `frontier.json`, with a newline at the end.
    ///
    /// # Errors
    /// [`EvalError::Json`].
    pub fn to_json(&self) -> Result<String, EvalError> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

impl Report {
    /// Writes the three files into an existing folder. Each appears only when whole; the same report is the same bytes.
    ///
    /// # Errors
    /// [`EvalError::Write`] naming the file.
    pub fn write(&self, folder: &Path) -> Result<ReportFiles, EvalError> {
        let paths = ReportFiles {
            json: folder.join("frontier.json"),
            csv: folder.join("frontier.csv"),
            html: folder.join("report.html"),
        };
        files::write_whole(&paths.json, self.frontier.to_json()?.as_bytes())?;
        files::write_whole(&paths.csv, self.frontier.to_csv()?.as_bytes())?;
        files::write_whole(&paths.html, self.to_html().as_bytes())?;
        Ok(paths)
    }
}
