//! `trimtab rollout`: prompts or a data set to a folder of scored responses.

use anyhow::Result;

use crate::Verdict;
use crate::args::RolloutArgs;
use crate::output;
use crate::rollout;

pub(crate) fn run(args: &RolloutArgs) -> Result<Verdict> {
    let summary = rollout::run(args)?;
    if args.json {
        output::json(&summary)?;
    } else {
        output::line(&summary.text())?;
    }
    Ok(Verdict::Ok)
}
