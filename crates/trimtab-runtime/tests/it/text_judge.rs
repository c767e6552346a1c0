//! Scorers with a model of their own: what a text is worth does not depend on what was asked before.

use std::sync::{Arc, Mutex};

use serde_json::Map;
use trimtab_base::{RewardModel, ScoreInput, TokenId};
use trimtab_decode::Prefix;
use trimtab_model::ScoreHead;
use trimtab_runtime::{
    AskedPrefix, AskedReward, AskedScorer, FeatureItem, HeadReward, Job, LOG_PROBABILITY, LOGIT, LoadedModel,
    PromptStyle, ReaderLimits, RuntimeError, SeparateScorer, TextForm, TextReader, classifier_weights,
    cut_to_tokens, prefix_features,
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
        planted: None,
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
fn heads_on_one_reader_say_what_they_say_alone() {
    let model = tiny_model::load(1);
    let reader = TextReader::try_new(
        &model,
        PromptStyle::default(),
        TextForm::Answer,
        ReaderLimits::standard(),
    )
    .unwrap();
    let reader = Arc::new(Mutex::new(reader));
    let batch = [input("hello", "a rather long good answer"), input("bye", "no")];
    for unit in [LOGIT, LOG_PROBABILITY] {
        let shared = HeadReward::on_reader("x".to_owned(), (&card(&model, unit), weights(&model)), &reader);
        let alone = head(&model, unit).score(&batch).unwrap();
        assert_eq!(shared.unwrap().score(&batch).unwrap(), alone, "{unit}");
    }
}

/// Scores of the hub's classifiers are read off the last token of the whole text, without an end behind it.
#[test]
fn a_sequence_classifier_scores_the_text_as_it_is() {
    let model = tiny_model::load(1);
    let hidden_len = model.config().hidden_len;
    let score_head = |num_labels: usize| ScoreHead {
        labels: ["bad", "good", "odd"][..num_labels]
            .iter()
            .map(|&label| label.to_owned())
            .collect(),
        hidden_len,
        weight: (0..num_labels * hidden_len)
            .map(|idx| (idx as f32).sin())
            .collect(),
    };
    let reader = TextReader::try_new(
        &model,
        PromptStyle::default(),
        TextForm::Conversation,
        ReaderLimits::standard(),
    );
    let reader = Arc::new(Mutex::new(reader.unwrap()));
    let ids = model.tokenizer().encode_prompt("hello there").unwrap();
    let mut last = Vec::new();
    let item = FeatureItem {
        prompt: &ids,
        response: &[],
    };
    let limits = ReaderLimits::standard();
    prefix_features::<RuntimeError>(&model, None, &[item], limits, &mut |_, states| {
        last = states.hidden;
        Ok(())
    })
    .unwrap();
    let row = |head: &ScoreHead, idx: usize| -> f64 {
        let weights = &head.weight[idx * hidden_len..][..hidden_len];
        weights
            .iter()
            .zip(&last)
            .map(|(&weight, &state)| f64::from(weight) * f64::from(state))
            .sum()
    };
    let check = |num_labels: usize, label: Option<&str>, expect: &dyn Fn(&ScoreHead) -> f64| {
        let head = score_head(num_labels);
        let reward = HeadReward::of_classifier("rm".to_owned(), (&head, label), &reader).unwrap();
        let got = reward.score(&[input("hello ", "there")]).unwrap()[0];
        assert!(
            (got - expect(&head)).abs() < 1e-3,
            "{num_labels} {label:?}: {got}, {}",
            expect(&head)
        );
    };
    check(1, None, &|head| row(head, 0));
    check(2, None, &|head| row(head, 1) - row(head, 0));
    check(2, Some("bad"), &|head| row(head, 0) - row(head, 1));
    check(3, Some("odd"), &|head| row(head, 2));
    for (num_labels, label) in [(3, None), (2, Some("ugly"))] {
        let error = classifier_weights(&score_head(num_labels), label)
            .unwrap_err()
            .to_string();
        assert!(error.contains("expected one of bad, good"), "{error}");
    }
}

#[test]
fn long_texts_are_cut_between_tokens() {
    let model = tiny_model::load(1);
    let cut = |text: &str, most: usize| cut_to_tokens(model.tokenizer(), text, most).unwrap();
    assert_eq!(cut("abc", 1000), None);
    let beginning = cut("abcdefgh", 3).unwrap();
    assert!(
        "abcdefgh".starts_with(&beginning) && beginning.len() < 8,
        "{beginning:?}"
    );
    // Two bytes of three are no character.
    assert!("\u{20ac}\u{20ac}".starts_with(&cut("\u{20ac}\u{20ac}", 3).unwrap()));
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
