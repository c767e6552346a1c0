//! Runs the command in a folder of its own, on a llama2.c model of random weights that is made there.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const HIDDEN: usize = 32;
const FFN: usize = 48;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
/// 3 control tokens, 256 bytes, 26 letters.
const VOCAB: usize = 3 + 256 + 26;
/// Positions of the model.
pub(crate) const CONTEXT: usize = 128;

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
        write_model(&world.path("tiny.bin"));
        std::fs::write(world.path("tokenizer.bin"), vocabulary()).unwrap();
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

fn write_model(path: &Path) {
    let header = [HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, VOCAB, CONTEXT];
    let mut bytes: Vec<u8> = header.iter().flat_map(|&n| (n as i32).to_le_bytes()).collect();
    let kv_len = HIDDEN / HEADS * KV_HEADS;
    let per_layer = HIDDEN * (2 + HIDDEN + 2 * kv_len + HIDDEN) + 3 * HIDDEN * FFN;
    let rope_tables = CONTEXT * HIDDEN / HEADS;
    let mut state = 1_u64;
    for _ in 0..VOCAB * HIDDEN + LAYERS * per_layer + HIDDEN + rope_tables {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let uniform = (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5;
        bytes.extend((uniform * 1.2).to_le_bytes());
    }
    std::fs::write(path, bytes).unwrap();
}

fn vocabulary() -> Vec<u8> {
    let control = ["<unk>", "\n<s>\n", "\n</s>\n"].map(|piece| piece.as_bytes().to_vec());
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>").into_bytes());
    let letters = (b'a'..=b'z').map(|letter| vec![letter]);
    let mut file = 7_u32.to_le_bytes().to_vec();
    for piece in control.into_iter().chain(bytes).chain(letters) {
        file.extend(0.0_f32.to_le_bytes());
        file.extend((piece.len() as u32).to_le_bytes());
        file.extend(piece);
    }
    file
}
