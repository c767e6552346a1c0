use proptest::prelude::*;

use super::*;

fn quantised(isa: Isa, row: &[f32], planes: Planes, offset: i32) -> (f32, Vec<u8>) {
    // Stale bytes must not show through the padding.
    let mut levels = vec![77; row.len().next_multiple_of(64) * planes.count()];
    let scale = quantise_row(isa, row, planes, offset, &mut levels);
    (scale, levels)
}

fn values_of((scale, levels): &(f32, Vec<u8>), planes: Planes, offset: i32) -> Vec<f64> {
    let level = |byte: u8| {
        if offset == 0 {
            i32::from(byte.cast_signed())
        } else {
            i32::from(byte) - offset
        }
    };
    let (high, low) = levels.split_at(levels.len() / planes.count());
    let values = high.iter().enumerate().map(|(k, &high)| match planes {
        Planes::One => level(high),
        Planes::Two => 128 * level(high) + level(low[k]),
    });
    values.map(|level| f64::from(*scale) * f64::from(level)).collect()
}

proptest! {
    #[test]
    fn values_are_off_by_at_most_half_a_level_and_alike_everywhere(
        row in prop::collection::vec(-1e3_f32..1e3, 1..200),
        outlier in -1e6_f32..1e6,
        shifted in any::<bool>(),
    ) {
        let mut row = row;
        row[0] = outlier;
        let offset = if shifted { 128 } else { 0 };
        for planes in [Planes::One, Planes::Two] {
            let expected = quantised(Isa::Portable, &row, planes, offset);
            for isa in Isa::available() {
                prop_assert_eq!(&quantised(isa, &row, planes, offset), &expected);
            }
            let values = values_of(&expected, planes, offset);
            let largest = row.iter().fold(0.0, |max: f32, v| max.max(v.abs()));
            prop_assert!(f64::from(expected.0) <= f64::from(largest) / f64::from(planes.max_level()) * 1.000001);
            for (value, exact) in values.iter().zip(&row) {
                prop_assert!((value - f64::from(*exact)).abs() <= f64::from(expected.0) * 0.5001);
            }
            prop_assert!(values[row.len()..].iter().all(|&padding| padding == 0.0));
        }
    }

    #[test]
    fn levels_of_a_block_beat_the_plain_choice_of_scale(values in prop::array::uniform32(-2.0_f32..2.0)) {
        let squared_error = |scale: f32, level_of: &dyn Fn(usize) -> f32| -> f32 {
            values.iter().enumerate().map(|(k, v)| (v - scale * level_of(k)).powi(2)).sum()
        };
        let (scale, levels) = nearest_levels(Isa::Portable, &values);
        prop_assert!(levels.iter().all(|level| (-8..=7).contains(level)));
        for isa in Isa::available() {
            prop_assert_eq!(nearest_levels(isa, &values), (scale, levels));
        }
        // Symmetric rounding to -7..=7, as if the eighth negative level did not exist.
        let plain = values.iter().fold(0.0, |max: f32, v| max.max(v.abs())) / 7.0;
        let plain_error = squared_error(plain, &|k| (values[k] / plain).round());
        let error = squared_error(scale.to_f32(), &|k| levels[k] as f32);
        prop_assert!(error <= plain_error * 1.02, "{} {}", error, plain_error);
    }
}

#[test]
fn extreme_rows_get_the_documented_scales() {
    let check = |row: &[f32], expect: fn(f32) -> bool| {
        for isa in Isa::available() {
            for planes in [Planes::One, Planes::Two] {
                let (scale, _) = quantised(isa, row, planes, 128);
                assert!(expect(scale), "{isa:?} {planes:?} {row:?}: {scale}");
            }
        }
    };
    check(&[0.0, -0.0], |scale| scale == 0.0);
    check(&[1e-40, -1e-39], |scale| scale == 0.0);
    check(&[f32::MAX, -f32::MAX], |scale| scale > 1e34 && scale.is_finite());
    check(&[1.0, f32::NAN, 2.0], f32::is_nan);
    check(&[f32::NEG_INFINITY], f32::is_nan);
}

#[test]
fn blocks_of_zeros_and_of_values_that_are_not_finite_keep_their_meaning() {
    assert_eq!(
        nearest_levels(Isa::detect(), &[0.0; BLOCK]),
        (bf16::ZERO, [0; BLOCK])
    );
    let mut values = [1.0; BLOCK];
    values[9] = f32::INFINITY;
    assert!(nearest_levels(Isa::detect(), &values).0.is_nan());
}

#[test]
fn block_sums_are_negated_eightfold() {
    let levels: Vec<u8> = (0..96_i32).map(|k| (k - 48) as u8).collect();
    for isa in Isa::available() {
        let mut sums = [0; 3];
        negated_block_sums(isa, &levels, &mut sums);
        let expected = [-48..-16, -16..16, 16..48].map(|block: std::ops::Range<i32>| -8 * block.sum::<i32>());
        assert_eq!(sums, expected);
    }
}
