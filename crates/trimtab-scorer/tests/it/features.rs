//! Token features: principal components of an embedding, one column a token where the vocabulary is small.

use trimtab_base::TokenId;
use trimtab_scorer::TokenFeatures;

/// An embedding of `vocab_len` rows whose coordinates are fixed pseudo-random mixtures of `rank` factors of falling
/// spread, with a mean that is not 0.
fn embedding(vocab_len: usize, hidden_len: usize, rank: usize) -> Vec<f32> {
    let noise = |a: usize, b: usize| {
        let bits = (a as u64 * 1_000_003 + b as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((bits ^ (bits >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut rows = Vec::new();
    for token in 0..vocab_len {
        for column in 0..hidden_len {
            let factors = (0..rank).map(|k| noise(token, k) * noise(k + 7777, column) / (k + 1) as f32);
            rows.push(factors.sum::<f32>() + 0.3 * (column as f32).cos());
        }
    }
    rows
}

fn features(rows: &[f32], hidden_len: usize, len: usize, stop: &[u32]) -> TokenFeatures {
    let stop: Vec<TokenId> = stop.iter().map(|&id| TokenId(id)).collect();
    let mut source =
        |token: usize, row: &mut [f32]| row.copy_from_slice(&rows[token * hidden_len..][..hidden_len]);
    TokenFeatures::of_embedding(&mut source, rows.len() / hidden_len, hidden_len, len, &stop)
}

#[test]
fn columns_are_standardised_uncorrelated_and_end_in_the_stop_tokens() {
    let found = features(&embedding(5000, 40, 20), 40, 9, &[2, 4999]);
    assert_eq!(
        (found.vocab_len, found.len, found.values.len()),
        (5000, 9, 45_000)
    );
    let column = |k: usize| found.rows().map(move |row| f64::from(row[k]));
    for a in 0..8 {
        let mean = column(a).sum::<f64>() / 5000.0;
        assert!(mean.abs() < 1e-3, "column {a} has mean {mean}");
        for b in 0..8 {
            let product = column(a).zip(column(b)).map(|(x, y)| x * y).sum::<f64>() / 5000.0;
            let expected = if a == b { 1.0 } else { 0.0 };
            assert!(
                (product - expected).abs() < 2e-2,
                "columns {a} and {b}: {product}"
            );
        }
    }
    let stops: Vec<usize> = (0..5000)
        .filter(|&token| found.values[token * 9 + 8] != 0.0)
        .collect();
    assert_eq!(stops, [2, 4999]);
    assert!(column(8).all(|value| value == 0.0 || value == 1.0));
}

#[test]
fn as_many_components_as_the_embedding_has_say_all_of_it() {
    // Four factors: any function that is linear in the embedding is linear in four components.
    let rows = embedding(600, 12, 4);
    let found = features(&rows, 12, 5, &[]);
    for target in [0, 5, 11] {
        let values: Vec<f64> = rows.chunks_exact(12).map(|row| f64::from(row[target])).collect();
        let mean = values.iter().sum::<f64>() / 600.0;
        // The components are uncorrelated with variance 1: coefficients are covariances.
        let coefficients: Vec<f64> = (0..4)
            .map(|k| {
                found
                    .rows()
                    .zip(&values)
                    .map(|(row, v)| f64::from(row[k]) * (v - mean))
                    .sum::<f64>()
                    / 600.0
            })
            .collect();
        for (row, value) in found.rows().zip(&values) {
            let fitted: f64 = mean
                + coefficients
                    .iter()
                    .zip(row)
                    .map(|(c, &f)| c * f64::from(f))
                    .sum::<f64>();
            assert!((fitted - value).abs() < 5e-3, "{fitted} {value}");
        }
    }
}

#[test]
fn the_widest_directions_come_first() {
    // Coordinates are independent with spreads 5, 3, 1: components are the coordinates.
    let spread = [1.0, 5.0, 3.0];
    let noise = embedding(4000, 3, 3);
    let independent: Vec<f32> = (0..4000)
        .flat_map(|token| (0..3).map(move |k| (token, k)))
        .map(|(token, k)| {
            let bits = (token as u64 * 3 + k as u64 + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            spread[k] * ((bits ^ (bits >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 40) as f32
                / (1 << 24) as f32
        })
        .collect();
    assert_eq!(noise.len(), independent.len());
    let found = features(&independent, 3, 3, &[]);
    for (component, coordinate) in [(0, 1), (1, 2)] {
        let xs = found.rows().map(|row| f64::from(row[component]));
        let ys: Vec<f64> = independent
            .chunks_exact(3)
            .map(|row| f64::from(row[coordinate]))
            .collect();
        let mean = ys.iter().sum::<f64>() / 4000.0;
        let std = (ys.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / 4000.0).sqrt();
        let correlation = xs.zip(&ys).map(|(x, y)| x * (y - mean) / std).sum::<f64>() / 4000.0;
        assert!(correlation.abs() > 0.99, "component {component}: {correlation}");
    }
}

#[test]
fn small_vocabularies_get_a_column_a_token() {
    let found = features(&embedding(4, 12, 4), 12, 64, &[0]);
    assert_eq!((found.vocab_len, found.len), (4, 5));
    let rows: Vec<&[f32]> = found.rows().collect();
    assert_eq!(rows[0], [1.0, 0.0, 0.0, 0.0, 1.0]);
    assert_eq!(rows[3], [0.0, 0.0, 0.0, 1.0, 0.0]);
}

#[test]
fn directions_that_are_not_there_are_zero_and_results_repeat() {
    let rows = embedding(300, 10, 2);
    let found = features(&rows, 10, 7, &[1]);
    assert_eq!(found, features(&rows, 10, 7, &[1]), "the same to the last bit");
    for row in found.rows() {
        assert!(row[..2].iter().any(|&value| value != 0.0));
        assert_eq!(row[2..6], [0.0; 4], "two factors have two directions");
    }
    // Never more components than the embedding is wide.
    assert_eq!(features(&embedding(300, 3, 3), 3, 64, &[]).len, 4);
    // A constant embedding has none.
    assert!(
        features(&vec![0.5; 3000], 10, 7, &[])
            .values
            .iter()
            .all(|&value| value == 0.0)
    );
}
