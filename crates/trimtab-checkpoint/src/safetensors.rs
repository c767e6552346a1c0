//! safetensors files and the index that lists the files of a sharded checkpoint. Knows no tensors' meaning.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Component, Path};

use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::cursor::Cursor;
use crate::dtype::Dtype;
use crate::error::{FormatError, shown};
use crate::tensor::{TensorInfo, size_bytes};

/// Longest header that the format allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// The one key of the header that is no tensor.
const METADATA_KEY: &str = "__metadata__";
/// Element types that can be read, for messages.
const SUPPORTED: &str = "F32, F16, BF16";

/// A tensor's entry in the header.
#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    /// First byte and the byte after the last, counted from the end of the header.
    data_offsets: (u64, u64),
}

/// The tensors of one file, which the checkpoint numbers `file_idx`.
pub(crate) fn parse(bytes: &[u8], file_idx: usize) -> Result<BTreeMap<String, TensorInfo>, FormatError> {
    let mut cursor = Cursor::new(bytes);
    let header_len = cursor.u64(&"header length")?;
    if header_len > MAX_HEADER_BYTES {
        let expected = format_args!("at most {MAX_HEADER_BYTES}");
        return Err(FormatError::bad("header length", header_len, expected));
    }
    let header = cursor.skip(&"header", header_len)?;
    let (data_start, data_len) = (cursor.offset(), cursor.left() as u64);
    let pairs: Pairs<Value> = from_json(&"header", &bytes[header])?;
    let mut tensors = BTreeMap::new();
    for (name, value) in pairs.0 {
        if name == METADATA_KEY {
            continue;
        }
        let info = read_entry(&name, value, data_start, data_len, file_idx)?;
        if tensors.contains_key(&name) {
            return Err(FormatError::Duplicate {
                what: "tensors",
                name,
            });
        }
        tensors.insert(name, info);
    }
    check_cover(&tensors, data_start, bytes.len())?;
    Ok(tensors)
}

fn read_entry(
    name: &str,
    value: Value,
    data_start: usize,
    data_len: u64,
    file_idx: usize,
) -> Result<TensorInfo, FormatError> {
    let entry: Entry = serde_json::from_value(value).map_err(|error| FormatError::Json {
        field: format!("header entry {}", shown(name)),
        message: error.to_string(),
    })?;
    let dtype = Dtype::from_safetensors(&entry.dtype).ok_or_else(|| FormatError::UnsupportedDtype {
        tensor: name.to_owned(),
        dtype: shown(&entry.dtype),
        supported: SUPPORTED,
    })?;
    let size = size_bytes(name, dtype, &entry.shape)?;
    let (start, end) = entry.data_offsets;
    if start > end || end > data_len {
        let field = format_args!("data_offsets of tensor {}", shown(name));
        let expected = format_args!("ascending and at most the {data_len} bytes of data");
        return Err(FormatError::bad(
            field,
            format_args!("[{start}, {end}]"),
            expected,
        ));
    }
    if end - start != size {
        let field = format_args!("data_offsets of tensor {}", shown(name));
        let expected = format_args!("{size} bytes apart for {dtype} of shape {:?}", entry.shape);
        return Err(FormatError::bad(
            field,
            format_args!("[{start}, {end}]"),
            expected,
        ));
    }
    Ok(TensorInfo {
        dtype,
        shape: entry.shape,
        file_idx,
        bytes: data_start + start as usize..data_start + end as usize,
    })
}

/// The format wants every byte of data to belong to exactly one tensor, so that no file hides anything.
fn check_cover(
    tensors: &BTreeMap<String, TensorInfo>,
    data_start: usize,
    file_len: usize,
) -> Result<(), FormatError> {
    let mut in_order: Vec<_> = tensors.iter().map(|(name, info)| (&info.bytes, name)).collect();
    in_order.sort_by_key(|(bytes, _)| (bytes.start, bytes.end));
    let mut covered = data_start;
    let mut previous: Option<&String> = None;
    for (bytes, name) in in_order {
        if bytes.start < covered {
            return Err(FormatError::Overlap {
                first: previous.cloned().unwrap_or_default(),
                second: name.clone(),
                offset: bytes.start as u64,
            });
        }
        if bytes.start > covered {
            let field = format_args!("start of tensor {}", shown(name));
            let got = bytes.start - data_start;
            let expected = format_args!("{}, so that no bytes lie between tensors", covered - data_start);
            return Err(FormatError::bad(field, got, expected));
        }
        covered = bytes.end;
        previous = Some(name);
    }
    if covered != file_len {
        let expected = format_args!("{covered}, the end of the last tensor");
        return Err(FormatError::bad("file length", file_len, expected));
    }
    Ok(())
}

/// The index of a sharded safetensors checkpoint: file name by tensor name.
///
/// # Errors
/// JSON of another form, two entries for one tensor, a file name that leads out of the index's folder.
pub fn parse_safetensors_index(bytes: &[u8]) -> Result<BTreeMap<String, String>, FormatError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: Pairs<String>,
    }
    let index: Index = from_json(&"index", bytes)?;
    let mut files = BTreeMap::new();
    for (tensor, file) in index.weight_map.0 {
        if !is_plain_name(&file) {
            let field = format_args!("weight_map file of tensor {}", shown(&tensor));
            return Err(FormatError::bad(
                field,
                shown(&file),
                "the name of a file in the same folder",
            ));
        }
        if files.contains_key(&tensor) {
            return Err(FormatError::Duplicate {
                what: "weight_map entries",
                name: tensor,
            });
        }
        files.insert(tensor, file);
    }
    Ok(files)
}

/// A hostile index must not lead out of its folder.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let is_one_name = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    is_one_name && !name.contains(['/', '\\', ':', '\0'])
}

pub(crate) fn from_json<T: DeserializeOwned>(
    field: &dyn fmt::Display,
    bytes: &[u8],
) -> Result<T, FormatError> {
    serde_json::from_slice(bytes).map_err(|error| FormatError::Json {
        field: field.to_string(),
        message: error.to_string(),
    })
}

/// The entries of a JSON object in order, duplicates included: a map would keep the last one silently.
struct Pairs<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for PairsVisitor<T> {
            type Value = Pairs<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<T>, A::Error> {
                // The size hint comes from the file; growth is bounded by its bytes instead.
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}
