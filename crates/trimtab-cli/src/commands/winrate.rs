//! `trimtab eval winrate`: policies against their reference under inference-time procedures.

use anyhow::Result;

use crate::Verdict;
use crate::args::EvalWinrateArgs;
use crate::output;
use crate::winrate;

pub(crate) fn run(args: &EvalWinrateArgs) -> Result<Verdict> {
    let rows = winrate::run(args)?;
    if args.json {
        output::json(&rows)?;
    } else {
        output::line(&winrate::table(&rows))?;
    }
    Ok(Verdict::Ok)
}
