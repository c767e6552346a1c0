//! One affine layer, as it is trained and stored. Knows no head and no kernel.

use crate::error::ScorerError;

/// `y = W x + b`.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Length of `x`.
    pub in_len: usize,
    /// Length of `y`.
    pub out_len: usize,
    /// `W`. `[out_len, in_len]`
    pub weight: Vec<f32>,
    /// `b`. `[out_len]`
    pub bias: Vec<f32>,
}

impl Layer {
    /// `W input + b` in f64, the slow reference. `[in_len]` to `[out_len]`
    ///
    /// # Panics
    /// If the input does not have `in_len` values.
    pub fn apply(&self, input: &[f64]) -> Vec<f64> {
        assert_eq!(input.len(), self.in_len, "expected an input of in_len values");
        let rows = self.weight.chunks_exact(self.in_len);
        rows.zip(&self.bias)
            .map(|(row, &bias)| f64::from(bias) + dot(row, input))
            .collect()
    }

    /// Refuses lengths that contradict each other and values that are not finite.
    pub(crate) fn check(&self, name: &str, in_len: usize, out_len: usize) -> Result<(), ScorerError> {
        let expected = [out_len, in_len];
        let found = [self.out_len, self.in_len];
        if found != expected || in_len == 0 || out_len == 0 {
            return Err(ScorerError::shape(&format!("{name}.weight"), &found, &expected));
        }
        check_values(
            &format!("{name}.weight"),
            &self.weight,
            out_len.saturating_mul(in_len),
        )?;
        check_values(&format!("{name}.bias"), &self.bias, out_len)
    }
}

pub(crate) fn dot(weights: &[f32], values: &[f64]) -> f64 {
    weights
        .iter()
        .zip(values)
        .map(|(&weight, value)| f64::from(weight) * value)
        .sum()
}

/// Refuses a tensor that does not have `len` values or has one that is not finite.
pub(crate) fn check_values(name: &str, values: &[f32], len: usize) -> Result<(), ScorerError> {
    if values.len() != len {
        return Err(ScorerError::shape(name, &[values.len()], &[len]));
    }
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(idx) => Err(ScorerError::NotFinite {
            tensor: name.to_owned(),
            idx,
            value: values[idx],
        }),
    }
}
