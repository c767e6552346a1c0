//! What this machine could do at best, measured: the denominators of "percent of limit".
//!
//! Each function keeps all threads of a pool busy with nothing but the instruction in question, takes the best of
//! several short rounds (other programs only ever make a round slower) and needs less than 0.3 seconds.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::kernel;
use crate::isa::{Isa, for_isa};
use crate::pool::Pool;

/// Time for which one limit is measured.
const BUDGET: Duration = Duration::from_millis(200);

/// Instructions of one task of a peak measurement: some 100 us.
const TASK_STEPS: usize = 20_000;

/// Peak rate of 8-bit multiply-adds with 32-bit sums in 10^9 operations per second; a multiply-add counts as two.
pub fn int8_gops(pool: &Pool) -> f64 {
    let (burn, operations_per_step) = kernel::int8_peak(Isa::detect());
    giga_per_second(pool, burn, operations_per_step)
}

/// Peak rate of `f32` multiply-adds in 10^9 operations per second; a multiply-add counts as two.
pub fn f32_gflops(pool: &Pool) -> f64 {
    let (burn, operations_per_step) = kernel::f32_peak(Isa::detect());
    giga_per_second(pool, burn, operations_per_step)
}

/// Rate at which all threads together read `num_bytes` of memory from front to back, again and again, in 10^9 bytes
/// per second. Pass the size of a model's weights to learn what decoding one token at a time can reach.
pub fn read_gb_per_second(pool: &Pool, num_bytes: usize) -> f64 {
    /// Words of a task: 64 KiB.
    const TASK_WORDS: usize = 8 << 10;
    let words = vec![1_u64; (num_bytes / 8).max(TASK_WORDS)];
    let num_tasks = words.len() / TASK_WORDS;
    let isa = Isa::detect();
    let read = |task_idx: usize| {
        let words = &words[task_idx * TASK_WORDS..(task_idx + 1) * TASK_WORDS];
        black_box(for_isa!(isa, sum(words: &[u64]) -> u64));
    };
    let seconds = best_seconds(|| pool.run(num_tasks, &read));
    (num_tasks * TASK_WORDS * 8) as f64 / seconds / 1e9
}

/// Thirty-two sums side by side, so that the additions never wait for each other.
#[inline(always)]
fn sum(words: &[u64]) -> u64 {
    let mut sums = [0_u64; 32];
    for chunk in words.as_chunks::<32>().0 {
        prefetch(chunk);
        sums.iter_mut()
            .zip(chunk)
            .for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}

/// Asks for the lines some pages ahead, which the hardware does not do across page boundaries.
#[inline(always)]
fn prefetch(chunk: &[u64; 32]) {
    #[cfg(target_arch = "x86_64")]
    for line in chunk.as_chunks::<8>().0 {
        let ahead = line.as_ptr().cast::<i8>().wrapping_add(8 << 10);
        // SAFETY: a prefetch may point anywhere.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(ahead) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = chunk;
}

fn giga_per_second(pool: &Pool, burn: unsafe fn(usize), operations_per_step: usize) -> f64 {
    let num_tasks = pool.num_threads() * 4;
    // SAFETY: the function belongs to the instruction set detected on this machine.
    let seconds = best_seconds(|| pool.run(num_tasks, &|_| unsafe { burn(TASK_STEPS) }));
    (num_tasks * TASK_STEPS * operations_per_step) as f64 / seconds / 1e9
}

/// The shortest of as many rounds as fit the budget; at least two.
fn best_seconds(mut round: impl FnMut()) -> f64 {
    round();
    let start = Instant::now();
    let mut best = f64::INFINITY;
    while best.is_infinite() || start.elapsed() < BUDGET {
        let round_start = Instant::now();
        round();
        best = best.min(round_start.elapsed().as_secs_f64());
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_positive_and_a_kernel_stays_below_them() {
        let pool = Pool::new(1);
        let (int8, f32, read) = (
            int8_gops(&pool),
            f32_gflops(&pool),
            read_gb_per_second(&pool, 1 << 22),
        );
        assert!(int8 > 0.1 && f32 > 0.1 && read > 0.01, "{int8} {f32} {read}");
    }
}
