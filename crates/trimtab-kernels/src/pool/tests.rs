use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[test]
fn every_task_runs_exactly_once_for_any_number_of_threads() {
    for num_threads in 1..=5 {
        let pool = Pool::new(num_threads);
        assert_eq!(pool.num_threads(), num_threads);
        for num_tasks in [0, 1, 2, 3, 17, 300] {
            let counts: Vec<AtomicUsize> = (0..num_tasks).map(|_| AtomicUsize::new(0)).collect();
            pool.run(num_tasks, &|i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(
                counts.iter().all(|c| c.load(Ordering::Relaxed) == 1),
                "{num_threads} {num_tasks}"
            );
        }
    }
}

#[test]
fn a_number_of_threads_that_cannot_be_is_an_error() {
    let check = |num_threads: usize, expect: &str| {
        let message = Pool::try_new(num_threads)
            .expect_err("must be refused")
            .to_string();
        assert!(message.contains(expect), "{message:?} lacks {expect:?}");
    };
    check(0, "1 to 65535 threads, got 0");
    check(65_536, "1 to 65535 threads, got 65536");
}

#[test]
fn writes_of_tasks_are_visible_after_run_over_many_short_loops() {
    let pool = Pool::new(3);
    let mut values = vec![0_usize; 64];
    for round in 0..20_000 {
        pool.run_chunks_mut(&mut values, 5, |_, chunk| chunk.iter_mut().for_each(|v| *v += 1));
        assert!(values.iter().all(|&v| v == round + 1));
    }
}

#[test]
fn workers_wake_after_they_have_parked() {
    let pool = Pool::new(2);
    for _ in 0..20 {
        // Longer than the spin time, so the worker is parked when the next loop opens.
        let until = Instant::now() + SPIN * 4;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        // Each task waits for the other, so this returns only if two threads take part.
        let arrived = AtomicUsize::new(0);
        pool.run(2, &|_| {
            arrived.fetch_add(1, Ordering::SeqCst);
            while arrived.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
        });
    }
}

#[test]
fn a_panic_in_a_task_reaches_the_caller_and_the_pool_stays_usable() {
    let pool = Pool::new(2);
    for panicking_idx in [0, 1, 40] {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            pool.run(64, &|i| assert!(i != panicking_idx, "task {i} failed"));
        }));
        let payload = caught.expect_err("the panic must propagate");
        let message = payload.downcast_ref::<String>().expect("a formatted message");
        assert_eq!(*message, format!("task {panicking_idx} failed"));
        let sum = AtomicUsize::new(0);
        pool.run(10, &|i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 45);
    }
}

#[test]
fn a_run_inside_a_task_completes() {
    let pool = Pool::new(2);
    let sum = AtomicUsize::new(0);
    pool.run(4, &|outer| {
        pool.run(4, &|inner| {
            sum.fetch_add(outer * 4 + inner, Ordering::Relaxed);
        });
    });
    assert_eq!(sum.into_inner(), 120);
}

#[test]
fn threads_that_share_a_pool_take_turns() {
    let pool = Pool::new(2);
    let sum = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..500 {
                    pool.run(8, &|i| {
                        sum.fetch_add(i, Ordering::Relaxed);
                    });
                }
            });
        }
    });
    assert_eq!(sum.into_inner(), 3 * 500 * 28);
}

#[test]
fn chunk_pairs_carry_matching_indices_and_short_tails() {
    let pool = Pool::new(2);
    let mut rows = vec![0_usize; 10];
    let mut sums = vec![0_usize; 4];
    pool.run_chunk_pairs_mut((&mut rows, 3), (&mut sums, 1), |chunk_idx, rows, sum| {
        rows.fill(chunk_idx);
        sum[0] = rows.len();
    });
    assert_eq!(rows, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]);
    assert_eq!(sums, [3, 3, 3, 1]);
}

#[test]
#[should_panic(expected = "expected as many chunks")]
fn chunk_pairs_of_different_counts_are_refused() {
    Pool::new(1).run_chunk_pairs_mut((&mut [0; 4], 2), (&mut [0; 3], 1), |_, _, _| {});
}
