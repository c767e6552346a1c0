//! The heads of a scorer and what their values mean, in f64. Knows no batch and no kernel.

use trimtab_base::TokenId;

use crate::error::ScorerError;
use crate::features::TokenFeatures;
use crate::layer::{Layer, check_values, dot};

/// The head that says `V([x, y^t])`.
#[derive(Debug, Clone, PartialEq)]
pub struct StateHead {
    /// `[hidden]` to `[trunk]`, followed by silu; none for a linear head.
    pub trunk: Option<Layer>,
    /// To one value.
    pub out: Layer,
}

/// The head that says `V([x, y^t, z])` for every next token `z`.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionHead {
    /// `[hidden]` to `[trunk]`, followed by silu; none for a linear head.
    pub trunk: Option<Layer>,
    /// To the part that all tokens share: one value.
    pub base: Layer,
    /// To the direction in the space of token features. `out_len` is the length of a feature row.
    pub direction: Layer,
}

/// Sizes of the heads of [`ScorerWeights::random`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadSizes {
    /// Width of the model's hidden states.
    pub hidden_len: usize,
    /// Tokens in its vocabulary.
    pub vocab_len: usize,
    /// Length of a trunk; 0 for linear heads.
    pub trunk_len: usize,
    /// Length of a row of token features; 0 for a scorer without action head.
    pub features_len: usize,
}

/// The weights of a scorer.
///
/// Values are in the unit of the reward: heads are trained on a standardised reward, `scale` and `offset` undo that.
#[derive(Debug, Clone, PartialEq)]
pub struct ScorerWeights {
    /// Mean of each coordinate of the hidden states. `[hidden]`
    pub mean: Vec<f32>,
    /// Standard deviation of each coordinate, above 0. `[hidden]`
    pub std: Vec<f32>,
    /// Reward per unit of a head's output.
    pub scale: f32,
    /// Reward at a head's zero.
    pub offset: f32,
    /// `V([x, y^t])`.
    pub state: StateHead,
    /// `V([x, y^t, z])`; none for a scorer that only judges.
    pub action: Option<ActionHead>,
    /// `F`, there exactly when there is an action head.
    pub token_features: Option<TokenFeatures>,
}

impl ScorerWeights {
    /// Width of the hidden states that are read.
    pub fn hidden_len(&self) -> usize {
        self.mean.len()
    }

    /// `V([x, y^t])` in the unit of the reward. `hidden`: `[hidden]`, after the final norm at the last token.
    ///
    /// # Panics
    /// If the hidden state has another width.
    pub fn state_value(&self, hidden: &[f32]) -> f64 {
        let features = trunk_output(self.state.trunk.as_ref(), self.standardised(hidden));
        self.in_reward_unit(self.state.out.apply(&features)[0])
    }

    /// `V([x, y^t, token])` in the unit of the reward. `hidden`: `[hidden]`, as for [`Self::state_value`].
    ///
    /// # Panics
    /// If the scorer has no action head, the hidden state has another width or the vocabulary no such token.
    pub fn action_value(&self, hidden: &[f32], token: TokenId) -> f64 {
        let (base, direction) = self.base_and_direction(hidden);
        self.in_reward_unit(base + dot(self.features().row(token), &direction))
    }

    /// [`Self::action_value`] of every token. `[vocab]`
    ///
    /// # Panics
    /// As [`Self::action_value`].
    pub fn action_values(&self, hidden: &[f32]) -> Vec<f64> {
        let (base, direction) = self.base_and_direction(hidden);
        let rows = self.features().rows();
        rows.map(|row| self.in_reward_unit(base + dot(row, &direction)))
            .collect()
    }

    /// `sum_z p(z) V([x, y^t, z])` for the law `p` whose mean token features are `expected_features` `[features]`: the
    /// expectation in CD-Q's target (CD Eq. 5), exact because values are affine in the features.
    ///
    /// # Panics
    /// If the scorer has no action head or a length is another.
    pub fn expected_action_value(&self, hidden: &[f32], expected_features: &[f32]) -> f64 {
        let (base, direction) = self.base_and_direction(hidden);
        assert_eq!(
            expected_features.len(),
            direction.len(),
            "expected one mean a token feature"
        );
        self.in_reward_unit(base + dot(expected_features, &direction))
    }

    /// Refuses weights whose shapes contradict each other or that are not finite numbers.
    ///
    /// # Errors
    /// [`ScorerError::Shape`] or [`ScorerError::NotFinite`] with the tensor.
    pub fn check(&self) -> Result<(), ScorerError> {
        let hidden_len = self.mean.len();
        if hidden_len == 0 {
            return Err(ScorerError::shape("mean", &[0], &[1]));
        }
        check_values("mean", &self.mean, hidden_len)?;
        check_values("std", &self.std, hidden_len)?;
        if let Some(idx) = self.std.iter().position(|&std| std <= 0.0) {
            let (tensor, value) = ("std (expected above 0)".to_owned(), self.std[idx]);
            return Err(ScorerError::NotFinite { tensor, idx, value });
        }
        check_values("scale", &[self.scale], 1)?;
        check_values("offset", &[self.offset], 1)?;
        let trunk_len = check_trunk("state.trunk", self.state.trunk.as_ref(), hidden_len)?;
        self.state.out.check("state.out", trunk_len, 1)?;
        match (&self.action, &self.token_features) {
            (Some(action), Some(features)) => {
                features.check()?;
                let trunk_len = check_trunk("action.trunk", action.trunk.as_ref(), hidden_len)?;
                action.base.check("action.base", trunk_len, 1)?;
                action
                    .direction
                    .check("action.direction", trunk_len, features.len)
            }
            (None, None) => Ok(()),
            (Some(_), None) => Err(ScorerError::shape("token_features", &[0], &[1])),
            (None, Some(_)) => Err(ScorerError::shape("action.direction.weight", &[0], &[1])),
        }
    }

    /// Heads of pseudo-random weights on pseudo-random token features, values of about unit spread on hidden states of
    /// unit spread: to time decoding without training.
    pub fn random(seed: u64, sizes: HeadSizes) -> Self {
        let mut draws = crate::pca::Draws::new(seed);
        let HeadSizes {
            hidden_len,
            trunk_len,
            ..
        } = sizes;
        let mut layer = |in_len: usize, out_len: usize| {
            // Uniform in [-a, a] with variance 1 / in_len.
            let bound = (3.0 / in_len as f64).sqrt();
            let mut fill = |len: usize| (0..len).map(|_| (draws.next() * bound) as f32).collect();
            Layer {
                in_len,
                out_len,
                weight: fill(in_len * out_len),
                bias: vec![0.0; out_len],
            }
        };
        let mut trunk = || (trunk_len > 0).then(|| layer(hidden_len, trunk_len));
        let (state_trunk, action_trunk) = (trunk(), trunk());
        let in_len = if trunk_len > 0 { trunk_len } else { hidden_len };
        let state = StateHead {
            trunk: state_trunk,
            out: layer(in_len, 1),
        };
        let has_action = sizes.features_len > 0;
        let action = has_action.then(|| ActionHead {
            trunk: action_trunk,
            base: layer(in_len, 1),
            direction: layer(in_len, sizes.features_len),
        });
        let token_features =
            has_action.then(|| TokenFeatures::random(seed, sizes.vocab_len, sizes.features_len));
        Self {
            mean: vec![0.0; hidden_len],
            std: vec![1.0; hidden_len],
            scale: 1.0,
            offset: 0.0,
            state,
            action,
            token_features,
        }
    }

    fn standardised(&self, hidden: &[f32]) -> Vec<f64> {
        assert_eq!(
            hidden.len(),
            self.mean.len(),
            "expected a hidden state of the scorer's width"
        );
        let moments = self.mean.iter().zip(&self.std);
        let scaled = |(&value, (&mean, &std)): (&f32, (&f32, &f32))| {
            (f64::from(value) - f64::from(mean)) / f64::from(std)
        };
        hidden.iter().zip(moments).map(scaled).collect()
    }

    fn base_and_direction(&self, hidden: &[f32]) -> (f64, Vec<f64>) {
        let action = self
            .action
            .as_ref()
            .expect("only scorers with an action head are asked");
        let features = trunk_output(action.trunk.as_ref(), self.standardised(hidden));
        (action.base.apply(&features)[0], action.direction.apply(&features))
    }

    fn features(&self) -> &TokenFeatures {
        let features = self.token_features.as_ref();
        features.expect("only scorers with an action head are asked")
    }

    fn in_reward_unit(&self, output: f64) -> f64 {
        f64::from(self.scale) * output + f64::from(self.offset)
    }
}

/// `silu(trunk input)`, or the input without a trunk.
fn trunk_output(trunk: Option<&Layer>, input: Vec<f64>) -> Vec<f64> {
    let Some(trunk) = trunk else { return input };
    let silu = |x: f64| x / (1.0 + (-x).exp());
    trunk.apply(&input).into_iter().map(silu).collect()
}

/// The length of what the head's last layers read.
fn check_trunk(name: &str, trunk: Option<&Layer>, hidden_len: usize) -> Result<usize, ScorerError> {
    let Some(trunk) = trunk else { return Ok(hidden_len) };
    trunk.check(name, hidden_len, trunk.out_len)?;
    Ok(trunk.out_len)
}
