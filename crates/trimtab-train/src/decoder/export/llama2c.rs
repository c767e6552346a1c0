//! A legacy file of llama2.c: the base's header, the tensors in their fixed order, the base's rotary tables.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use trimtab_checkpoint::{FileOut, TensorRows, WriteError, write_whole};
use trimtab_model::FileTensors;
use trimtab_model::names::{LayerRole, Role};

/// Seven integers.
const HEADER_BYTES: usize = 28;

/// What is taken over from the base.
struct Base {
    header: [u8; HEADER_BYTES],
    /// Two tables of cosines and sines that no reader uses any more lie before the output head.
    tables: Vec<u8>,
}

/// Writes the whole file `path` with the header of the base at `base`.
pub(super) fn write(model: &FileTensors<'_>, base: &Path, path: &Path) -> Result<(), WriteError> {
    let mut order: Vec<usize> = (0..model.roles().len()).collect();
    order.sort_by_key(|&idx| place(model.roles()[idx]));
    let is_head = |idx: &usize| model.roles()[*idx] == Role::Head;
    let (after, before): (Vec<usize>, Vec<usize>) = order.into_iter().partition(is_head);
    let bytes_of = |indices: &[usize]| -> u64 {
        let sizes = indices.iter().map(|&idx| model.tensors()[idx].size_bytes());
        sizes.sum()
    };
    let taken = read_base(base, bytes_of(&before), bytes_of(&after)).map_err(|cause| WriteError::Io {
        path: base.to_owned(),
        cause,
    })?;
    write_whole(path, |out| {
        out.write(&taken.header)?;
        before.iter().try_for_each(|&idx| write_tensor(model, idx, out))?;
        out.write(&taken.tables)?;
        after.iter().try_for_each(|&idx| write_tensor(model, idx, out))
    })
}

fn read_base(path: &Path, before_bytes: u64, after_bytes: u64) -> io::Result<Base> {
    let mut base = File::open(path)?;
    let mut header = [0; HEADER_BYTES];
    base.read_exact(&mut header)?;
    let offset = HEADER_BYTES as u64 + before_bytes;
    let len = base.metadata()?.len().saturating_sub(offset + after_bytes);
    base.seek(SeekFrom::Start(offset))?;
    let mut tables = Vec::new();
    base.take(len).read_to_end(&mut tables)?;
    Ok(Base { header, tables })
}

/// The numbers of a tensor; the format has neither names nor other types than F32.
fn write_tensor(model: &FileTensors<'_>, idx: usize, out: &mut FileOut<'_>) -> Result<(), WriteError> {
    let shape = &model.tensors()[idx].shape;
    let row_len = shape.last().copied().unwrap_or(1);
    let num_rows = shape.iter().product::<usize>() / row_len.max(1);
    let mut row = vec![0.0; row_len];
    for row_idx in 0..num_rows {
        model.read_row(idx, row_idx, &mut row);
        let bytes: Vec<u8> = row.iter().flat_map(|value: &f32| value.to_le_bytes()).collect();
        out.write(&bytes)?;
    }
    model.release(idx);
    Ok(())
}

/// Tensors of one kind lie together, layer by layer.
fn place(role: Role) -> (usize, usize) {
    match role {
        Role::Embedding => (0, 0),
        Role::Layer(layer, part) => {
            let kind = match part {
                LayerRole::AttentionNorm => 1,
                LayerRole::Query => 2,
                LayerRole::Key => 3,
                LayerRole::Value => 4,
                LayerRole::AttentionOutput => 5,
                LayerRole::FfnNorm => 6,
                LayerRole::Gate => 7,
                LayerRole::Down => 8,
                LayerRole::Up => 9,
                // The format has no others; they would be written where a reader's length check finds them.
                _ => 10,
            };
            (kind, layer)
        }
        Role::FinalNorm => (11, 0),
        Role::Head => (12, 0),
    }
}
