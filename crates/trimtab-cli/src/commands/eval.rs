//! `trimtab eval`: this file only picks.

use anyhow::Result;

use crate::Verdict;
use crate::args::EvalCommand;

pub(crate) fn run(command: &EvalCommand) -> Result<Verdict> {
    match command {
        EvalCommand::Preference(args) => super::preference::run(args),
        EvalCommand::Winrate(args) => super::winrate::run(args),
    }
}
