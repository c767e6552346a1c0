//! Arguments of commands that steer. Knows words and their defaults.

use clap::Args;

use crate::steering::ScorerTerm;

/// Prefix scorers of one request and their mix.
#[derive(Debug, Clone, Args)]
pub(crate) struct SteeringArgs {
    /// Prefix scorer that steers cd-token and cd-block: the folder that `train scorer` left, with its weight as in
    /// DIR*-0.3; may be given several times. DIR@MODEL runs it on a model of its own, by text; reward:SPEC asks a reward
    /// for the text so far.
    #[arg(long, value_name = "DIR[*WEIGHT]", value_parser = parse_scorer, help_heading = "Steering")]
    pub(crate) scorer: Vec<ScorerTerm>,
    /// Keep the value of one scorer from falling below a bound, by raising its weight as far as needed.
    #[arg(
        long,
        value_name = "NAME>=VALUE",
        requires = "scorer",
        help_heading = "Steering"
    )]
    pub(crate) keep: Option<String>,
    /// With --json: every decision with its candidates, values and weights, as `explain` shows them.
    #[arg(long, requires = "json", help_heading = "Steering")]
    pub(crate) trace: bool,
}

pub(super) fn parse_scorer(text: &str) -> Result<ScorerTerm, String> {
    text.parse::<ScorerTerm>().map_err(|error| format!("{error:#}"))
}
