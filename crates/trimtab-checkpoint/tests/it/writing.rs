//! Files that are written: read again by this crate's reader and by the safetensors library, and refused where a number
//! would be damaged.

use std::fs;

use proptest::prelude::*;
use safetensors::SafeTensors;
use trimtab_checkpoint::{
    Checkpoint, Dtype, GgufEntries, NewTensor, TensorRows, WriteError, write_gguf, write_safetensors,
    write_safetensors_folder, write_whole,
};

/// Numbers that say where they stand.
struct Numbers;

impl TensorRows for Numbers {
    fn read_row(&self, tensor_idx: usize, row: usize, out: &mut [f32]) {
        for (column, value) in out.iter_mut().enumerate() {
            *value = (100 * tensor_idx + 10 * row + column) as f32 + 0.25;
        }
    }
}

/// One number everywhere.
struct Constant(f32);

impl TensorRows for Constant {
    fn read_row(&self, _tensor_idx: usize, _row: usize, out: &mut [f32]) {
        out.fill(self.0);
    }
}

fn tensors(dtype: Dtype) -> Vec<NewTensor> {
    [("matrix", vec![3, 5]), ("vector", vec![7]), ("other", vec![2, 1])]
        .into_iter()
        .map(|(name, shape)| NewTensor {
            name: name.to_owned(),
            shape,
            dtype,
        })
        .collect()
}

fn assert_numbers(checkpoint: &Checkpoint, dtype: Dtype) {
    for (idx, expected) in tensors(dtype).iter().enumerate() {
        let tensor = checkpoint.tensor(&expected.name).unwrap();
        assert_eq!(
            (tensor.shape(), tensor.dtype()),
            (expected.shape.as_slice(), dtype)
        );
        for row in 0..tensor.num_rows() {
            let mut got = vec![0.0; *expected.shape.last().unwrap()];
            let mut want = got.clone();
            tensor.read_row(row, &mut got);
            Numbers.read_row(idx, row, &mut want);
            // Quarters below 256 are values of all three types, but for BF16's eight bits.
            if dtype != Dtype::Bf16 {
                assert_eq!(got, want, "{} row {row}", expected.name);
            }
            let close = got
                .iter()
                .zip(&want)
                .all(|(got, want)| (got - want).abs() <= want / 256.0);
            assert!(close, "{got:?} {want:?}");
        }
    }
}

#[test]
fn gguf_files_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let path = folder.path().join("a.gguf");
        let mut entries = GgufEntries::default();
        entries.text("general.architecture", "llama");
        entries.u32("a.u32", 7);
        entries.f32("a.f32", 0.1);
        entries.bool("a.bool", true);
        entries.texts("a.texts", &["x", "", "Ġyé"]);
        entries.f32s("a.f32s", &[1.5, -2.0]);
        entries.i32s("a.i32s", &[1, -1]);
        entries.bools("a.bools", &[true, false]);
        write_whole(&path, |out| write_gguf(&entries, &tensors(dtype), &Numbers, out)).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_numbers(&checkpoint, dtype);
        let metadata = checkpoint.metadata().unwrap();
        assert_eq!(metadata.text("general.architecture").unwrap(), Some("llama"));
        assert_eq!(metadata.u32("a.u32").unwrap(), Some(7));
        assert_eq!(metadata.f32("a.f32").unwrap(), Some(0.1));
        assert_eq!(metadata.bool("a.bool").unwrap(), Some(true));
        assert_eq!(metadata.texts("a.texts").unwrap().unwrap(), ["x", "", "Ġyé"]);
        assert_eq!(metadata.f32s("a.f32s").unwrap().unwrap(), [1.5, -2.0]);
        assert_eq!(metadata.i32s("a.i32s").unwrap().unwrap(), [1, -1]);
        assert_eq!(metadata.bools("a.bools").unwrap().unwrap(), [true, false]);
    }
}

#[test]
fn copied_entries_keep_their_bytes_and_alignment() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a.gguf"), folder.path().join("b.gguf"));
    let mut entries = GgufEntries::default();
    entries.u32("general.file_type", 1);
    entries.u32("general.alignment", 64);
    entries.texts("z", &["before a in the file"]);
    entries.text("a", "after z");
    // The number of the entry takes effect where a file is read: this first one is written at 32 and has no tensors.
    write_whole(&first, |out| write_gguf(&entries, &[], &Numbers, out)).unwrap();
    let checkpoint = Checkpoint::open(&first).unwrap();
    let metadata = checkpoint.metadata().unwrap();
    let copied = GgufEntries::copied(&metadata, &["general.file_type"]);
    write_whole(&second, |out| {
        write_gguf(&copied, &tensors(Dtype::F32), &Numbers, out)
    })
    .unwrap();
    let checkpoint = Checkpoint::open(&second).unwrap();
    assert_numbers(&checkpoint, Dtype::F32);
    let metadata = checkpoint.metadata().unwrap();
    assert_eq!(
        metadata.keys().collect::<Vec<_>>(),
        ["a", "general.alignment", "z"]
    );
    let bytes = fs::read(&second).unwrap();
    let place = |text: &[u8]| bytes.windows(text.len()).position(|window| window == text);
    assert!(
        place(b"before a") < place(b"after z"),
        "the order of the file is kept"
    );
}

#[test]
fn safetensors_are_read_by_the_library() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for (dtype, other) in [
        (Dtype::F32, safetensors::Dtype::F32),
        (Dtype::F16, safetensors::Dtype::F16),
        (Dtype::Bf16, safetensors::Dtype::BF16),
    ] {
        write_whole(&path, |out| write_safetensors(&tensors(dtype), &Numbers, out)).unwrap();
        let bytes = fs::read(&path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
        let view = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(view.tensor("matrix").unwrap().shape(), [3, 5]);
        assert_eq!(view.tensor("vector").unwrap().dtype(), other);
        fs::write(folder.path().join("config.json"), "{}").unwrap();
        assert_numbers(&Checkpoint::open(folder.path()).unwrap(), dtype);
    }
}

#[test]
fn large_checkpoints_come_in_shards() {
    let check = |max_shard_bytes: u64, expect: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), "{}").unwrap();
        write_safetensors_folder(folder.path(), &tensors(Dtype::F32), max_shard_bytes, &Numbers).unwrap();
        let mut names: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "config.json")
            .collect();
        names.sort();
        assert_eq!(names, expect, "{max_shard_bytes}");
        assert_numbers(&Checkpoint::open(folder.path()).unwrap(), Dtype::F32);
    };
    // The tensors have 60, 28 and 8 bytes.
    check(96, &["model.safetensors"]);
    let index = "model.safetensors.index.json";
    let (first, second) = (
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    );
    check(95, &[first, second, index]);
    // A tensor above the limit has a file of its own.
    let three = [1, 2, 3].map(|idx| format!("model-0000{idx}-of-00003.safetensors"));
    check(1, &[&three[0], &three[1], &three[2], index]);
}

#[test]
fn numbers_that_a_type_cannot_hold_are_refused_and_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let write = |value: f32, dtype: Dtype| {
        write_whole(&path, |out| {
            write_safetensors(&tensors(dtype), &Constant(value), out)
        })
    };
    let error = write(65_520.0, Dtype::F16).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tensor \"matrix\": F16 cannot hold 65520, its largest number is 65504; write BF16 or F32"
    );
    let error = write(1.0, Dtype::Q8_0).unwrap_err();
    assert!(
        matches!(
            error,
            WriteError::ReadOnlyDtype {
                dtype: Dtype::Q8_0,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        0,
        "a broken file was left"
    );
    write(65_504.0, Dtype::F16).unwrap();
    write(65_520.0, Dtype::Bf16).unwrap();
    // What is broken already is written as it is.
    write(f32::INFINITY, Dtype::F16).unwrap();
}

proptest! {
    /// Half the distance between neighbours is the most that rounding may change.
    #[test]
    fn rounding_is_to_nearest(value in -60_000.0_f32..60_000.0) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), "{}").unwrap();
        for (dtype, bits) in [(Dtype::F16, 11), (Dtype::Bf16, 8)] {
            write_safetensors_folder(folder.path(), &tensors(dtype), u64::MAX, &Constant(value)).unwrap();
            let mut got = vec![0.0; 7];
            Checkpoint::open(folder.path()).unwrap().tensor("vector").unwrap().read_row(0, &mut got);
            // Below 2^-14 halves are denormal, with a fixed distance of 2^-24.
            let most = (value.abs() * 2.0_f32.powi(-bits)).max(2.0_f32.powi(-25));
            prop_assert!((got[0] - value).abs() <= most, "{dtype}: {value} became {}", got[0]);
        }
    }
}
