//! Rewards added to rollouts that are there.

use std::path::Path;

use trimtab_data::{DataError, Manifest, RewardColumn, RewardTask, Rollout, add_rewards};

use crate::harness::{Folder, files, finished, read, says};

fn task(folder: &Folder, name: &str, batch_rows: usize) -> RewardTask {
    RewardTask {
        source: folder.path("in"),
        target: folder.path("out"),
        column: RewardColumn {
            name: name.to_owned(),
            unit: "characters".to_owned(),
        },
        batch_rows,
    }
}

fn reward(row: &Rollout) -> f64 {
    row.prompt.len() as f64 + row.sample_idx as f64 / 10.0
}

fn add(task: &RewardTask) -> Result<Manifest, DataError> {
    add_rewards(task, &mut |rows| {
        assert!(rows.len() <= task.batch_rows);
        Ok(rows.iter().map(reward).collect())
    })
}

#[test]
fn every_row_gets_its_reward_whatever_the_batch() {
    let mut contents = Vec::new();
    for batch_rows in [1, 4, 1000] {
        let folder = Folder::new();
        let source = finished(&folder.path("in"), 0..5, 6);
        let manifest = add(&task(&folder, "chars", batch_rows)).unwrap();
        let names: Vec<&str> = manifest
            .rewards
            .iter()
            .map(|column| column.name.as_str())
            .collect();
        assert_eq!(names, ["length", "chars"]);
        let rows = |manifest: &Manifest| manifest.shards.iter().map(|s| s.num_rows).collect::<Vec<_>>();
        assert_eq!(rows(&manifest), rows(&source));
        for (new, mut old) in read(&folder.path("out"))
            .into_iter()
            .zip(read(&folder.path("in")))
        {
            old.rewards.insert("chars".to_owned(), reward(&old));
            assert_eq!(new, old);
        }
        contents.push(manifest.content_sha256());
    }
    assert!(
        contents.iter().all(|content| *content == contents[0]),
        "{contents:?}"
    );
}

#[test]
fn what_is_no_reward_is_refused_and_leaves_nothing() {
    let folder = Folder::new();
    finished(&folder.path("in"), 0..5, 6);
    let names = |path: &Path| std::fs::read_dir(path).unwrap().count();
    let refused = |task: &RewardTask, give: &dyn Fn(usize) -> Vec<f64>, expect: &[&str]| {
        let result = add_rewards::<DataError>(task, &mut |rows| Ok(give(rows.len())));
        says(&result.unwrap_err(), expect);
        assert_eq!(
            names(folder.path("in").parent().unwrap()),
            1,
            "only the source is there"
        );
    };
    let nan = |num: usize| {
        (0..num)
            .map(|idx| if idx == 2 { f64::NAN } else { 1.0 })
            .collect()
    };
    refused(&task(&folder, "r", 8), &nan, &["\"r\"", "row 3", "NaN"]);
    let few = |num: usize| vec![0.0; num - 1];
    refused(&task(&folder, "r", 4), &few, &["expected 4 rewards, got 3"]);
    let ones = |num: usize| vec![1.0; num];
    refused(
        &task(&folder, "length", 4),
        &ones,
        &["\"length\"", "has it already"],
    );
    let failing = add_rewards::<DataError>(&task(&folder, "r", 4), &mut |_| {
        Err(DataError::Exists {
            path: "the scorer's own".into(),
        })
    });
    says(&failing.unwrap_err(), &["the scorer's own"]);
    assert_eq!(names(folder.path("in").parent().unwrap()), 1);
}

#[test]
fn targets_that_are_there_are_kept() {
    let folder = Folder::new();
    finished(&folder.path("in"), 0..2, 6);
    finished(&folder.path("out"), 0..3, 6);
    let before = files(&folder.path("out"));
    says(&add(&task(&folder, "r", 4)).unwrap_err(), &["out exists"]);
    assert_eq!(files(&folder.path("out")), before);
}
