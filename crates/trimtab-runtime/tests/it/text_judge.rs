//! Scorers with a model of their own: what a text is worth does not depend on what was asked before.

use serde_json::Map;
use trimtab_base::{RewardModel, ScoreInput, TokenId};
use trimtab_decode::Prefix;
use trimtab_runtime::{
    AskedPrefix, AskedReward, AskedScorer, FeatureItem, HeadReward, Job, LOG_PROBABILITY, LOGIT, LoadedModel,
    PromptStyle, ReaderLimits, RuntimeError, SeparateScorer, prefix_features,
};
use trimtab_scorer::{FORMAT_VERSION, HeadSizes, ScorerBase, ScorerCard, ScorerWeights};

use crate::jobs::jobs;
use crate::tiny_model;

fn card(model: &LoadedModel, unit: &str) -> ScorerCard {
    ScorerCard {
        format_version: FORMAT_VERSION,
        name: "judge".to_owned(),
        objective: "classifier".to_owned(),
        reward: "preference".to_owned(),
        reward_unit: unit.to_owned(),
        base: ScorerBase {
            name: "tiny".to_owned(),
            sha256: "0".repeat(64),
            hidden_len: model.config().hidden_len,
            vocab_len: model.config().vocab_len,
            precision: "int8".to_owned(),
        },
        data_sha256: "0".repeat(64),
        num_prefixes: 1,
        metrics: std::collections::BTreeMap::new(),
        seed: 0,
        source_revision: String::new(),
        weights_sha256: String::new(),
        model: None,
    }
}

fn weights(model: &LoadedModel) -> ScorerWeights {
    ScorerWeights::random(
        7,
        HeadSizes {
            hidden_len: model.config().hidden_len,
            vocab_len: model.config().vocab_len,
            trunk_len: 12,
            features_len: 0,
        },
    )
}

fn separate(model: &LoadedModel) -> SeparateScorer {
    SeparateScorer::try_new(
        "judge".to_owned(),
        (&card(model, "points"), weights(model)),
        model,
        PromptStyle::default(),
        ReaderLimits::standard(),
    )
    .unwrap()
}

fn prefix(text: &str, last: Option<TokenId>) -> Prefix {
    Prefix {
        token_ids: last.into_iter().collect(),
        text: text.to_owned(),
        is_finished: last.is_some(),
    }
}

/// The value by the slow way: all states of the whole text, the head at the last.
fn slow_value(model: &LoadedModel, prompt: &str, response: &str, is_finished: bool) -> f64 {
    let encoded = PromptStyle::default()
        .encode_response(model.tokenizer(), prompt, response, is_finished)
        .unwrap();
    let item = FeatureItem {
        prompt: &encoded.prompt_ids,
        response: &encoded.response_ids,
    };
    let mut value = f64::NAN;
    prefix_features::<RuntimeError>(
        model,
        None,
        &[item],
        ReaderLimits::standard(),
        &mut |_, states| {
            let last = states.hidden.len() - model.config().hidden_len;
            value = weights(model).state_value(&states.hidden[last..]);
            Ok(())
        },
    )
    .unwrap();
    value
}

fn values(scorer: &mut dyn AskedScorer, job: &Job, prefixes: &[Prefix]) -> Vec<f64> {
    let asked: Vec<AskedPrefix<'_>> = prefixes
        .iter()
        .map(|prefix| AskedPrefix { job, prefix })
        .collect();
    scorer.values(&asked).unwrap()
}

#[test]
fn values_of_texts_do_not_depend_on_what_was_asked_before() {
    let model = tiny_model::load(2);
    let job = &jobs(&model, "sample", &["tell me about the quick brown fox"])[0];
    let end = *model.tokenizer().stop_tokens().first().unwrap();
    let texts = [
        ("", None),
        ("it jumps", None),
        ("it jumps over the lazy dog and", None),
        ("it jumps over the lazy cat", Some(end)),
        ("another branch", None),
        // Ended by a limit, not by its author.
        ("it jumps over the lazy cat", Some(TokenId(50))),
    ];
    let prefixes = texts.map(|(text, last)| prefix(text, last));
    let expect: Vec<f64> = texts
        .iter()
        .map(|(text, last)| slow_value(&model, &job.prompt, text, *last == Some(end)))
        .collect();
    assert_ne!(expect[3], expect[5], "an end is seen");
    let mut scorer = separate(&model);
    assert_eq!(values(&mut scorer, job, &prefixes), expect);
    // Grown step by step, and backwards, with what is cached.
    for order in [[0, 1, 2, 3, 4, 5], [5, 3, 2, 1, 0, 4]] {
        for idx in order {
            let value = values(&mut scorer, job, &prefixes[idx..=idx]);
            assert_eq!(value, [expect[idx]], "{:?}", texts[idx]);
        }
    }
}

#[test]
fn texts_that_do_not_fit_the_scorers_model_are_refused_and_others_go_on() {
    let model = tiny_model::load(1);
    let job = &jobs(&model, "sample", &["a"])[0];
    let mut scorer = separate(&model);
    let long = prefix(&"word ".repeat(100), None);
    let asked = [AskedPrefix { job, prefix: &long }];
    let error = scorer.values(&asked).expect_err("must be refused").to_string();
    assert!(error.contains("exceed the context of 128"), "{error}");
    let short = prefix("b", None);
    assert_eq!(
        values(&mut scorer, job, &[short]),
        [slow_value(&model, "a", "b", false)]
    );
}

fn input(prompt: &str, response: &str) -> ScoreInput {
    ScoreInput {
        prompt: prompt.to_owned(),
        response: response.to_owned(),
        token_ids: Vec::new(),
        reference_log_prob: 0.0,
        record: Map::new(),
    }
}

fn head(model: &LoadedModel, unit: &str) -> HeadReward {
    HeadReward::try_new(
        "head:judge".to_owned(),
        (&card(model, unit), weights(model)),
        model,
        PromptStyle::default(),
        ReaderLimits::standard(),
    )
    .unwrap()
}

#[test]
fn a_head_is_a_reward_of_whole_texts_in_its_cards_unit() {
    let model = tiny_model::load(2);
    let batch = [input("hello", "good"), input("hello", "bad"), input("bye", "")];
    let expect: Vec<f64> = batch
        .iter()
        .map(|input| slow_value(&model, &input.prompt, &input.response, true))
        .collect();
    let logits = head(&model, LOGIT);
    assert_eq!((logits.name(), logits.unit()), ("head:judge", "logit"));
    assert_eq!(logits.score(&batch).unwrap(), expect);
    assert_eq!(logits.score(&batch[1..2]).unwrap(), expect[1..2]);
    let log_probs = head(&model, LOG_PROBABILITY).score(&batch).unwrap();
    for (log_prob, logit) in log_probs.iter().zip(&expect) {
        assert!((log_prob + (1.0 + (-logit).exp()).ln()).abs() < 1e-9);
    }
}

#[test]
fn a_scorer_of_another_width_is_refused() {
    let model = tiny_model::load(1);
    let mut narrow = weights(&model);
    narrow.mean.pop();
    let error = HeadReward::try_new(
        "head:judge".to_owned(),
        (&card(&model, LOGIT), narrow),
        &model,
        PromptStyle::default(),
        ReaderLimits::standard(),
    )
    .err()
    .unwrap()
    .to_string();
    assert!(error.contains("hidden states of 31, the model has 32"), "{error}");
}

#[test]
fn rewards_judge_unfinished_texts() {
    struct Letters;
    impl RewardModel for Letters {
        fn name(&self) -> &'static str {
            "letters"
        }
        fn unit(&self) -> &'static str {
            "letters"
        }
        fn score(&self, batch: &[ScoreInput]) -> Result<Vec<f64>, trimtab_base::RewardError> {
            Ok(batch.iter().map(|input| input.response.len() as f64).collect())
        }
    }
    let model = tiny_model::load(1);
    let job = &jobs(&model, "sample", &["a"])[0];
    let mut scorer = AskedReward::new("reward:letters".to_owned(), Box::new(Letters));
    assert_eq!((scorer.name(), scorer.unit()), ("reward:letters", "letters"));
    assert_eq!(
        values(&mut scorer, job, &[prefix("abc", None), prefix("", None)]),
        [3.0, 0.0]
    );
}

#[test]
fn texts_are_tokenised_as_their_author_would() {
    let model = tiny_model::load(1);
    let style = PromptStyle::default();
    let tokenizer = model.tokenizer();
    let encoded = style.encode_response(tokenizer, "ab", "cd", true).unwrap();
    assert_eq!(encoded.prompt_ids, style.encode(tokenizer, "ab").unwrap());
    let end = style.end_token(tokenizer).unwrap();
    assert_eq!(encoded.response_ids.last(), Some(&end));
    assert!(tokenizer.stop_tokens().contains(&end));
    let whole = [encoded.prompt_ids, encoded.response_ids].concat();
    let text = tokenizer.encode_prompt("abcd").unwrap();
    assert_eq!(whole, [text, vec![end]].concat());
    let empty = style.encode_response(tokenizer, "ab", "", false).unwrap();
    assert!(empty.response_ids.is_empty());
}
