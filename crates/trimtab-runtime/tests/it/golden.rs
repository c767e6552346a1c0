//! Greedy texts against llama.cpp's in f32. Expected values were made by `dev/golden/greedy.py` and are checked in;
//! models are read where they are present. Where they are not, a test says so, and fails if they were required.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Map;
use trimtab_base::{Seed, TokenId};
use trimtab_decode::{DecodeSpec, StopRules};
use trimtab_engine::EngineConfig;
use trimtab_model::PrecisionPlan;
use trimtab_runtime::{Job, LoadOptions, LoadedModel, RunEvent, RunLimits, RuntimeError, run_jobs};
use trimtab_store::{Store, resolve_root};
use trimtab_tokenizer::SpecialTokens;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    prompt: String,
    prompt_ids: Vec<u32>,
    expected_ids: Vec<u32>,
    /// Difference of the two largest logits at each step.
    margins: Vec<f64>,
}

/// Two implementations in f32 differ by rounding: logits this near each other may come out in either order.
const NEAR_TIE: f64 = 2e-3;

/// The models that `.ci/run` fetches; the others it has no right to, or no source for.
const FETCHED_BY_CI: [&str; 3] = [
    "smollm2-135m-instruct",
    "stories15m",
    "qwen2.5-coder-0.5b-instruct",
];

#[expect(
    clippy::disallowed_methods,
    reason = "tests find the store as the command line does, and have none to be told by"
)]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// `TRIMTAB_REQUIRE_MODELS` is a list of aliases, or `1` for all that `.ci/run` fetches.
fn is_required(alias: &str) -> bool {
    match variable("TRIMTAB_REQUIRE_MODELS")
        .as_deref()
        .and_then(OsStr::to_str)
    {
        None | Some("") => false,
        Some("1") => FETCHED_BY_CI.contains(&alias),
        Some(list) => list.split(',').any(|name| name == alias),
    }
}

fn stored(alias: &str) -> Option<PathBuf> {
    let home = variable("TRIMTAB_HOME");
    Store::open(&resolve_root(home.as_deref()).ok()?)
        .ok()?
        .path(alias)
        .ok()
}

#[expect(clippy::print_stdout, reason = "a test that skips says so")]
fn check(name: &str, model_path: Option<PathBuf>) {
    let Some(model_path) = model_path.filter(|path| path.is_file()) else {
        assert!(
            !is_required(name),
            "{name} is required and not in the store; `trimtab models get {name}` fetches it"
        );
        println!("skipped: {name} is not on this machine (`trimtab models get {name}` fetches it)");
        return;
    };
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.json"));
    let golden: Golden = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    let options = LoadOptions {
        plan: PrecisionPlan::f32(),
        num_threads: 2,
    };
    let model = LoadedModel::open(&model_path, options).unwrap();
    let texts = greedy(&model, &golden.cases);
    for (idx, case) in golden.cases.iter().enumerate() {
        let got = &texts[&idx];
        let differs = got
            .iter()
            .zip(&case.expected_ids)
            .position(|(got, expected)| got.0 != *expected);
        match differs {
            None => assert_eq!(got.len(), case.expected_ids.len(), "{name}: {:?}", case.prompt),
            Some(step) => assert!(
                case.margins[step] < NEAR_TIE,
                "{name}: {:?} differs at step {step}, where llama.cpp's margin is {}",
                case.prompt,
                case.margins[step]
            ),
        }
        let has_control = case.prompt.contains("<|");
        let special = if has_control {
            SpecialTokens::Parse
        } else {
            SpecialTokens::AsText
        };
        let ids = model.tokenizer().encode(&case.prompt, special).unwrap();
        let ids: Vec<u32> = ids.into_iter().map(|id| id.0).collect();
        assert!(
            case.prompt_ids.ends_with(&ids),
            "{name}: {:?} is {ids:?}, llama.cpp has {:?}",
            case.prompt,
            case.prompt_ids
        );
    }
}

fn greedy(model: &LoadedModel, cases: &[Case]) -> BTreeMap<usize, Vec<TokenId>> {
    let job = |case: &Case| Job {
        label: case.prompt.clone(),
        prompt: case.prompt.clone(),
        record: Map::new(),
        token_ids: case.prompt_ids.iter().map(|&id| TokenId(id)).collect(),
        decode: DecodeSpec::Greedy,
        seed: Seed(0),
        stop: StopRules {
            stop_tokens: model.tokenizer().stop_tokens().to_vec(),
            stop_strings: Vec::new(),
            max_new_tokens: case.expected_ids.len(),
        },
        steering: std::sync::Arc::default(),
        trace: false,
    };
    let jobs: Vec<Job> = cases.iter().map(job).collect();
    let mut engine = model.engine(256 << 20, EngineConfig::standard()).unwrap();
    let mut texts = BTreeMap::new();
    run_jobs::<RuntimeError>(
        &mut engine,
        &model.token_bytes(),
        &jobs,
        None,
        RunLimits::standard(),
        &mut |event| {
            if let RunEvent::Finished(mut result) = event {
                texts.insert(result.job_idx, result.outcome.candidates.remove(0).token_ids);
            }
            Ok(())
        },
    )
    .unwrap();
    texts
}

#[test]
fn smollm2_speaks_as_in_llama_cpp() {
    check("smollm2-135m-instruct", stored("smollm2-135m-instruct"));
}

#[test]
fn stories15m_speaks_as_in_llama_cpp() {
    check("stories15m", stored("stories15m"));
}

#[test]
fn qwen2_5_speaks_as_in_llama_cpp() {
    check(
        "qwen2.5-coder-0.5b-instruct",
        stored("qwen2.5-coder-0.5b-instruct"),
    );
}

#[test]
fn gemma3_speaks_as_in_llama_cpp() {
    check("gemma3-270m", stored("gemma3-270m"));
}

#[test]
fn stories260k_speaks_as_in_llama_cpp() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/stories260K/stories260K.bin");
    check("stories260k", Some(data));
}
