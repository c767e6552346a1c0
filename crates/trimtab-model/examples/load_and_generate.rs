//! Opens a model, packs it and decodes greedily from token ids; prints where the time went.
//!
//! `cargo run --release -p trimtab-model --example load_and_generate -- MODEL [f32|int8|int4] ID...`
#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::path::Path;
use std::time::Instant;

use trimtab_base::TokenId;
use trimtab_kernels::gemm::Precision;
use trimtab_kernels::kv_cache::{BLOCK_LEN, KvCache, KvStorage};
use trimtab_kernels::pool::Pool;
use trimtab_model::{
    BatchRow, ForwardOutput, Model, ModelError, ModelFile, PrecisionPlan, RowInput, Workspace,
};

const NUM_NEW: usize = 24;

fn main() -> Result<(), ModelError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, precision, ids @ ..] = args.as_slice() else {
        println!("usage: load_and_generate MODEL f32|int8|int4 ID...");
        return Ok(());
    };
    let plan = match precision.as_str() {
        "f32" => PrecisionPlan::f32(),
        "int4" => PrecisionPlan::uniform(Precision::Int4, KvStorage::F16),
        _ => PrecisionPlan::int8(),
    };
    let mut tokens: Vec<u32> = ids.iter().filter_map(|id| id.parse().ok()).collect();
    let pool = Pool::new(2);
    let started = Instant::now();
    let file = ModelFile::open(Path::new(path))?;
    let opened_at = Instant::now();
    let model = file.load(plan, &pool, &[])?;
    let packed_at = Instant::now();
    println!("{:?}", file.config());
    println!(
        "parameters {}, packed bytes {}",
        file.config().num_parameters(),
        model.packed_bytes()
    );
    println!("open {:?}, pack {:?}", opened_at - started, packed_at - opened_at);
    let first_at = generate(&model, &pool, &mut tokens)?;
    println!(
        "load to first token {:?}, then {:?} a token",
        first_at - started,
        first_at.elapsed() / (NUM_NEW as u32 - 1)
    );
    println!("{tokens:?}");
    Ok(())
}

/// Appends `NUM_NEW` greedy tokens; returns when the first was known.
fn generate(model: &Model, pool: &Pool, tokens: &mut Vec<u32>) -> Result<Instant, ModelError> {
    let num_blocks = (tokens.len() + NUM_NEW).div_ceil(BLOCK_LEN);
    let blocks: Vec<u32> = (0..num_blocks as u32).collect();
    let mut kv = KvCache::new(model.kv_layout(), num_blocks);
    let (mut ws, mut out) = (Workspace::default(), ForwardOutput::default());
    let (mut done, mut first_at) = (0, None);
    for _ in 0..NUM_NEW {
        let rows: Vec<BatchRow<'_>> = (done..tokens.len())
            .map(|position| BatchRow {
                input: RowInput::Token(TokenId(tokens[position])),
                position: position as u32,
                blocks: &blocks,
            })
            .collect();
        model.forward(pool, &mut kv, &rows, &[rows.len() - 1], &mut ws, &mut out)?;
        done = tokens.len();
        let best = (0..out.logits.len())
            .max_by(|&a, &b| out.logits[a].total_cmp(&out.logits[b]))
            .unwrap_or(0);
        tokens.push(best as u32);
        first_at.get_or_insert_with(Instant::now);
    }
    Ok(first_at.unwrap_or_else(Instant::now))
}
