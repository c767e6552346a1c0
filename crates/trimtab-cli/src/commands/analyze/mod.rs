//! `trimtab analyze`: what training for an inference-time procedure buys, on the idealised model. Opens no model.

mod design;
mod infalign;
mod procedure;

use anyhow::Result;

use crate::Verdict;
use crate::args::AnalyzeCommand;

pub(crate) fn run(command: &AnalyzeCommand) -> Result<Verdict> {
    match command {
        AnalyzeCommand::Infalign(args) => infalign::run(args),
        AnalyzeCommand::Design(args) => design::run(args),
    }
}
