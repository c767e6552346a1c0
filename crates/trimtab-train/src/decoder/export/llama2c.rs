//! A legacy file of llama2.c: the base's header, the tensors in their fixed order, the base's rotary tables.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use trimtab_model::names::{LayerRole, Role};

use super::{Entry, ModelWriter};

/// Seven integers.
const HEADER_BYTES: usize = 28;

/// Writes the whole file beside the base at `path`.
pub(super) fn write(model: &ModelWriter<'_>, path: &Path, out: &mut dyn Write) -> io::Result<()> {
    let mut base = File::open(path)?;
    let mut header = [0; HEADER_BYTES];
    base.read_exact(&mut header)?;
    out.write_all(&header)?;
    let mut entries = model.entries()?;
    entries.sort_by_key(|entry| place(entry.role));
    let mut offset = HEADER_BYTES as u64;
    let (before, after): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| entry.role != Role::Head);
    for entry in &before {
        model.write_values(entry, out)?;
        offset += entry.size_bytes();
    }
    // Two tables of cosines and sines that no reader uses any more lie before the output head.
    let after_bytes: u64 = after.iter().map(Entry::size_bytes).sum();
    let tables = base.metadata()?.len().saturating_sub(offset + after_bytes);
    base.seek(SeekFrom::Start(offset))?;
    io::copy(&mut base.take(tables), out)?;
    for entry in &after {
        model.write_values(entry, out)?;
    }
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
