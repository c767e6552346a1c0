//! What every target does with a file that was accepted: read all it offers. Knows no format.

use trimtab_checkpoint::{Checkpoint, CheckpointError};

/// Reads every row and every metadata value; formats the error of a file that was refused.
pub fn read_all(opened: Result<Checkpoint, CheckpointError>) {
    let checkpoint = match opened {
        Ok(checkpoint) => checkpoint,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for name in checkpoint.tensor_names() {
        let tensor = checkpoint.tensor(name).expect("the name is from the list");
        let mut row = vec![0.0; tensor.shape().last().copied().unwrap_or(1)];
        // Rows of no elements take no bytes, and there may be as many as the file claims.
        let num_rows = if row.is_empty() { 0 } else { tensor.num_rows() };
        (0..num_rows).for_each(|idx| tensor.read_row(idx, &mut row));
    }
    let Some(metadata) = checkpoint.metadata() else { return };
    for key in metadata.keys() {
        let _any = (metadata.text(key), metadata.u32(key), metadata.i64(key), metadata.f32(key));
        let _any = (metadata.texts(key), metadata.f32s(key), metadata.i32s(key), metadata.bools(key));
    }
}
