//! Which items make which batch: a seeded shuffle of every epoch, as a pure function. Knows only lengths.

use trimtab_base::rng::{Purpose, SampleStream};
use trimtab_base::{PromptKey, Seed};

/// How the items of a batch lie in memory, which decides how many fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// One after another: a batch holds as many as its length allows, long and short mixed.
    Flat,
    /// Padded to the longest: items of about one length are put together, and the batches are shuffled. `window` items
    /// at a time are sorted, so that the order stays random from window to window.
    Padded {
        /// Items sorted together, at least 1.
        window: usize,
    },
}

/// The batches of one epoch: indices into `lens`, each batch at most `batch_len` long unless one item alone is longer.
pub fn plan_batches(
    lens: &[usize],
    batch_len: usize,
    packing: Packing,
    seed: Seed,
    epoch: u64,
) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lens.len()).collect();
    shuffle(&mut order, seed, epoch, 0);
    let Packing::Padded { window } = packing else {
        return fill(&order, lens, |longest_sum| longest_sum.sum <= batch_len);
    };
    for part in order.chunks_mut(window.max(1)) {
        part.sort_by_key(|&idx| (lens[idx], idx));
    }
    let mut batches = fill(&order, lens, |size| size.longest * size.count <= batch_len);
    shuffle(&mut batches, seed, epoch, 1);
    batches
}

/// Fisher and Yates with the coins of `(seed, epoch, purpose)`.
pub fn shuffle<T>(items: &mut [T], seed: Seed, epoch: u64, purpose: u64) {
    let stream = SampleStream::new(seed, PromptKey(purpose), epoch, Purpose::Training);
    for last in (1..items.len()).rev() {
        let other = (stream.uniform(last as u64) * (last + 1) as f64) as usize;
        items.swap(last, other);
    }
}

#[derive(Clone, Copy, Default)]
struct Size {
    sum: usize,
    longest: usize,
    count: usize,
}

fn fill(order: &[usize], lens: &[usize], fits: impl Fn(Size) -> bool) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut size = Size::default();
    for &idx in order {
        let grown = Size {
            sum: size.sum + lens[idx],
            longest: size.longest.max(lens[idx]),
            count: size.count + 1,
        };
        match batches.last_mut() {
            Some(batch) if fits(grown) => {
                batch.push(idx);
                size = grown;
            }
            _ => {
                batches.push(vec![idx]);
                size = Size {
                    sum: lens[idx],
                    longest: lens[idx],
                    count: 1,
                };
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENS: [usize; 9] = [3, 1, 4, 1, 5, 9, 2, 6, 5];

    fn plan(packing: Packing, epoch: u64) -> Vec<Vec<usize>> {
        plan_batches(&LENS, 10, packing, Seed(1), epoch)
    }

    #[test]
    fn every_item_is_in_one_batch_and_batches_fit() {
        for packing in [Packing::Flat, Packing::Padded { window: 4 }] {
            let batches = plan(packing, 0);
            let mut seen: Vec<usize> = batches.iter().flatten().copied().collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..LENS.len()).collect::<Vec<_>>());
            for batch in &batches {
                let lens = batch.iter().map(|&idx| LENS[idx]);
                let size = match packing {
                    Packing::Flat => lens.sum::<usize>(),
                    Packing::Padded { .. } => lens.max().unwrap() * batch.len(),
                };
                assert!(size <= 10, "{batch:?} takes {size}");
            }
        }
    }

    #[test]
    fn an_item_longer_than_a_batch_is_one_of_its_own() {
        let batches = plan_batches(&[1, 30, 1], 10, Packing::Flat, Seed(0), 0);
        assert!(batches.contains(&vec![1]));
    }

    #[test]
    fn padding_is_less_than_without_windows() {
        let lens: Vec<usize> = (0..400).map(|idx| 1 + (idx * 37) % 100).collect();
        let waste = |window| {
            let batches = plan_batches(&lens, 1000, Packing::Padded { window }, Seed(0), 0);
            let padded = |batch: &Vec<usize>| batch.iter().map(|&idx| lens[idx]).max().unwrap() * batch.len();
            batches.iter().map(padded).sum::<usize>() - lens.iter().sum::<usize>()
        };
        assert!(waste(200) * 4 < waste(1), "{} against {}", waste(200), waste(1));
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat() {
        assert_eq!(plan(Packing::Flat, 3), plan(Packing::Flat, 3));
        assert_ne!(plan(Packing::Flat, 3), plan(Packing::Flat, 4));
        assert_ne!(
            plan_batches(&LENS, 10, Packing::Flat, Seed(2), 3),
            plan(Packing::Flat, 3)
        );
    }

    #[test]
    fn a_shuffle_is_uniform() {
        // Six orders of three items, 6,000 shuffles; the 0.999 quantile of chi-square with 5 degrees is 20.5.
        let mut counts = std::collections::BTreeMap::<[u8; 3], u64>::new();
        for epoch in 0..6000 {
            let mut items = [0, 1, 2];
            shuffle(&mut items, Seed(5), epoch, 0);
            *counts.entry(items).or_default() += 1;
        }
        let counts: Vec<u64> = counts.into_values().collect();
        let (statistic, _) = trimtab_base::testing::chi_square(&counts, &[1.0 / 6.0; 6]);
        assert!(statistic < 20.5, "chi-square {statistic}");
    }
}
