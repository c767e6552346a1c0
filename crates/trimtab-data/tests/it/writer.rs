//! Shards depend on their rows alone; a killed run goes on; another one is refused.

use std::fs::OpenOptions;

use parquet::file::reader::{FileReader, SerializedFileReader};
use proptest::prelude::*;
use trimtab_data::{DataError, Manifest, RewardColumn, RolloutWriter, SCHEMA, SCHEMA_VERSION};

use crate::harness::{Folder, config, files, finished, read, rollout, rollouts, says};

#[test]
fn rows_come_back_as_they_were() {
    let folder = Folder::new();
    let out = folder.path("out");
    let manifest = finished(&out, 0..7, 6);
    let expect: Vec<_> = (0..7).flat_map(|prompt_idx| rollouts(prompt_idx, 3)).collect();
    assert_eq!(read(&out), expect);
    let shards: Vec<_> = manifest
        .shards
        .iter()
        .map(|s| (s.file.as_str(), s.num_rows, s.num_prompts))
        .collect();
    assert_eq!(
        shards,
        [
            ("part-00000.parquet", 6, 2),
            ("part-00001.parquet", 6, 2),
            ("part-00002.parquet", 6, 2),
            ("part-00003.parquet", 3, 1)
        ]
    );
    assert_eq!(read(&out.join("part-00001.parquet")), expect[6..12]);
    let mut names: Vec<String> = files(&out).into_keys().collect();
    names.retain(|name| !name.starts_with("part-0000"));
    assert_eq!(
        names,
        ["manifest.json"],
        "neither journal nor temporary files are left"
    );
}

#[test]
fn the_schema_is_the_documented_one() {
    let folder = Folder::new();
    finished(&folder.path("out"), 0..1, 10);
    let file = std::fs::File::open(folder.path("out/part-00000.parquet")).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let metadata = reader.metadata().file_metadata();
    let mut text = Vec::new();
    parquet::schema::printer::print_schema(&mut text, metadata.schema());
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text, SCHEMA.replace("reward:NAME", "reward:length"));
    let pairs = metadata.key_value_metadata().unwrap();
    assert_eq!(pairs[0].key, "trimtab.schema_version");
    assert_eq!(pairs[0].value, Some(SCHEMA_VERSION.to_string()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever the order, and wherever the run is killed and its journal torn, the files are the same.
    #[test]
    fn order_and_kills_change_no_byte(
        order in Just((0..9_u64).collect::<Vec<_>>()).prop_shuffle(),
        kills in prop::collection::vec((0..9_usize, 0..400_u64), 0..3),
        rows_per_shard in 1..12_usize,
    ) {
        let folder = Folder::new();
        let (plain, killed) = (folder.path("plain"), folder.path("killed"));
        let expect = finished(&plain, 0..9, rows_per_shard);
        for (after, torn) in kills {
            let mut writer = RolloutWriter::open(&killed, config(rows_per_shard, 0)).unwrap();
            for &prompt_idx in &order[..after] {
                if !writer.has_prompt(prompt_idx) {
                    writer.push(rollouts(prompt_idx, 3)).unwrap();
                }
            }
            drop(writer);
            let journal = OpenOptions::new().write(true).open(killed.join("journal")).unwrap();
            let len = journal.metadata().unwrap().len();
            journal.set_len(len - torn.min(len)).unwrap();
        }
        let mut writer = RolloutWriter::open(&killed, config(rows_per_shard, 0)).unwrap();
        for &prompt_idx in &order {
            if !writer.has_prompt(prompt_idx) {
                writer.push(rollouts(prompt_idx, 3)).unwrap();
            }
        }
        let manifest = writer.finish().unwrap();
        prop_assert_eq!(manifest.content_sha256(), expect.content_sha256());
        prop_assert_eq!(files(&killed), files(&plain));
    }
}

#[test]
fn a_kill_between_shard_and_manifest_or_manifest_and_journal_costs_nothing() {
    let folder = Folder::new();
    let (plain, out) = (folder.path("plain"), folder.path("out"));
    finished(&plain, 0..4, 6);
    let mut writer = RolloutWriter::open(&out, config(6, 0)).unwrap();
    writer.push(rollouts(0, 3)).unwrap();
    let before = files(&out);
    writer.push(rollouts(1, 3)).unwrap();
    drop(writer);
    let after = files(&out);
    let resumed = |manifest: &[u8], journal: &[u8], num_prompts: u64| {
        std::fs::write(out.join("manifest.json"), manifest).unwrap();
        std::fs::write(out.join("journal"), journal).unwrap();
        let writer = RolloutWriter::open(&out, config(6, 0)).unwrap();
        assert_eq!(writer.num_prompts(), num_prompts);
        writer
    };
    // The shard is there, the manifest does not know it; then the manifest knows it, the journal is not yet emptied.
    drop(resumed(&before["manifest.json"], &before["journal"], 1));
    let mut writer = resumed(&after["manifest.json"], &before["journal"], 2);
    writer.push(rollouts(3, 3)).unwrap();
    writer.push(rollouts(2, 3)).unwrap();
    writer.finish().unwrap();
    assert_eq!(files(&out), files(&plain));
}

#[test]
fn finished_folders_stay_as_they_are() {
    let folder = Folder::new();
    let out = folder.path("out");
    let expect = finished(&out, 0..2, 10);
    let before = files(&out);
    let writer = RolloutWriter::open(&out, config(10, 0)).unwrap();
    assert!(writer.is_complete() && writer.has_prompt(1) && !writer.has_prompt(2));
    assert_eq!(writer.finish().unwrap(), expect);
    assert_eq!(files(&out), before);
}

#[test]
fn other_runs_are_refused_with_both_values() {
    let folder = Folder::new();
    let out = folder.path("out");
    finished(&out, 0..1, 10);
    let before = files(&out);
    let refused = |config, expect: &[&str]| {
        let error = RolloutWriter::open(&out, config).unwrap_err();
        assert!(matches!(error, DataError::OtherRun { .. }), "{error}");
        says(&error, expect);
    };
    refused(config(10, 5), &["seed: 0 there, 5 here"]);
    refused(config(11, 0), &["rows_per_shard: 10 there, 11 here"]);
    let mut other = config(10, 0);
    other.identity.model_sha256 = "f".repeat(64);
    other
        .identity
        .config
        .insert("decode".to_owned(), "sample:t=2".into());
    other.rewards.clear();
    refused(
        other,
        &[
            "weights: 0123456789ab there, ffffffffffff here",
            "decode: \"sample\" there, \"sample:t=2\" here",
            "rewards: length [nats] there, none here",
        ],
    );
    std::fs::create_dir(folder.path("foreign")).unwrap();
    folder.write("foreign/thesis.txt", b"mine");
    let error = RolloutWriter::open(&folder.path("foreign"), config(10, 0)).unwrap_err();
    says(&error, &["foreign exists"]);
    assert_eq!(files(&out), before);
    assert_eq!(files(&folder.path("foreign")).len(), 1);
}

#[test]
fn two_writers_are_refused() {
    let folder = Folder::new();
    let first = RolloutWriter::open(&folder.path("out"), config(10, 0)).unwrap();
    let error = RolloutWriter::open(&folder.path("out"), config(10, 0)).unwrap_err();
    says(&error, &["another run is using", "out"]);
    drop(first);
    RolloutWriter::open(&folder.path("out"), config(10, 0)).unwrap();
}

#[test]
fn rows_that_do_not_belong_are_refused_and_leave_no_trace() {
    let folder = Folder::new();
    let mut writer = RolloutWriter::open(&folder.path("out"), config(10, 0)).unwrap();
    writer.push(rollouts(0, 2)).unwrap();
    let mut refused = |rows: Vec<_>, expect: &[&str]| says(&writer.push(rows).unwrap_err(), expect);
    let with = |change: &dyn Fn(&mut trimtab_data::Rollout)| {
        let mut row = rollout(1, 0);
        change(&mut row);
        vec![row]
    };
    refused(
        vec![rollout(1, 0), rollout(2, 1)],
        &["prompt 2, sample 1", "of prompt 1 alone"],
    );
    refused(vec![rollout(1, 1)], &["prompt 1, sample 1", "expected sample 0"]);
    refused(rollouts(0, 2), &["prompt 0", "there already"]);
    let nan = with(&|row| row.rewards = [("length".to_owned(), f64::NAN)].into());
    refused(nan, &["prompt 1, sample 0", "reward:length is NaN"]);
    refused(
        with(&|row| row.log_prob = Some(f64::NEG_INFINITY)),
        &["log_prob is -inf"],
    );
    refused(with(&|row| row.rewards.clear()), &["[\"length\"]", "[]"]);
    writer.push(rollouts(1, 2)).unwrap();
    writer.finish().unwrap();
    assert_eq!(
        read(&folder.path("out")),
        [rollouts(0, 2), rollouts(1, 2)].concat()
    );
}

#[test]
fn a_gap_is_refused_at_the_end() {
    let folder = Folder::new();
    let mut writer = RolloutWriter::open(&folder.path("out"), config(100, 0)).unwrap();
    for prompt_idx in [0, 1, 3] {
        writer.push(rollouts(prompt_idx, 1)).unwrap();
    }
    says(
        &writer.finish().unwrap_err(),
        &["prompt 3", "prompt 2 is missing"],
    );
    assert!(!Manifest::open(&folder.path("out")).unwrap().unwrap().complete);
}

#[test]
fn reward_columns_have_names_of_their_own() {
    let folder = Folder::new();
    let column = |name: &str| RewardColumn {
        name: name.to_owned(),
        unit: String::new(),
    };
    let refused = |rewards: Vec<RewardColumn>, expect: &[&str]| {
        let config = trimtab_data::WriterConfig {
            rewards,
            ..config(10, 0)
        };
        says(
            &RolloutWriter::open(&folder.path("out"), config).unwrap_err(),
            expect,
        );
        assert!(!folder.path("out").exists());
    };
    refused(vec![column("a"), column("a")], &["\"a\"", "twice"]);
    refused(vec![column("")], &["expected a name"]);
}
