//! What was written is what is read, from memory and from files.

use std::collections::HashMap;
use std::fs;

use proptest::prelude::*;
use safetensors::tensor::{Dtype as OtherDtype, TensorView, serialize};
use trimtab_checkpoint::{Checkpoint, Dtype, Format, read_llama2c_tokenizer};

use crate::files::{GgufWriter, LLAMA2C, f32_bytes, llama2c, valid_gguf, valid_llama2c, valid_safetensors};

fn row(checkpoint: &Checkpoint, name: &str, row: usize) -> Vec<f32> {
    let tensor = checkpoint.tensor(name).unwrap();
    let mut out = vec![0.0; tensor.shape().last().copied().unwrap_or(1)];
    tensor.read_row(row, &mut out);
    out
}

#[test]
fn gguf_tensors() {
    let checkpoint = Checkpoint::from_gguf_bytes(valid_gguf().bytes()).unwrap();
    assert_eq!(checkpoint.format(), Format::Gguf);
    assert_eq!(
        checkpoint.tensor_names().collect::<Vec<_>>(),
        ["blocks", "matrix", "vector"]
    );
    let matrix = checkpoint.tensor("matrix").unwrap();
    // The file stores the innermost axis first.
    assert_eq!(
        (matrix.shape(), matrix.num_rows(), matrix.size_bytes()),
        (&[2, 3][..], 2, 24)
    );
    assert_eq!(row(&checkpoint, "matrix", 1), [4.0, 5.0, 6.0]);
    assert_eq!(row(&checkpoint, "vector", 0), [1.0, 2.0, -2.0, 0.0]);
    assert_eq!(checkpoint.tensor("blocks").unwrap().dtype(), Dtype::Q8_0);
    let missing = checkpoint.tensor("matrix\n").unwrap_err().to_string();
    assert_eq!(missing, r#"model.gguf: no tensor named "matrix\n""#);
}

#[test]
fn gguf_metadata() {
    let checkpoint = Checkpoint::from_gguf_bytes(valid_gguf().bytes()).unwrap();
    let metadata = checkpoint.metadata().unwrap();
    assert_eq!(metadata.text("general.architecture").unwrap(), Some("llama"));
    assert_eq!(metadata.bool("a.bool").unwrap(), Some(true));
    assert_eq!(metadata.u32("a.u8").unwrap(), Some(200));
    assert_eq!(metadata.i64("a.i8").unwrap(), Some(-56));
    assert_eq!(metadata.u32("a.u16").unwrap(), Some(60_000));
    assert_eq!(metadata.i64("a.i16").unwrap(), Some(-5));
    assert_eq!(metadata.i64("a.i32").unwrap(), Some(-7));
    assert_eq!(metadata.u64("a.u64").unwrap(), Some(u64::MAX));
    assert_eq!(metadata.i64("a.i64").unwrap(), Some(i64::MIN));
    assert_eq!(metadata.f32("a.f32").unwrap(), Some(0.1));
    assert_eq!(metadata.f64("a.f64").unwrap(), Some(0.1));
    assert_eq!(metadata.texts("a.texts").unwrap().unwrap(), ["x", "", "Ġyé"]);
    assert_eq!(metadata.f32s("a.f32s").unwrap().unwrap(), [1.5, -2.0]);
    assert_eq!(metadata.i32s("a.i32s").unwrap().unwrap(), [1, -1]);
    assert_eq!(metadata.bools("a.bools").unwrap().unwrap(), [true, false, true]);
    assert_eq!(metadata.u32("absent").unwrap(), None);
    assert!(metadata.contains("a.u8") && !metadata.contains("absent"));
    assert_eq!(metadata.keys().count(), 16);
}

#[test]
fn gguf_metadata_of_another_type() {
    let checkpoint = Checkpoint::from_gguf_bytes(valid_gguf().bytes()).unwrap();
    let metadata = checkpoint.metadata().unwrap();
    let check = |error: Option<String>, expect: &str| {
        assert_eq!(error.unwrap(), format!("model.gguf: metadata {expect}"));
    };
    let message = |error: trimtab_checkpoint::CheckpointError| error.to_string();
    check(
        metadata.u32("a.u64").map_err(message).err(),
        r#""a.u64" is the integer 18446744073709551615, expected an integer that fits u32"#,
    );
    check(
        metadata.u64("a.i16").map_err(message).err(),
        r#""a.i16" is the integer -5, expected an integer that fits u64"#,
    );
    check(
        metadata.f32("a.u8").map_err(message).err(),
        r#""a.u8" is the integer 200, expected a float"#,
    );
    check(
        metadata.text("a.f64").map_err(message).err(),
        r#""a.f64" is the float 0.1, expected a text"#,
    );
    check(
        metadata.texts("a.f32s").map_err(message).err(),
        r#""a.f32s" is an array of 2 F32, expected an array of texts"#,
    );
    let odd = GgufWriter::new(2)
        .array("t", 8, 1, &[2, 0, 0, 0, 0, 0, 0, 0, 0xc3, 0x28])
        .bytes();
    let odd = Checkpoint::from_gguf_bytes(odd).unwrap();
    let error = odd.metadata().unwrap().texts("t").map_err(message).err();
    check(
        error.map(|text| text.replace("element 0 of ", "")),
        "\"t\" is \"\u{fffd}(\", expected UTF-8 text",
    );
}

#[test]
fn gguf_alignment_is_obeyed() {
    let data = f32_bytes(&[3.0]);
    let writer = GgufWriter::new(2).aligned_to(64).u32("general.alignment", 64);
    let bytes = writer
        .tensor("a", &[1], 0, &data)
        .tensor("b", &[1], 0, &data)
        .bytes();
    let checkpoint = Checkpoint::from_gguf_bytes(bytes).unwrap();
    assert_eq!(row(&checkpoint, "b", 0), [3.0]);
}

#[test]
fn llama2c_tensors_lie_in_the_published_order() {
    let checkpoint = Checkpoint::from_llama2c_bytes(valid_llama2c()).unwrap();
    let header = checkpoint.llama2c_header().unwrap();
    assert_eq!(
        (header.dim, header.head_dim(), header.vocab_len, header.tied_head),
        (4, 2, 5, true)
    );
    // Float i of the file is the number i; offsets are summed up by hand.
    let check = |name: &str, row_idx: usize, first: f32| {
        assert_eq!(row(&checkpoint, name, row_idx)[0], first, "{name}");
    };
    check("tok_embeddings.weight", 4, 16.0);
    check("layers.0.attention_norm.weight", 0, 20.0);
    check("layers.1.attention_norm.weight", 0, 24.0);
    check("layers.1.attention.wq.weight", 0, 28.0 + 16.0);
    check("layers.0.attention.wk.weight", 1, 60.0 + 4.0);
    check("layers.0.attention.wv.weight", 0, 76.0);
    check("layers.1.attention.wo.weight", 3, 92.0 + 16.0 + 12.0);
    check("layers.0.ffn_norm.weight", 0, 124.0);
    check("layers.0.feed_forward.w1.weight", 5, 132.0 + 20.0);
    check("layers.0.feed_forward.w2.weight", 1, 180.0 + 6.0);
    check("layers.1.feed_forward.w3.weight", 0, 228.0 + 24.0);
    check("norm.weight", 0, 276.0);
    assert!(checkpoint.tensor("output.weight").is_err());
    let mut untied = LLAMA2C;
    untied[5] = -5;
    let checkpoint = Checkpoint::from_llama2c_bytes(llama2c(untied, 286 + 20)).unwrap();
    assert!(!checkpoint.llama2c_header().unwrap().tied_head);
    assert_eq!(row(&checkpoint, "output.weight", 0)[0], 286.0);
}

#[test]
fn safetensors_of_every_shape() {
    let checkpoint =
        Checkpoint::from_safetensors_bytes(b"{\"x\":1}".to_vec(), vec![valid_safetensors()]).unwrap();
    assert_eq!(checkpoint.config_json().unwrap()["x"], 1);
    assert_eq!(row(&checkpoint, "a", 1), [3.0, 4.0]);
    assert_eq!(row(&checkpoint, "b", 0), [1.0, 2.0, 3.0]);
    assert_eq!(row(&checkpoint, "scalar", 0), [1.0]);
    assert_eq!(checkpoint.tensor("empty").unwrap().num_rows(), 0);
}

proptest! {
    #[test]
    fn safetensors_by_another_writer(tensors in proptest::collection::btree_map("[a-z.]{1,12}", (1..4_usize, 1..5_usize, any::<u32>()), 1..8)) {
        let values = |rows: usize, len: usize, seed: u32| -> Vec<f32> {
            (0..rows * len).map(|i| f32::from(seed.wrapping_mul(i as u32 + 1) as u16)).collect()
        };
        let data: HashMap<&String, Vec<u8>> =
            tensors.iter().map(|(name, &(rows, len, seed))| (name, f32_bytes(&values(rows, len, seed)))).collect();
        let views: HashMap<&String, TensorView<'_>> = tensors
            .iter()
            .map(|(name, &(rows, len, _))| {
                (name, TensorView::new(OtherDtype::F32, vec![rows, len], &data[name]).unwrap())
            })
            .collect();
        let file = serialize(views, None).unwrap();
        let checkpoint = Checkpoint::from_safetensors_bytes(b"{}".to_vec(), vec![file]).unwrap();
        prop_assert_eq!(checkpoint.tensor_names().len(), tensors.len());
        for (name, &(rows, len, seed)) in &tensors {
            let tensor = checkpoint.tensor(name).unwrap();
            prop_assert_eq!(tensor.shape(), [rows, len]);
            let read: Vec<f32> = (0..rows).flat_map(|idx| row(&checkpoint, name, idx)).collect();
            prop_assert_eq!(read, values(rows, len, seed));
        }
    }
}

#[test]
fn files_are_told_apart_by_their_contents() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let format = |path: &std::path::Path| Checkpoint::open(path).unwrap().format();
    assert_eq!(format(&write("odd.name", &valid_gguf().bytes())), Format::Gguf);
    assert_eq!(format(&write("stories.bin", &valid_llama2c())), Format::Llama2c);
    write("config.json", b"{}");
    assert_eq!(
        format(&write("model.safetensors", &valid_safetensors())),
        Format::SafeTensors
    );
    assert_eq!(format(folder.path()), Format::SafeTensors);
    let released = Checkpoint::open(&folder.path().join("model.safetensors")).unwrap();
    released.tensor("a").unwrap().release();
    assert_eq!(row(&released, "a", 0), [1.0, 2.0]);
    assert_eq!(released.size_bytes(), valid_safetensors().len() as u64);

    let check = |path: &std::path::Path, expect: &str| {
        let error = Checkpoint::open(path).unwrap_err().to_string();
        assert!(error.contains(expect), "{error:?} does not contain {expect:?}");
    };
    check(
        &write("pytorch_model.bin", b"PK\x03\x04rest"),
        r#"is not a checkpoint that can be read: it begins with "PK\x03\x04rest""#,
    );
    check(
        &write("notes.txt", b"hello"),
        r#"it begins with "hello"; expected a GGUF file"#,
    );
    check(&write("empty", b""), r#"it begins with """#);
    check(
        &write("short.bin", b"\x04\0\0\0"),
        "hidden_dim at byte 4 needs 4 bytes",
    );
    check(&folder.path().join("absent.gguf"), "cannot read");
    fs::create_dir(folder.path().join("bare")).unwrap();
    check(&folder.path().join("bare"), "config.json");
}

#[test]
fn shards_are_read_as_one_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    for (file, tensor, value) in [("one.safetensors", "a", 1.0_f32), ("two.safetensors", "b", 2.0)] {
        let data = f32_bytes(&[value]);
        let view = TensorView::new(OtherDtype::F32, vec![1], &data).unwrap();
        write(file, &serialize([(tensor, view)], None).unwrap());
    }
    write("config.json", b"{}");
    write(
        "model.safetensors.index.json",
        br#"{"weight_map":{"a":"one.safetensors","b":"two.safetensors"}}"#,
    );
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(
        (row(&checkpoint, "a", 0), row(&checkpoint, "b", 0)),
        (vec![1.0], vec![2.0])
    );
}

#[test]
fn tokenizer_files_name_the_path() {
    let error = read_llama2c_tokenizer(std::path::Path::new("absent/tokenizer.bin"), 3)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("cannot read absent/tokenizer.bin: "), "{error}");
}
