//! `trimtab export`: what other programs read.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use trimtab_model::ModelFile;
use trimtab_runtime::{ExportOptions, ModelFormat, export_model};

use crate::Verdict;
use crate::args::{ExportCommand, ExportModelArgs};
use crate::calibrate;
use crate::output;
use crate::resolve::{fetch, open_store};

/// Name of the file in the folder of a GGUF export.
const GGUF_FILE: &str = "model.gguf";

pub(crate) fn run(command: &ExportCommand) -> Result<Verdict> {
    match command {
        ExportCommand::Model(args) => run_model(args)?,
        ExportCommand::Rewards(args) => {
            let rows = calibrate::export(args)?;
            if let Some(path) = &args.out {
                output::note(&format!("{rows} rows in {}", path.display()));
            }
        }
    }
    Ok(Verdict::Ok)
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct ExportedModel {
    model: String,
    /// SHA-256 of the weights that were read.
    sha256: String,
    /// What opens it: a folder in the hub's layout, or a GGUF file.
    path: String,
    format: &'static str,
    dtype: &'static str,
    num_parameters: usize,
    size_bytes: u64,
}

fn run_model(args: &ExportModelArgs) -> Result<()> {
    refuse_used(&args.out)?;
    let stored = fetch(&open_store()?, &args.model, args.source.into())?;
    let base =
        ModelFile::open(&stored.path).with_context(|| format!("cannot open {}", stored.path.display()))?;
    let options = ExportOptions {
        weights: args.dtype.into(),
        ..ExportOptions::exact(args.format.into())
    };
    let path = match options.format {
        ModelFormat::Hf => args.out.clone(),
        ModelFormat::Gguf => in_folder(&args.out)?,
    };
    export_model(&base, base.weights().as_ref(), &options, &path)
        .with_context(|| format!("cannot write {} as {}", args.model, path.display()))?;
    let exported = ExportedModel {
        model: args.model.clone(),
        sha256: stored.weights_sha256.to_string(),
        path: path.display().to_string(),
        format: args.format.name(),
        dtype: args.dtype.name(),
        num_parameters: base.config().num_parameters(),
        size_bytes: ModelFile::open(&path)?.checkpoint().size_bytes(),
    };
    if args.json {
        return output::json(&exported);
    }
    output::line(&exported.path)?;
    output::note(&format!(
        "{}: {} parameters in {}, {} bytes",
        exported.model, exported.num_parameters, exported.dtype, exported.size_bytes
    ));
    Ok(())
}

/// Files of others must not be mixed with these, let alone be replaced.
fn refuse_used(out: &Path) -> Result<()> {
    let is_used = match std::fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", out.display())),
    };
    if is_used {
        bail!(
            "{} is not empty; give --out a folder that is empty or not there yet",
            out.display()
        );
    }
    Ok(())
}

fn in_folder(out: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    Ok(out.join(GGUF_FILE))
}
