//! Every form of file that is read, and what its rows mean.

use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder, StructBuilder};
use arrow_array::{ArrayRef, BinaryArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Fields};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use trimtab_data::{
    LabelColumns, LabelledReader, LabelledResponse, Message, PreferencePair, PreferenceReader, PromptForm,
    PromptReader, PromptRecord, Rollout, RolloutReader, RowRange,
};

use crate::harness::{Folder, finished, read, rollouts};

const HH: &str = r#"{"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: good", "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: bad", "id": 7}"#;

fn write_parquet(path: &Path, columns: Vec<(&str, ArrayRef)>, compression: Compression) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder().set_compression(compression).build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn dialogues(values: &[&[(&str, &str)]]) -> ListArray {
    let fields = ["content", "role"].map(|name| Field::new(name, DataType::Utf8, true));
    let mut builder = ListBuilder::new(StructBuilder::from_fields(Fields::from(fields.to_vec()), 4));
    for dialogue in values {
        for (role, content) in *dialogue {
            let turn = builder.values();
            turn.field_builder::<StringBuilder>(0)
                .unwrap()
                .append_value(content);
            turn.field_builder::<StringBuilder>(1).unwrap().append_value(role);
            turn.append(true);
        }
        builder.append(true);
    }
    builder.finish()
}

fn prompts(path: &Path, form: PromptForm) -> Vec<PromptRecord> {
    PromptReader::open(path, form, RowRange::ALL)
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

fn pairs(path: &Path) -> Vec<PreferencePair> {
    PreferenceReader::open(path, RowRange::ALL)
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

/// Place, prompt and response of each.
fn short(rows: &[Rollout]) -> Vec<(u64, u64, &str, &str)> {
    rows.iter()
        .map(|row| {
            (
                row.prompt_idx,
                row.sample_idx,
                row.prompt.as_str(),
                row.response.as_str(),
            )
        })
        .collect()
}

#[test]
fn packed_files_are_read_like_plain_ones() {
    let folder = Folder::new();
    let content =
        "\u{feff}{\"prompt\": \"a\", \"response\": \"b\"}\r\n\n{\"prompt\": \"c\", \"response\": \"d\"}";
    for name in ["r.jsonl", "r.jsonl.gz", "r.jsonl.zst", "r.json", "R.JSONL"] {
        let rows = read(&folder.write(name, content.as_bytes()));
        assert_eq!(short(&rows), [(0, 0, "a", "b"), (1, 0, "c", "d")], "{name}");
    }
    // Several members in one file, as tools that append leave them.
    for name in ["twice.jsonl.gz", "twice.jsonl.zst"] {
        let path = folder.write(name, format!("{}\n", &content[3..]).as_bytes());
        std::fs::write(&path, std::fs::read(&path).unwrap().repeat(2)).unwrap();
        assert_eq!(read(&path).len(), 4, "{name}");
    }
}

#[test]
fn one_array_is_read_like_lines() {
    let folder = Folder::new();
    let content = "\u{feff} [\n {\"prompt\": \"a, ]\", \"response\": \"b\"} ,{\"prompt\": \"c\", \"response\": \"d\"}\n]\n";
    for name in ["r.json", "r.json.gz", "r.jsonl.zst"] {
        let rows = read(&folder.write(name, content.as_bytes()));
        assert_eq!(short(&rows), [(0, 0, "a, ]", "b"), (1, 0, "c", "d")], "{name}");
    }
    let path = folder.write("r.json", content.as_bytes());
    let range = RowRange { skip: 1, limit: None };
    let prompts = PromptReader::open(&path, PromptForm::FirstTurn, range).unwrap();
    let rows: Vec<u64> = prompts.map(|prompt| prompt.unwrap().row).collect();
    assert_eq!(rows, [2]);
}

#[test]
fn labels_are_numbers_and_truths_in_named_columns() {
    let folder = Folder::new();
    let path = folder.write(
        "reviews.json",
        br#"[{"t": "good", "s": 1}, {"t": "bad", "s": false, "id": 3}, {"t": "so", "s": "0.25", "prompt": "ask"},
            {"t": "x", "s": 0, "messages": [{"role": "system", "content": "be"}, {"role": "user", "content": "u"}]}]"#,
    );
    let columns = LabelColumns {
        text: "t".to_owned(),
        label: "s".to_owned(),
    };
    let rows: Vec<LabelledResponse> = LabelledReader::open(&path, columns, RowRange::ALL)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let said: Vec<(&str, f64)> = rows
        .iter()
        .map(|row| (row.response.as_str(), row.label))
        .collect();
    assert_eq!(said, [("good", 1.0), ("bad", 0.0), ("so", 0.25), ("x", 0.0)]);
    assert_eq!((rows[1].prompt.clone(), &rows[1].record["id"]), (None, &3.into()));
    assert_eq!(rows[2].prompt.as_deref(), Some("ask"));
    assert_eq!(rows[3].turns().len(), 2);
}

#[test]
fn responses_stand_in_the_usual_columns() {
    let folder = Folder::new();
    let check = |line: &str, expect: (&str, &str)| {
        let rows = read(&folder.write("r.jsonl", line.as_bytes()));
        assert_eq!(
            (rows[0].prompt.as_str(), rows[0].response.as_str()),
            expect,
            "{line}"
        );
    };
    check(r#"{"prompt": "a", "response": "b"}"#, ("a", "b"));
    check(r#"{"prompt": "a", "completion": "b"}"#, ("a", "b"));
    check(r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#, ("a", "b"));
    check(
        r#"{"prompt": "a", "messages": null, "response": "b"}"#,
        ("a", "b"),
    );
    let turns = r#"[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]"#;
    check(&format!(r#"{{"messages": {turns}}}"#), ("a", "b"));
    check(&format!(r#"{{"prompt": "a", "messages": {turns}}}"#), ("a", "b"));
    check(
        &format!(r#"{{"messages": {turns}, "response": "c"}}"#),
        ("Human: a\n\nAssistant: b", "c"),
    );
    check(
        r#"{"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]}"#,
        ("a", "b"),
    );
    check(HH, ("Human: a\n\nAssistant: b\n\nHuman: c", "good"));
}

#[test]
fn our_own_rows_come_back_from_json_too() {
    let folder = Folder::new();
    let rows: Vec<Rollout> = (0..4).flat_map(|prompt_idx| rollouts(prompt_idx, 2)).collect();
    let lines: Vec<String> = rows
        .iter()
        .map(|row| serde_json::to_string(row).unwrap())
        .collect();
    assert_eq!(
        read(&folder.write("r.jsonl.zst", lines.join("\n").as_bytes())),
        rows
    );
}

#[test]
fn samples_of_one_prompt_are_consecutive_rows() {
    let folder = Folder::new();
    let rows = ["a", "a", "b", "a"]
        .map(|prompt| format!(r#"{{"prompt": "{prompt}", "response": "r", "reward": 0.5, "n": 3}}"#));
    let rows = read(&folder.write("r.jsonl", rows.join("\n").as_bytes()));
    let places: Vec<_> = rows.iter().map(|row| (row.prompt_idx, row.sample_idx)).collect();
    assert_eq!(places, [(0, 0), (0, 1), (1, 0), (2, 0)]);
    assert_eq!(rows[0].rewards["reward"], 0.5);
    assert_eq!(rows[0].record["n"], 3);
}

#[test]
fn parquet_files_of_hubs_are_read_whatever_their_compression() {
    let folder = Folder::new();
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(parquet::basic::GzipLevel::default()),
        Compression::ZSTD(parquet::basic::ZstdLevel::default()),
    ] {
        let path = folder.path("r.parquet");
        let missing: ArrayRef = Arc::new(Float64Array::from(vec![None, Some(f64::NAN)]));
        let score: ArrayRef = Arc::new(Float64Array::from(vec![0.25, -1.5]));
        let image: ArrayRef = Arc::new(dialogues(&[&[("user", "x")], &[]]));
        let columns = vec![
            ("prompt", texts(&["a", "é"])),
            ("response", texts(&["b", "d"])),
            ("reward:helpful", score),
            ("id", Arc::new(Int64Array::from(vec![1, 2]))),
            ("missing", missing),
            ("nested", image),
        ];
        write_parquet(&path, columns, compression);
        let rows = read(&path);
        assert_eq!(
            short(&rows),
            [(0, 0, "a", "b"), (1, 0, "é", "d")],
            "{compression:?}"
        );
        assert_eq!(
            (rows[0].rewards["helpful"], rows[1].rewards["helpful"]),
            (0.25, -1.5)
        );
        assert_eq!(rows[1].record["id"], 2);
        assert_eq!(
            (rows[0].record.get("missing"), &rows[1].record["missing"]),
            (None, &"NaN".into())
        );
        assert_eq!(rows[0].record["nested"][0]["content"], "x");
    }
}

#[test]
fn texts_that_are_not_marked_as_such_are_texts_and_images_are_left_out() {
    let folder = Folder::new();
    let path = folder.path("p.parquet");
    let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![Some("é".as_bytes())]));
    let mut images = ListBuilder::new(arrow_array::builder::BinaryBuilder::new());
    images.values().append_value([0xff, 0xd8]);
    images.append(true);
    write_parquet(
        &path,
        vec![("prompt", bytes), ("images", Arc::new(images.finish()))],
        Compression::UNCOMPRESSED,
    );
    let reader = PromptReader::open(&path, PromptForm::FirstTurn, RowRange::ALL).unwrap();
    assert_eq!(reader.left_out(), ["images"]);
    let records: Vec<_> = reader.map(Result::unwrap).collect();
    assert_eq!((records[0].prompt.as_str(), records[0].record.len()), ("é", 0));
}

#[test]
fn prompts_come_out_of_every_form() {
    let folder = Folder::new();
    let check = |path: &Path, form: PromptForm, prompt: &str, turns: &[(&str, &str)]| {
        let records = prompts(path, form);
        let turns: Vec<Message> = turns
            .iter()
            .map(|(role, text)| Message::new(*role, *text))
            .collect();
        assert_eq!(
            (records[0].prompt.as_str(), &records[0].messages),
            (prompt, &turns),
            "{path:?}"
        );
    };
    let (first, whole) = (PromptForm::FirstTurn, PromptForm::Dialogue);
    check(&folder.write("p.txt", b"\n one \n\ntwo\n"), first, "one", &[]);
    check(&folder.write("p.txt.gz", b"one"), first, "one", &[]);
    check(
        &folder.write("p.jsonl", br#"{"prompt": " a\n"}"#),
        first,
        " a\n",
        &[],
    );
    let hh = folder.write("hh.jsonl.gz", HH.as_bytes());
    check(&hh, first, "a", &[]);
    assert_eq!(
        prompts(&hh, first)[0].record,
        [("id".to_owned(), 7.into())].into_iter().collect()
    );
    let turns = [("user", "a"), ("assistant", "b"), ("user", "c")];
    check(&hh, whole, "Human: a\n\nAssistant: b\n\nHuman: c", &turns);
    let path = folder.path("chat.parquet");
    let chat = dialogues(&[&[("system", "s"), ("user", "a"), ("assistant", "b")]]);
    write_parquet(&path, vec![("messages", Arc::new(chat))], Compression::SNAPPY);
    check(
        &path,
        first,
        "system: s\n\nHuman: a",
        &[("system", "s"), ("user", "a")],
    );
    check(
        &path,
        whole,
        "system: s\n\nHuman: a",
        &[("system", "s"), ("user", "a")],
    );
}

#[test]
fn preferences_come_out_of_every_form() {
    let folder = Folder::new();
    let check = |line: &str, expect: (&str, usize, &str, &str)| {
        let pair = pairs(&folder.write("p.jsonl", line.as_bytes())).remove(0);
        let got = (
            pair.prompt.as_str(),
            pair.messages.len(),
            pair.chosen.as_str(),
            pair.rejected.as_str(),
        );
        assert_eq!(got, expect, "{line}");
        assert_eq!((pair.row, pair.turns().is_empty()), (1, false));
    };
    check(
        r#"{"prompt": "a", "chosen": "b", "rejected": "c", "id": 1}"#,
        ("a", 0, "b", "c"),
    );
    // Two texts without a prompt, as in UKPConvArg.
    check(
        r#"{"chosen": "b", "rejected": "c", "topic": "t"}"#,
        ("", 0, "b", "c"),
    );
    check(HH, ("Human: a\n\nAssistant: b\n\nHuman: c", 3, "good", "bad"));
    let turns = |answer: &str| {
        format!(r#"[{{"role": "user", "content": "a"}}, {{"role": "assistant", "content": "{answer}"}}]"#)
    };
    let (chosen, rejected) = (turns("b"), turns("c"));
    check(
        &format!(r#"{{"prompt": "ignored", "chosen": {chosen}, "rejected": {rejected}}}"#),
        ("a", 0, "b", "c"),
    );
    let same = turns("b");
    check(
        &format!(r#"{{"chosen": {same}, "rejected": {same}}}"#),
        ("a", 0, "b", "b"),
    );
    let answer = |text: &str| format!(r#"[{{"role": "assistant", "content": "{text}"}}]"#);
    let (b, c) = (answer("b"), answer("c"));
    check(
        &format!(r#"{{"prompt": "a", "chosen": {b}, "rejected": {c}}}"#),
        ("a", 0, "b", "c"),
    );
}

#[test]
fn ranges_are_rows_of_every_form() {
    let folder = Folder::new();
    finished(&folder.path("out"), 0..4, 5);
    let all = read(&folder.path("out"));
    let lines: Vec<String> = all
        .iter()
        .map(|row| serde_json::to_string(row).unwrap())
        .collect();
    folder.write("rows.jsonl.gz", format!("\n{}", lines.join("\n\n")).as_bytes());
    std::fs::create_dir(folder.path("one")).unwrap();
    finished(&folder.path("single"), 0..4, 100);
    let parts = ["out", "rows.jsonl.gz", "single/part-00000.parquet"];
    for (skip, limit) in [
        (0, None),
        (0, Some(0)),
        (3, Some(4)),
        (6, Some(1)),
        (7, None),
        (11, Some(9)),
        (40, None),
    ] {
        let range = RowRange { skip, limit };
        let start = (skip as usize).min(all.len());
        let end = limit.map_or(all.len(), |limit| (start + limit as usize).min(all.len()));
        for part in parts {
            let reader = RolloutReader::open_range(&folder.path(part), range).unwrap();
            let got: Vec<Rollout> = reader.map(Result::unwrap).collect();
            assert_eq!(got, all[start..end], "{part} {range:?}");
        }
    }
}

#[test]
fn the_test_split_of_hh_rlhf_is_read_whole() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/data/hh-rlhf/harmless-base.test.jsonl.gz");
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return;
    }
    let read = pairs(&path);
    assert_eq!(read.len(), 2312);
    assert!(
        read.iter()
            .all(|pair| pair.turns().last().is_some_and(|turn| turn.role == "user"))
    );
    assert!(
        read.iter()
            .filter(|pair| pair.chosen.contains("\n\nHuman:"))
            .count()
            <= 5
    );
    let firsts = prompts(&path, PromptForm::FirstTurn);
    assert_eq!(firsts[0].prompt, "what are some pranks with a pen i can do?");
    assert!(
        firsts
            .iter()
            .all(|record| record.messages.is_empty() && record.record.is_empty())
    );
}
