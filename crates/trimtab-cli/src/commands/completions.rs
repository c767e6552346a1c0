//! `trimtab completions`: scripts that shells load.

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use crate::Verdict;
use crate::args::Cli;
use crate::output;

pub(crate) fn run(shell: Shell) -> Result<Verdict> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "trimtab", &mut script);
    let script = String::from_utf8(script).context("the completion script is not UTF-8")?;
    output::line(script.trim_end())?;
    Ok(Verdict::Ok)
}
