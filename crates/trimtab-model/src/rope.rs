//! Rotary frequencies: from a configuration to `inv_freq`, in f64. Knows no tensors; rotation is a kernel.

use std::f64::consts::PI;

use crate::config::{RopeConfig, RopeScaling};

/// Frequencies and the factor on cos and sin.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeFrequencies {
    /// Radians per position of each pair of dimensions. `[head_dim / 2]`
    pub inv_freq: Vec<f64>,
    /// Multiplies cos and sin (`YaRN`); 1 otherwise.
    pub attention_factor: f64,
}

/// Frequencies of heads of width `head_dim`: `theta^(-2i / head_dim)`, stretched as configured.
pub fn rope_frequencies(config: &RopeConfig, head_dim: usize) -> RopeFrequencies {
    let inv_freq: Vec<f64> = (0..head_dim / 2)
        .map(|i| config.theta.powf(-2.0 * i as f64 / head_dim as f64))
        .collect();
    let plain = |inv_freq| RopeFrequencies {
        inv_freq,
        attention_factor: 1.0,
    };
    match &config.scaling {
        RopeScaling::None => plain(inv_freq),
        RopeScaling::Linear { factor } => plain(inv_freq.iter().map(|f| f / factor).collect()),
        RopeScaling::PerFrequency { divisors } => plain(
            inv_freq
                .iter()
                .zip(divisors)
                .map(|(f, &d)| f / f64::from(d))
                .collect(),
        ),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_context_len,
        } => {
            let original = *original_context_len as f64;
            let stretch =
                |f: f64| llama3_frequency(f, *factor, *low_freq_factor, *high_freq_factor, original);
            plain(inv_freq.into_iter().map(stretch).collect())
        }
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            original_context_len,
            attention_factor,
        } => {
            let original = *original_context_len as f64;
            let bounds = yarn_bounds(config.theta, head_dim, *beta_fast, *beta_slow, original);
            RopeFrequencies {
                inv_freq: yarn_frequencies(&inv_freq, *factor, bounds),
                attention_factor: attention_factor.unwrap_or(0.1 * factor.ln() + 1.0),
            }
        }
    }
}

/// What the frequencies of `config` are divided by, as GGUF stores it. `[head_dim / 2]`
pub(crate) fn rope_divisors(config: &RopeConfig, head_dim: usize) -> Vec<f32> {
    if let RopeScaling::PerFrequency { divisors } = &config.scaling {
        return divisors.clone();
    }
    let plain = RopeConfig {
        theta: config.theta,
        scaling: RopeScaling::None,
    };
    let (plain, stretched) = (
        rope_frequencies(&plain, head_dim),
        rope_frequencies(config, head_dim),
    );
    let pairs = plain.inv_freq.iter().zip(&stretched.inv_freq);
    pairs
        .map(|(plain, stretched)| (plain / stretched) as f32)
        .collect()
}

/// One frequency under the Llama 3.1 rule, as in the reference code published with the model.
fn llama3_frequency(freq: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let wavelength = 2.0 * PI / freq;
    if wavelength < original / high {
        return freq;
    }
    if wavelength > original / low {
        return freq / factor;
    }
    let smooth = (original / wavelength - low) / (high - low);
    (1.0 - smooth) * freq / factor + smooth * freq
}

/// First and last dimension pair of the `YaRN` ramp (arXiv 2309.00071, sec. 3.2).
fn yarn_bounds(theta: f64, head_dim: usize, beta_fast: f64, beta_slow: f64, original: f64) -> (f64, f64) {
    let dim = head_dim as f64;
    let pair_of = |rotations: f64| dim * (original / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let low = pair_of(beta_fast).floor().max(0.0);
    let high = pair_of(beta_slow).ceil().min(dim - 1.0);
    // Equal bounds would divide by zero; the published code widens them by the same amount.
    (low, if high > low { high } else { low + 0.001 })
}

fn yarn_frequencies(inv_freq: &[f64], factor: f64, (low, high): (f64, f64)) -> Vec<f64> {
    let ramp = |i: usize| ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
    inv_freq
        .iter()
        .enumerate()
        .map(|(i, f)| f / factor * ramp(i) + f * (1.0 - ramp(i)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(scaling: RopeScaling) -> RopeFrequencies {
        rope_frequencies(
            &RopeConfig {
                theta: 10_000.0,
                scaling,
            },
            64,
        )
    }

    #[test]
    fn plain_frequencies_are_the_geometric_series() {
        let plain = frequencies(RopeScaling::None);
        assert_eq!(plain.inv_freq.len(), 32);
        assert_eq!(plain.inv_freq[0], 1.0);
        assert!((plain.inv_freq[16] - 0.01).abs() < 1e-15);
    }

    #[test]
    fn llama3_keeps_fast_and_stretches_slow_frequencies() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context_len: 8192,
        };
        let plain = frequencies(RopeScaling::None).inv_freq;
        let stretched = frequencies(scaling).inv_freq;
        assert_eq!(stretched[0], plain[0]);
        assert!((stretched[31] - plain[31] / 8.0).abs() < 1e-18);
        assert!(
            stretched.windows(2).all(|pair| pair[0] > pair[1]),
            "frequencies stay ordered"
        );
    }

    #[test]
    fn yarn_ramps_from_extrapolation_to_interpolation() {
        let scaling = RopeScaling::Yarn {
            factor: 4.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            original_context_len: 32_768,
            attention_factor: None,
        };
        let plain = frequencies(RopeScaling::None).inv_freq;
        let stretched = frequencies(scaling);
        assert_eq!(stretched.inv_freq[0], plain[0]);
        assert!((stretched.inv_freq[31] - plain[31] / 4.0).abs() < 1e-18);
        // 0.1 ln 4 + 1, the published default.
        assert!((stretched.attention_factor - 1.138_629_436_111_989).abs() < 1e-12);
    }

    #[test]
    fn linear_and_per_frequency_divide() {
        let plain = frequencies(RopeScaling::None).inv_freq;
        let linear = frequencies(RopeScaling::Linear { factor: 2.0 }).inv_freq;
        let listed = frequencies(RopeScaling::PerFrequency {
            divisors: vec![2.0; 32],
        })
        .inv_freq;
        assert_eq!(linear, listed);
        assert_eq!(linear[5], plain[5] / 2.0);
    }
}
