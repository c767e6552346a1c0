//! Several scorers packed for batches of rows. Knows hidden states and tokens; no request and no law of drawing.
//!
//! Every result is a function of its row alone, to the last bit: not of other rows, their order or the threads. What it
//! should be is said by [`ScorerWeights`]; tests hold the two together.

use trimtab_base::TokenId;
use trimtab_kernels::activation::silu;
use trimtab_kernels::gemm::{GemmScratch, Linear, Precision};
use trimtab_kernels::pool::Pool;

use crate::error::ScorerError;
use crate::features::TokenFeatures;
use crate::layer::{Layer, dot};
use crate::weights::ScorerWeights;

/// Scorers that answer for the same rows.
#[derive(Debug)]
pub struct ScorerSet {
    hidden_len: usize,
    scorers: Vec<Packed>,
    /// Token features, each once; scorers that share them share a product.
    spaces: Vec<FeatureSpace>,
}

/// What action heads say of some rows before a token is named.
#[derive(Debug, Clone, Default)]
pub struct ActionRows {
    num_scorers: usize,
    /// Per row and scorer: the part of the value that all tokens share, in the scorer's unit; 0 where not wanted.
    /// `[rows, scorers]`
    bases: Vec<f64>,
    /// Per row and scorer: value per unit of token feature; empty where not wanted. `[rows][scorers][features]`
    directions: Vec<Vec<f32>>,
}

#[derive(Debug)]
struct Packed {
    mean: Vec<f32>,
    std: Vec<f32>,
    scale: f32,
    offset: f32,
    state: Head,
    action: Option<PackedAction>,
}

/// A trunk and what follows it. Heads are small beside a model and stay in `f32`.
#[derive(Debug)]
struct Head {
    trunk: Option<Linear>,
    out: Linear,
}

#[derive(Debug)]
struct PackedAction {
    /// Its output is the shared part first, then the direction.
    head: Head,
    space: usize,
}

#[derive(Debug)]
struct FeatureSpace {
    features: TokenFeatures,
    /// `[len]` to `[vocab]`
    layer: Linear,
}

impl ScorerSet {
    /// Packs `scorers`. `precision` is that of the token features in the product over the vocabulary; all else is
    /// computed in `f32`.
    ///
    /// # Errors
    /// No scorers, weights that are refused by [`ScorerWeights::check`], or scorers for different models.
    pub fn new(pool: &Pool, precision: Precision, scorers: Vec<ScorerWeights>) -> Result<Self, ScorerError> {
        let num_scorers = scorers.len();
        let unfit = |scorer_idx: usize, problem: String| ScorerError::Unfit {
            scorer_idx,
            num_scorers,
            problem,
        };
        let Some(first) = scorers.first() else {
            return Err(unfit(0, "expected at least one scorer".to_owned()));
        };
        let hidden_len = first.hidden_len();
        let mut set = Self {
            hidden_len,
            scorers: Vec::with_capacity(num_scorers),
            spaces: Vec::new(),
        };
        for (scorer_idx, weights) in scorers.into_iter().enumerate() {
            weights
                .check()
                .map_err(|error| unfit(scorer_idx, error.to_string()))?;
            if weights.hidden_len() != hidden_len {
                let problem = format!(
                    "reads hidden states of {}, scorer 0 of {hidden_len}; scorers of one request must be for one model",
                    weights.hidden_len()
                );
                return Err(unfit(scorer_idx, problem));
            }
            let vocab_len = weights.token_features.as_ref().map(|features| features.vocab_len);
            if let (Some(got), Some(expected)) = (vocab_len, set.vocab_len())
                && got != expected
            {
                let problem = format!(
                    "is for a vocabulary of {got}, others for {expected}; scorers of one request must be for one model"
                );
                return Err(unfit(scorer_idx, problem));
            }
            set.push(pool, precision, weights);
        }
        Ok(set)
    }

    /// How many scorers there are.
    pub fn num_scorers(&self) -> usize {
        self.scorers.len()
    }

    /// Width of the hidden states they read.
    pub fn hidden_len(&self) -> usize {
        self.hidden_len
    }

    /// Tokens whose values they say; none if no scorer has an action head.
    pub fn vocab_len(&self) -> Option<usize> {
        self.spaces.first().map(|space| space.features.vocab_len)
    }

    /// Whether scorer `scorer` is there and has an action head.
    pub fn has_action(&self, scorer: usize) -> bool {
        self.scorers
            .get(scorer)
            .is_some_and(|packed| packed.action.is_some())
    }

    /// Products over the vocabulary that [`Self::tilts`] makes at most: one for each kind of token features.
    pub fn num_feature_spaces(&self) -> usize {
        self.spaces.len()
    }

    /// `V([x, y^t])` of each row under each scorer.
    ///
    /// # Shapes
    /// `hidden`: `[rows, hidden]`, `out`: `[rows, scorers]`.
    ///
    /// # Panics
    /// If the lengths are not those of one number of rows.
    pub fn state_values(&self, pool: &Pool, hidden: &[f32], out: &mut [f32]) {
        let rows = self.num_rows(hidden);
        let num_scorers = self.num_scorers();
        assert_eq!(
            out.len(),
            rows * num_scorers,
            "expected one value a row and scorer"
        );
        for (scorer_idx, packed) in self.scorers.iter().enumerate() {
            let outputs = packed.state.forward(pool, &packed.standardised(hidden)); // [rows, 1]
            for (row, output) in out.chunks_exact_mut(num_scorers).zip(outputs) {
                row[scorer_idx] = packed.in_reward_unit(output);
            }
        }
    }

    /// `V([x, y^t, z])` of each row for every token `z` under one scorer.
    ///
    /// # Shapes
    /// `hidden`: `[rows, hidden]`, `out`: `[rows, vocab]`.
    ///
    /// # Panics
    /// If there is no such scorer or it has no action head, or the lengths are not those of one number of rows.
    pub fn action_values(&self, pool: &Pool, scorer: usize, hidden: &[f32], out: &mut [f32]) {
        let rows = self.num_rows(hidden);
        let mut weights = vec![None; rows * self.num_scorers()];
        for row in weights.chunks_exact_mut(self.num_scorers()) {
            row[scorer] = Some(1.0);
        }
        let actions = self.tilts(pool, hidden, &weights, out);
        let vocab_len = out.len() / rows.max(1);
        for (row_idx, values) in out.chunks_exact_mut(vocab_len.max(1)).enumerate() {
            let base = actions.base(row_idx, scorer) as f32;
            for value in values {
                *value += base;
            }
        }
    }

    /// `sum_i w_i V_i([x, y^t, z])` of each row for every token `z`, up to what does not depend on `z`. Directions are
    /// mixed first, so that scorers with equal token features cost one product over the vocabulary.
    ///
    /// The answer has what [`Self::action_value`] needs, for the scorers with a weight, be it 0; a weight that is `None` leaves
    /// the scorer out.
    ///
    /// # Shapes
    /// `hidden`: `[rows, hidden]`, `weights`: `[rows, scorers]`, `out`: `[rows, vocab]`.
    ///
    /// # Panics
    /// If a scorer with a weight has no action head or the lengths are not those of one number of rows.
    pub fn tilts(&self, pool: &Pool, hidden: &[f32], weights: &[Option<f64>], out: &mut [f32]) -> ActionRows {
        let (rows, num_scorers) = (self.num_rows(hidden), self.num_scorers());
        assert_eq!(
            weights.len(),
            rows * num_scorers,
            "expected one weight a row and scorer"
        );
        let actions = self.action_rows(pool, hidden, weights);
        let mut product = Vec::new();
        let mut is_written = false;
        for (space_idx, space) in self.spaces.iter().enumerate() {
            let mixed = self.mixed_directions(space_idx, weights, &actions);
            if mixed.iter().all(|&value| value == 0.0) {
                continue;
            }
            if is_written {
                product.resize(out.len(), 0.0);
                space
                    .layer
                    .forward(pool, &mixed, &mut product, &mut GemmScratch::default());
                add_to(pool, out, &product);
            } else {
                space
                    .layer
                    .forward(pool, &mixed, out, &mut GemmScratch::default());
                is_written = true;
            }
        }
        if !is_written {
            out.fill(0.0);
        }
        actions
    }

    /// `V([x, y^t, token])` of row `row_idx` of `actions` under `scorer`, in the scorer's unit.
    ///
    /// # Panics
    /// If the scorer had no weight in that row or the vocabulary no such token.
    pub fn action_value(&self, actions: &ActionRows, row_idx: usize, scorer: usize, token: TokenId) -> f64 {
        let action = self.scorers[scorer].action.as_ref();
        let action = action.expect("a scorer with a weight has an action head");
        let direction = &actions.directions[row_idx * actions.num_scorers + scorer];
        let features = self.spaces[action.space].features.row(token);
        assert_eq!(
            direction.len(),
            features.len(),
            "expected a scorer with a weight in this row"
        );
        let features: Vec<f64> = features.iter().map(|&value| f64::from(value)).collect();
        actions.base(row_idx, scorer) + dot(direction, &features)
    }

    fn push(&mut self, pool: &Pool, precision: Precision, weights: ScorerWeights) {
        let ScorerWeights {
            mean,
            std,
            scale,
            offset,
            state,
            action,
            token_features,
        } = weights;
        let action = action.zip(token_features).map(|(action, features)| PackedAction {
            head: Head::pack(pool, action.trunk.as_ref(), &[&action.base, &action.direction]),
            space: self.space_of(pool, precision, features),
        });
        self.scorers.push(Packed {
            state: Head::pack(pool, state.trunk.as_ref(), &[&state.out]),
            mean,
            std,
            scale,
            offset,
            action,
        });
    }

    /// The place of `features` among the spaces; bit-equal ones are kept once.
    fn space_of(&mut self, pool: &Pool, precision: Precision, features: TokenFeatures) -> usize {
        if let Some(place) = self.spaces.iter().position(|space| space.features == features) {
            return place;
        }
        let fill = |token: usize, row: &mut [f32]| row.copy_from_slice(features.row(TokenId(token as u32)));
        let layer = Linear::pack(pool, precision, features.len, features.vocab_len, &fill, None);
        self.spaces.push(FeatureSpace { features, layer });
        self.spaces.len() - 1
    }

    fn num_rows(&self, hidden: &[f32]) -> usize {
        let rows = hidden.len() / self.hidden_len;
        assert_eq!(
            hidden.len(),
            rows * self.hidden_len,
            "expected whole hidden states"
        );
        rows
    }

    /// Shared parts and directions of the scorers that have a weight in some row.
    fn action_rows(&self, pool: &Pool, hidden: &[f32], weights: &[Option<f64>]) -> ActionRows {
        let num_scorers = self.num_scorers();
        let mut actions = ActionRows {
            num_scorers,
            bases: vec![0.0; weights.len()],
            directions: vec![Vec::new(); weights.len()],
        };
        for (scorer_idx, packed) in self.scorers.iter().enumerate() {
            let places = || (scorer_idx..weights.len()).step_by(num_scorers);
            if places().all(|place| weights[place].is_none()) {
                continue;
            }
            let action = packed
                .action
                .as_ref()
                .expect("a scorer with a weight has an action head");
            let outputs = action.head.forward(pool, &packed.standardised(hidden)); // [rows, 1 + features]
            let outputs = outputs.chunks_exact(action.head.out.out_len());
            for (place, output) in places().zip(outputs) {
                if weights[place].is_some() {
                    actions.bases[place] = f64::from(packed.in_reward_unit(output[0]));
                    actions.directions[place] =
                        output[1..].iter().map(|&value| value * packed.scale).collect();
                }
            }
        }
        actions
    }

    /// Weighted sums of the directions in one space. `[rows, features]`
    fn mixed_directions(&self, space_idx: usize, weights: &[Option<f64>], actions: &ActionRows) -> Vec<f32> {
        let num_scorers = self.num_scorers();
        let len = self.spaces[space_idx].features.len;
        let mut mixed = Vec::with_capacity(weights.len() / num_scorers * len);
        let mut sums = vec![0.0_f64; len];
        for (weights, directions) in weights
            .chunks_exact(num_scorers)
            .zip(actions.directions.chunks_exact(num_scorers))
        {
            sums.fill(0.0);
            for ((packed, weight), direction) in self.scorers.iter().zip(weights).zip(directions) {
                let is_here = packed
                    .action
                    .as_ref()
                    .is_some_and(|action| action.space == space_idx);
                // A weight of 0 takes a scorer out of the mixture, whatever its direction.
                if let Some(weight) = weight.filter(|&weight| is_here && weight != 0.0) {
                    for (sum, &value) in sums.iter_mut().zip(direction) {
                        *sum += weight * f64::from(value);
                    }
                }
            }
            mixed.extend(sums.iter().map(|&sum| sum as f32));
        }
        mixed
    }
}

impl ActionRows {
    fn base(&self, row_idx: usize, scorer: usize) -> f64 {
        self.bases[row_idx * self.num_scorers + scorer]
    }
}

impl Packed {
    fn standardised(&self, hidden: &[f32]) -> Vec<f32> {
        let mut out = Vec::with_capacity(hidden.len());
        for row in hidden.chunks_exact(self.mean.len()) {
            let moments = self.mean.iter().zip(&self.std);
            out.extend(
                row.iter()
                    .zip(moments)
                    .map(|(value, (mean, std))| (value - mean) / std),
            );
        }
        out
    }

    fn in_reward_unit(&self, output: f32) -> f32 {
        self.scale * output + self.offset
    }
}

impl Head {
    /// `outs` are layers on the same input, whose outputs follow each other.
    fn pack(pool: &Pool, trunk: Option<&Layer>, outs: &[&Layer]) -> Self {
        Self {
            trunk: trunk.map(|layer| pack_layers(pool, &[layer])),
            out: pack_layers(pool, outs),
        }
    }

    fn forward(&self, pool: &Pool, input: &[f32]) -> Vec<f32> {
        let mut scratch = GemmScratch::default();
        let mut run = |layer: &Linear, input: &[f32]| {
            let mut output = vec![0.0; input.len() / layer.in_len() * layer.out_len()];
            layer.forward(pool, input, &mut output, &mut scratch);
            output
        };
        match &self.trunk {
            None => run(&self.out, input),
            Some(trunk) => {
                let mut features = run(trunk, input);
                silu(pool, &mut features);
                run(&self.out, &features)
            }
        }
    }
}

fn pack_layers(pool: &Pool, layers: &[&Layer]) -> Linear {
    let in_len = layers[0].in_len;
    let rows: Vec<&[f32]> = layers
        .iter()
        .flat_map(|layer| layer.weight.chunks_exact(in_len))
        .collect();
    let bias = layers
        .iter()
        .flat_map(|layer| layer.bias.iter().copied())
        .collect();
    let fill = |out_idx: usize, row: &mut [f32]| row.copy_from_slice(rows[out_idx]);
    Linear::pack(pool, Precision::F32, in_len, rows.len(), &fill, Some(bias))
}

/// `out += product`, in parallel.
fn add_to(pool: &Pool, out: &mut [f32], product: &[f32]) {
    const CHUNK_LEN: usize = 16 << 10;
    pool.run_chunks_mut(out, CHUNK_LEN, |chunk_idx, out| {
        for (out, product) in out.iter_mut().zip(&product[chunk_idx * CHUNK_LEN..]) {
            *out += product;
        }
    });
}
