use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use trimtab_base::prob::log_softmax_in_place;
use trimtab_base::testing::TableLm;

use super::*;
use crate::laws::{ExactScorers, assert_follows, inputs_of, p_value, run_steered};
use crate::testing::Scorers;

mod drift;
mod law;
mod machine;
mod settings;

/// Blockwise control written down by what it means: every joint outcome of the blocks of a choice, with its probability.
/// Shares no code with the machine; feasible for few small blocks.
struct BlockLaw {
    model: TableLm,
    num_candidates: usize,
    block_len: usize,
    beams: usize,
    /// The temperature of choices in proportion to values; none chooses the greatest.
    temperature: Option<f64>,
    target: f64,
    weights: Vec<f64>,
    known_values: RefCell<HashMap<Tokens, f64>>,
}

type Tokens = Vec<TokenId>;

impl BlockLaw {
    fn new(num_candidates: usize, block_len: usize) -> Self {
        Self {
            model: TableLm::tiny(),
            num_candidates,
            block_len,
            beams: 1,
            temperature: None,
            target: f64::INFINITY,
            weights: vec![1.0],
            known_values: RefCell::default(),
        }
    }

    /// The weighted sum of exact values, rounded as decoders see them.
    fn value(&self, tokens: &[TokenId]) -> f64 {
        let mut known_values = self.known_values.borrow_mut();
        let value = known_values.entry(tokens.to_vec()).or_insert_with(|| {
            let values = ExactScorers::new(&self.model).state_values(tokens);
            let weighted = self
                .weights
                .iter()
                .zip(values)
                .map(|(weight, value)| weight * f64::from(value));
            weighted.sum()
        });
        *value
    }

    /// Every block after `prefix`, as the sequence that it makes, with its probability.
    fn blocks_after(&self, prefix: &Tokens) -> Vec<(Tokens, f64)> {
        let mut open = vec![(prefix.clone(), 1.0)];
        let mut blocks = Vec::new();
        while let Some((tokens, prob)) = open.pop() {
            let is_end = tokens.len() > prefix.len()
                && (has_ended(&tokens) || tokens.len() - prefix.len() == self.block_len);
            if is_end {
                blocks.push((tokens, prob));
                continue;
            }
            for (token, log_prob) in self.model.log_probs(&tokens).iter().enumerate() {
                if log_prob.is_finite() {
                    let longer = [tokens.as_slice(), &[TokenId(token as u32)]].concat();
                    open.push((longer, prob * log_prob.exp()));
                }
            }
        }
        blocks
    }

    /// Probability of each sequence of the model as the answer.
    fn answers(&self) -> Vec<f64> {
        let sequences = self.model.enumerate();
        let mut law = vec![0.0; sequences.len()];
        let mut add = |tokens: &Tokens, prob: f64| {
            for ((sequence, _), slot) in sequences
                .iter()
                .zip(&mut law)
                .filter(|((y, _), _)| y.starts_with(tokens))
            {
                // Once nothing is chosen any more, the model continues as it is.
                let rest = (tokens.len()..sequence.len())
                    .map(|idx| self.model.log_probs(&sequence[..idx])[sequence[idx].index()]);
                *slot += prob * rest.sum::<f64>().exp();
            }
        };
        let mut states = BTreeMap::from([(vec![Tokens::new(); self.beams], 1.0)]);
        while let Some((kept, prob)) = states.pop_first() {
            let best = self.answer_place(&kept);
            let is_enough = !kept[best].is_empty() && self.value(&kept[best]) >= self.target;
            if is_enough || kept.iter().all(|tokens| has_ended(tokens)) {
                add(&kept[best], prob);
                continue;
            }
            for (next, next_prob) in self.choices(&kept) {
                *states.entry(next).or_default() += prob * next_prob;
            }
        }
        law
    }

    /// By value the best place, at random the first.
    fn answer_place(&self, kept: &[Tokens]) -> usize {
        if self.temperature.is_some() || kept[0].is_empty() {
            return 0;
        }
        let values: Vec<f64> = kept.iter().map(|tokens| self.value(tokens)).collect();
        let best = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        values
            .iter()
            .position(|&value| value == best)
            .expect("one is the greatest")
    }

    /// Every outcome of one choice: what is kept, with its probability.
    fn choices(&self, kept: &[Tokens]) -> BTreeMap<Vec<Tokens>, f64> {
        // Candidates so far, each with the place of its parent, and the probability of having drawn them.
        let mut joint: Vec<(Vec<(usize, Tokens)>, f64)> = vec![(Vec::new(), 1.0)];
        for (place, tokens) in kept.iter().enumerate() {
            let (num_draws, blocks) = if has_ended(tokens) {
                (1, vec![(tokens.clone(), 1.0)])
            } else {
                (self.num_candidates, self.blocks_after(tokens))
            };
            for _ in 0..num_draws {
                let with_block = |(drawn, prob): &(Vec<(usize, Tokens)>, f64)| {
                    let (drawn, prob) = (drawn.clone(), *prob);
                    blocks.iter().map(move |(block, block_prob)| {
                        let mut drawn = drawn.clone();
                        drawn.push((place, block.clone()));
                        (drawn, prob * block_prob)
                    })
                };
                joint = joint.iter().flat_map(with_block).collect();
            }
        }
        let mut outcomes = BTreeMap::new();
        for (drawn, prob) in joint {
            for (next, next_prob) in self.keep(kept, &drawn) {
                *outcomes.entry(next).or_default() += prob * next_prob;
            }
        }
        outcomes
    }

    fn keep(&self, kept: &[Tokens], drawn: &[(usize, Tokens)]) -> Vec<(Vec<Tokens>, f64)> {
        let Some(temperature) = self.temperature else {
            let mut order: Vec<usize> = (0..drawn.len()).collect();
            order.sort_by(|&a, &b| self.value(&drawn[b].1).total_cmp(&self.value(&drawn[a].1)));
            order.truncate(self.beams);
            order.sort_unstable();
            return vec![(order.iter().map(|&idx| drawn[idx].1.clone()).collect(), 1.0)];
        };
        let log_weight = |(place, tokens): &(usize, Tokens)| {
            let parent = &kept[*place];
            // The prompt's value is common to all.
            let parent_value = if parent.is_empty() {
                0.0
            } else {
                self.value(parent)
            };
            // A place that has ended stands for as many equal candidates as others draw.
            let copies = if has_ended(parent) { self.num_candidates } else { 1 };
            (self.value(tokens) - parent_value) / temperature + (copies as f64).ln()
        };
        let mut log_probs: Vec<f64> = drawn.iter().map(log_weight).collect();
        log_softmax_in_place(&mut log_probs);
        let mut kept_so_far = vec![(Vec::new(), 1.0)];
        for _ in 0..self.beams {
            let with_draw = |(so_far, prob): &(Vec<Tokens>, f64)| {
                let (so_far, prob) = (so_far.clone(), *prob);
                drawn.iter().zip(&log_probs).map(move |((_, tokens), log_prob)| {
                    let mut so_far = so_far.clone();
                    so_far.push(tokens.clone());
                    (so_far, prob * log_prob.exp())
                })
            };
            kept_so_far = kept_so_far.iter().flat_map(with_draw).collect();
        }
        kept_so_far
    }
}

fn has_ended(tokens: &[TokenId]) -> bool {
    tokens.last() == Some(&TableLm::EOS)
}

/// CD Eq. 7 in closed form, ties to the lower index: each block `z` of a choice has the probability
/// `pi(z) (F(v)^K - F(v-)^K) / (F(v) - F(v-))` with `v` its value and `F` the law of values under the model.
fn closed_form(num_candidates: usize, block_len: usize) -> Vec<f64> {
    let law = BlockLaw::new(num_candidates, block_len);
    let tilt = |prefix: &Tokens, block: &Tokens| -> f64 {
        let value = law.value(block);
        let mass = |keep: &dyn Fn(f64) -> bool| -> f64 {
            let blocks = law.blocks_after(prefix);
            blocks
                .iter()
                .filter(|(other, _)| keep(law.value(other)))
                .map(|(_, prob)| prob)
                .sum()
        };
        let (at_most, below) = (mass(&|other| other <= value), mass(&|other| other < value));
        let power = num_candidates as i32;
        (at_most.powi(power) - below.powi(power)) / mass(&|other| other == value)
    };
    let prob_of = |(tokens, log_prob): &(Tokens, f64)| -> f64 {
        let ends = (block_len..tokens.len()).step_by(block_len).chain([tokens.len()]);
        let mut start = 0;
        let factor = |end: usize| {
            let prefix = tokens[..std::mem::replace(&mut start, end)].to_vec();
            tilt(&prefix, &tokens[..end].to_vec())
        };
        log_prob.exp() * ends.map(factor).product::<f64>()
    };
    law.model.enumerate().iter().map(prob_of).collect()
}

/// How often each sequence is the answer, over prompts `0..num_runs`.
fn counts(spec: &str, weights: &[f64], num_runs: u64) -> Vec<u64> {
    crate::laws::answer_counts_with(spec, num_runs, &|prompt| inputs_of(prompt, weights))
}
