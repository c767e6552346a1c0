//! Responses of a step, packed into pieces and buckets so that little padding is computed. Knows no loss and no weights.
//!
//! A *unit* is what a loss looks at together: the responses of one prompt, the two of a pair, or one response. A *piece*
//! is units whose tape is in memory at once. A *bucket* is responses of about one length, padded and run together;
//! buckets cross units, never pieces.

use std::ops::Range;

use crate::decoder::TokenBatch;

/// A bucket takes shorter responses only down to this share of its longest.
const SHORTEST_SHARE: f64 = 0.8;

/// One response as losses see it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PolicyItem {
    /// At least one token.
    pub prompt_token_ids: Vec<u32>,
    /// At least one token. `[T]`
    pub token_ids: Vec<u32>,
    /// Under the sampler; empty where it is the policy. `[T]`
    pub sampler_log_probs: Vec<f32>,
    /// Under the reference, where they were computed before; empty where they were not. `[T]`
    pub reference_log_probs: Vec<f64>,
    /// As given.
    pub reward: f64,
    /// Reward less its baseline.
    pub advantage: f64,
    /// What it counts.
    pub weight: f64,
    /// Whether the reference has drawn it: its log-probs are the sampler's.
    pub is_of_reference: bool,
}

impl PolicyItem {
    /// Tokens of prompt and response.
    pub fn num_tokens(&self) -> usize {
        self.prompt_token_ids.len() + self.token_ids.len()
    }
}

/// Units whose gradients are computed together.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Responses, unit after unit.
    pub items: Vec<PolicyItem>,
    /// Which responses make a unit.
    pub units: Vec<Range<usize>>,
    /// Which responses are run together, by their places in `items`.
    pub buckets: Vec<Vec<usize>>,
    /// The rows of each response among the positions of the piece, which follow the buckets' order. `[items]`
    pub rows: Vec<Range<usize>>,
    /// The token that was drawn at each position. `[positions]`
    pub tokens: Vec<u32>,
}

impl Piece {
    /// A piece of these units.
    pub fn new(units: Vec<Vec<PolicyItem>>) -> Self {
        let mut items = Vec::new();
        let mut ranges = Vec::with_capacity(units.len());
        for unit in units {
            let start = items.len();
            items.extend(unit);
            ranges.push(start..items.len());
        }
        let buckets = buckets(&items);
        let mut rows = vec![0..0; items.len()];
        let mut tokens = Vec::new();
        for &idx in buckets.iter().flatten() {
            let start = tokens.len();
            tokens.extend_from_slice(&items[idx].token_ids);
            rows[idx] = start..tokens.len();
        }
        Self {
            items,
            units: ranges,
            buckets,
            rows,
            tokens,
        }
    }

    /// A bucket as the decoder reads it, and the places that predict its responses' tokens.
    ///
    /// The last token of a response predicts nothing and is not run.
    pub fn bucket(&self, bucket: &[usize]) -> (TokenBatch, Vec<i32>) {
        let sequences: Vec<Vec<u32>> = bucket
            .iter()
            .map(|&idx| {
                let item = &self.items[idx];
                let run = &item.token_ids[..item.token_ids.len() - 1];
                [&item.prompt_token_ids[..], run].concat()
            })
            .collect();
        let rows: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let batch = TokenBatch::pad(&rows).expect("prompts have tokens, and buckets have responses");
        let mut places = Vec::new();
        for (row, &idx) in bucket.iter().enumerate() {
            let item = &self.items[idx];
            let first = row * batch.seq() + item.prompt_token_ids.len() - 1;
            places.extend((first..first + item.token_ids.len()).map(|place| place as i32));
        }
        (batch, places)
    }
}

/// Responses of about one length together.
fn buckets(items: &[PolicyItem]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&idx| (std::cmp::Reverse(items[idx].num_tokens()), idx));
    let mut buckets: Vec<Vec<usize>> = Vec::new();
    for idx in order {
        let fits = |bucket: &Vec<usize>| {
            let longest = items[bucket[0]].num_tokens() as f64;
            items[idx].num_tokens() as f64 >= SHORTEST_SHARE * longest
        };
        match buckets.last_mut() {
            Some(bucket) if fits(bucket) => bucket.push(idx),
            _ => buckets.push(vec![idx]),
        }
    }
    buckets
}

/// Divides units into pieces of at most `max_tokens` tokens, long units together; one unit alone may be larger.
pub fn pieces(mut units: Vec<Vec<PolicyItem>>, max_tokens: usize) -> Vec<Piece> {
    let num_tokens = |unit: &Vec<PolicyItem>| unit.iter().map(PolicyItem::num_tokens).sum::<usize>();
    let longest = |unit: &Vec<PolicyItem>| unit.iter().map(PolicyItem::num_tokens).max();
    units.sort_by_key(|unit| std::cmp::Reverse(longest(unit)));
    let mut pieces = Vec::new();
    let (mut open, mut sum) = (Vec::new(), 0);
    for unit in units {
        let len = num_tokens(&unit);
        if !open.is_empty() && sum + len > max_tokens {
            pieces.push(Piece::new(std::mem::take(&mut open)));
            sum = 0;
        }
        sum += len;
        open.push(unit);
    }
    if !open.is_empty() {
        pieces.push(Piece::new(open));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(prompt: usize, response: usize, first: u32) -> PolicyItem {
        PolicyItem {
            prompt_token_ids: (0..prompt as u32).map(|i| 100 + i).collect(),
            token_ids: (0..response as u32).map(|i| first + i).collect(),
            weight: 1.0,
            ..PolicyItem::default()
        }
    }

    #[test]
    fn every_response_token_has_one_row_whatever_the_bucket() {
        let units = vec![
            vec![item(3, 4, 0), item(3, 20, 10)],
            vec![item(1, 1, 40), item(2, 19, 50)],
        ];
        let piece = Piece::new(units);
        assert_eq!(piece.units, [0..2, 2..4]);
        assert_eq!(piece.buckets, [vec![1, 3], vec![0], vec![2]]);
        let mut rows_before = 0;
        for bucket in &piece.buckets {
            let (batch, places) = piece.bucket(bucket);
            let rows: Vec<usize> = bucket.iter().flat_map(|&idx| piece.rows[idx].clone()).collect();
            assert_eq!(rows.len(), places.len());
            for (row, place) in rows.into_iter().zip(places) {
                assert_eq!(row, rows_before);
                rows_before += 1;
                // The token after the place is the one that the row is about, unless it is the last.
                let (sequence, at) = (place as usize / batch.seq(), place as usize % batch.seq());
                let idx = bucket[sequence];
                let all = [
                    &piece.items[idx].prompt_token_ids[..],
                    &piece.items[idx].token_ids,
                ]
                .concat();
                assert_eq!(all[at + 1], piece.tokens[row]);
                assert_eq!(batch.token_ids()[place as usize], all[at]);
            }
        }
        assert_eq!(rows_before, piece.tokens.len());
    }

    #[test]
    fn pieces_hold_whole_units_up_to_their_size() {
        let units = |lens: &[usize]| -> Vec<Vec<PolicyItem>> {
            lens.iter().map(|&len| vec![item(1, len - 1, 0); 2]).collect()
        };
        let sizes = |lens: &[usize]| -> Vec<usize> {
            pieces(units(lens), 100)
                .iter()
                .map(|piece| piece.units.len())
                .collect()
        };
        assert_eq!(sizes(&[10, 20, 30, 5]), [2, 2]);
        assert_eq!(sizes(&[200, 5]), [1, 1]);
        assert_eq!(sizes(&[]), [0; 0]);
    }
}
