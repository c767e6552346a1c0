//! `trimtab export`: what other programs read.

use anyhow::Result;

use crate::Verdict;
use crate::args::ExportCommand;
use crate::calibrate;
use crate::output;

pub(crate) fn run(command: &ExportCommand) -> Result<Verdict> {
    let ExportCommand::Rewards(args) = command;
    let rows = calibrate::export(args)?;
    if let Some(path) = &args.out {
        output::note(&format!("{rows} rows in {}", path.display()));
    }
    Ok(Verdict::Ok)
}
