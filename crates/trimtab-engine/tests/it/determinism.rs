//! Same seed, same tokens on a real decoder: whatever the batch, its order, the threads, the cache or the precision.

use std::sync::Arc;

use trimtab_base::{PromptKey, Seed, TokenBytes, TokenId};
use trimtab_decode::{DecodeSpec, DecoderInputs, Outcome, StopRules};
use trimtab_engine::{CpuBackend, Engine, EngineConfig, Prompt, Request};
use trimtab_kernels::gemm::Precision;
use trimtab_kernels::pool::Pool;
use trimtab_model::presets::{test_tiny, test_tiny_gemma};
use trimtab_model::synthetic::SyntheticWeights;
use trimtab_model::{Model, ModelConfig, PrecisionPlan};
use trimtab_scorer::{HeadSizes, ScorerSet, ScorerWeights};

use crate::steered_fixture::steering;
use crate::table_backend::run_to_end;

/// Token `i` is one letter.
struct Letters;

impl TokenBytes for Letters {
    fn bytes_of(&self, token: TokenId) -> &[u8] {
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        &LETTERS[token.index() % LETTERS.len()..][..1]
    }
}

fn prompt(idx: u32) -> Vec<TokenId> {
    (0..20 + 13 * idx)
        .map(|i| TokenId((i * (7 + idx) + idx) % 40))
        .collect()
}

/// Two scorers for `config`, with values that steer.
fn scorers(config: &ModelConfig, pool: &Pool, precision: Precision) -> ScorerSet {
    let sizes = HeadSizes {
        hidden_len: config.hidden_len,
        vocab_len: config.vocab_len,
        trunk_len: 24,
        features_len: 9,
    };
    let weights = vec![ScorerWeights::random(1, sizes), ScorerWeights::random(2, sizes)];
    ScorerSet::new(pool, precision, weights).expect("both are for one model")
}

fn request(spec: &str, prompt_idx: u32) -> Request {
    let prompt = prompt(prompt_idx);
    let inputs = DecoderInputs {
        prompt_key: PromptKey::of_tokens(&prompt),
        seed: Seed(11),
        stop: StopRules {
            stop_tokens: vec![TokenId(0)],
            stop_strings: Vec::new(),
            max_new_tokens: 24,
        },
        token_bytes: Arc::new(Letters),
        steering: steering(&[1.0, -0.5], None),
        trace: false,
    };
    let spec: DecodeSpec = spec.parse().expect("specs of tests are valid");
    Request {
        prompt: Prompt::tokens(prompt),
        decoder: spec.build_scored(inputs).expect("settings are valid"),
    }
}

/// Outcomes of `requests` (spec, prompt), in their order.
fn run(
    config: &ModelConfig,
    plan: PrecisionPlan,
    num_threads: usize,
    engine_config: EngineConfig,
    requests: &[(&str, u32)],
) -> Vec<Outcome> {
    let pool = Arc::new(Pool::new(num_threads));
    let weights = Arc::new(SyntheticWeights::new(config.clone(), 5));
    let model = Arc::new(Model::load(config.clone(), weights, plan, &pool).expect("synthetic weights fit"));
    let precision = if plan == PrecisionPlan::f32() {
        Precision::F32
    } else {
        Precision::Int8Wide
    };
    let set = scorers(config, &pool, precision);
    let backend = CpuBackend::new(model, pool, 64 << 20);
    let mut engine = Engine::new(Box::new(backend), engine_config).expect("limits are positive");
    engine.set_scorers(Arc::new(set)).expect("widths are the model's");
    let ids: Vec<_> = requests
        .iter()
        .map(|&(spec, idx)| engine.submit(request(spec, idx)).expect("fits"))
        .collect();
    let mut ended = run_to_end(&mut engine);
    ended.sort_by_key(|(id, _)| ids.iter().position(|known| known == id));
    ended
        .into_iter()
        .map(|(_, result)| result.expect("no request fails").0)
        .collect()
}

#[test]
fn a_sample_is_a_function_of_seed_prompt_and_index_alone() {
    let standard = EngineConfig::standard();
    let small = EngineConfig {
        max_batch_rows: 5,
        prefill_chunk: 3,
        prefix_cache: false,
    };
    let requests = [
        ("bon:6", 0),
        ("sample:t=0.8", 1),
        ("beam:3", 2),
        ("bon:4", 3),
        ("cd-token:weight=2", 0),
        ("cd-token:weight=-1,top_p=0.9", 1),
        ("cd-block:k=4,m=5", 2),
    ];
    let mut reversed_requests = requests;
    reversed_requests.reverse();
    for config in [test_tiny(), test_tiny_gemma()] {
        for plan in [PrecisionPlan::int8(), PrecisionPlan::f32()] {
            let together = run(&config, plan, 2, standard, &requests);
            let reversed = run(&config, plan, 1, small, &reversed_requests);
            for (a, b) in together.iter().zip(reversed.iter().rev()) {
                assert_eq!(a, b, "{} {plan:?}", config.architecture);
            }
            for idx in [0, 4, 6] {
                let alone = run(&config, plan, 2, standard, &requests[idx..=idx]);
                assert_eq!(alone[0], together[idx], "{} {plan:?}", config.architecture);
            }
        }
    }
}

#[test]
fn candidate_i_is_the_same_whatever_the_number_of_candidates() {
    let config = test_tiny();
    let outcomes = run(
        &config,
        PrecisionPlan::int8(),
        2,
        EngineConfig::standard(),
        &[("bon:16", 1), ("bon:4", 1), ("sample", 1)],
    );
    assert_eq!(outcomes[0].candidates[..4], outcomes[1].candidates[..]);
    assert_eq!(outcomes[0].candidates[..1], outcomes[2].candidates[..]);
    let texts: std::collections::HashSet<&str> = outcomes[0]
        .candidates
        .iter()
        .map(|candidate| candidate.text.as_str())
        .collect();
    assert!(
        texts.len() > 8,
        "candidates are independent draws, not copies: {texts:?}"
    );
}

#[test]
fn a_cached_prompt_gives_the_same_bits() {
    let config = test_tiny_gemma();
    let cold = EngineConfig {
        prefix_cache: false,
        ..EngineConfig::standard()
    };
    let requests = [("bon:4", 2), ("bon:4", 2), ("sample", 2)];
    let cached = run(
        &config,
        PrecisionPlan::int8(),
        2,
        EngineConfig::standard(),
        &requests,
    );
    let uncached = run(&config, PrecisionPlan::int8(), 2, cold, &requests);
    assert_eq!(cached, uncached);
}
