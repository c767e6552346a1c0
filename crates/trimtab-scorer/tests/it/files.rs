//! Folders of scorers: what is written is read back, and what is damaged is refused with the value and the remedy.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::Digest;
use trimtab_scorer::{CARD_FILE, HeadSizes, ScorerWeights, WEIGHTS_FILE, read_scorer, write_scorer};

use crate::fixture::{card, sized, weights};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_written_is_read_back(
        seed in 0_u64..1000,
        hidden_len in 1_usize..20,
        vocab_len in 1_usize..40,
        trunk_len in 0_usize..9,
        features_len in prop_oneof![Just(0_usize), 2_usize..8],
    ) {
        let weights = sized(seed, HeadSizes { hidden_len, vocab_len, trunk_len, features_len });
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("runs/one");
        let written = write_scorer(&dir, &card(&weights), &weights).unwrap();
        let (card, read) = read_scorer(&dir).unwrap();
        prop_assert_eq!(&card, &written);
        prop_assert_eq!(card.weights_sha256.len(), 64);
        prop_assert_eq!(read, weights);
        let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        prop_assert_eq!(names, [CARD_FILE, WEIGHTS_FILE], "nothing is left beside the two files");
    }
}

#[test]
fn a_scorer_replaces_an_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    for seed in [1, 2] {
        let weights = weights(seed);
        write_scorer(folder.path(), &card(&weights), &weights).unwrap();
        assert_eq!(read_scorer(folder.path()).unwrap().1, weights);
    }
}

/// What is said of a scorer that `damage` has changed after it was written.
fn check(damage: impl FnOnce(&Path), expect: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder of this test");
    let weights = weights(3);
    write_scorer(folder.path(), &card(&weights), &weights).expect("a folder of this test");
    damage(folder.path());
    let message = read_scorer(folder.path()).expect_err("refused").to_string();
    for part in expect {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}

fn edit_card(dir: &Path, edit: impl FnOnce(&mut Value)) {
    let path = dir.join(CARD_FILE);
    let mut card = serde_json::from_slice(&fs::read(&path).expect("a folder of this test"))
        .expect("a folder of this test");
    edit(&mut card);
    fs::write(path, card.to_string()).expect("a folder of this test");
}

#[test]
fn damaged_folders_are_refused() {
    check(
        |dir| fs::remove_file(dir.join(CARD_FILE)).unwrap(),
        &[CARD_FILE, "trimtab train scorer"],
    );
    check(
        |dir| fs::remove_file(dir.join(WEIGHTS_FILE)).unwrap(),
        &[WEIGHTS_FILE, "cannot read"],
    );
    check(
        |dir| fs::write(dir.join(CARD_FILE), "{").unwrap(),
        &["not a scorer card", "EOF"],
    );
    check(
        |dir| edit_card(dir, |card| card["format_version"] = json!(2)),
        &["format 2", "reads format 1"],
    );
    check(
        |dir| edit_card(dir, |card| card["surprise"] = json!(1)),
        &["unknown field `surprise`"],
    );
    check(
        |dir| edit_card(dir, |card| card["seed"] = json!(-1)),
        &["not a scorer card", "-1"],
    );
    check(
        |dir| edit_card(dir, |card| card["model"] = json!("../else")),
        &["model", "../else", "beside the card"],
    );
    check(
        |dir| edit_card(dir, |card| card["base"]["hidden_len"] = json!(25)),
        &["base.hidden_len is 25", "24"],
    );
    check(
        |dir| edit_card(dir, |card| card["base"]["vocab_len"] = json!(91)),
        &["base.vocab_len is 91", "90"],
    );
    let cut = |dir: &Path| {
        let bytes = fs::read(dir.join(WEIGHTS_FILE)).unwrap();
        fs::write(dir.join(WEIGHTS_FILE), &bytes[..bytes.len() - 1]).unwrap();
    };
    check(cut, &[WEIGHTS_FILE, "sha256", "damaged", "train again"]);
    let flipped = |dir: &Path| {
        let mut bytes = fs::read(dir.join(WEIGHTS_FILE)).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(dir.join(WEIGHTS_FILE), bytes).unwrap();
    };
    check(flipped, &["sha256", "damaged"]);
}

/// Tensors with names, shapes and values.
type Named = Vec<(String, Vec<usize>, Vec<f32>)>;

/// A folder whose checksum is right and whose tensors are those of `edit`.
fn check_tensors(edit: impl FnOnce(&mut Named), expect: &[&str]) {
    let replace = |dir: &Path| {
        let tensors = fs::read(dir.join(WEIGHTS_FILE)).expect("a folder of this test");
        let tensors = safetensors::SafeTensors::deserialize(&tensors).expect("a folder of this test");
        let mut edited = Vec::new();
        for (name, view) in tensors.tensors() {
            if name != "token_features" {
                let values = view
                    .data()
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes(b.try_into().expect("a folder of this test")));
                edited.push((name, view.shape().to_vec(), values.collect()));
            }
        }
        edited.push(("token_features".to_owned(), vec![90, 5], vec![0.5; 450]));
        edit(&mut edited);
        let stored: Vec<_> = edited
            .into_iter()
            .map(|(name, shape, values)| {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                (name, shape, bytes)
            })
            .collect();
        let views = stored.iter().map(|(name, shape, bytes)| {
            let dtype = safetensors::Dtype::F32;
            (
                name,
                safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes)
                    .expect("a folder of this test"),
            )
        });
        let bytes = safetensors::serialize(views, None).expect("a folder of this test");
        fs::write(dir.join(WEIGHTS_FILE), &bytes).expect("a folder of this test");
        let digest = sha2::Sha256::digest(&bytes);
        let hex = digest
            .iter()
            .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        edit_card(dir, |card| card["weights_sha256"] = json!(hex));
    };
    check(replace, expect);
}

#[test]
fn tensors_that_do_not_make_a_scorer_are_refused() {
    fn set(name: &str, with: impl Fn(&mut Vec<usize>, &mut Vec<f32>)) -> impl FnOnce(&mut Named) {
        move |tensors| {
            let found = tensors.iter_mut().find(|(found, ..)| found == name).unwrap();
            with(&mut found.1, &mut found.2);
        }
    }
    let without = |name: &'static str| move |tensors: &mut Named| tensors.retain(|(found, ..)| found != name);
    check_tensors(without("mean"), &["no tensor named mean"]);
    check_tensors(without("action.direction.bias"), &["action.direction.bias"]);
    check_tensors(without("token_features"), &["token_features"]);
    check_tensors(
        set("state.out.weight", |_, values| values[3] = f32::NAN),
        &["state.out.weight", "NaN at element 3", "train again"],
    );
    check_tensors(
        set("scale", |_, values| values[0] = f32::INFINITY),
        &["scale", "inf"],
    );
    check_tensors(set("std", |_, values| values[2] = 0.0), &["std", "above 0"]);
    check_tensors(
        set("mean", |shape, _| *shape = vec![12, 2]),
        &["mean", "[12, 2]", "1 axes"],
    );
    check_tensors(
        set("state.trunk.bias", |shape, values| {
            *shape = vec![16];
            values.pop();
        }),
        &["state.trunk.bias", "[16]", "[17]"],
    );
    check_tensors(
        set("token_features", |shape, values| {
            *shape = vec![90, 4];
            values.truncate(360);
        }),
        &["action.direction.weight", "[5, 17]", "[4, 17]"],
    );
    check_tensors(
        set("token_features", |shape, values| {
            *shape = vec![0, 5];
            values.clear();
        }),
        &["token_features"],
    );
}

#[test]
fn what_is_no_number_is_never_written() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("scorer");
    let good = weights(1);
    let check = |weights: &ScorerWeights, metric: f64, expect: &str| {
        let mut card = card(&good);
        card.metrics.insert("eval_mse".to_owned(), metric);
        let message = write_scorer(&dir, &card, weights).unwrap_err().to_string();
        assert!(message.contains(expect), "{message}");
        assert!(!dir.exists(), "nothing is half-written");
    };
    check(&good, f64::NAN, "metric eval_mse is NaN");
    let mut bad = good.clone();
    bad.state.out.weight[0] = f32::NAN;
    check(&bad, 0.5, "state.out.weight is NaN at element 0");
    let mut narrow = good.clone();
    narrow.mean.pop();
    check(&narrow, 0.5, "std has shape [24], expected [23]");
}

#[test]
fn a_scorer_for_another_model_says_which_and_what_to_do() {
    let weights = weights(1);
    let card = card(&weights);
    let sha = "ab".repeat(32);
    card.check_base("whatever it is called", &sha, 24, 90).unwrap();
    let check = |sha256: &str, hidden_len: usize, vocab_len: usize, expect: &[&str]| {
        let message = card
            .check_base("qwen", sha256, hidden_len, vocab_len)
            .unwrap_err()
            .to_string();
        for part in [
            "shortness",
            "smollm2-135m-instruct",
            "qwen",
            "trimtab train scorer",
        ]
        .iter()
        .chain(expect)
        {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    };
    check(&"ef".repeat(32), 24, 90, &["sha256 abab", "sha256 efef"]);
    check(&sha, 896, 90, &["hidden states of 24", "hidden states of 896"]);
    check(&sha, 24, 91, &["vocabulary of 90", "vocabulary of 91"]);
}
