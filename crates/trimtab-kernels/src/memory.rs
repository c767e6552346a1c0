//! What the process does with memory that it has freed. Knows no one who allocates.

/// Keeps freed memory in the process, for whoever allocates next; for work that repeats the same large buffers.
///
/// A training step frees its activations and allocates them anew in the next one. C libraries give buffers of that size
/// back to the system at once, which clears every page before it hands it out again. Best effort, and at present for
/// glibc alone; elsewhere nothing changes. The peak stays about what it was, and what was freed counts as used.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: both parameters are documented for mallopt(3) with these values (no maps; -1: no trimming), and it takes
    // the allocator's lock; what it cannot use it refuses, and then nothing changes.
    unsafe {
        let _no_maps = libc::mallopt(libc::M_MMAP_MAX, 0);
        let _no_trim = libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
    }
}
