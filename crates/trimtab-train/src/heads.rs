//! The heads of a prefix scorer on the tape, and their export. Mirrors `trimtab_scorer::ScorerWeights`; knows no loss.

use burn::module::{Module, Param};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor, TensorData};
use trimtab_base::rng::{Purpose, SampleStream};
use trimtab_base::{PromptKey, Seed};
use trimtab_scorer::{ActionHead, Layer, ScorerWeights, StateHead, TokenFeatures};

/// Sizes of the heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLens {
    /// Width of the states.
    pub hidden_len: usize,
    /// Width of each trunk; 0 for linear heads.
    pub trunk_len: usize,
    /// Width of the token features; 0 for no action head.
    pub feature_len: usize,
}

/// `y = x W + b` with `W` stored as `[in, out]`, as the tensor library multiplies it.
#[derive(Module, Debug)]
pub struct Affine {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

/// The head of `V([x, y^t])`, in normalised units.
#[derive(Module, Debug)]
pub struct StateValue {
    trunk: Option<Affine>,
    out: Affine,
}

/// The head of `V([x, y^t, z])`, in normalised units.
#[derive(Module, Debug)]
pub struct ActionValue {
    trunk: Option<Affine>,
    base: Affine,
    direction: Affine,
}

/// Both heads. Their input is the standardised state.
#[derive(Module, Debug)]
pub struct Heads {
    /// State values.
    pub state: StateValue,
    /// Action values, where they are trained.
    pub action: Option<ActionValue>,
}

/// Mean and standard deviation of each coordinate of the states, from training data.
#[derive(Debug, Clone, PartialEq)]
pub struct Standardisation {
    /// `[hidden_len]`
    pub mean: Vec<f32>,
    /// `[hidden_len]`, 1 where a coordinate is constant.
    pub std: Vec<f32>,
}

/// `reward = scale * normalised + offset`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RewardScale {
    /// Reward per normalised unit, above 0.
    pub scale: f32,
    /// Reward at normalised 0.
    pub offset: f32,
}

impl RewardScale {
    /// The scale that gives `rewards` mean 0 and variance 1; a constant reward keeps its unit.
    pub fn of(rewards: impl Iterator<Item = f64> + Clone) -> Self {
        let count = rewards.clone().count().max(1) as f64;
        let mean = rewards.clone().sum::<f64>() / count;
        let variance = rewards.map(|reward| (reward - mean).powi(2)).sum::<f64>() / count;
        // Below this share of the mean the spread is rounding, not a reward.
        let is_constant = variance.sqrt() <= 1e-9 * mean.abs().max(1e-9);
        Self {
            scale: if is_constant { 1.0 } else { variance.sqrt() as f32 },
            offset: mean as f32,
        }
    }

    /// A reward in normalised units.
    pub fn normalise(&self, reward: f64) -> f32 {
        ((reward - f64::from(self.offset)) / f64::from(self.scale)) as f32
    }

    /// A normalised value in the reward's unit.
    pub fn restore(&self, value: f32) -> f64 {
        f64::from(value) * f64::from(self.scale) + f64::from(self.offset)
    }
}

impl Affine {
    /// Weights uniform with variance `1 / in_len`, biases 0.
    fn random(in_len: usize, out_len: usize, stream: &SampleStream, device: &Device) -> Self {
        let bound = (3.0 / in_len as f64).sqrt();
        let draw = |idx: usize| ((2.0 * stream.uniform(idx as u64) - 1.0) * bound) as f32;
        let weight = (0..in_len * out_len).map(draw).collect();
        Self::from_rows(weight, [in_len, out_len], device)
    }

    /// All zero: an output layer that begins at the mean reward, so that bootstrapped targets begin there too.
    fn zero(in_len: usize, out_len: usize, device: &Device) -> Self {
        Self::from_rows(vec![0.0; in_len * out_len], [in_len, out_len], device)
    }

    fn from_rows(weight: Vec<f32>, [in_len, out_len]: [usize; 2], device: &Device) -> Self {
        let weight = Tensor::from_data(TensorData::new(weight, [in_len, out_len]), device);
        Self {
            weight: Param::from_tensor(weight),
            bias: Param::from_tensor(Tensor::zeros([out_len], device)),
        }
    }

    /// `x`: `[rows, in_len]`; result `[rows, out_len]`.
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.weight.val()) + self.bias.val().unsqueeze()
    }

    fn to_layer(&self) -> Layer {
        let [in_len, out_len] = self.weight.dims();
        Layer {
            in_len,
            out_len,
            weight: to_floats(self.weight.val().inner().transpose()),
            bias: to_floats(self.bias.val().inner()),
        }
    }
}

impl StateValue {
    /// `x`: standardised states `[rows, hidden_len]`; result in normalised units, `[rows]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<1> {
        self.out.forward(through(self.trunk.as_ref(), x)).squeeze_dim(1)
    }
}

impl ActionValue {
    /// Base `[rows]` and direction `[rows, feature_len]`: the value of `z` is `base + direction . F[z]`.
    ///
    /// `x`: standardised states `[rows, hidden_len]`.
    pub fn forward(&self, x: Tensor<2>) -> (Tensor<1>, Tensor<2>) {
        let t = through(self.trunk.as_ref(), x);
        (
            self.base.forward(t.clone()).squeeze_dim(1),
            self.direction.forward(t),
        )
    }
}

/// `base + direction . features` for each row. `base`: `[rows]`, the others `[rows, feature_len]`.
pub fn value_at(base: Tensor<1>, direction: Tensor<2>, features: Tensor<2>) -> Tensor<1> {
    base + (direction * features).sum_dim(1).squeeze_dim(1)
}

fn through(trunk: Option<&Affine>, x: Tensor<2>) -> Tensor<2> {
    match trunk {
        Some(trunk) => silu(trunk.forward(x)),
        None => x,
    }
}

fn to_floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("weights are kept in f32")
}

impl Heads {
    /// Heads with random trunks and outputs of 0, as a function of `seed`.
    pub fn new(lens: HeadLens, seed: Seed, device: &Device) -> Self {
        let trunk = |number: u64| {
            let stream = SampleStream::new(seed, PromptKey(0), number, Purpose::Training);
            (lens.trunk_len > 0).then(|| Affine::random(lens.hidden_len, lens.trunk_len, &stream, device))
        };
        let in_len = if lens.trunk_len > 0 {
            lens.trunk_len
        } else {
            lens.hidden_len
        };
        let state = StateValue {
            trunk: trunk(0),
            out: Affine::zero(in_len, 1, device),
        };
        let action = (lens.feature_len > 0).then(|| ActionValue {
            trunk: trunk(1),
            base: Affine::zero(in_len, 1, device),
            direction: Affine::zero(in_len, lens.feature_len, device),
        });
        Self { state, action }
    }

    /// The heads as a scorer keeps them.
    ///
    /// # Panics
    /// If there is an action head and no `features`.
    pub fn to_weights(
        &self,
        standardisation: &Standardisation,
        scale: RewardScale,
        features: Option<&TokenFeatures>,
    ) -> ScorerWeights {
        let layer = |affine: &Option<Affine>| affine.as_ref().map(Affine::to_layer);
        let action = self.action.as_ref().map(|action| ActionHead {
            trunk: layer(&action.trunk),
            base: action.base.to_layer(),
            direction: action.direction.to_layer(),
        });
        let token_features = self.action.as_ref().map(|_| {
            let features = features.expect("an action head was trained with token features");
            features.clone()
        });
        ScorerWeights {
            mean: standardisation.mean.clone(),
            std: standardisation.std.clone(),
            scale: scale.scale,
            offset: scale.offset,
            state: StateHead {
                trunk: layer(&self.state.trunk),
                out: self.state.out.to_layer(),
            },
            action,
            token_features,
        }
    }
}
