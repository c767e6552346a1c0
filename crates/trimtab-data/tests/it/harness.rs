//! Files in a folder of their own, and rollouts to put into them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use trimtab_data::{
    Manifest, Message, RewardColumn, Rollout, RolloutReader, RolloutWriter, RunIdentity, WriterConfig,
};

pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file with this content, packed as its name says.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        let extension = path.extension().and_then(|extension| extension.to_str());
        let bytes = match extension {
            Some("gz") => gzip(content),
            Some("zst") => zstd::encode_all(content, 3).unwrap(),
            _ => content.to_vec(),
        };
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Rollout `sample_idx` of prompt `prompt_idx`: every column holds something of its own.
pub(crate) fn rollout(prompt_idx: u64, sample_idx: u64) -> Rollout {
    let messages = if prompt_idx % 3 == 2 {
        vec![
            Message::new("system", "brief"),
            Message::new("user", format!("é {prompt_idx}")),
        ]
    } else {
        Vec::new()
    };
    let record = [
        ("answer".to_owned(), Value::from(prompt_idx)),
        ("a\"b".to_owned(), Value::Null),
    ];
    Rollout {
        prompt_idx,
        sample_idx,
        prompt: format!("prompt {prompt_idx}\n"),
        messages,
        response: format!("response {sample_idx} \u{1f600}"),
        prompt_token_ids: vec![1, prompt_idx as u32],
        response_token_ids: (0..sample_idx as u32).collect(),
        finish: "stop_token".to_owned(),
        log_prob: Some(-0.1 - prompt_idx as f64 / 3.0),
        reference_log_prob: (sample_idx > 0).then_some(-1e-300),
        rewards: BTreeMap::from([("length".to_owned(), (prompt_idx + sample_idx) as f64 / 7.0)]),
        record: record.into_iter().collect(),
    }
}

/// All `per_prompt` rollouts of a prompt.
pub(crate) fn rollouts(prompt_idx: u64, per_prompt: u64) -> Vec<Rollout> {
    (0..per_prompt)
        .map(|sample_idx| rollout(prompt_idx, sample_idx))
        .collect()
}

pub(crate) fn config(rows_per_shard: usize, seed: u64) -> WriterConfig {
    WriterConfig {
        identity: RunIdentity {
            model_sha256: "0123456789abcdef".repeat(4),
            seed,
            config: BTreeMap::from([("decode".to_owned(), Value::from("sample"))]),
        },
        rewards: vec![RewardColumn {
            name: "length".to_owned(),
            unit: "nats".to_owned(),
        }],
        rows_per_shard,
    }
}

/// A finished folder of prompts with three rollouts each, pushed in this order.
pub(crate) fn finished(
    folder: &Path,
    prompts: impl IntoIterator<Item = u64>,
    rows_per_shard: usize,
) -> Manifest {
    let mut writer = RolloutWriter::open(folder, config(rows_per_shard, 0)).unwrap();
    for prompt_idx in prompts {
        writer.push(rollouts(prompt_idx, 3)).unwrap();
    }
    writer.finish().unwrap()
}

pub(crate) fn read(path: &Path) -> Vec<Rollout> {
    RolloutReader::open(path).unwrap().map(Result::unwrap).collect()
}

/// Names and bytes of all files of a folder.
pub(crate) fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let file = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, std::fs::read(entry.path()).unwrap())
    };
    entries.map(file).collect()
}

/// An error says each of `expect`.
#[track_caller]
pub(crate) fn says(error: &dyn std::fmt::Display, expect: &[&str]) {
    let message = error.to_string();
    for part in expect {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}
