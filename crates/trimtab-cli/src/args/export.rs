//! Arguments of `export`. Knows words and their defaults; those of `export rewards` stand with calibration's.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use trimtab_runtime::{ModelFormat, WeightType};

use super::{ExportRewardsArgs, Source};

/// What is exported.
#[derive(Debug, Subcommand)]
pub(crate) enum ExportCommand {
    /// A model or a trained policy in another format, with its tokenizer: what transformers or llama.cpp open.
    Model(ExportModelArgs),
    /// Calibrated and transformed rewards of the responses in a calibration folder, for other trainers.
    Rewards(ExportRewardsArgs),
}

/// Formats that any model can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatName {
    /// The model hub's layout: safetensors, config.json, tokenizer.json, chat template.
    Hf,
    /// One file, model.gguf, for llama.cpp and what is built on it.
    Gguf,
}

impl FormatName {
    /// The word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hf => "hf",
            Self::Gguf => "gguf",
        }
    }
}

impl From<FormatName> for ModelFormat {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Hf => Self::Hf,
            FormatName::Gguf => Self::Gguf,
        }
    }
}

/// Element types of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum DtypeName {
    /// All bits, 4 bytes a weight.
    #[default]
    F32,
    /// 2 bytes a weight, the range of f32.
    Bf16,
    /// 2 bytes a weight, 3 bits more precise than bf16, numbers to 65504.
    F16,
}

impl DtypeName {
    /// The word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

impl From<DtypeName> for WeightType {
    fn from(name: DtypeName) -> Self {
        match name {
            DtypeName::F32 => Self::F32,
            DtypeName::Bf16 => Self::Bf16,
            DtypeName::F16 => Self::F16,
        }
    }
}

/// Arguments of `export model`.
#[derive(Debug, Args)]
#[command(after_help = "\
Quantised weights are written as the numbers that they stand for. In f32 the copy gives the same logits to the last bit.

Examples:
  trimtab export model runs/ctrl_bon4 --format hf --out ctrl_bon4_hf
  trimtab export model stories15m --format gguf --dtype f16 --out stories15m_gguf")]
pub(crate) struct ExportModelArgs {
    /// Alias, `org/name` of the hub, a path, or the folder of a policy.
    pub(crate) model: String,
    /// What is written.
    #[arg(long, value_enum)]
    pub(crate) format: FormatName,
    /// Folder for it, which must be empty or not be there.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Element type of the matrices; GGUF keeps vectors in f32.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) dtype: DtypeName,
    /// Print JSON: what was written, and how large it is.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the model may be fetched from if it is not stored.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) source: Source,
}
