//! safetensors: a JSON header, then the data; several files and an index above a size. Knows no tensors' meaning.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{FileOut, NewTensor, TensorRows, WriteError, write_data, write_whole};

/// Most bytes of data of one file, unless a single tensor has more: what the model hub's own library takes.
pub const DEFAULT_SHARD_BYTES: u64 = 5_000_000_000;

/// Writes one whole file with all tensors.
///
/// # Errors
/// The system's; a number that its type cannot hold.
pub fn write_safetensors(
    tensors: &[NewTensor],
    rows: &dyn TensorRows,
    out: &mut FileOut<'_>,
) -> Result<(), WriteError> {
    let all: Vec<usize> = (0..tensors.len()).collect();
    write_some(tensors, &all, rows, out)
}

/// Writes `model.safetensors` into `folder`, or `model-00001-of-0000N.safetensors` and so on with an index where the data
/// of one file would exceed `max_shard_bytes`.
///
/// # Errors
/// The system's; a number that its type cannot hold.
pub fn write_safetensors_folder(
    folder: &Path,
    tensors: &[NewTensor],
    max_shard_bytes: u64,
    rows: &dyn TensorRows,
) -> Result<(), WriteError> {
    let shards = shards(tensors, max_shard_bytes);
    if let [all] = shards.as_slice() {
        let path = folder.join("model.safetensors");
        return write_whole(&path, |out| write_some(tensors, all, rows, out));
    }
    let mut weight_map = Map::new();
    for (idx, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", idx + 1, shards.len());
        write_whole(&folder.join(&name), |out| write_some(tensors, shard, rows, out))?;
        for &tensor_idx in shard {
            weight_map.insert(tensors[tensor_idx].name.clone(), json!(name));
        }
    }
    let total: u64 = tensors.iter().map(NewTensor::size_bytes).sum();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
    write_whole(&folder.join("model.safetensors.index.json"), |out| {
        out.write(format!("{index:#}\n").as_bytes())
    })
}

/// Tensors of each file, in order; never an empty file.
fn shards(tensors: &[NewTensor], max_shard_bytes: u64) -> Vec<Vec<usize>> {
    let mut shards = vec![Vec::new()];
    let mut filled = 0;
    for (idx, tensor) in tensors.iter().enumerate() {
        let size = tensor.size_bytes();
        if filled > 0 && filled + size > max_shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += size;
        shards.last_mut().expect("it starts with one").push(idx);
    }
    shards
}

fn write_some(
    tensors: &[NewTensor],
    indices: &[usize],
    rows: &dyn TensorRows,
    out: &mut FileOut<'_>,
) -> Result<(), WriteError> {
    let mut header = Map::new();
    // The hub's library refuses a file that does not say from which framework its numbers are.
    header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut offset = 0;
    for &idx in indices {
        let tensor = &tensors[idx];
        let end = offset + tensor.size_bytes();
        let entry =
            json!({ "dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": [offset, end] });
        header.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // The data begin at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write(&(header.len() as u64).to_le_bytes())?;
    out.write(&header)?;
    for &idx in indices {
        write_data(&tensors[idx], (idx, rows), out)?;
    }
    Ok(())
}
