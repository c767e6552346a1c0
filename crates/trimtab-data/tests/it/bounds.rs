//! What is in memory does not grow with the data: counted, on data made as it is read.

use trimtab_data::{RolloutReader, RolloutWriter, RowRange, RowReader};

use crate::harness::{Folder, config, rollouts};

const NUM_PROMPTS: u64 = 25_000;
const PER_PROMPT: u64 = 4;

#[test]
fn a_hundred_thousand_rows_pass_through_a_journal_of_one_shard() {
    let folder = Folder::new();
    let out = folder.path("out");
    let mut writer = RolloutWriter::open(&out, config(4096, 0)).unwrap();
    let mut longest_journal = 0;
    for prompt_idx in 0..NUM_PROMPTS {
        writer.push(rollouts(prompt_idx, PER_PROMPT)).unwrap();
        if prompt_idx % 500 == 0 {
            longest_journal = longest_journal.max(std::fs::metadata(out.join("journal")).unwrap().len());
        }
    }
    // What waits in memory is what waits in the journal: less than a shard, at some 400 bytes a row.
    assert!(longest_journal < 4096 * 500, "{longest_journal} bytes");
    let manifest = writer.finish().unwrap();
    assert_eq!(manifest.num_rows(), NUM_PROMPTS * PER_PROMPT);
    assert!(manifest.shards.iter().all(|shard| shard.num_rows <= 4096));
    let mut num_rows = 0;
    for (row, expect) in RolloutReader::open(&out)
        .unwrap()
        .zip((0..NUM_PROMPTS).flat_map(|p| (0..PER_PROMPT).map(move |s| (p, s))))
    {
        let row = row.unwrap();
        assert_eq!((row.prompt_idx, row.sample_idx), expect);
        num_rows += 1;
    }
    assert_eq!(num_rows, NUM_PROMPTS * PER_PROMPT);
}

#[test]
fn a_line_without_end_is_refused_before_it_fills_memory() {
    let folder = Folder::new();
    // 80 MiB of one letter: a few kB on the disk.
    let path = folder.path("bomb.jsonl.zst");
    let mut encoder = zstd::Encoder::new(std::fs::File::create(&path).unwrap(), 1).unwrap();
    let block = vec![b'a'; 1 << 20];
    for _ in 0..80 {
        std::io::Write::write_all(&mut encoder, &block).unwrap();
    }
    encoder.finish().unwrap();
    let mut rows = RowReader::open(&path, RowRange::ALL).unwrap();
    let error = rows.next().unwrap().unwrap_err();
    crate::harness::says(&error, &["row 1", "at most 67108864 bytes"]);
    assert!(rows.next().is_none());
}
