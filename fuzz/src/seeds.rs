//! The targets without a fuzzer: every checked-in seed is accepted, and a few hundred mutations of the seeds break
//! nothing. The same mutations each time, so that a failure comes back; a fuzzer looks further.

use std::fs;
use std::path::Path;

use super::TARGETS;

/// Mutated inputs of each target.
const NUM_MUTATIONS: u64 = 400;
/// Numbers at which lengths, counts and offsets of files tend to break.
const EDGES: [u64; 8] = [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, 1 << 40, u64::MAX];

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}; seeds.py makes it", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// SplitMix64: every value of `state` gives a stream of its own.
struct Draws {
    state: u64,
}

impl Draws {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, len: usize) -> usize {
        (self.next() % len.max(1) as u64) as usize
    }
}

/// One to four changes: a byte set, a number set to an edge, a piece doubled, removed, or taken from another seed.
fn mutate(input: &mut Vec<u8>, other: &[u8], draws: &mut Draws) {
    for _ in 0..=draws.below(4) {
        let at = draws.below(input.len());
        let end = (at + 1 + draws.below(16)).min(input.len());
        match draws.below(6) {
            _ if input.is_empty() => input.extend_from_slice(other),
            0 => input[at] = draws.next() as u8,
            1 => input[at] = b"\"{}[]%,:-0\0"[draws.below(11)],
            2 => {
                let edge = EDGES[draws.below(EDGES.len())].to_le_bytes();
                let len = [1, 4, 8][draws.below(3)].min(input.len() - at);
                input[at..at + len].copy_from_slice(&edge[..len]);
            }
            3 => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            4 => drop(input.drain(at..end)),
            _ => {
                let from = draws.below(other.len());
                let to = (from + draws.below(64)).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
}

#[test]
fn every_seed_is_accepted() {
    for (name, run) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for (idx, seed) in seeds.iter().enumerate() {
            assert!(run(seed), "{name}: seed {idx} in the order of names is refused");
        }
    }
}

#[test]
fn mutated_seeds_break_nothing() {
    for (name, run) in TARGETS {
        let seeds = seeds(name);
        let mut num_refused = 0;
        for idx in 0..NUM_MUTATIONS {
            let mut draws = Draws { state: idx << 32 };
            let mut input = seeds[draws.below(seeds.len())].clone();
            let other = &seeds[draws.below(seeds.len())];
            mutate(&mut input, other, &mut draws);
            let outcome = std::panic::catch_unwind(|| run(&input));
            let accepted = outcome.unwrap_or_else(|_| panic!("{name} breaks on mutation {idx}: {input:?}"));
            num_refused += u64::from(!accepted);
        }
        // Mutations that are never refused would reach no check of the reader.
        assert!(
            num_refused > NUM_MUTATIONS / 20,
            "{name}: only {num_refused} refused"
        );
    }
}

#[test]
fn every_target_has_its_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets");
    let entries = fs::read_dir(folder).unwrap();
    let mut files: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let names: Vec<String> = TARGETS.iter().map(|(name, _)| format!("{name}.rs")).collect();
    assert_eq!(files, names);
}
