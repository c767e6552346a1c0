//! `trimtab calibrate`: prompts to samples of the reference and what they are worth as calibration.

use anyhow::Result;

use crate::Verdict;
use crate::args::CalibrateArgs;
use crate::calibrate;
use crate::output;

pub(crate) fn run(args: &CalibrateArgs) -> Result<Verdict> {
    let summary = calibrate::run(args)?;
    if args.json {
        output::json(&summary)?;
    } else {
        output::line(&summary.text())?;
    }
    Ok(Verdict::Ok)
}
