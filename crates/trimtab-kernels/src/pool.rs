//! A fixed set of worker threads that share one loop at a time.
//!
//! A forward pass of a small model issues hundreds of parallel loops per token, each 10-100 us long, so what
//! counts is the time from `run` to the first task on another core. Workers therefore spin for a while on one
//! atomic word before they park, the caller works too, and a loop never waits for a worker that the operating
//! system has not scheduled: whoever arrives late finds the loop closed and goes back to waiting.
//!
//! It does not know tensors or kernels. Tasks are numbered; which thread runs which task is left open, so every
//! result that must be reproducible has to be a function of the task's number alone.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;

mod disjoint;
pub(crate) use disjoint::DisjointSlice;

#[cfg(test)]
mod tests;

/// A task of [`Pool::run`]: called once for each index.
type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// How long an idle worker spins before it parks, when there is a core for every thread.
const SPIN: Duration = Duration::from_micros(100);
/// The same when threads outnumber cores: a spinning worker would take time from one that has work.
const SPIN_OVERSUBSCRIBED: Duration = Duration::from_micros(5);
/// Pause instructions between two looks at the clock.
const SPINS_PER_CLOCK_READ: usize = 16;

/// Low bits of the state word: the number of workers inside the current loop.
const INSIDE_MASK: u64 = 0xffff;
/// Set while the current loop admits workers.
const OPEN: u64 = 1 << 16;
/// Set once, when the pool is dropped.
const STOP: u64 = 1 << 17;
/// The loop's number occupies the bits above the flags.
const EPOCH_UNIT: u64 = 1 << 18;
/// More workers than this would overflow the count of those inside.
const MAX_THREADS: usize = INSIDE_MASK as usize;

thread_local! {
    /// True while this thread runs a task, so that a nested `run` is executed in place instead of deadlocking.
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
}

/// A fixed set of threads that executes numbered tasks; the calling thread takes part.
///
/// ```
/// use trimtab_kernels::pool::Pool;
/// let pool = Pool::new(2);
/// let mut squares = vec![0; 100];
/// pool.run_chunks_mut(&mut squares, 7, |chunk_idx, chunk| {
///     for (i, value) in chunk.iter_mut().enumerate() {
///         *value = (chunk_idx * 7 + i).pow(2);
///     }
/// });
/// assert_eq!(squares[99], 99 * 99);
/// ```
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Admits one loop at a time: threads that share a pool take turns.
    turn: Mutex<()>,
}

struct Shared {
    /// Loop number, `OPEN`, `STOP` and the number of workers inside, in one word so that a worker enters a loop
    /// with one compare-and-swap that fails if the loop has closed meanwhile.
    state: OwnCacheLine<AtomicU64>,
    /// For each thread's share of the current loop the next unclaimed task.
    next_tasks: Vec<OwnCacheLine<AtomicUsize>>,
    job: UnsafeCell<Job>,
    /// One flag per worker: set while it is parked or about to park.
    parked: Vec<AtomicBool>,
    /// The first panic of the current loop.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    spin: Duration,
}

/// Keeps a word that all threads touch away from its neighbours; two lines, because processors fetch in pairs.
#[repr(align(128))]
struct OwnCacheLine<T>(T);

impl<T> std::ops::Deref for OwnCacheLine<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[derive(Clone, Copy)]
struct Job {
    task: *const Task<'static>,
    num_tasks: usize,
}

// SAFETY: `job` is the only member that is not `Sync` by itself. It is written only by the thread that holds
// `Pool::turn` while the state word says closed with nobody inside, and read only by threads that entered through
// the state word (acquire) after it was opened (release). The task it points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer in `job` is dereferenced only as described for `Sync`.
unsafe impl Send for Shared {}

/// Why a pool cannot be had.
#[derive(Debug, Error)]
pub enum PoolError {
    /// A number of threads that no pool has.
    #[error("expected 1 to {max} threads, got {got}: the calling thread counts as one")]
    NumThreads {
        /// The number.
        got: usize,
        /// Most threads of a pool.
        max: usize,
    },
    /// The system refuses a thread.
    #[error("the system refuses thread {thread_idx} of {num_threads}: {source}; ask for fewer threads")]
    Start {
        /// Which, from 1; thread 0 is the caller.
        thread_idx: usize,
        /// Threads asked for.
        num_threads: usize,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Pool {
    /// [`Self::try_new`] where a refusal is a bug: a few threads, for tests and examples.
    ///
    /// # Panics
    /// If `num_threads` is out of range or a thread cannot be started.
    pub fn new(num_threads: usize) -> Self {
        Self::try_new(num_threads).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A pool that runs tasks on `num_threads` threads, the caller included.
    ///
    /// # Errors
    /// `num_threads` is 0 or beyond what a pool counts, or the system refuses a thread.
    pub fn try_new(num_threads: usize) -> Result<Self, PoolError> {
        if !(1..=MAX_THREADS).contains(&num_threads) {
            return Err(PoolError::NumThreads {
                got: num_threads,
                max: MAX_THREADS,
            });
        }
        let shared = Shared::new(num_threads);
        // Dropping the pool on the way out stops the threads that have started.
        let mut pool = Self {
            shared: Arc::new(shared),
            workers: Vec::with_capacity(num_threads - 1),
            turn: Mutex::new(()),
        };
        for thread_idx in 1..num_threads {
            let shared = Arc::clone(&pool.shared);
            let worker = std::thread::Builder::new()
                .name(format!("trimtab-{thread_idx}"))
                .spawn(move || shared.work(thread_idx - 1))
                .map_err(|source| PoolError::Start {
                    thread_idx,
                    num_threads,
                    source,
                })?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// The number of threads that run tasks, the caller included.
    pub fn num_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(i)` once for each `i` in `0..num_tasks` and returns when all calls have returned.
    ///
    /// Each thread has a share of consecutive tasks, the same in every loop of as many tasks, so that what it left
    /// in its caches is of use to it in the next loop; a thread that is done takes tasks from the others' shares.
    /// Make tasks long enough (some microseconds) to pay for the claim. A `run` from inside a task is executed on
    /// that thread alone. What a task did is visible to the caller afterwards.
    ///
    /// # Panics
    /// If a task panics, with the payload of the first panic; tasks not yet claimed are then skipped.
    pub fn run(&self, num_tasks: usize, task: &Task<'_>) {
        if self.workers.is_empty() || num_tasks <= 1 || IN_TASK.get() {
            (0..num_tasks).for_each(task);
            return;
        }
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.open(num_tasks, task);
        self.shared.run_tasks(0, num_tasks, task);
        self.shared.close_and_wait();
        let panic = self
            .shared
            .panic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(turn);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Splits `data` into chunks of `chunk_len` elements (the last may be shorter) and calls
    /// `task(chunk_idx, chunk)` once for each, in parallel.
    ///
    /// # Panics
    /// If `chunk_len` is 0 or a task panics.
    pub fn run_chunks_mut<T: Send>(
        &self,
        data: &mut [T],
        chunk_len: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        assert!(chunk_len > 0, "expected a positive chunk length, got 0");
        let num_chunks = data.len().div_ceil(chunk_len);
        let data = DisjointSlice::new(data);
        self.run(num_chunks, &|chunk_idx| {
            let start = chunk_idx * chunk_len;
            let end = (start + chunk_len).min(data.len());
            // SAFETY: `run` calls each index once, and the ranges of different indices do not overlap.
            task(chunk_idx, unsafe { data.range(start..end) });
        });
    }

    /// Like [`Self::run_chunks_mut`] over two slices at once: chunk `i` of `left` goes with chunk `i` of `right`.
    ///
    /// # Panics
    /// If a chunk length is 0, the slices do not have the same number of chunks, or a task panics.
    pub fn run_chunk_pairs_mut<T: Send, U: Send>(
        &self,
        (left, left_chunk_len): (&mut [T], usize),
        (right, right_chunk_len): (&mut [U], usize),
        task: impl Fn(usize, &mut [T], &mut [U]) + Sync,
    ) {
        assert!(
            left_chunk_len > 0 && right_chunk_len > 0,
            "expected positive chunk lengths, got 0"
        );
        let num_chunks = left.len().div_ceil(left_chunk_len);
        let num_right = right.len().div_ceil(right_chunk_len);
        assert_eq!(
            num_chunks, num_right,
            "expected as many chunks on the right as on the left"
        );
        let right = DisjointSlice::new(right);
        self.run_chunks_mut(left, left_chunk_len, |chunk_idx, left| {
            let start = chunk_idx * right_chunk_len;
            let end = (start + right_chunk_len).min(right.len());
            // SAFETY: each index is called once, and the ranges of different indices do not overlap.
            task(chunk_idx, left, unsafe { right.range(start..end) });
        });
    }

    /// Publishes a loop and wakes as many parked workers as there are tasks for.
    fn open(&self, num_tasks: usize, task: &Task<'_>) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime is erased. `run` returns only after `close_and_wait`, when no thread can reach
        // the pointer any more.
        let task: *const Task<'static> =
            unsafe { std::mem::transmute::<&Task<'_>, &'static Task<'static>>(task) };
        // SAFETY: this thread holds `turn` and the previous loop was closed and left by all workers.
        unsafe { *shared.job.get() = Job { task, num_tasks } };
        for (share_idx, next_task) in shared.next_tasks.iter().enumerate() {
            next_task.store(shared.share(share_idx, num_tasks).start, Ordering::Relaxed);
        }
        let closed = shared.state.load(Ordering::Relaxed);
        // Sequentially consistent, as is a worker's store to `parked`: either the worker sees the new loop before
        // it parks, or this thread sees the flag below.
        shared.state.store((closed + EPOCH_UNIT) | OPEN, Ordering::SeqCst);
        for (parked, worker) in shared.parked.iter().zip(&self.workers).take(num_tasks - 1) {
            if parked.load(Ordering::SeqCst) && parked.swap(false, Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.fetch_or(STOP, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // Tasks' panics are caught inside the worker, so there is nothing to report here.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("num_threads", &self.num_threads())
            .finish()
    }
}

impl Shared {
    fn new(num_threads: usize) -> Self {
        let num_cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            state: OwnCacheLine(AtomicU64::new(0)),
            next_tasks: (0..num_threads)
                .map(|_| OwnCacheLine(AtomicUsize::new(0)))
                .collect(),
            job: UnsafeCell::new(Job {
                task: &|_| {},
                num_tasks: 0,
            }),
            parked: (1..num_threads).map(|_| AtomicBool::new(false)).collect(),
            panic: Mutex::new(None),
            spin: if num_threads > num_cores {
                SPIN_OVERSUBSCRIBED
            } else {
                SPIN
            },
        }
    }

    /// The life of a worker: wait for a loop, enter it if it is still open, help, leave.
    fn work(&self, worker_idx: usize) {
        let mut seen_epoch = 0;
        loop {
            let state = self.wait_for_change(worker_idx, seen_epoch);
            if state & STOP != 0 {
                return;
            }
            seen_epoch = state / EPOCH_UNIT;
            if self.try_enter(seen_epoch) {
                // SAFETY: having entered, this thread reads a job that stays as it is until it leaves.
                let job = unsafe { *self.job.get() };
                // SAFETY: the caller of `Pool::run` keeps the task alive until every thread has left the loop.
                self.run_tasks(worker_idx + 1, job.num_tasks, unsafe { &*job.task });
                self.state.fetch_sub(1, Ordering::Release);
            }
        }
    }

    /// Returns the state word once it shows a loop other than `seen_epoch`, or the stop flag.
    fn wait_for_change(&self, worker_idx: usize, seen_epoch: u64) -> u64 {
        let changed = |state: u64| state / EPOCH_UNIT != seen_epoch || state & STOP != 0;
        let start = Instant::now();
        loop {
            for _ in 0..SPINS_PER_CLOCK_READ {
                let state = self.state.load(Ordering::Acquire);
                if changed(state) {
                    return state;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() >= self.spin {
                break;
            }
        }
        let parked = &self.parked[worker_idx];
        loop {
            parked.store(true, Ordering::SeqCst);
            let state = self.state.load(Ordering::SeqCst);
            if changed(state) {
                parked.store(false, Ordering::SeqCst);
                return state;
            }
            std::thread::park();
        }
    }

    /// Counts this worker in, unless loop `epoch` has closed.
    fn try_enter(&self, epoch: u64) -> bool {
        let enterable = |state: u64| state / EPOCH_UNIT == epoch && state & OPEN != 0;
        self.state
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| {
                enterable(state).then_some(state + 1)
            })
            .is_ok()
    }

    /// The tasks that thread `share_idx` begins with.
    fn share(&self, share_idx: usize, num_tasks: usize) -> Range<usize> {
        let num_shares = self.next_tasks.len();
        share_idx * num_tasks / num_shares..(share_idx + 1) * num_tasks / num_shares
    }

    /// Claims and runs tasks until none is left, those of the thread's own share first.
    fn run_tasks(&self, thread_idx: usize, num_tasks: usize, task: &Task<'_>) {
        IN_TASK.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let num_shares = self.next_tasks.len();
            for share_idx in (thread_idx..num_shares).chain(0..thread_idx) {
                let end = self.share(share_idx, num_tasks).end;
                loop {
                    let task_idx = self.next_tasks[share_idx].fetch_add(1, Ordering::Relaxed);
                    if task_idx >= end {
                        break;
                    }
                    task(task_idx);
                }
            }
        }));
        IN_TASK.set(false);
        if let Err(payload) = outcome {
            for next_task in &self.next_tasks {
                // Halfway to the maximum, so that other threads' claims do not wrap around.
                next_task.store(usize::MAX / 2, Ordering::Relaxed);
            }
            self.panic
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(payload);
        }
    }

    /// Refuses late workers, then waits for those inside.
    fn close_and_wait(&self) {
        self.state.fetch_and(!OPEN, Ordering::Relaxed);
        let mut num_spins = 0_u32;
        while self.state.load(Ordering::Acquire) & INSIDE_MASK != 0 {
            num_spins += 1;
            // The last tasks are short; only a descheduled worker keeps the caller longer than this.
            if num_spins.is_multiple_of(1024) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}
