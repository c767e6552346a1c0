//! Workspace automation: the one gate (`cargo xtask check`), the licence table and the fuzzers. Runs cargo and reads
//! text; knows nothing of what the crates compute.

mod args;
mod check;
mod finding;
mod fuzz;
mod licences;
mod manifest;
mod sources;
mod test_totals;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use args::Task;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> anyhow::Result<()> {
    let root = workspace_root();
    match args::parse(words)? {
        Task::Help => {
            println!("{}", args::HELP);
            Ok(())
        }
        Task::Check(selection) => check::run(&root, &selection),
        Task::Licences => licences::print_table(&root),
        Task::Fuzz { target, seconds } => fuzz::run(&root, target.as_deref(), seconds),
    }
}

/// The folder that holds the workspace's manifest; this crate lies one level below it.
fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask lies inside the workspace").to_owned()
}
