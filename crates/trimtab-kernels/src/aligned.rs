//! Memory that starts on a cache line, as tile loads and 512-bit loads want it.

/// Element types for which any bit pattern is a value.
///
/// # Safety
/// Implementors have no padding, no invalid bit patterns and an alignment of at most 64 bytes.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: primitive numbers and a transparent wrapper of `u16`.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for i8 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}
// SAFETY: as above; `bf16` is `repr(transparent)` over `u16`.
unsafe impl Plain for half::bf16 {}
// SAFETY: as above.
unsafe impl Plain for half::f16 {}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A growable block of bytes, aligned to 64, viewed as a slice of numbers.
#[derive(Default)]
pub(crate) struct AlignedBytes {
    lines: Vec<Line>,
}

impl AlignedBytes {
    /// At least `len` zeroed elements of type `T`.
    pub(crate) fn zeroed<T: Plain>(len: usize) -> Self {
        let mut bytes = Self::default();
        bytes.grow::<T>(len);
        bytes
    }

    /// Makes room for `len` elements of type `T`; new memory is zero.
    pub(crate) fn grow<T: Plain>(&mut self, len: usize) {
        let num_lines = (len * size_of::<T>()).div_ceil(64);
        if num_lines > self.lines.len() {
            self.lines.reserve_exact(num_lines - self.lines.len());
            self.lines.resize(num_lines, Line([0; 64]));
        }
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.lines.len() * 64
    }

    pub(crate) fn as_slice<T: Plain>(&self) -> &[T] {
        // SAFETY: the lines are initialised memory of that many bytes, aligned to 64, and `T` is plain.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.size_bytes() / size_of::<T>()) }
    }

    pub(crate) fn as_mut_slice<T: Plain>(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`, and the borrow is exclusive.
        unsafe {
            std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.size_bytes() / size_of::<T>())
        }
    }
}

impl std::fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlignedBytes")
            .field("size_bytes", &self.size_bytes())
            .finish()
    }
}
