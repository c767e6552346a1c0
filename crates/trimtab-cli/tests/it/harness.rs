//! Runs the command in a folder of its own, on a llama2.c model of random weights that is made there.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use trimtab_runtime::testing::write_tiny_model;

/// A folder with a model, a store and room for results.
pub(crate) struct World {
    folder: TempDir,
}

/// What a command left behind.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        write_tiny_model(world.folder.path()).unwrap();
        world
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The model, as an argument.
    pub(crate) fn model(&self) -> String {
        self.path("tiny.bin").display().to_string()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The command, in this folder, with an empty store and no way to the network.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trimtab"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("TRIMTAB_HOME", self.path("home"))
            .env("PATH", self.path("no-tools"))
            .env("HF_ENDPOINT", "http://127.0.0.1:1")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    /// Runs a command that must succeed; its standard output.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.stderr);
        ran.stdout
    }

    /// Runs a command that must succeed and print JSON.
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    /// Runs a command that must fail as an error, saying each of `expect`.
    pub(crate) fn fails(&self, args: &[&str], expect: &[&str]) {
        let ran = self.run(args);
        assert_eq!(
            ran.code,
            Some(2),
            "{args:?} must fail; it said {} {}",
            ran.stdout,
            ran.stderr
        );
        for part in expect {
            assert!(
                ran.stderr.contains(part),
                "{args:?}: {:?} lacks {part:?}",
                ran.stderr
            );
        }
        assert!(
            !ran.stderr.contains("panicked") && !ran.stderr.contains("RUST_BACKTRACE"),
            "{}",
            ran.stderr
        );
    }
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
