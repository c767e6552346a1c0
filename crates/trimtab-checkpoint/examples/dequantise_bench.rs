//! Times reading every row of a checkpoint as `f32` on one thread, by element type.
//!
//! `cargo run --release -p trimtab-checkpoint --example dequantise_bench -- MODEL`
#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use trimtab_checkpoint::{Checkpoint, CheckpointError};

fn main() -> Result<(), CheckpointError> {
    let Some(path) = std::env::args().nth(1) else {
        println!("usage: dequantise_bench MODEL");
        return Ok(());
    };
    let started = Instant::now();
    let checkpoint = Checkpoint::open(Path::new(&path))?;
    println!("open {:?}", started.elapsed());
    // Once for the pages, once for the clock.
    read_all(&checkpoint)?;
    let started = Instant::now();
    for (dtype, (elements, time)) in read_all(&checkpoint)? {
        println!(
            "{dtype}: {elements} elements in {time:?}, {:.2} per ns",
            elements as f64 / time.as_nanos() as f64
        );
    }
    println!("all {:?}", started.elapsed());
    Ok(())
}

/// Elements and time by element type.
fn read_all(checkpoint: &Checkpoint) -> Result<BTreeMap<&'static str, (usize, Duration)>, CheckpointError> {
    let mut sums = BTreeMap::new();
    for name in checkpoint.tensor_names() {
        let tensor = checkpoint.tensor(name)?;
        let mut row = vec![0.0; tensor.shape().last().copied().unwrap_or(1)];
        let started = Instant::now();
        for idx in 0..tensor.num_rows() {
            tensor.read_row(idx, &mut row);
            std::hint::black_box(&row);
        }
        let sum = sums.entry(tensor.dtype().name()).or_insert((0, Duration::ZERO));
        *sum = (sum.0 + tensor.num_rows() * row.len(), sum.1 + started.elapsed());
    }
    Ok(sums)
}
