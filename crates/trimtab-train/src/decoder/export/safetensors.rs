//! A safetensors file: a JSON header, then the numbers. Written as a stream, since a model may not fit memory twice.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::ModelWriter;

/// Writes the whole file.
pub(super) fn write(model: &ModelWriter<'_>, out: &mut dyn Write) -> io::Result<()> {
    let entries = model.entries()?;
    let mut header = Map::new();
    let mut offset = 0;
    for entry in &entries {
        let end = offset + entry.size_bytes();
        let described = json!({ "dtype": "F32", "shape": entry.shape, "data_offsets": [offset, end] });
        header.insert(entry.name.clone(), described);
        offset = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // The numbers begin at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for entry in &entries {
        model.write_values(entry, out)?;
    }
    Ok(())
}
