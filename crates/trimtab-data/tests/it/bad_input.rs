//! Bad rows and damaged files: an error with place and value, no panic, no row left out.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Float64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use trimtab_data::{
    DataError, LabelColumns, LabelledReader, PreferenceReader, PromptForm, PromptReader, Rollout,
    RolloutReader, RolloutWriter, RowRange,
};

use crate::harness::{Folder, config, finished, rollouts, says};

fn all<T>(rows: impl Iterator<Item = Result<T, DataError>>) -> Result<Vec<T>, DataError> {
    rows.collect()
}

fn rollout_error(path: &Path) -> DataError {
    RolloutReader::open(path)
        .and_then(all)
        .expect_err("must be refused")
}

#[test]
fn bad_rollouts_are_named_by_row_and_column() {
    let folder = Folder::new();
    let check = |line: &str, expect: &[&str]| {
        let good = r#"{"prompt": "a", "response": "b"}"#;
        let path = folder.write("r.jsonl", format!("{good}\n\n{line}\n{good}\n").as_bytes());
        let error = rollout_error(&path);
        says(&error, expect);
        says(&error, &["r.jsonl row 3"]);
    };
    check("not json", &["column \"line\"", "expected a JSON object"]);
    check("[1]", &["got [1]"]);
    check(
        r#"{"prompt": "a"}"#,
        &["response, completion, chosen or messages", "missing"],
    );
    check(r#"{"response": "a", "x": 1}"#, &["prompt or messages", "[\"x\"]"]);
    check(r#"{"prompt": 3, "response": "a"}"#, &["\"prompt\"", "got 3"]);
    check(
        r#"{"prompt": "a", "response": 4.5}"#,
        &["\"response\"", "expected a text, got 4.5"],
    );
    check(
        r#"{"messages": [], "response": "a"}"#,
        &["\"messages\"", "got []"],
    );
    check(
        r#"{"prompt": "a", "response": "b", "reward": "NaN"}"#,
        &["\"reward\"", "\"NaN\""],
    );
    check(
        r#"{"prompt": "a", "response": "b", "rewards": {"x": null}}"#,
        &["\"reward:x\"", "null"],
    );
    check(
        r#"{"prompt": "a", "response": "b", "rewards": 1}"#,
        &["numbers by name, got 1"],
    );
    check(
        r#"{"prompt": "a", "response": "b", "prompt_idx": -1}"#,
        &["\"prompt_idx\"", "-1"],
    );
    check(
        r#"{"prompt": "a", "response": "b", "log_prob": "x"}"#,
        &["\"log_prob\"", "\"x\""],
    );
    check(
        r#"{"prompt": "a", "response": "b", "response_token_ids": [1, -2]}"#,
        &["list of token ids"],
    );
    check(r#"{"chosen": "\n\nHuman: hello"}"#, &["prompt or messages"]);
}

#[test]
fn bad_prompts_and_pairs_are_named_by_row_and_column() {
    let folder = Folder::new();
    let prompt = |line: &str, expect: &[&str]| {
        let path = folder.write("p.jsonl", line.as_bytes());
        let read = PromptReader::open(&path, PromptForm::FirstTurn, RowRange::ALL).and_then(all);
        says(&read.expect_err("must be refused"), expect);
    };
    prompt(
        r#"{"text": "a"}"#,
        &["row 1", "prompt, messages or chosen", "[\"text\"]"],
    );
    prompt(r#"{"prompt": " \n"}"#, &["empty"]);
    prompt(r#"{"chosen": "just an answer"}"#, &["\"chosen\"", "transcript"]);
    prompt(
        r#"{"messages": [{"role": "assistant", "content": "a"}]}"#,
        &["turn of the user"],
    );
    prompt(
        r#"{"messages": "a"}"#,
        &["\"messages\"", "expected messages, got \"a\""],
    );
    let pair = |line: &str, expect: &[&str]| {
        let path = folder.write("p.jsonl", line.as_bytes());
        let read = PreferenceReader::open(&path, RowRange::ALL).and_then(all);
        says(&read.expect_err("must be refused"), expect);
    };
    pair(r#"{"prompt": "a", "chosen": "b"}"#, &["\"rejected\"", "missing"]);
    pair(
        r#"{"prompt": "a", "chosen": "b", "rejected": 2}"#,
        &["\"rejected\"", "got 2"],
    );
    pair(
        r#"{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: z\n\nAssistant: b"}"#,
        &["\"rejected\"", "begin alike"],
    );
}

#[test]
fn bad_labels_are_named_and_the_rows_behind_them_are_read() {
    let folder = Folder::new();
    let columns = LabelColumns {
        text: "t".to_owned(),
        label: "s".to_owned(),
    };
    let good = r#"{"t": "a", "s": 1}"#;
    let check = |line: &str, expect: &[&str]| {
        let path = folder.write("l.jsonl", format!("{line}\n{good}\n").as_bytes());
        let mut rows = LabelledReader::open(&path, columns.clone(), RowRange::ALL).unwrap();
        says(&rows.next().unwrap().expect_err("must be refused"), expect);
        assert_eq!(rows.next().unwrap().unwrap().row, 2, "{line}");
        assert!(rows.next().is_none());
    };
    check(r#"{"t": "a"}"#, &["row 1", "\"s\"", "missing"]);
    check(
        r#"{"text": "a", "s": 1}"#,
        &["\"t\"", "missing", "[\"s\", \"text\"]"],
    );
    check(r#"{"t": 5, "s": 1}"#, &["\"t\"", "expected a text, got 5"]);
    check(r#"{"t": "a", "s": 2}"#, &["\"s\"", "number in [0, 1]", "got 2"]);
    check(r#"{"t": "a", "s": "good"}"#, &["got \"good\""]);
    check(r#"{"t": "a", "s": 1, "prompt": 7}"#, &["\"prompt\"", "got 7"]);
    let path = folder.write(
        "p.jsonl",
        b"{\"chosen\": \"a\"}\n{\"chosen\": \"a\", \"rejected\": \"b\"}\n",
    );
    let rows: Vec<_> = PreferenceReader::open(&path, RowRange::ALL).unwrap().collect();
    assert!(
        matches!(&rows[..], [Err(_), Ok(pair)] if pair.row == 2),
        "{rows:?}"
    );
    // Nothing follows what cannot be read on.
    let path = folder.write("cut.json", b"[{\"t\": \"a\", \"s\": 1}, {\"t\": ");
    let rows: Vec<_> = LabelledReader::open(&path, columns, RowRange::ALL)
        .unwrap()
        .collect();
    assert!(
        matches!(&rows[..], [Ok(_), Err(DataError::Damaged { .. })]),
        "{rows:?}"
    );
}

#[test]
fn bytes_that_are_no_text_are_named_by_line() {
    let folder = Folder::new();
    let content = b"{\"prompt\": \"a\", \"response\": \"b\"}\n{\"prompt\": \"a\xff\"}\n";
    for name in ["r.jsonl", "r.jsonl.gz", "r.jsonl.zst"] {
        says(
            &rollout_error(&folder.write(name, content)),
            &["row 2", "UTF-8", "byte 13"],
        );
    }
    let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![Some(&b"good"[..]), Some(b"b\xff")]));
    let path = folder.path("r.parquet");
    write_parquet(&path, vec![("prompt", Arc::clone(&bytes)), ("response", bytes)]);
    says(
        &rollout_error(&path),
        &["r.parquet row 2", "\"prompt\"", "UTF-8", "byte 1"],
    );
}

fn write_parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn rewards_that_are_no_numbers_are_named_by_row() {
    let folder = Folder::new();
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a"; 1500]));
    let mut rewards = vec![0.5; 1500];
    rewards[1234] = f64::NAN;
    let path = folder.path("r.parquet");
    let columns = vec![
        ("prompt", Arc::clone(&texts)),
        ("response", texts),
        ("reward", Arc::new(Float64Array::from(rewards)) as ArrayRef),
    ];
    write_parquet(&path, columns);
    says(
        &rollout_error(&path),
        &["r.parquet row 1235", "\"reward\"", "NaN"],
    );
}

#[test]
fn a_shard_that_lacks_a_column_says_which() {
    let folder = Folder::new();
    finished(&folder.path("out"), 0..1, 10);
    let shard = folder.path("out/part-00000.parquet");
    let file = std::fs::File::open(&shard).unwrap();
    let builder = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let metadata = builder.metadata().file_metadata().key_value_metadata().cloned();
    let batch = builder.build().unwrap().next().unwrap().unwrap();
    let kept: Vec<usize> = (0..batch.num_columns())
        .filter(|&idx| batch.schema().field(idx).name() != "finish")
        .collect();
    let batch = batch.project(&kept).unwrap();
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_key_value_metadata(metadata)
        .build();
    let path = folder.path("cut.parquet");
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    says(&rollout_error(&path), &["cut.parquet", "\"finish\"", "missing"]);
}

#[test]
fn files_that_end_too_early_are_refused() {
    let folder = Folder::new();
    let line = r#"{"prompt": "a", "response": "b"}"#;
    // Lines that do not compress away, so that what is cut off is rows.
    let lines: Vec<String> = (0..2000_u64)
        .map(|idx| line.replace('b', &idx.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string()))
        .collect();
    for name in ["r.jsonl.gz", "r.jsonl.zst"] {
        let path = folder.write(name, lines.join("\n").as_bytes());
        let bytes = std::fs::read(&path).unwrap();
        for cut in [1, bytes.len() / 2, bytes.len() - 3] {
            std::fs::write(&path, &bytes[..bytes.len() - cut]).unwrap();
            says(&rollout_error(&path), &[name, "cannot be read after line"]);
        }
    }
}

#[test]
fn damaged_parquet_files_are_refused_or_read_but_never_panic() {
    let folder = Folder::new();
    finished(&folder.path("out"), 0..40, 1000);
    let shard = folder.path("out/part-00000.parquet");
    let bytes = std::fs::read(&shard).unwrap();
    let path = folder.path("damaged.parquet");
    for len in [0, 3, 8, bytes.len() / 3, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..len]).unwrap();
        says(
            &rollout_error(&path),
            &["damaged.parquet", "not a whole Parquet file"],
        );
    }
    // Bytes turned over all through the file; in a folder the hash finds every one.
    let step = bytes.len() / 400 + 1;
    for at in (0..bytes.len()).step_by(step) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        std::fs::write(&path, &damaged).unwrap();
        let read = RolloutReader::open(&path).and_then(all);
        drop(read);
        std::fs::write(&shard, &damaged).unwrap();
        says(
            &rollout_error(&folder.path("out")),
            &["part-00000.parquet", "expected sha256"],
        );
    }
}

#[test]
fn folders_that_are_no_finished_run_are_refused() {
    let folder = Folder::new();
    let out = folder.path("out");
    std::fs::create_dir(&out).unwrap();
    says(&rollout_error(&out), &["out", "manifest.json"]);
    let mut writer = RolloutWriter::open(&out, config(2, 0)).unwrap();
    writer.push(rollouts(0, 3)).unwrap();
    drop(writer);
    says(&rollout_error(&out), &["out is not finished (3 rows"]);
    folder.write("out/manifest.json", b"{\"schema_version\": 99}");
    says(
        &rollout_error(&out),
        &["manifest.json", "schema_version 1, got 99"],
    );
    folder.write("out/manifest.json", b"{");
    says(&rollout_error(&out), &["manifest.json"]);
    says(
        &rollout_error(&folder.path("absent.jsonl")),
        &["cannot read", "absent.jsonl"],
    );
    says(
        &rollout_error(&folder.write("r.docx", b"x")),
        &["r.docx", ".parquet"],
    );
}

#[test]
fn shards_cannot_point_out_of_their_folder() {
    let folder = Folder::new();
    let out = folder.path("out");
    finished(&out, 0..1, 10);
    let manifest = std::fs::read_to_string(out.join("manifest.json")).unwrap();
    for name in ["../secret.parquet", "/etc/passwd", ".."] {
        let moved = manifest.replace("part-00000.parquet", name);
        std::fs::write(out.join("manifest.json"), moved).unwrap();
        says(&rollout_error(&out), &["manifest.json", "no file of this folder"]);
    }
}

#[test]
fn journals_are_damaged_or_whole() {
    let folder = Folder::new();
    let out = folder.path("out");
    let mut writer = RolloutWriter::open(&out, config(100, 0)).unwrap();
    for prompt_idx in 0..3 {
        writer.push(rollouts(prompt_idx, 1)).unwrap();
    }
    drop(writer);
    let mut bytes = std::fs::read(out.join("journal")).unwrap();
    let second = bytes.iter().position(|&byte| byte == b'\n').unwrap() + 20;
    bytes[second] ^= 1;
    std::fs::write(out.join("journal"), bytes).unwrap();
    let error = RolloutWriter::open(&out, config(100, 0)).unwrap_err();
    says(&error, &["journal", "line 2 is damaged"]);
}

#[test]
fn nothing_follows_an_error() {
    let folder = Folder::new();
    let path = folder.write("r.jsonl", b"bad\n{\"prompt\": \"a\", \"response\": \"b\"}\n");
    let read: Vec<Result<Rollout, DataError>> = RolloutReader::open(&path).unwrap().collect();
    assert_eq!(read.len(), 1);
    assert!(read[0].is_err());
}
