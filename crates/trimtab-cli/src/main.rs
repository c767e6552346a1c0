//! The `trimtab` command: guided decoding of language models, measured.
//!
//! This crate alone knows the command line, the environment and the terminal. Everything it does is a call into the
//! libraries; a command is one file in `commands`, and what users type ([`args`]) is resolved once into what the
//! libraries take. Results go to standard output, progress and errors to standard error. Exit codes: 0 done,
//! 1 a negative answer (a model that is not stored, a file that fails its check), 2 an error, bugs included.

use std::process::ExitCode;

use clap::Parser;

mod align;
mod answer;
mod args;
mod calibrate;
mod commands;
mod frontier;
mod head_place;
mod journal;
mod machine;
mod output;
mod policy_card;
mod progress;
mod prompts;
mod resolve;
mod rollout;
mod steering;
mod train;
mod whole_file;
mod winrate;

/// How a command ended, if not by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Done, or "yes".
    Ok,
    /// The question was answered with no.
    Negative,
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        output::note(&output::bug_report(panic));
        // Not by unwinding, which ends in another exit code, and from other threads in none at all.
        std::process::exit(2);
    }));
    let cli = args::Cli::parse();
    match commands::run(cli) {
        Ok(Verdict::Ok) => ExitCode::SUCCESS,
        Ok(Verdict::Negative) => ExitCode::from(1),
        // A reader that has seen enough (`| head`) closes the pipe; that is not a failure of ours.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::from(2)
        }
    }
}
