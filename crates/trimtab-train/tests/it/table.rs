//! Prefix sets of the enumerable model: the state is the one-hot of the prefix, token features are the identity, so
//! that linear heads can hold any value function and the true one is known.

use std::path::Path;

use trimtab_base::TokenId;
use trimtab_base::testing::TableLm;
use trimtab_scorer::{ScorerWeights, TokenFeatures};
use trimtab_train::prefix_batches::is_held_out;
use trimtab_train::{PrefixSet, PrefixSetHeader, PrefixSetWriter, ResponseFeatures};

/// The seed of split and weights in these tests.
pub(crate) const SEED: u64 = 3;

/// Share of held-out prompts in these tests.
pub(crate) const EVAL_FRACTION: f64 = 0.5;

/// The model with a reward on its sequences.
pub(crate) struct Table {
    pub(crate) lm: TableLm,
    /// Every prefix, whole sequences included; the index is the one-hot's place.
    pub(crate) prefixes: Vec<Vec<TokenId>>,
}

impl Table {
    pub(crate) fn new() -> Self {
        let lm = TableLm::tiny();
        let mut prefixes: Vec<Vec<TokenId>> = Vec::new();
        for (sequence, _) in lm.enumerate() {
            for len in 0..=sequence.len() {
                prefixes.push(sequence[..len].to_vec());
            }
        }
        prefixes.sort();
        prefixes.dedup();
        Self { lm, prefixes }
    }

    /// Some reward in about [-1, 1] that no length or count explains.
    pub(crate) fn reward(sequence: &[TokenId]) -> f64 {
        let hash = sequence
            .iter()
            .fold(7_u64, |hash, token| (hash * 31 + u64::from(token.0) + 1) % 1009);
        hash as f64 / 504.5 - 1.0
    }

    pub(crate) fn is_whole(prefix: &[TokenId]) -> bool {
        prefix.last() == Some(&TableLm::EOS)
    }

    /// `V*` (CD Eq. 1) by enumeration.
    pub(crate) fn value(&self, prefix: &[TokenId]) -> f64 {
        if Self::is_whole(prefix) {
            return Self::reward(prefix);
        }
        let log_probs = self.lm.log_probs(prefix);
        let next = log_probs
            .iter()
            .enumerate()
            .filter(|(_, log_prob)| log_prob.is_finite());
        next.map(|(token, log_prob)| log_prob.exp() * self.value(&extended(prefix, token)))
            .sum()
    }

    pub(crate) fn hidden(&self, prefix: &[TokenId]) -> Vec<f32> {
        let place = self
            .prefixes
            .binary_search_by(|other| other[..].cmp(prefix))
            .unwrap();
        let mut hidden = vec![0.0; self.prefixes.len()];
        hidden[place] = 1.0;
        hidden
    }

    /// `e_t`: with the identity as features, the next token's probabilities.
    fn expected(&self, prefix: &[TokenId]) -> Vec<f32> {
        if Self::is_whole(prefix) {
            return vec![0.0; self.lm.vocab];
        }
        self.lm
            .log_probs(prefix)
            .iter()
            .map(|log_prob| log_prob.exp() as f32)
            .collect()
    }

    pub(crate) fn features(&self) -> TokenFeatures {
        let len = self.lm.vocab;
        let values = (0..len * len).map(|at| if at / len == at % len { 1.0 } else { 0.0 });
        TokenFeatures {
            vocab_len: len,
            len,
            values: values.collect(),
        }
    }

    pub(crate) fn response(&self, sequence: &[TokenId], key: u64) -> ResponseFeatures {
        let prefixes = || (0..=sequence.len()).map(|len| &sequence[..len]);
        ResponseFeatures {
            hidden: prefixes().flat_map(|prefix| self.hidden(prefix)).collect(),
            expected_features: prefixes().flat_map(|prefix| self.expected(prefix)).collect(),
            token_ids: sequence.iter().map(|token| token.0).collect(),
            reward: Self::reward(sequence),
            key,
        }
    }

    pub(crate) fn header(&self) -> PrefixSetHeader {
        PrefixSetHeader {
            base_name: "table".to_owned(),
            base_sha256: "0".to_owned(),
            precision: "exact".to_owned(),
            hidden_len: self.prefixes.len(),
            vocab_len: self.lm.vocab,
            feature_len: self.lm.vocab,
            features_sha256: "1".to_owned(),
            rollouts_sha256: "2".to_owned(),
            reward: "hash".to_owned(),
            reward_unit: "none".to_owned(),
        }
    }

    /// Each sequence `probability * total` times (rounded) in the training part, and once in the evaluation part.
    pub(crate) fn set(
        &self,
        dir: &Path,
        total: f64,
        probability: impl Fn(&[TokenId], f64) -> f64,
    ) -> PrefixSet {
        let key = |held_out| {
            (0..1000).find(|&key| is_held_out(key, EVAL_FRACTION, trimtab_base::Seed(SEED)) == held_out)
        };
        let (train, eval) = (key(false).unwrap(), key(true).unwrap());
        let mut writer = PrefixSetWriter::create(dir, self.header()).unwrap();
        for (sequence, log_prob) in self.lm.enumerate() {
            let count = (probability(&sequence, log_prob) * total).round() as usize;
            let response = self.response(&sequence, train);
            for _ in 0..count {
                writer.push(&response).unwrap();
            }
            writer.push(&self.response(&sequence, eval)).unwrap();
        }
        writer.finish().unwrap()
    }

    /// Responses in proportion to the model's own law.
    pub(crate) fn on_policy(&self, dir: &Path) -> PrefixSet {
        self.set(dir, 1500.0, |_, log_prob| log_prob.exp())
    }

    /// Responses of a policy that draws each possible token alike.
    pub(crate) fn off_policy(&self, dir: &Path) -> PrefixSet {
        self.set(dir, 480.0, |sequence, _| {
            let choices = (sequence.len() - usize::from(sequence.len() == self.lm.max_len)) as i32;
            (1.0 / self.lm.vocab as f64).powi(choices)
        })
    }

    /// Largest error of state values over all prefixes, and of action values over all possible tokens.
    pub(crate) fn errors(&self, weights: &ScorerWeights) -> (f64, f64) {
        let (mut state, mut action) = (0.0_f64, 0.0_f64);
        for prefix in &self.prefixes {
            let hidden = self.hidden(prefix);
            state = state.max((weights.state_value(&hidden) - self.value(prefix)).abs());
            if Self::is_whole(prefix) {
                continue;
            }
            for (token, log_prob) in self.lm.log_probs(prefix).iter().enumerate() {
                if log_prob.is_finite() {
                    let value = weights.action_value(&hidden, TokenId(token as u32));
                    action = action.max((value - self.value(&extended(prefix, token))).abs());
                }
            }
        }
        (state, action)
    }
}

fn extended(prefix: &[TokenId], token: usize) -> Vec<TokenId> {
    let mut longer = prefix.to_vec();
    longer.push(TokenId(token as u32));
    longer
}
