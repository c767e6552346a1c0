//! The batched forward pass against the reference, and its independence of the batch.

use std::sync::Arc;

use trimtab_base::TokenId;
use trimtab_base::prob::{kl_nats, log_softmax};
use trimtab_kernels::kv_cache::{BLOCK_LEN, KvCache};
use trimtab_kernels::pool::Pool;
use trimtab_model::config::ModelConfig;
use trimtab_model::presets::{test_tiny, test_tiny_gemma, test_tiny_qwen};
use trimtab_model::synthetic::SyntheticWeights;
use trimtab_model::{BatchRow, ForwardOutput, Model, PrecisionPlan, RowInput, Workspace};

use crate::reference::Reference;

const TOKENS: [u32; 40] = {
    let mut tokens = [0; 40];
    let mut i = 0;
    while i < 40 {
        tokens[i] = (i as u32 * 17 + 5) % 40;
        i += 1;
    }
    tokens
};

struct Fixture {
    model: Model,
    pool: Pool,
}

impl Fixture {
    fn new(config: &ModelConfig, plan: PrecisionPlan, num_threads: usize) -> Self {
        let pool = Pool::new(num_threads);
        let weights = Arc::new(SyntheticWeights::new(config.clone(), 7));
        let model = Model::load(config.clone(), weights, plan, &pool).unwrap();
        Self { model, pool }
    }

    /// Runs one sequence in chunks of the given lengths, in blocks taken from the end of the store.
    fn run(&self, tokens: &[u32], chunks: &[usize]) -> ForwardOutput {
        let mut kv = KvCache::new(self.model.kv_layout(), 16);
        let blocks: Vec<u32> = (0..tokens.len().div_ceil(BLOCK_LEN) as u32)
            .map(|block| 15 - block)
            .collect();
        let (mut ws, mut all) = (Workspace::default(), ForwardOutput::default());
        let mut start = 0;
        for &len in chunks {
            let rows: Vec<BatchRow<'_>> = (start..start + len)
                .map(|position| BatchRow {
                    input: RowInput::Token(TokenId(tokens[position])),
                    position: position as u32,
                    blocks: &blocks,
                })
                .collect();
            let outputs: Vec<usize> = (0..len).collect();
            let mut out = ForwardOutput::default();
            self.model
                .forward(&self.pool, &mut kv, &rows, &outputs, &mut ws, &mut out)
                .unwrap();
            all.hidden.extend(out.hidden);
            all.logits.extend(out.logits);
            start += len;
        }
        all
    }
}

fn families() -> [ModelConfig; 3] {
    [test_tiny(), test_tiny_gemma(), test_tiny_qwen()]
}

#[test]
fn f32_path_equals_the_reference() {
    for config in families() {
        let fixture = Fixture::new(&config, PrecisionPlan::f32(), 2);
        let got = fixture.run(&TOKENS, &[40]);
        let weights = SyntheticWeights::new(config.clone(), 7);
        let reference = Reference {
            config: &config,
            weights: &weights,
        };
        let expected = reference.run(reference.embed(&TOKENS));
        let largest_error = |got: &[f32], expected: &[Vec<f64>]| {
            got.iter()
                .zip(expected.concat())
                .map(|(&g, e)| (f64::from(g) - e).abs())
                .fold(0.0, f64::max)
        };
        let (hidden, logits) = (
            largest_error(&got.hidden, &expected.hidden),
            largest_error(&got.logits, &expected.logits),
        );
        // f32 rounding over two layers; a wrong rotation, mask or norm is off by more than 0.1.
        assert!(
            hidden < 2e-5 && logits < 2e-5,
            "{}: hidden {hidden}, logits {logits}",
            config.architecture
        );
    }
}

#[test]
fn chunks_and_threads_do_not_change_a_bit() {
    for config in families() {
        for plan in [PrecisionPlan::f32(), PrecisionPlan::int8()] {
            let whole = Fixture::new(&config, plan, 2).run(&TOKENS, &[40]);
            let chunked = Fixture::new(&config, plan, 1).run(&TOKENS, &[1, 7, 16, 3, 1, 1, 11]);
            assert_eq!(whole.logits, chunked.logits, "{} {plan:?}", config.architecture);
            assert_eq!(whole.hidden, chunked.hidden, "{} {plan:?}", config.architecture);
        }
    }
}

#[test]
fn int8_stays_near_the_exact_path() {
    for config in families() {
        let vocab_len = config.vocab_len;
        let exact = Fixture::new(&config, PrecisionPlan::f32(), 1).run(&TOKENS, &[40]);
        let quantised = Fixture::new(&config, PrecisionPlan::int8(), 1).run(&TOKENS, &[40]);
        let total: f64 = exact
            .logits
            .chunks_exact(vocab_len)
            .zip(quantised.logits.chunks_exact(vocab_len))
            .map(|(exact, quantised)| kl_nats(&log_softmax(exact), &log_softmax(quantised)))
            .sum();
        let mean = total / TOKENS.len() as f64;
        assert!(mean < 0.01, "{}: mean KL {mean} nats", config.architecture);
        assert!(
            mean > 0.0,
            "{}: int8 equals f32, so it was not used",
            config.architecture
        );
    }
}

#[test]
fn embedding_rows_equal_the_tokens_they_stand_for() {
    for config in families() {
        let fixture = Fixture::new(&config, PrecisionPlan::f32(), 1);
        let by_token = fixture.run(&TOKENS[..20], &[20]);
        let weights = SyntheticWeights::new(config.clone(), 7);
        let reference = Reference {
            config: &config,
            weights: &weights,
        };
        let embedded: Vec<Vec<f32>> = reference
            .embed(&TOKENS[..20])
            .into_iter()
            .map(|row| row.into_iter().map(|value| value as f32).collect())
            .collect();
        let mut kv = KvCache::new(fixture.model.kv_layout(), 4);
        let blocks: Vec<u32> = (0..4).collect();
        let rows: Vec<BatchRow<'_>> = embedded
            .iter()
            .enumerate()
            .map(|(i, row)| BatchRow {
                input: RowInput::Embedding(row),
                position: i as u32,
                blocks: &blocks,
            })
            .collect();
        let mut out = ForwardOutput::default();
        let outputs: Vec<usize> = (0..20).collect();
        let mut ws = Workspace::default();
        fixture
            .model
            .forward(&fixture.pool, &mut kv, &rows, &outputs, &mut ws, &mut out)
            .unwrap();
        assert_eq!(by_token.logits, out.logits, "{}", config.architecture);
    }
}

#[test]
fn impossible_rows_are_refused_before_anything_runs() {
    let fixture = Fixture::new(&test_tiny(), PrecisionPlan::f32(), 1);
    let mut kv = KvCache::new(fixture.model.kv_layout(), 1);
    let mut check = |input: RowInput<'_>, expect: &str| {
        let rows = [BatchRow {
            input,
            position: 0,
            blocks: &[0],
        }];
        let (mut ws, mut out) = (Workspace::default(), ForwardOutput::default());
        let error = fixture
            .model
            .forward(&fixture.pool, &mut kv, &rows, &[0], &mut ws, &mut out)
            .unwrap_err();
        assert!(error.to_string().contains(expect), "{error}");
    };
    check(RowInput::Token(TokenId(40)), "40 is outside the vocabulary of 40");
    check(
        RowInput::Embedding(&[0.0; 31]),
        "length 31, expected the hidden size 32",
    );
}
