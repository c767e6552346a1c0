//! A real model, where it is present: stories260K, whose greedy text llama2.c documents.

use std::path::Path;

use trimtab_base::TokenId;
use trimtab_checkpoint::read_llama2c_tokenizer;
use trimtab_kernels::kv_cache::{BLOCK_LEN, KvCache};
use trimtab_kernels::pool::Pool;
use trimtab_model::{BatchRow, ForwardOutput, Model, ModelFile, PrecisionPlan, RowInput, Workspace};

/// Beginning of llama2.c's greedy text (`test_all.py` of its repository).
const DOCUMENTED: &str =
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.";

/// The greedy continuation of BOS.
fn greedy(model: &Model, num_new: usize) -> Vec<u32> {
    let pool = Pool::new(1);
    let blocks: Vec<u32> = (0..num_new.div_ceil(BLOCK_LEN) as u32).collect();
    let mut kv = KvCache::new(model.kv_layout(), blocks.len());
    let (mut ws, mut out) = (Workspace::default(), ForwardOutput::default());
    let mut tokens = vec![1];
    for position in 0..num_new {
        let input = RowInput::Token(TokenId(tokens[position]));
        let rows = [BatchRow {
            input,
            position: position as u32,
            blocks: &blocks,
        }];
        model
            .forward(&pool, &mut kv, &rows, &[0], &mut ws, &mut out)
            .unwrap();
        let best = (0..out.logits.len())
            .max_by(|&a, &b| out.logits[a].total_cmp(&out.logits[b]))
            .unwrap();
        tokens.push(best as u32);
    }
    tokens
}

#[test]
fn stories_260k_tells_its_documented_story() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let Some(folder) = ["shared/data/stories260K", "data/stories260K"]
        .map(|path| root.join(path))
        .into_iter()
        .find(|folder| folder.join("stories260K.bin").exists())
    else {
        println!("skipped: no shared/data/stories260K beside the repository");
        return;
    };
    let file = ModelFile::open(&folder.join("stories260K.bin")).unwrap();
    assert_eq!(file.config().num_parameters(), 260_032);
    let vocab = read_llama2c_tokenizer(&folder.join("tok512.bin"), file.config().vocab_len).unwrap();
    for plan in [PrecisionPlan::f32(), PrecisionPlan::int8()] {
        let tokens = greedy(&file.load(plan, &Pool::new(2), &[]).unwrap(), 60);
        let bytes: Vec<u8> = tokens[1..]
            .iter()
            .flat_map(|&token| vocab[token as usize].1.clone())
            .collect();
        let text = String::from_utf8_lossy(&bytes);
        // The first piece carries the space that llama2.c strips after BOS.
        let text = text.trim_start();
        if plan == PrecisionPlan::f32() {
            assert!(text.starts_with(DOCUMENTED), "{text}");
        } else {
            assert!(
                text.starts_with("Once upon a time, there was a little girl named Lily"),
                "{text}"
            );
        }
    }
}
