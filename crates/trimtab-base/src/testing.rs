//! Fakes for tests and examples: an enumerable language model whose laws are known in closed form.

use crate::ids::TokenId;
use crate::prob::log_softmax_in_place;
use crate::traits::TokenBytes;

/// A language model over a tiny vocabulary whose next-token distribution is a fixed function of the prefix.
///
/// Token 0 is the end of the sequence; at `max_len` tokens the end is forced, so the set of sequences is finite
/// and every law (of best-of-N, of guided decoding, of a KL-regularised optimum) can be enumerated.
#[derive(Debug, Clone)]
pub struct TableLm {
    /// Number of tokens, the end token included.
    pub vocab: usize,
    /// Longest sequence, the end token included.
    pub max_len: usize,
    /// Changes the distributions; two models with the same numbers are the same model.
    pub salt: u64,
}

impl TableLm {
    /// End of the sequence.
    pub const EOS: TokenId = TokenId(0);

    /// Vocabulary 3, at most 4 tokens: 15 sequences.
    pub fn tiny() -> Self {
        Self {
            vocab: 3,
            max_len: 4,
            salt: 1,
        }
    }

    /// Log-probabilities of the next token after `prefix`. `[vocab]`
    pub fn log_probs(&self, prefix: &[TokenId]) -> Vec<f64> {
        if prefix.len() + 1 >= self.max_len {
            let mut forced = vec![f64::NEG_INFINITY; self.vocab];
            forced[Self::EOS.index()] = 0.0;
            return forced;
        }
        let mut log_probs: Vec<f64> = (0..self.vocab).map(|token| self.logit(prefix, token)).collect();
        log_softmax_in_place(&mut log_probs);
        log_probs
    }

    /// The same as f32 logits, as an engine would hand them to a decoder. `[vocab]`
    pub fn logits(&self, prefix: &[TokenId]) -> Vec<f32> {
        self.log_probs(prefix)
            .into_iter()
            .map(|log_prob| log_prob as f32)
            .collect()
    }

    /// Every complete sequence (end token last) with its log-probability.
    pub fn enumerate(&self) -> Vec<(Vec<TokenId>, f64)> {
        let mut complete = Vec::new();
        let mut open = vec![(Vec::new(), 0.0)];
        while let Some((prefix, log_prob)) = open.pop() {
            for (token, &step_log_prob) in self.log_probs(&prefix).iter().enumerate() {
                if step_log_prob == f64::NEG_INFINITY {
                    continue;
                }
                let mut sequence = prefix.clone();
                sequence.push(TokenId(token as u32));
                let next = (sequence, log_prob + step_log_prob);
                if token == Self::EOS.index() {
                    complete.push(next);
                } else {
                    open.push(next);
                }
            }
        }
        complete.sort_by(|a, b| a.0.cmp(&b.0));
        complete
    }

    /// `V*([x, y^t])`: the mean reward of the responses that the model itself continues `prefix` to; the reward itself
    /// where `prefix` has ended. Implements CD Eq. 1 (arXiv 2310.17022v3) by enumeration.
    pub fn state_value(&self, prefix: &[TokenId], reward: &dyn Fn(&[TokenId]) -> f64) -> f64 {
        if prefix.last() == Some(&Self::EOS) {
            return reward(prefix);
        }
        let log_probs = self.log_probs(prefix);
        let possible = log_probs
            .iter()
            .enumerate()
            .filter(|(_, log_prob)| log_prob.is_finite());
        let share = |(token, log_prob): (usize, &f64)| {
            log_prob.exp() * self.state_value(&extended(prefix, token), reward)
        };
        possible.map(share).sum()
    }

    /// `V*([x, y^t, z])` for every next token `z`, those that the model cannot draw included. `[vocab]`
    pub fn action_values(&self, prefix: &[TokenId], reward: &dyn Fn(&[TokenId]) -> f64) -> Vec<f64> {
        (0..self.vocab)
            .map(|token| self.state_value(&extended(prefix, token), reward))
            .collect()
    }

    /// A fixed pseudo-random logit in about [-1.5, 1.5] from an integer hash of prefix and token.
    fn logit(&self, prefix: &[TokenId], token: usize) -> f64 {
        let mut state = self.salt.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (token as u64 + 1);
        for &id in prefix {
            state = (state ^ (u64::from(id.0) + 7)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            state ^= state >> 29;
        }
        state = state.wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^= state >> 31;
        (state >> 11) as f64 / (1_u64 << 53) as f64 * 3.0 - 1.5
    }
}

fn extended(prefix: &[TokenId], token: usize) -> Vec<TokenId> {
    let mut extended = prefix.to_vec();
    extended.push(TokenId(token as u32));
    extended
}

/// Token bytes for [`TableLm`]: the end token is empty, token `i` is the `i`-th lower-case letter.
#[derive(Debug, Clone, Copy, Default)]
pub struct LetterTokens;

impl TokenBytes for LetterTokens {
    fn bytes_of(&self, token: TokenId) -> &[u8] {
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
        match token.index() {
            0 => &[],
            letter => LETTERS.get(letter - 1..letter).unwrap_or(&[]),
        }
    }
}

/// A chi-square statistic of counts against probabilities, with its degrees of freedom.
///
/// Cells with expected count below 5 are pooled, as the approximation asks for.
pub fn chi_square(counts: &[u64], probs: &[f64]) -> (f64, usize) {
    assert_eq!(counts.len(), probs.len(), "one count per probability");
    let total: u64 = counts.iter().sum();
    let (mut statistic, mut cells) = (0.0, 0);
    let (mut pooled_count, mut pooled_expected) = (0.0, 0.0);
    for (&count, &prob) in counts.iter().zip(probs) {
        let expected = prob * total as f64;
        if expected < 5.0 {
            pooled_count += count as f64;
            pooled_expected += expected;
        } else {
            statistic += (count as f64 - expected).powi(2) / expected;
            cells += 1;
        }
    }
    if pooled_expected > 0.0 {
        statistic += (pooled_count - pooled_expected).powi(2) / pooled_expected;
        cells += 1;
    } else if pooled_count > 0.0 {
        return (f64::INFINITY, cells);
    }
    (statistic, cells.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enumeration_is_a_distribution() {
        let model = TableLm::tiny();
        let sequences = model.enumerate();
        // 1 + 2 + 4 + 8 sequences of lengths 1 to 4.
        assert_eq!(sequences.len(), 15);
        let total: f64 = sequences.iter().map(|(_, log_prob)| log_prob.exp()).sum();
        assert!((total - 1.0).abs() < 1e-12);
    }

    #[test]
    fn values_are_means_over_continuations_and_satisfy_the_bellman_identity() {
        let model = TableLm::tiny();
        let reward = |tokens: &[TokenId]| tokens.iter().filter(|&&token| token == TokenId(1)).count() as f64;
        let sequences = model.enumerate();
        for prefix in [vec![], vec![TokenId(1)], vec![TokenId(2), TokenId(1)]] {
            let (mut mass, mut sum) = (0.0, 0.0);
            for (tokens, log_prob) in sequences.iter().filter(|(tokens, _)| tokens.starts_with(&prefix)) {
                mass += log_prob.exp();
                sum += log_prob.exp() * reward(tokens);
            }
            let value = model.state_value(&prefix, &reward);
            assert!((value - sum / mass).abs() < 1e-12, "{prefix:?}");
            let actions = model.action_values(&prefix, &reward);
            let mean: f64 = model
                .log_probs(&prefix)
                .iter()
                .zip(&actions)
                .map(|(p, v)| p.exp() * v)
                .sum();
            assert!((value - mean).abs() < 1e-12, "{prefix:?}");
            assert_eq!(actions[0], reward(&prefix));
        }
    }

    #[test]
    fn chi_square_sees_a_wrong_law() {
        let (fair, _) = chi_square(&[500, 500], &[0.5, 0.5]);
        let (unfair, degrees) = chi_square(&[600, 400], &[0.5, 0.5]);
        assert_eq!((fair, degrees), (0.0, 1));
        assert!(unfair > 30.0);
    }
}
