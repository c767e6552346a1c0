//! Counter-based random streams: randomness is an argument, never a global.
//!
//! Draw `t` of candidate `i` of prompt `p` is a pure function of `(seed, p, i, t)`. Nothing is stored between
//! draws, so the batch a candidate runs in, the thread that samples it and a resume in the middle cannot change
//! it. `ChaCha8` is used as a keyed function: the key holds the identity, the block counter holds the step.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::ids::{PromptKey, Seed};

/// Which use a stream is for, so that two uses of one `(seed, prompt, candidate)` never share coins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Purpose {
    /// Choosing the next token.
    Token = 1,
    /// Breaking ties between candidates.
    Tie = 2,
    /// Resampling in an evaluation (bootstrap).
    Bootstrap = 3,
    /// Choosing among blocks or particles.
    Block = 4,
    /// Initial weights and the order of data in training.
    Training = 5,
}

/// The random stream of one candidate of one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleStream {
    key: [u8; 32],
}

impl SampleStream {
    /// The stream of candidate `candidate_idx` of `prompt` in the run seeded with `seed`.
    pub fn new(seed: Seed, prompt: PromptKey, candidate_idx: u64, purpose: Purpose) -> Self {
        let mut key = [0_u8; 32];
        for (slot, word) in key
            .chunks_exact_mut(8)
            .zip([seed.0, prompt.0, candidate_idx, purpose as u64])
        {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        Self { key }
    }

    /// Uniform draw in `[0, 1)` for `step`, with 53 random bits.
    pub fn uniform(&self, step: u64) -> f64 {
        let bits = self.rng(step).next_u64() >> 11;
        bits as f64 / (1_u64 << 53) as f64
    }

    /// A generator positioned at `step`, for draws that need more than one number.
    ///
    /// Each step owns a nonce of its own, so however much one step draws, it never reaches into the next.
    pub fn rng(&self, step: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::from_seed(self.key);
        rng.set_stream(step);
        rng
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(seed: u64, prompt: u64, candidate: u64) -> SampleStream {
        SampleStream::new(Seed(seed), PromptKey(prompt), candidate, Purpose::Token)
    }

    #[test]
    fn draws_depend_on_every_part_of_the_key() {
        let base = stream(1, 2, 3).uniform(4);
        assert_eq!(base, stream(1, 2, 3).uniform(4));
        let others = [
            stream(9, 2, 3).uniform(4),
            stream(1, 9, 3).uniform(4),
            stream(1, 2, 9).uniform(4),
            stream(1, 2, 3).uniform(9),
            SampleStream::new(Seed(1), PromptKey(2), 3, Purpose::Tie).uniform(4),
        ];
        assert!(others.iter().all(|&other| other != base));
    }

    #[test]
    fn draws_are_uniform() {
        // Chi-square over 20 bins, 20,000 draws; the 0.999 quantile of chi-square with 19 degrees is 43.8.
        let (num_bins, num_draws) = (20_usize, 20_000_u64);
        let mut counts = vec![0_u64; num_bins];
        for draw in 0..num_draws {
            let u = stream(7, draw / 100, draw % 10).uniform(draw);
            counts[(u * num_bins as f64) as usize] += 1;
        }
        let expected = num_draws as f64 / num_bins as f64;
        let chi_square: f64 = counts
            .iter()
            .map(|&n| (n as f64 - expected).powi(2) / expected)
            .sum();
        assert!(chi_square < 43.8, "chi-square {chi_square}");
    }
}
