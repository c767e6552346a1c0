//! Small valid files, and the pieces to make invalid ones from. Knows the layouts, written down a second time.

use trimtab_checkpoint::{Checkpoint, CheckpointError};

/// Bytes of a GGUF file under construction.
#[derive(Clone)]
pub(crate) struct GgufWriter {
    version: u32,
    num_values: u64,
    values: Vec<u8>,
    num_tensors: u64,
    tensors: Vec<u8>,
    data: Vec<u8>,
    alignment: usize,
}

impl GgufWriter {
    pub(crate) fn new(version: u32) -> Self {
        Self {
            version,
            num_values: 0,
            values: Vec::new(),
            num_tensors: 0,
            tensors: Vec::new(),
            data: Vec::new(),
            alignment: 32,
        }
    }

    /// Alignment that `bytes` uses, for files that store another one.
    pub(crate) fn aligned_to(mut self, alignment: usize) -> Self {
        self.alignment = alignment;
        self
    }

    /// A metadata entry with the bytes of its value.
    pub(crate) fn value(mut self, key: &str, kind: u32, bytes: &[u8]) -> Self {
        self.num_values += 1;
        self.values.extend(text(key));
        self.values.extend(kind.to_le_bytes());
        self.values.extend(bytes);
        self
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Self {
        self.value(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        let bytes = text(value);
        self.value(key, 8, &bytes)
    }

    /// An array: element type, number of elements, their bytes.
    pub(crate) fn array(self, key: &str, kind: u32, len: u64, bytes: &[u8]) -> Self {
        let mut value = kind.to_le_bytes().to_vec();
        value.extend(len.to_le_bytes());
        value.extend(bytes);
        self.value(key, 9, &value)
    }

    /// A tensor with its axes innermost first, placed after the ones before.
    pub(crate) fn tensor(mut self, name: &str, axes: &[u64], kind: u32, data: &[u8]) -> Self {
        let offset = self.data.len().next_multiple_of(self.alignment);
        self = self.tensor_at(name, axes, kind, offset as u64);
        self.data.resize(offset, 0);
        self.data.extend(data);
        self
    }

    /// A row of the tensor table that brings no data.
    pub(crate) fn tensor_at(mut self, name: &str, axes: &[u64], kind: u32, offset: u64) -> Self {
        self.num_tensors += 1;
        self.tensors.extend(text(name));
        self.tensors.extend((axes.len() as u32).to_le_bytes());
        for axis in axes {
            self.tensors.extend(axis.to_le_bytes());
        }
        self.tensors.extend(kind.to_le_bytes());
        self.tensors.extend(offset.to_le_bytes());
        self
    }

    pub(crate) fn with_counts(mut self, num_tensors: u64, num_values: u64) -> Self {
        (self.num_tensors, self.num_values) = (num_tensors, num_values);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.num_tensors.to_le_bytes());
        out.extend(self.num_values.to_le_bytes());
        out.extend(&self.values);
        out.extend(&self.tensors);
        if self.num_tensors > 0 {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&self.data);
        }
        out
    }
}

/// A text as GGUF stores it.
pub(crate) fn text(value: &str) -> Vec<u8> {
    let mut bytes = (value.len() as u64).to_le_bytes().to_vec();
    bytes.extend(value.as_bytes());
    bytes
}

pub(crate) fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A file with every kind of entry.
pub(crate) fn valid_gguf() -> GgufWriter {
    GgufWriter::new(3)
        .text("general.architecture", "llama")
        .u32("general.alignment", 32)
        .value("a.bool", 7, &[1])
        .value("a.u8", 0, &[200])
        .value("a.i8", 1, &[200])
        .value("a.u16", 2, &60_000_u16.to_le_bytes())
        .value("a.i16", 3, &(-5_i16).to_le_bytes())
        .value("a.i32", 5, &(-7_i32).to_le_bytes())
        .value("a.f32", 6, &0.1_f32.to_le_bytes())
        .value("a.u64", 10, &u64::MAX.to_le_bytes())
        .value("a.i64", 11, &i64::MIN.to_le_bytes())
        .value("a.f64", 12, &0.1_f64.to_le_bytes())
        .array("a.texts", 8, 3, &[text("x"), text(""), text("Ġyé")].concat())
        .array("a.f32s", 6, 2, &f32_bytes(&[1.5, -2.0]))
        .array(
            "a.i32s",
            5,
            2,
            &[1_i32.to_le_bytes(), (-1_i32).to_le_bytes()].concat(),
        )
        .array("a.bools", 7, 3, &[1, 0, 1])
        .tensor("matrix", &[3, 2], 0, &f32_bytes(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
        .tensor(
            "vector",
            &[4],
            1,
            &[0x00, 0x3c, 0x00, 0x40, 0x00, 0xc0, 0x00, 0x00],
        )
        .tensor("blocks", &[32, 2], 8, &[7; 68])
}

/// Header length, header and data of a safetensors file.
pub(crate) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

pub(crate) fn valid_safetensors() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},
        "a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},
        "b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]},
        "empty":{"dtype":"F16","shape":[0,5],"data_offsets":[22,22]},
        "scalar":{"dtype":"F16","shape":[],"data_offsets":[22,24]}}"#;
    let mut data = f32_bytes(&[1.0, 2.0, 3.0, 4.0]);
    data.extend([0x80, 0x3f, 0x00, 0x40, 0x40, 0x40, 0x00, 0x3c]);
    safetensors(header, &data)
}

/// Header of a llama2.c file: dim 4, hidden 6, 2 layers, 2 heads over 1, 5 tokens, 3 positions.
pub(crate) const LLAMA2C: [i32; 7] = [4, 6, 2, 2, 1, 5, 3];

pub(crate) fn llama2c(header: [i32; 7], num_floats: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = header.iter().flat_map(|value| value.to_le_bytes()).collect();
    let values: Vec<f32> = (0..num_floats).map(|i| i as f32).collect();
    bytes.extend(f32_bytes(&values));
    bytes
}

/// Floats of a file with the header [`LLAMA2C`], summed up by hand: embeddings, two norms, wq, wk, wv, wo, three
/// feed-forward matrices, final norm, rotary tables.
pub(crate) const LLAMA2C_FLOATS: usize = 5 * 4 + 2 * (4 + 4 + 16 + 8 + 8 + 16 + 3 * 24) + 4 + 3 * 2;

pub(crate) fn valid_llama2c() -> Vec<u8> {
    llama2c(LLAMA2C, LLAMA2C_FLOATS)
}

/// Panics unless the error is exactly `expect`.
pub(crate) fn check(result: Result<Checkpoint, CheckpointError>, expect: &str) {
    match result {
        Ok(_) => panic!("accepted, expected {expect:?}"),
        Err(error) => assert_eq!(error.to_string(), expect),
    }
}
