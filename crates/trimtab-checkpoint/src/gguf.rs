//! GGUF versions 2 and 3: header, metadata and tensor table, all as ranges of the file. Knows no keys' meaning but
//! `general.alignment`.

use std::collections::BTreeMap;
use std::fmt::Display;

use crate::cursor::Cursor;
use crate::dtype::Dtype;
use crate::error::{FormatError, shown};
use crate::metadata::{Element, Entry, MetadataTable, Value};
use crate::tensor::{TensorInfo, size_bytes};

/// First bytes of every GGUF file.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";

/// Longest name or key that the format allows.
const MAX_NAME_BYTES: usize = 65_535;
/// Most axes of a tensor.
const MAX_AXES: u32 = 4;
/// Alignment of tensor data unless the metadata say otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;

/// Element types that can be read, for messages.
const SUPPORTED: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K";

/// What a file says about itself.
#[derive(Debug)]
pub(crate) struct Gguf {
    pub(crate) metadata: MetadataTable,
    pub(crate) tensors: BTreeMap<String, TensorInfo>,
}

/// Checks the whole file but the contents of its tensors.
pub(crate) fn parse(bytes: &[u8]) -> Result<Gguf, FormatError> {
    let mut cursor = Cursor::new(bytes);
    let magic = cursor.skip(&"magic", 4)?;
    if &bytes[magic.clone()] != MAGIC {
        return Err(FormatError::bad(
            "magic",
            format_args!("{:?}", &bytes[magic]),
            "\"GGUF\"",
        ));
    }
    check_version(cursor.u32(&"version")?)?;
    let num_tensors = cursor.u64(&"number of tensors")?;
    let num_values = cursor.u64(&"number of metadata entries")?;
    // A tensor has a name's length, at least one axis, a type and an offset; an entry a key's length, type and value.
    let num_tensors = cursor.bounded(&"number of tensors", num_tensors, 8 + 4 + 8 + 4 + 8)?;
    let num_values = cursor.bounded(&"number of metadata entries", num_values, 8 + 4 + 1)?;
    let metadata = read_metadata(&mut cursor, num_values)?;
    let alignment = alignment(&metadata)?;
    let raw: Vec<RawTensor> = (0..num_tensors)
        .map(|idx| read_tensor(&mut cursor, idx))
        .collect::<Result<_, _>>()?;
    let tensors = place_tensors(raw, cursor.offset(), bytes.len(), alignment)?;
    check_overlaps(&tensors)?;
    Ok(Gguf { metadata, tensors })
}

fn check_version(version: u32) -> Result<(), FormatError> {
    match version {
        2 | 3 => Ok(()),
        _ if version.trailing_zeros() >= 16 => Err(FormatError::bad(
            "version",
            version.swap_bytes(),
            "a little-endian file (this one is big-endian)",
        )),
        _ => Err(FormatError::bad("version", version, "2 or 3")),
    }
}

fn read_metadata(cursor: &mut Cursor<'_>, num_values: usize) -> Result<MetadataTable, FormatError> {
    let mut table = MetadataTable::new();
    for idx in 0..num_values {
        let start = cursor.offset();
        let key = read_name(cursor, &format_args!("key of metadata entry {idx}"))?.to_owned();
        let kind = cursor.u32(&format_args!("type of metadata {}", shown(&key)))?;
        let value = read_value(cursor, &key, kind)?;
        if table.contains_key(&key) {
            return Err(FormatError::Duplicate {
                what: "metadata entries",
                name: key,
            });
        }
        let bytes = start..cursor.offset();
        table.insert(key, Entry { value, bytes });
    }
    Ok(table)
}

fn read_name<'a>(cursor: &mut Cursor<'a>, field: &dyn Display) -> Result<&'a str, FormatError> {
    let (name, _) = cursor.text(field)?;
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        let expected = format_args!("between 1 and {MAX_NAME_BYTES} bytes long");
        return Err(FormatError::bad(
            field,
            format_args!("{} bytes long", name.len()),
            expected,
        ));
    }
    Ok(name)
}

fn read_value(cursor: &mut Cursor<'_>, key: &str, kind: u32) -> Result<Value, FormatError> {
    let field = format_args!("metadata {}", shown(key));
    let field: &dyn Display = &field;
    Ok(match kind {
        0 => Value::Unsigned(u64::from(cursor.u8(field)?)),
        1 => Value::Signed(i64::from(cursor.u8(field)?.cast_signed())),
        2 => Value::Unsigned(u64::from(cursor.u16(field)?)),
        3 => Value::Signed(i64::from(cursor.u16(field)?.cast_signed())),
        4 => Value::Unsigned(u64::from(cursor.u32(field)?)),
        5 => Value::Signed(i64::from(cursor.i32(field)?)),
        6 => Value::Float(f64::from(cursor.f32(field)?)),
        7 => Value::Bool(read_bool(cursor, field)?),
        8 => Value::Text(cursor.text(field)?.1),
        9 => read_array(cursor, field)?,
        10 => Value::Unsigned(cursor.u64(field)?),
        11 => Value::Signed(cursor.u64(field)?.cast_signed()),
        12 => Value::Float(cursor.f64(field)?),
        _ => {
            return Err(FormatError::bad(
                format_args!("type of {field}"),
                kind,
                "between 0 and 12",
            ));
        }
    })
}

fn read_bool(cursor: &mut Cursor<'_>, field: &dyn Display) -> Result<bool, FormatError> {
    match cursor.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(FormatError::bad(field, other, "a boolean, 0 or 1")),
    }
}

fn read_array(cursor: &mut Cursor<'_>, field: &dyn Display) -> Result<Value, FormatError> {
    let kind = cursor.u32(&format_args!("element type of {field}"))?;
    let element = Element::from_gguf(kind).ok_or_else(|| {
        FormatError::bad(
            format_args!("element type of {field}"),
            kind,
            "a type between 0 and 12 other than 9, array",
        )
    })?;
    let count_field = format_args!("length of {field}");
    let count = cursor.u64(&count_field)?;
    let len = cursor.bounded(&count_field, count, element.min_bytes())?;
    let start = cursor.offset();
    if element == Element::Text {
        for idx in 0..len {
            cursor.text_range(&format_args!("element {idx} of {field}"))?;
        }
    } else {
        // `bounded` has seen that this product fits into the file.
        cursor.skip(field, (len * element.min_bytes()) as u64)?;
    }
    Ok(Value::Array {
        element,
        len,
        bytes: start..cursor.offset(),
    })
}

fn alignment(metadata: &MetadataTable) -> Result<u64, FormatError> {
    match metadata.get("general.alignment").map(|entry| &entry.value) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(&Value::Unsigned(alignment))
            if alignment.is_power_of_two() && u32::try_from(alignment).is_ok() =>
        {
            Ok(alignment)
        }
        Some(value) => Err(FormatError::bad(
            "metadata \"general.alignment\"",
            value.describe(),
            "a power of two of type u32",
        )),
    }
}

/// A row of the tensor table, its offset not yet checked.
struct RawTensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    size: u64,
    offset: u64,
}

fn read_tensor(cursor: &mut Cursor<'_>, idx: usize) -> Result<RawTensor, FormatError> {
    let name = read_name(cursor, &format_args!("name of tensor {idx}"))?.to_owned();
    let label = shown(&name);
    let axes_field = format_args!("number of axes of tensor {label}");
    let num_axes = cursor.u32(&axes_field)?;
    if !(1..=MAX_AXES).contains(&num_axes) {
        return Err(FormatError::bad(
            axes_field,
            num_axes,
            format_args!("between 1 and {MAX_AXES}"),
        ));
    }
    let mut shape = Vec::with_capacity(num_axes as usize);
    for axis in 0..num_axes {
        let field = format_args!("axis {axis} of tensor {label}");
        let len = cursor.u64(&field)?;
        let sound = usize::try_from(len)
            .ok()
            .filter(|&len| len > 0 && i64::try_from(len).is_ok());
        shape.push(sound.ok_or_else(|| FormatError::bad(field, len, "between 1 and 2^63 - 1"))?);
    }
    // The file lists the innermost axis first.
    shape.reverse();
    let kind = cursor.u32(&format_args!("type of tensor {label}"))?;
    let offset = cursor.u64(&format_args!("offset of tensor {label}"))?;
    let dtype = Dtype::from_gguf(kind).ok_or_else(|| FormatError::UnsupportedDtype {
        tensor: name.clone(),
        dtype: unsupported_type(kind),
        supported: SUPPORTED,
    })?;
    let size = size_bytes(&name, dtype, &shape)?;
    Ok(RawTensor {
        name,
        dtype,
        shape,
        size,
        offset,
    })
}

/// Number and, where known, name of a type of llama.cpp that is not read here.
fn unsupported_type(kind: u32) -> String {
    let name = match kind {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return kind.to_string(),
    };
    format!("{name} ({kind})")
}

/// From offsets relative to the data section to ranges of the file.
fn place_tensors(
    raw: Vec<RawTensor>,
    table_end: usize,
    file_len: usize,
    alignment: u64,
) -> Result<BTreeMap<String, TensorInfo>, FormatError> {
    // The alignment is below 2^32 and a file's length far below 2^63.
    let data_start = (table_end as u64).next_multiple_of(alignment);
    let mut tensors = BTreeMap::new();
    for tensor in raw {
        let label = shown(&tensor.name);
        if tensor.offset % alignment != 0 {
            let field = format_args!("offset of tensor {label}");
            return Err(FormatError::bad(
                field,
                tensor.offset,
                format_args!("a multiple of {alignment}"),
            ));
        }
        let start = data_start.saturating_add(tensor.offset);
        let left = (file_len as u64).saturating_sub(start);
        if tensor.size > left {
            return Err(FormatError::Truncated {
                field: format!("data of tensor {label}"),
                offset: start,
                needed: tensor.size,
                left,
            });
        }
        let info = TensorInfo {
            dtype: tensor.dtype,
            shape: tensor.shape,
            file_idx: 0,
            bytes: start as usize..(start + tensor.size) as usize,
        };
        if tensors.contains_key(&tensor.name) {
            return Err(FormatError::Duplicate {
                what: "tensors",
                name: tensor.name,
            });
        }
        tensors.insert(tensor.name, info);
    }
    Ok(tensors)
}

fn check_overlaps(tensors: &BTreeMap<String, TensorInfo>) -> Result<(), FormatError> {
    let mut in_order: Vec<_> = tensors.iter().map(|(name, info)| (&info.bytes, name)).collect();
    in_order.sort_by_key(|(bytes, _)| (bytes.start, bytes.end));
    match in_order.windows(2).find(|pair| pair[1].0.start < pair[0].0.end) {
        None => Ok(()),
        Some(pair) => Err(FormatError::Overlap {
            first: pair[0].1.clone(),
            second: pair[1].1.clone(),
            offset: pair[1].0.start as u64,
        }),
    }
}
