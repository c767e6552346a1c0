//! Arguments of `analyze`. Knows words and their defaults.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use trimtab_infalign::{PROCEDURES, SIMULATED_PROCEDURES, TRANSFORMS};

use super::count;

/// What is analysed.
#[derive(Debug, Subcommand)]
pub(crate) enum AnalyzeCommand {
    /// Win rate, KL and beta of transforms of the calibrated reward under inference-time procedures: no model needed.
    Infalign(AnalyzeInfalignArgs),
    /// Which transform to train with for a procedure and a KL budget, and what it buys.
    Design(AnalyzeDesignArgs),
}

/// Simulation, for procedures without a formula.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct SimulationArgs {
    /// Outcomes drawn on each side of a simulated procedure.
    #[arg(long, value_name = "N", default_value_t = 4000, value_parser = clap::value_parser!(u32).range(100..=10_000_000), help_heading = "Simulation")]
    pub(crate) outcomes: u32,
    /// Seed of a simulated procedure.
    #[arg(long, default_value_t = 0, help_heading = "Simulation")]
    pub(crate) seed: u64,
}

/// Arguments of `analyze infalign`.
#[derive(Debug, Args)]
#[command(after_help = infalign_help(), group = ArgGroup::new("distance").required(true))]
pub(crate) struct AnalyzeInfalignArgs {
    /// What is done at inference, see below; several separated by commas, or given several times.
    #[arg(long, short, required = true, value_name = "PROCEDURE")]
    pub(crate) procedure: Vec<String>,
    /// Transforms of the calibrated reward, see below; several separated by commas, or given several times.
    #[arg(
        long,
        short,
        required = true,
        value_name = "TRANSFORM",
        allow_hyphen_values = true
    )]
    pub(crate) transform: Vec<String>,
    /// KL of the policy from the reference, in nats, for which beta is solved; several separated by commas.
    #[arg(long, group = "distance", value_delimiter = ',', value_name = "NATS")]
    pub(crate) kl: Vec<f64>,
    /// KL weight of training, in place of --kl; several separated by commas.
    #[arg(long, group = "distance", value_delimiter = ',', value_name = "BETA")]
    pub(crate) beta: Vec<f64>,
    /// Print JSON: an object, or a list where anything is given several times.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) simulation: SimulationArgs,
}

/// Arguments of `analyze design`.
#[derive(Debug, Args)]
#[command(after_help = design_help())]
pub(crate) struct AnalyzeDesignArgs {
    /// What is done at inference, see below.
    #[arg(long, short, value_name = "PROCEDURE")]
    pub(crate) procedure: String,
    /// Most KL that the policy may have from the reference, in nats.
    #[arg(long, value_name = "NATS", default_value_t = 1.0)]
    pub(crate) kl_max: f64,
    /// Where the figure of win rate against KL goes: an SVG file if the name ends in .svg, else a page. Without it, a page
    /// `design_PROCEDURE.html` in the current folder; with --json, none.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Points of each line of the figure.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = count(1))]
    pub(crate) points: usize,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) simulation: SimulationArgs,
}

const MODEL: &str = "\
The idealised model: no two responses tie, so the calibrated reward u of a reference response is uniform on [0, 1],
whatever the reward. A policy trained on a transform Phi with KL weight beta has density e^(Phi(u)/beta) / Z. The
procedure is applied to the policy AND to the reference, and `win_rate` says how often the policy's outcome is better,
ties half; `standard_win_rate` is that of one response against one. `kl_nats` is the policy's, before the procedure.";

fn procedures() -> String {
    format!(
        "Procedures:\n{}\n\nProcedures without a formula, by simulation (they have a standard error):\n{}",
        rows(PROCEDURES),
        rows(SIMULATED_PROCEDURES)
    )
}

fn infalign_help() -> String {
    format!(
        "{MODEL}\n\n{}\n\nTransforms, u the calibrated reward:\n{}\n\n\
         Beta belongs to the transform as written here; for e^(Tu) unscaled it is greater by e^T.\n\n\
         Fixed points have a `certificate`: how well the equation is satisfied, and for bon_fp how far from the optimum the\n\
         policy may be. Where one cannot be solved, which happens where win rates are 1 to many digits, its lines say why\n\
         (`reason` beside null numbers), and the others stand.\n\n\
         Examples:\n  \
         trimtab analyze infalign --procedure bon:4 --transform exp:10 --kl 0.25 --json\n  \
         trimtab analyze infalign --procedure sample,bon:4,won:4 --transform identity,exp:10,exp:-10,bon_fp:4 --kl 0.25,0.5\n  \
         trimtab analyze infalign --procedure rewind:0.9 --transform power:7 --beta 0.3\n  \
         trimtab analyze infalign --procedure cd-block:4,3 --transform identity,exp:5 --kl 0.5 --outcomes 20000",
        procedures(),
        rows(TRANSFORMS)
    )
}

fn design_help() -> String {
    format!(
        "Every family of transforms is searched for the member with the greatest win rate under the procedure at the KL \
         budget;\nthe simplest that is within 0.0001 of the best is recommended. bon_fp is the most that any policy can \
         reach; won_fp is\nstationary only. Sizes of T and P from 0.5 to 480 are tried; a best one at either end is called one at the edge of \
         the\nsearch (`is_at_edge_of_search`).\n\n{MODEL}\n\n{}\n\n\
         Examples:\n  \
         trimtab analyze design --procedure won:4 --kl-max 1.0\n  \
         trimtab analyze design --procedure bon:16 --kl-max 2 --out bon16.html\n  \
         trimtab analyze design --procedure weight:accepted.csv --json",
        procedures()
    )
}

fn rows(help: &[(&str, &str)]) -> String {
    let rows: Vec<String> = help
        .iter()
        .map(|(form, meaning)| format!("  {form:<18} {meaning}"))
        .collect();
    rows.join("\n")
}
