//! Decoders that do not keep their word and models that refuse a batch: who fails, and who goes on.

use std::sync::Arc;

use trimtab_decode::{Action, Answer, DecodeError, Decoder, Need, Outcome};
use trimtab_engine::{Backend, CpuBackend, Engine, EngineConfig, EngineError, Prompt, Request};
use trimtab_kernels::pool::Pool;
use trimtab_model::presets::test_tiny;
use trimtab_model::synthetic::SyntheticWeights;
use trimtab_model::{BatchRow, ForwardOutput, Model, ModelError, PrecisionPlan};

use crate::table_backend::{TableBackend, decoder, engine, request, run_to_end, tokens};

/// A decoder that announces less than it does.
struct Lying {
    inner: Box<dyn Decoder>,
    max_live_branches: usize,
    max_new_tokens: usize,
}

impl Decoder for Lying {
    fn next_need(&self) -> Need {
        self.inner.next_need()
    }

    fn take_actions(&mut self) -> Vec<Action> {
        self.inner.take_actions()
    }

    fn feed(&mut self, answer: Answer) -> Result<(), DecodeError> {
        self.inner.feed(answer)
    }

    fn outcome(&self) -> Option<&Outcome> {
        self.inner.outcome()
    }

    fn max_live_branches(&self) -> usize {
        self.max_live_branches
    }

    fn max_new_tokens(&self) -> usize {
        self.max_new_tokens
    }
}

/// How a best-of-8 that announces `max_live_branches` and `max_new_tokens` fails, in a store that a liar could empty;
/// honest requests around it must not notice.
fn failure_of(max_live_branches: usize, max_new_tokens: usize) -> EngineError {
    let prompt = [1, 2, 3, 1];
    let (mut engine, _) = engine(15, prompt.len(), EngineConfig::standard());
    let liar = Request {
        prompt: Prompt::tokens(tokens(&prompt)),
        decoder: Box::new(Lying {
            inner: decoder("bon:8", &prompt, 1),
            max_live_branches,
            max_new_tokens,
        }),
    };
    let honest = engine.submit(request("sample", &prompt, 1)).expect("fits");
    let liar = engine.submit(liar).expect("fits by its word");
    let later = engine.submit(request("bon:3", &prompt, 2)).expect("fits");
    let mut ended = run_to_end(&mut engine);
    let place = ended.iter().position(|(id, _)| *id == liar).expect("it ends");
    let (_, result) = ended.remove(place);
    let mut others: Vec<_> = ended.iter().map(|(id, _)| *id).collect();
    others.sort();
    assert_eq!(others, [honest, later]);
    assert!(ended.iter().all(|(_, result)| result.is_ok()));
    assert_eq!(
        engine.stats().blocks_held,
        1,
        "the prompt's whole block is cached"
    );
    result.expect_err("a liar fails")
}

#[test]
fn a_decoder_that_announces_too_little_fails_its_own_request() {
    let check = |error: EngineError, expect: &str| assert_eq!(error.to_string(), expect);
    check(
        failure_of(1, 6),
        "decoder keeps 2 branches alive, it announced at most 1",
    );
    check(
        failure_of(2, 6),
        "decoder keeps 3 branches alive, it announced at most 2",
    );
    assert!(matches!(
        failure_of(8, 1),
        EngineError::BranchTooLong {
            new_tokens: 1,
            announced: 1,
            ..
        }
    ));
}

/// A backend that refuses its batch number `refused`.
struct Refusing {
    inner: TableBackend,
    num_batches: usize,
    refused: usize,
}

impl Backend for Refusing {
    fn vocab_len(&self) -> usize {
        self.inner.vocab_len()
    }

    fn hidden_len(&self) -> usize {
        self.inner.hidden_len()
    }

    fn context_len(&self) -> usize {
        self.inner.context_len()
    }

    fn block_len(&self) -> usize {
        self.inner.block_len()
    }

    fn num_blocks(&self) -> usize {
        self.inner.num_blocks()
    }

    fn forward(
        &mut self,
        rows: &[BatchRow<'_>],
        outputs: &[usize],
        out: &mut ForwardOutput,
    ) -> Result<(), ModelError> {
        self.num_batches += 1;
        if self.num_batches == self.refused {
            return Err(ModelError::BadEmbedding { got: 3, expected: 1 });
        }
        self.inner.forward(rows, outputs, out)
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        self.inner.copy_block(from, to);
    }

    fn pool(&self) -> &Pool {
        self.inner.pool()
    }
}

#[test]
fn a_refused_batch_fails_the_requests_in_it_and_no_other() {
    for refused in [1, 2] {
        let prompt = [1, 2, 3, 1];
        let (inner, _) = TableBackend::new(24, prompt.len());
        let backend = Refusing {
            inner,
            num_batches: 0,
            refused,
        };
        let config = EngineConfig {
            prefix_cache: false,
            ..EngineConfig::standard()
        };
        let mut engine = Engine::new(Box::new(backend), config).expect("limits are positive");
        // The first two fill the store, the third waits.
        let ids: Vec<_> = (0..3)
            .map(|seed| engine.submit(request("bon:3", &prompt, seed)).expect("fits"))
            .collect();
        let ended = run_to_end(&mut engine);
        let failures: Vec<_> = ended
            .iter()
            .filter_map(|(id, result)| Some((*id, result.as_ref().err()?.to_string())))
            .collect();
        let message =
            "the model refused a batch of 2 requests: embedding row of length 3, expected the hidden size 1";
        let expected = ids[..2].iter().map(|&id| (id, message.to_owned()));
        assert_eq!(failures, expected.collect::<Vec<_>>());
        assert!(ended.iter().any(|(id, result)| *id == ids[2] && result.is_ok()));
        assert_eq!(engine.stats().blocks_held, 0);
    }
}

#[test]
fn a_store_that_the_system_refuses_is_an_error_with_its_remedy() {
    let config = test_tiny();
    let pool = Arc::new(Pool::new(1));
    let weights = Arc::new(SyntheticWeights::new(config.clone(), 5));
    let model = Arc::new(Model::load(config, weights, PrecisionPlan::f32(), &pool).expect("fits"));
    let error = CpuBackend::try_new(model, pool, usize::MAX)
        .err()
        .expect("no machine has so much");
    let message = error.to_string();
    for part in ["1759218604441", " MiB", "lower the key/value memory budget"] {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}
