//! A slice whose disjoint parts are written by several threads at once.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice that can be shared between tasks which promise to touch different parts of it.
///
/// It exists because the tiles of a matrix are not contiguous, so `chunks_mut` cannot express them. It stays inside
/// the crate: callers outside use [`super::Pool::run_chunks_mut`] and never need `unsafe`.
pub(crate) struct DisjointSlice<'a, T> {
    ptr: *mut T,
    len: usize,
    _borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: sharing the wrapper shares only the right to call `range`, whose contract forbids overlapping access;
// elements then move between threads one owner at a time, which `T: Send` permits.
unsafe impl<T: Send> Sync for DisjointSlice<'_, T> {}

impl<'a, T> DisjointSlice<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self {
            ptr: slice.as_mut_ptr(),
            len: slice.len(),
            _borrow: PhantomData,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A pointer to `len` elements from `start` on; to write through it no other thread may touch them.
    ///
    /// # Panics
    /// If they leave the slice.
    #[inline]
    pub(crate) fn checked_ptr(&self, start: usize, len: usize) -> *mut T {
        assert!(
            start <= self.len && len <= self.len - start,
            "expected a range inside the slice"
        );
        // SAFETY: in bounds by the assertion.
        unsafe { self.ptr.add(start) }
    }

    /// The part `range` of the slice.
    ///
    /// # Safety
    /// While the result lives no other call may return a range that overlaps it.
    ///
    /// # Panics
    /// If the range leaves the slice.
    #[allow(clippy::mut_from_ref, reason = "exclusive access is the caller's contract")]
    pub(crate) unsafe fn range(&self, range: Range<usize>) -> &mut [T] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "expected a range inside the slice"
        );
        // SAFETY: in bounds by the assertion; unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(range.start), range.len()) }
    }
}
