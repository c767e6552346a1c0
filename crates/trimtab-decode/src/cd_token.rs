//! Tokenwise controlled decoding: each token drawn from `p(z) e^{weight V([x, y^t, z])}` (CD Eq. 6).

use crate::sampling::Sampling;

/// How strongly values tilt each token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CdTokenConfig {
    /// `lambda`, finite; multiplies the weights of all steering terms. 0 is plain sampling.
    pub weight: f64,
    /// The policy that is tilted.
    pub sampling: Sampling,
}
