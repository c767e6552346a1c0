//! What users type. Knows words and their defaults; resolving them into objects is `resolve`'s and the commands' work.

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use trimtab_decode::{DecodeSpec, METHODS};
use trimtab_model::PrecisionPlan;
use trimtab_reward::{REWARDS, RewardSpec};
use trimtab_store::SourcePolicy;

mod analyze;
mod bench_train;
mod calibrate;
mod eval;
mod export;
mod rollout;
mod steering;
mod train;
mod winrate;

pub(crate) use analyze::{AnalyzeCommand, AnalyzeDesignArgs, AnalyzeInfalignArgs, SimulationArgs};
pub(crate) use bench_train::{BenchTrainArgs, TrainMethod};
pub(crate) use calibrate::{CalibrateArgs, ExportRewardsArgs, Trainer};
pub(crate) use eval::{EvalCommand, EvalPreferenceArgs};
pub(crate) use export::{ExportCommand, ExportModelArgs};
pub(crate) use rollout::{DrawArgs, RolloutArgs};
pub(crate) use steering::SteeringArgs;
pub(crate) use train::{TrainAlignArgs, TrainArgs, TrainCommand};
pub(crate) use winrate::{EvalWinrateArgs, Sides};

const EXAMPLES: &str = "\
Examples:
  trimtab quickstart                      the whole idea in three minutes: a table and out/quickstart/report.html
  trimtab generate \"Why is the sky blue?\" --decode bon:16 --reward length
  trimtab frontier my.toml --out out/my   reward and win rate against KL and tokens, for your prompts and reward
  trimtab models list                     models known by name, and what is stored

Models are kept in TRIMTAB_HOME, or in the platform's cache folder if that is not set.";

/// Get the most reward out of a language model for the least drift and the least compute.
#[derive(Debug, Parser)]
#[command(name = "trimtab", version, about, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fetch a small model, train a small scorer for it, compare sampling, best-of-N and blockwise control, and report.
    Quickstart(QuickstartArgs),
    /// List, fetch, locate, check and remove models.
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Answer a prompt.
    Generate(Box<GenerateArgs>),
    /// Answer a prompt, and say why each block or token of the answer won.
    Explain(Box<GenerateArgs>),
    /// Sample responses to many prompts, or take them from a data set, and score them: what scorers are trained on.
    Rollout(Box<RolloutArgs>),
    /// Draw and score responses of a model, beside which rewards are calibrated.
    Calibrate(Box<CalibrateArgs>),
    /// Export what other programs read: models, rewards.
    #[command(subcommand)]
    Export(ExportCommand),
    /// Train scorers, rewards on preferences, and policies towards rewards.
    #[command(subcommand)]
    Train(TrainCommand),
    /// Compare scorers and rewards with people's preferences, and policies with their reference.
    #[command(subcommand)]
    Eval(EvalCommand),
    /// Say which transform of the reward to train with for an inference-time procedure, before anything is trained.
    #[command(subcommand)]
    Analyze(AnalyzeCommand),
    /// Run decoding methods over prompts and report reward and win rate against KL and tokens.
    Frontier(FrontierArgs),
    /// Measure speed, memory and precision on this machine.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print a completion script for a shell.
    #[command(
        after_help = "Example:\n  trimtab completions bash > ~/.local/share/bash-completion/completions/trimtab"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Where models may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Source {
    /// All sources of the model, in order.
    #[default]
    Any,
    /// The model hub.
    Hub,
    /// The Python package index.
    Pypi,
    /// The npm registry.
    Npm,
    /// None: what is stored.
    Offline,
}

impl From<Source> for SourcePolicy {
    fn from(source: Source) -> Self {
        use trimtab_store::SourceKind;
        match source {
            Source::Any => Self::Any,
            Source::Hub => Self::Only(SourceKind::Hub),
            Source::Pypi => Self::Only(SourceKind::Pypi),
            Source::Npm => Self::Only(SourceKind::Npm),
            Source::Offline => Self::Offline,
        }
    }
}

/// How a model is run; the same for every command that runs one. None of it changes which tokens are drawn, except
/// the precision.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// Precision of weights and activations: int8, int8-wide, int4 (visibly worse answers), bf16 or f32.
    #[arg(long, default_value = "int8", value_parser = parse_precision, help_heading = "Running", long_help = PRECISION_HELP)]
    pub(crate) precision: PrecisionName,
    /// Threads; all processors if not given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Running")]
    pub(crate) threads: Option<u16>,
    /// Memory for keys and values, in MiB. Taken as it is used.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..), value_name = "MIB", help_heading = "Running")]
    pub(crate) kv_memory: u32,
    /// Where the model may be fetched from if it is not stored.
    #[arg(long, value_enum, default_value_t, help_heading = "Running")]
    pub(crate) source: Source,
}

/// Measured with `trimtab bench precision --precisions int8,int8-wide,int4,bf16`, whose text the packing has not seen.
const PRECISION_HELP: &str = "\
Precision of weights and activations. Mean KL divergence of next-token distributions from those of f32, for
smollm2-135m-instruct on a text that was held out (`trimtab bench precision` measures your model):
  f32         exact
  bf16        0.00005 nats
  int8        0.006 nats
  int8-wide   0.004 nats
  int4        0.43 nats: answers are visibly worse; only for models that do not fit otherwise";

/// A precision by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PrecisionName {
    /// As written.
    pub(crate) name: String,
    /// What it means.
    pub(crate) plan: PrecisionPlan,
}

/// The plan called `name`.
pub(crate) fn parse_precision(name: &str) -> Result<PrecisionName, String> {
    let plan = PrecisionPlan::by_name(name).ok_or_else(|| {
        format!(
            "expected one of {}, got {name:?}",
            PrecisionPlan::NAMES.join(", ")
        )
    })?;
    Ok(PrecisionName {
        name: name.to_owned(),
        plan,
    })
}

/// Arguments of `quickstart`.
#[derive(Debug, Args)]
#[command(
    after_help = "The run is a frontier like any other; its configuration is written to DIR/config.toml, so\n  \
    trimtab frontier DIR/config.toml --out elsewhere\nrepeats it, and a changed copy is your first experiment. \
    A run that was stopped goes on where it was."
)]
pub(crate) struct QuickstartArgs {
    /// Folder for the report.
    #[arg(long, default_value = "out/quickstart", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Seed of everything random.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print frontier.json instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Commands on models.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "A model is named by an alias of the table, a repository `org/name[@revision][:file or quantisation]`\n\
    of the model hub, or a path to a GGUF file, a safetensors folder or a llama2.c file."
)]
pub(crate) enum ModelsCommand {
    /// Models known by name, and what is stored.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Fetch a model into the store; a download that was interrupted goes on.
    Get {
        /// The model.
        model: String,
        /// Where from.
        #[arg(long, value_enum, default_value_t)]
        source: Source,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print where a stored model lies; exit code 1 if it is not stored.
    Path {
        /// The model.
        model: String,
    },
    /// Compare every byte of a stored model with its record; exit code 1 if it differs.
    Verify {
        /// The model.
        model: String,
    },
    /// Remove a stored model; exit code 1 if it is not stored.
    Rm {
        /// The model.
        model: String,
    },
}

/// Arguments of `generate`.
#[derive(Debug, Args)]
#[command(after_help = generate_help())]
pub(crate) struct GenerateArgs {
    /// The prompt, or `-` to read it from standard input.
    pub(crate) prompt: String,
    /// The model: alias, `org/name` of the hub, or a path.
    #[arg(long, short, default_value = "smollm2-135m-instruct")]
    pub(crate) model: String,
    /// Decoding method, see below.
    #[arg(long, short, default_value = "sample", value_parser = parse_decode)]
    pub(crate) decode: DecodeSpec,
    /// Reward, see below; several as `json*0.5 + length*-0.1`.
    #[arg(long, short, value_parser = parse_reward)]
    pub(crate) reward: Option<RewardSpec>,
    /// Seed of everything random.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Most tokens of an answer; 256, or what the model's context leaves, if not given.
    #[arg(long, short = 'n', value_name = "N", value_parser = count(1))]
    pub(crate) max_new_tokens: Option<usize>,
    /// Text that ends an answer; may be given several times.
    #[arg(long, value_name = "TEXT", value_parser = parse_stop)]
    pub(crate) stop: Vec<String>,
    /// System message before the prompt.
    #[arg(long, conflicts_with = "raw")]
    pub(crate) system: Option<String>,
    /// Continue the text as it is, without the model's chat template.
    #[arg(long)]
    pub(crate) raw: bool,
    /// The right answer, for rewards that check it (`answer`, `numeric`).
    #[arg(long)]
    pub(crate) answer: Option<String>,
    /// Print JSON: candidates, rewards, log-probabilities, tokens, seed, hash of the weights.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) steering: SteeringArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Arguments of `frontier`.
#[derive(Debug, Args)]
#[command(after_help = frontier_help())]
pub(crate) struct FrontierArgs {
    /// The configuration, a TOML file, or `-` to read it from standard input.
    pub(crate) config: PathBuf,
    /// Folder for journal and report; a run that was stopped goes on there.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Print frontier.json instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Threads; all processors if not given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Memory for keys and values, in MiB.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..), value_name = "MIB")]
    pub(crate) kv_memory: u32,
    /// Where the model may be fetched from if it is not stored.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) source: Source,
}

/// Benchmarks.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Prefill and decoding speed, with what the machine could do at best and where the time goes.
    Decode(BenchDecodeArgs),
    /// A whole best-of-N request: one prompt, N candidates.
    #[command(name = "best-of-n")]
    BestOfN(BenchBestOfNArgs),
    /// Next-token distributions of each precision against f32 on a text, and the error of each layer.
    Precision(BenchPrecisionArgs),
    /// Speed and memory of a training step of a policy, on random tokens.
    Train(BenchTrainArgs),
}

/// Arguments of `bench decode`.
#[derive(Debug, Args)]
pub(crate) struct BenchDecodeArgs {
    /// The model: alias, `org/name` of the hub, or a path.
    #[arg(long, short, default_value = "smollm2-135m-instruct")]
    pub(crate) model: String,
    /// Batch sizes: candidates that share one prompt.
    #[arg(long, value_delimiter = ',', default_value = "1,8,32", value_parser = count(1))]
    pub(crate) batch: Vec<usize>,
    /// Tokens of the shared prompt; 128, or what the model's context allows, if not given.
    #[arg(long, value_name = "N", value_parser = count(1))]
    pub(crate) prompt: Option<usize>,
    /// New tokens of each candidate; 64, or what the model's context allows, if not given.
    #[arg(long, value_name = "N", value_parser = count(2))]
    pub(crate) new: Option<usize>,
    /// Tokens of a block, where blocks are steered.
    #[arg(long, value_name = "M", default_value_t = 16, value_parser = count(1))]
    pub(crate) block: usize,
    /// Tokens of the prefill measurement; 512, or what the model's context allows, if not given.
    #[arg(long, value_name = "N", value_parser = count(1))]
    pub(crate) prefill: Option<usize>,
    /// Rounds; the median is reported.
    #[arg(long, default_value_t = 5, value_parser = count(1))]
    pub(crate) rounds: usize,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Arguments of `bench best-of-n`.
#[derive(Debug, Args)]
pub(crate) struct BenchBestOfNArgs {
    /// The model: alias, `org/name` of the hub, or a path.
    #[arg(long, short, default_value = "smollm2-135m-instruct")]
    pub(crate) model: String,
    /// Candidates.
    #[arg(long, default_value_t = 16, value_parser = count(1))]
    pub(crate) candidates: usize,
    /// Tokens of the prompt; 2048, or what the model's context allows, if not given.
    #[arg(long, value_name = "N", value_parser = count(1))]
    pub(crate) prompt: Option<usize>,
    /// New tokens of each candidate; 128, or what the model's context allows, if not given.
    #[arg(long, value_name = "N", value_parser = count(1))]
    pub(crate) new: Option<usize>,
    /// Rounds; the median is reported.
    #[arg(long, default_value_t = 3, value_parser = count(1))]
    pub(crate) rounds: usize,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Arguments of `bench precision`.
#[derive(Debug, Args)]
pub(crate) struct BenchPrecisionArgs {
    /// The model: alias, `org/name` of the hub, or a path.
    #[arg(long, short, default_value = "smollm2-135m-instruct")]
    pub(crate) model: String,
    /// A text file; a built-in English text if not given.
    #[arg(long)]
    pub(crate) text: Option<PathBuf>,
    /// Tokens of the text to use.
    #[arg(long, default_value_t = 512, value_parser = count(2))]
    pub(crate) tokens: usize,
    /// Precisions to compare with f32.
    #[arg(long, value_delimiter = ',', default_value = "int8", value_parser = parse_precision)]
    pub(crate) precisions: Vec<PrecisionName>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Threads; all processors if not given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Where the model may be fetched from if it is not stored.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) source: Source,
}

/// A count from `least` up to what no model and no machine exceeds, so that sums of counts cannot overflow.
fn count(least: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least..=1 << 24)
}

fn parse_stop(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("an empty text would end every answer at once; give at least one character".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_decode(text: &str) -> Result<DecodeSpec, String> {
    text.parse::<DecodeSpec>().map_err(|error| error.to_string())
}

fn parse_reward(text: &str) -> Result<RewardSpec, String> {
    text.parse::<RewardSpec>().map_err(|error| error.to_string())
}

/// Decoding methods and rewards, from the lists that their crates keep.
fn methods_and_rewards() -> String {
    let methods: Vec<String> = METHODS
        .iter()
        .map(|method| format!("  {:<34} {}", method.example, method.summary))
        .collect();
    let rewards: Vec<String> = REWARDS
        .iter()
        .map(|(_, form, meaning)| format!("  {form:<34} {meaning}"))
        .collect();
    format!(
        "Decoding methods:\n{}\n\nRewards (higher is better):\n{}\n",
        methods.join("\n"),
        rewards.join("\n")
    )
}

fn generate_help() -> String {
    format!(
        "{}\nExamples:\n  \
         trimtab generate \"Why is the sky blue?\" --decode bon:16 --reward length\n  \
         trimtab generate \"What is 17 + 25?\" --decode majority:n=8,t=0.7\n  \
         trimtab generate \"Give me a JSON object with two cities.\" --decode bon:8 --reward 'json + length*-0.1' --json\n  \
         trimtab generate \"Tell me a story.\" --decode cd-block:k=6,m=16 --scorer runs/length --scorer runs/kind*-0.3\n  \
         trimtab explain \"Tell me a story.\" --decode cd-token:weight=4 --scorer runs/length -n 20\n  \
         echo \"Once upon a time\" | trimtab generate - --model stories15m --decode sample:t=0.8",
        methods_and_rewards()
    )
}

fn frontier_help() -> String {
    format!(
        "A configuration (only `reward` and `methods` are required):\n\n{}\n{}",
        indent(crate::frontier::EXAMPLE_CONFIG),
        methods_and_rewards()
    )
}

fn indent(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("  {line}")).collect();
    lines.join(
        "
",
    )
}

#[cfg(test)]
mod tests;
