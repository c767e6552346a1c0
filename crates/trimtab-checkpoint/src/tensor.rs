//! One tensor of an open checkpoint. Knows shapes and rows, not what the tensor is for.

use std::ops::Range;
use std::sync::Arc;

use crate::dequant::dequantise;
use crate::dtype::Dtype;
use crate::error::FormatError;
use crate::storage::Storage;

/// Where a tensor lies; checked against its file when the checkpoint was opened.
#[derive(Debug, Clone)]
pub(crate) struct TensorInfo {
    pub(crate) dtype: Dtype,
    /// Outermost axis first.
    pub(crate) shape: Vec<usize>,
    pub(crate) file_idx: usize,
    /// Bytes in the file, as many as shape and type ask for.
    pub(crate) bytes: Range<usize>,
}

impl TensorInfo {
    /// Row length: the innermost axis, 1 for a scalar.
    fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
}

/// A tensor: shape, type and rows. Cheap to clone; keeps its file open.
#[derive(Debug, Clone)]
pub struct Tensor {
    pub(crate) info: Arc<TensorInfo>,
    pub(crate) file: Arc<Storage>,
}

impl Tensor {
    /// Lengths of the axes, outermost first: `[out, in]` of a matrix, `[len]` of a vector.
    pub fn shape(&self) -> &[usize] {
        &self.info.shape
    }

    /// How the elements are stored.
    pub fn dtype(&self) -> Dtype {
        self.info.dtype
    }

    /// Bytes that the tensor takes in its file.
    pub fn size_bytes(&self) -> usize {
        self.info.bytes.len()
    }

    /// Number of rows: the product of all axes but the innermost.
    pub fn num_rows(&self) -> usize {
        match self.info.shape.split_last() {
            None => 1,
            Some((_, outer)) => outer.iter().product(),
        }
    }

    /// Row `row` as stored.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row_bytes(&self, row: usize) -> &[u8] {
        assert!(
            row < self.num_rows(),
            "row {row} of a tensor with {} rows",
            self.num_rows()
        );
        let len = self.info.dtype.row_bytes(self.info.row_len());
        let start = self.info.bytes.start + row * len;
        &self.file[start..start + len]
    }

    /// Writes row `row` to `out` as `f32`.
    ///
    /// # Panics
    /// If there is no such row or `out` is not as long as the innermost axis.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.info.row_len(), "length of a row");
        dequantise(self.info.dtype, self.row_bytes(row), out);
    }

    /// Says that the tensor will not be read again soon, so that its pages may leave memory. Reading it again is
    /// allowed and reads the file.
    pub fn release(&self) {
        self.file.release(self.info.bytes.clone());
    }
}

/// Bytes of a tensor of this shape, where the number is representable and its rows hold whole blocks.
pub(crate) fn size_bytes(name: &str, dtype: Dtype, shape: &[usize]) -> Result<u64, FormatError> {
    let field = || format!("shape of tensor {}", crate::error::shown(name));
    let row_len = shape.last().copied().unwrap_or(1);
    if row_len % dtype.block_len() != 0 {
        let expected = format!(
            "rows of whole blocks of {} elements for {dtype}",
            dtype.block_len()
        );
        return Err(FormatError::bad(field(), format_args!("{shape:?}"), expected));
    }
    let outer = shape.split_last().map_or(&[][..], |(_, outer)| outer);
    let blocks = (row_len / dtype.block_len()) as u64;
    outer
        .iter()
        .try_fold(blocks, |total, &len| total.checked_mul(len as u64))
        .and_then(|blocks| blocks.checked_mul(dtype.block_bytes() as u64))
        // The number of rows must not overflow either; a zero axis could hide that.
        .filter(|_| {
            outer
                .iter()
                .try_fold(1_usize, |rows, &len| rows.checked_mul(len))
                .is_some()
        })
        .ok_or_else(|| FormatError::bad(field(), format_args!("{shape:?}"), "fewer than 2^64 bytes"))
}
