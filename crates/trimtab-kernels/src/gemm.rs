//! Linear layers `y = x W^T + b` with weights packed once and multiplied many times.
//!
//! The key decision is **batch invariance**: row `r` of the output is the same to the last bit whatever the number
//! of rows, the number of threads or the place of the row in the batch. A candidate can then be decoded alone or
//! among five hundred and yield the same text. Integer precisions get this from exact `i32` sums and one fixed
//! form of the final scaling, `sum as f32 * (row_scale * out_scale) + bias`; they are even equal between
//! instruction sets. Float precisions get it by adding the products of one output in rising order of `k` in every
//! kernel; they are equal between all instruction sets with a fused multiply-add.
//!
//! Why not `rten-gemm`, the best library measured: it was the first choice, and what these kernels are timed against
//! (`cargo run --release -p trimtab-kernels --example gemm_bench 2 --cold --rival`). On two threads of a Xeon with VNNI
//! and the five layer shapes of SmolLM2-135M, the int8 path does 2.2 to 3.8 times its operations per second at 1 row,
//! 1.9 to 4.1 times at 8, 1.5 to 2.4 times at 32 and 1.1 to 2.1 times at 512, with rounding and scaling included.
//!
//! All precisions share one geometry: outputs come in panels of 16 and every kernel computes a small tile
//! (rows x panels) over the whole input length. It does not know models, tokens or files.
#![allow(
    clippy::cast_ptr_alignment,
    reason = "the loads and stores behind these pointers are unaligned ones"
)]

mod float;
mod int4;
mod int8;
mod kernel;
pub mod limits;
mod quantise;
mod split;

#[cfg(test)]
mod tests;

use float::PackedFloat;
use int4::PackedInt4;
use int8::PackedInt8;

use crate::aligned::AlignedBytes;
pub use crate::isa::{Isa, isa_name};
use crate::pool::Pool;

/// True if the system lets this process use AMX tiles; the first call asks for the permission.
#[cfg(target_arch = "x86_64")]
pub(crate) fn amx_is_available() -> bool {
    kernel::amx::is_available()
}

/// Outputs per panel of packed weights: one 512-bit register of `f32` or `i32`.
const PANEL: usize = 16;

/// What weights are stored as and how activations enter the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// `f32` weights and activations: the exact path.
    F32,
    /// bf16 weights, rounded to nearest even; activations and sums stay `f32`. Equal to [`Self::F32`] to the last
    /// bit for weights that are bf16 already, at half the memory.
    Bf16,
    /// 8-bit weights, symmetric with one scale per output; activations rounded to 8 bits with one scale per row.
    Int8,
    /// The weights of [`Self::Int8`] with activations of 15 bits in two 8-bit planes: twice the multiplications,
    /// and outliers among the activations no longer cost the others their precision.
    Int8Wide,
    /// 4-bit weights with one bf16 scale per output and block of 32 inputs (4.5 bits a weight), chosen by least
    /// squares; activations as in [`Self::Int8`]. For decoding few rows at a time, where reading weights is the
    /// cost; with many rows 8 bits are faster.
    Int4,
}

/// A linear layer with packed weights.
///
/// Activations that are not finite are defined to make their row's outputs NaN in the integer precisions and to
/// follow IEEE 754 in the float ones; they never touch other rows.
#[derive(Debug)]
pub struct Linear {
    in_len: usize,
    out_len: usize,
    precision: Precision,
    weights: Weights,
    /// One value per output, padded with zeros to whole panels; zeros without a bias.
    bias: Vec<f32>,
}

#[derive(Debug)]
enum Weights {
    F32(PackedFloat<f32>),
    Bf16(PackedFloat<half::bf16>),
    Int8(PackedInt8),
    Int4(PackedInt4),
}

/// Working memory of [`Linear::forward`], reused between calls; one per thread that drives a model.
#[derive(Debug, Default)]
pub struct GemmScratch {
    /// Quantised activations, one row after the other, padded.
    quantised: AlignedBytes,
    row_scales: Vec<f32>,
    /// Per row and block of 4-bit weights.
    block_sums: Vec<i32>,
}

impl Linear {
    /// Packs the weights `[out_len, in_len]` of a layer for this machine.
    ///
    /// `fill(out_idx, row)` writes row `out_idx` (`in_len` values); it is called once for each output, from
    /// several threads. A row with a value that is not finite makes its output NaN in the integer precisions.
    ///
    /// # Panics
    /// If `in_len` is 0 or above 65536 (integer sums could overflow), or `bias` does not have `out_len` values.
    pub fn pack(
        pool: &Pool,
        precision: Precision,
        in_len: usize,
        out_len: usize,
        fill: &(dyn Fn(usize, &mut [f32]) + Sync),
        bias: Option<Vec<f32>>,
    ) -> Self {
        Self::pack_for(Isa::detect(), pool, precision, (in_len, out_len), fill, bias)
    }

    /// [`Self::pack`] for a chosen instruction set, to compare and to time them.
    ///
    /// # Panics
    /// As [`Self::pack`], and if this machine lacks the instruction set.
    pub fn pack_for(
        isa: Isa,
        pool: &Pool,
        precision: Precision,
        (in_len, out_len): (usize, usize),
        fill: &(dyn Fn(usize, &mut [f32]) + Sync),
        bias: Option<Vec<f32>>,
    ) -> Self {
        assert!(
            isa.is_available(),
            "expected an instruction set of this machine, got {isa:?}"
        );
        assert!(
            (1..=1 << 16).contains(&in_len),
            "expected an input length in 1..=65536, got {in_len}"
        );
        let mut bias = bias.unwrap_or_else(|| vec![0.0; out_len]);
        assert_eq!(bias.len(), out_len, "expected one bias value per output");
        bias.resize(out_len.next_multiple_of(PANEL), 0.0);
        let weights = match precision {
            Precision::F32 => Weights::F32(PackedFloat::pack(isa, pool, in_len, out_len, fill)),
            Precision::Bf16 => Weights::Bf16(PackedFloat::pack(isa, pool, in_len, out_len, fill)),
            Precision::Int8 | Precision::Int8Wide => {
                Weights::Int8(PackedInt8::pack(isa, pool, in_len, out_len, fill))
            }
            Precision::Int4 => Weights::Int4(PackedInt4::pack(isa, pool, in_len, out_len, fill)),
        };
        Self {
            in_len,
            out_len,
            precision,
            weights,
            bias,
        }
    }

    /// Writes `input W^T + bias` to `output`.
    ///
    /// # Shapes
    /// `input`: `[rows, in_len]`, `output`: `[rows, out_len]`.
    ///
    /// # Panics
    /// If the lengths of `input` and `output` are not those of one number of rows.
    pub fn forward(&self, pool: &Pool, input: &[f32], output: &mut [f32], scratch: &mut GemmScratch) {
        let rows = input.len() / self.in_len;
        assert_eq!(
            input.len(),
            rows * self.in_len,
            "expected whole input rows of {}",
            self.in_len
        );
        assert_eq!(
            output.len(),
            rows * self.out_len,
            "expected {rows} output rows of {}",
            self.out_len
        );
        if rows == 0 || self.out_len == 0 {
            return;
        }
        match &self.weights {
            Weights::F32(weights) => weights.forward(pool, input, &self.bias, output),
            Weights::Bf16(weights) => weights.forward(pool, input, &self.bias, output),
            Weights::Int8(weights) => {
                let is_wide = self.precision == Precision::Int8Wide;
                weights.forward(pool, input, &self.bias, output, (scratch, is_wide));
            }
            Weights::Int4(weights) => weights.forward(pool, input, &self.bias, output, scratch),
        }
    }

    /// Length of an input row.
    pub fn in_len(&self) -> usize {
        self.in_len
    }

    /// Length of an output row.
    pub fn out_len(&self) -> usize {
        self.out_len
    }

    /// How the weights are stored.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Memory held by weights, scales and bias.
    pub fn size_bytes(&self) -> usize {
        let weights_bytes = match &self.weights {
            Weights::F32(weights) => weights.size_bytes(),
            Weights::Bf16(weights) => weights.size_bytes(),
            Weights::Int8(weights) => weights.size_bytes(),
            Weights::Int4(weights) => weights.size_bytes(),
        };
        weights_bytes + size_of_val(&*self.bias)
    }

    /// Writes row `out_idx` of the weights as the products see it: the look-up of an embedding that is tied to an
    /// output layer.
    ///
    /// # Panics
    /// If `out_idx` is not below `out_len` or `row` does not have `in_len` values.
    pub fn dequantize_row(&self, out_idx: usize, row: &mut [f32]) {
        assert!(
            out_idx < self.out_len,
            "expected an output below {}, got {out_idx}",
            self.out_len
        );
        assert_eq!(row.len(), self.in_len, "expected a row of in_len values");
        match &self.weights {
            Weights::F32(weights) => weights.copy_row(out_idx, row),
            Weights::Bf16(weights) => weights.copy_row(out_idx, row),
            Weights::Int8(weights) => weights.dequantize_row(out_idx, row),
            Weights::Int4(weights) => weights.dequantize_row(out_idx, row),
        }
    }
}
