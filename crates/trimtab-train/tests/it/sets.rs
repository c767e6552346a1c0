//! Prefix sets on disk: whole, unfinished, damaged, and larger than memory.

use std::fs;

use proptest::prelude::*;
use trimtab_train::{PrefixSet, PrefixSetHeader, PrefixSetWriter, ResponseFeatures, TrainError};

const HIDDEN_LEN: usize = 3;
const FEATURE_LEN: usize = 2;

fn header() -> PrefixSetHeader {
    PrefixSetHeader {
        base_name: "base".to_owned(),
        base_sha256: "aa".to_owned(),
        precision: "f32".to_owned(),
        hidden_len: HIDDEN_LEN,
        vocab_len: 50,
        feature_len: FEATURE_LEN,
        features_sha256: "bb".to_owned(),
        rollouts_sha256: "cc".to_owned(),
        reward: "length".to_owned(),
        reward_unit: "nats".to_owned(),
    }
}

/// A response whose numbers are halves, which f16 holds exactly.
fn response(number: usize, len: usize) -> ResponseFeatures {
    let values = |count: usize| (0..count).map(|at| (number * 7 + at) as f32 / 2.0).collect();
    ResponseFeatures {
        hidden: values((len + 1) * HIDDEN_LEN),
        expected_features: values((len + 1) * FEATURE_LEN),
        token_ids: (0..len).map(|at| ((number + at) % 50) as u32).collect(),
        reward: number as f64 - 0.25,
        key: number as u64 / 2,
    }
}

fn read_all(set: &PrefixSet) -> Vec<ResponseFeatures> {
    let mut responses = Vec::new();
    for shard_idx in 0..set.shards().len() {
        let shard = set.shard(shard_idx).unwrap();
        for idx in 0..shard.num_responses() {
            responses.push(ResponseFeatures {
                hidden: shard.hidden(idx).iter().map(|value| value.to_f32()).collect(),
                expected_features: shard.expected_features(idx).to_vec(),
                token_ids: shard.token_ids(idx).to_vec(),
                reward: shard.reward(idx),
                key: shard.key(idx),
            });
        }
    }
    responses
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_was_pushed_is_read_whatever_was_killed(
        lens in prop::collection::vec(0_usize..9, 1..30),
        kill_at in 0_usize..30,
        shard_bytes in 1_u64..400,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let responses: Vec<_> = lens.iter().enumerate().map(|(number, &len)| response(number, len)).collect();
        let open = || PrefixSetWriter::create(folder.path(), header()).unwrap().with_shard_bytes(shard_bytes);
        let mut writer = open();
        for response in responses.iter().take(kill_at) {
            writer.push(response).unwrap();
        }
        drop(writer);
        prop_assert!(PrefixSet::open(folder.path()).is_err());
        let mut writer = open();
        for response in responses.iter().skip(writer.num_durable() as usize) {
            writer.push(response).unwrap();
        }
        let set = writer.finish().unwrap();
        prop_assert_eq!(set.num_responses(), responses.len() as u64);
        prop_assert_eq!(set.num_prefixes(), lens.iter().map(|&len| len as u64 + 1).sum::<u64>());
        prop_assert_eq!(read_all(&set), responses);
    }
}

#[test]
fn memory_holds_no_more_than_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = PrefixSetWriter::create(folder.path(), header())
        .unwrap()
        .with_shard_bytes(1);
    for number in 0..6 {
        writer.push(&response(number, 4)).unwrap();
    }
    let set = writer.finish().unwrap();
    let shard_bytes = set.shard(0).unwrap().num_bytes();
    let set = PrefixSet::open(folder.path()).unwrap();
    set.limit_memory(2 * shard_bytes);
    assert_eq!(read_all(&set).len(), 6);
    assert_eq!(set.num_held(), 2);
    set.limit_memory(0);
    set.shard(0).unwrap();
    assert_eq!(set.num_held(), 1, "the shard in use is always held");
}

fn check_refused(change: impl Fn(&mut ResponseFeatures), expect: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = PrefixSetWriter::create(folder.path(), header()).unwrap();
    writer.push(&response(0, 2)).unwrap();
    let mut bad = response(1, 2);
    change(&mut bad);
    let error = writer.push(&bad).unwrap_err().to_string();
    assert!(error.contains("response 1") && error.contains(expect), "{error}");
    assert_eq!(
        writer.finish().unwrap().num_responses(),
        1,
        "a refused response leaves nothing behind"
    );
}

#[test]
fn responses_that_do_not_fit_are_refused() {
    check_refused(|bad| bad.hidden.truncate(5), "hidden has 5 values, expected 9");
    check_refused(|bad| bad.hidden[1] = f32::NAN, "NaN");
    check_refused(|bad| bad.hidden[1] = 70000.0, "70000");
    check_refused(|bad| bad.reward = f64::NAN, "reward is NaN");
    check_refused(|bad| bad.token_ids[0] = 50, "token 50");
    check_refused(|bad| bad.expected_features[0] = f32::INFINITY, "inf");
}

#[test]
fn a_set_of_other_inputs_is_not_continued() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = PrefixSetWriter::create(folder.path(), header()).unwrap();
    writer.push(&response(0, 2)).unwrap();
    writer.finish().unwrap();
    let mut other = header();
    other.reward = "keywords".to_owned();
    let error = PrefixSetWriter::create(folder.path(), other).unwrap_err();
    assert!(
        matches!(error, TrainError::Mismatch { what: "reward", .. }),
        "{error}"
    );
    let mut other = header();
    other.hidden_len = 4;
    assert!(PrefixSetWriter::create(folder.path(), other).is_err());
    assert!(
        PrefixSetWriter::create(folder.path(), header())
            .unwrap()
            .is_complete()
    );
}

#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = PrefixSetWriter::create(folder.path(), header()).unwrap();
    writer.push(&response(0, 2)).unwrap();
    let set = writer.finish().unwrap();
    let shard = folder.path().join(&set.shards()[0].file);
    let good = fs::read(&shard).unwrap();
    for change in [
        |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1,
        |bytes: &mut Vec<u8>| bytes.truncate(20),
        |bytes: &mut Vec<u8>| bytes.push(0),
    ] {
        let mut bytes = good.clone();
        change(&mut bytes);
        fs::write(&shard, bytes).unwrap();
        assert!(PrefixSet::open(folder.path()).unwrap().shard(0).is_err());
    }
    let manifest = folder.path().join("prefix_set.json");
    let text = fs::read_to_string(&manifest).unwrap();
    for (from, to) in [
        ("\"format_version\": 1", "\"format_version\": 9"),
        ("shard-00000", "../shard-00000"),
        ("\"header\"", "\"head\""),
    ] {
        fs::write(&manifest, text.replace(from, to)).unwrap();
        assert!(PrefixSet::open(folder.path()).is_err(), "{to}");
    }
}
