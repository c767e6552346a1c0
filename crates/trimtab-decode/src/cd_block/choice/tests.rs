use proptest::prelude::*;

use super::*;
use crate::laws::inputs;
use crate::sampling::Sampling;

fn config(beams: usize, choice: BlockChoice) -> CdBlockConfig {
    CdBlockConfig {
        num_candidates: 4,
        block_len: None,
        beams,
        choice,
        block_end: crate::BlockEnd::Tokens,
        target: None,
        token_budget: None,
        audit: 0,
        sampling: Sampling::REFERENCE,
    }
}

/// One contender for each pair of mixed value and value under the floor's term.
fn contenders(values: &[(f64, [f64; 1])]) -> Vec<Contender<'_>> {
    values
        .iter()
        .map(|(mixed_value, values)| Contender::lasting(*mixed_value, values))
        .collect()
}

fn kept_by_value(beams: usize, at_least: Option<f64>, values: &[(f64, [f64; 1])]) -> Vec<usize> {
    let chooser = Chooser {
        floor: at_least.map(|at_least| Floor { term: 0, at_least }),
        ..Chooser::new(&config(beams, BlockChoice::Best), &inputs(0))
    };
    chooser.keep(&contenders(values), 0).kept
}

#[test]
fn the_greatest_values_are_kept_in_order_of_their_indices() {
    let check = |beams: usize, values: &[f64], expect: &[usize]| {
        let values: Vec<(f64, [f64; 1])> = values.iter().map(|&value| (value, [value])).collect();
        assert_eq!(
            kept_by_value(beams, None, &values),
            expect,
            "{beams} of {values:?}"
        );
    };
    check(1, &[1.0, 3.0, 3.0, 2.0], &[1]);
    check(2, &[1.0, 3.0, 3.0, 2.0], &[1, 2]);
    check(3, &[1.0, 3.0, 3.0, 2.0], &[1, 2, 3]);
    check(3, &[2.0, 2.0, 2.0, 2.0], &[0, 1, 2]);
    check(9, &[1.0, 2.0], &[0, 1]);
    check(1, &[0.0, -0.0], &[0]);
    check(1, &[-5.0, -4.0], &[1]);
}

#[test]
fn a_floor_moves_the_choice_no_further_than_needed() {
    let values = [(5.0, [0.0]), (4.0, [1.0]), (3.0, [3.0]), (1.0, [4.0])];
    let check = |beams: usize, at_least: f64, expect: &[usize]| {
        assert_eq!(
            kept_by_value(beams, Some(at_least), &values),
            expect,
            "{beams} with {at_least}"
        );
    };
    check(1, -1.0, &[0]);
    check(1, 0.0, &[0]);
    // At weight 2/3 the third passes the first, and the second is never greatest.
    check(1, 0.5, &[2]);
    check(1, 3.0, &[2]);
    check(1, 3.5, &[3]);
    // None holds it: the greatest value there is.
    check(1, 9.0, &[3]);
    // With the weight that the best needs, 2, the others are 5, 6, 9, 9.
    check(2, 3.5, &[2, 3]);
    check(3, 3.5, &[1, 2, 3]);
}

#[test]
fn choices_at_random_follow_weights_and_copies() {
    let temperature = 0.5;
    let chooser = Chooser::new(&config(1, BlockChoice::Proportional { temperature }), &inputs(7));
    let contender = |mixed_value: f64, parent_mixed_value: f64, num_copies: usize| Contender {
        mixed_value,
        parent_mixed_value,
        values: &[],
        num_copies,
    };
    let contenders = [
        contender(1.0, 0.0, 1),
        contender(1.5, 1.0, 1),
        contender(9.0, 9.0, 4),
    ];
    let weights = [2.0_f64.exp(), 1.0_f64.exp(), 4.0];
    let total: f64 = weights.iter().sum();
    let mut counts = [0; 3];
    for choice_idx in 0..9_000 {
        counts[chooser.keep(&contenders, choice_idx).kept[0]] += 1;
    }
    crate::laws::assert_follows(&counts, &weights.map(|weight| weight / total));
    // Steps of one stream differ, and the same step is the same.
    let keep = |choice_idx| chooser.keep(&contenders, choice_idx).kept;
    assert_eq!(keep(3), keep(3));
}

#[test]
fn a_temperature_near_0_takes_the_best_and_overflows_nothing() {
    let temperature = 1e-300;
    let chooser = Chooser::new(&config(3, BlockChoice::Proportional { temperature }), &inputs(7));
    let values = [(-1e300, [0.0]), (1e300, [0.0]), (0.0, [0.0])];
    for choice_idx in 0..100 {
        assert_eq!(chooser.keep(&contenders(&values), choice_idx).kept, [1, 1, 1]);
    }
}

proptest! {
    #[test]
    fn the_floor_s_weight_is_the_least_that_holds_it(
        values in prop::collection::vec((-3_i32..=3, -3_i32..=3), 1..7),
        at_least in -4_i32..=4,
    ) {
        let values: Vec<(f64, [f64; 1])> =
            values.into_iter().map(|(mixed, value)| (f64::from(mixed), [f64::from(value)])).collect();
        let at_least = f64::from(at_least);
        let contenders = contenders(&values);
        let (best, added) = best_with_floor(&contenders, Some(Floor { term: 0, at_least }));
        let sum = |idx: usize, weight: f64| values[idx].0 + weight * values[idx].1[0];
        let greatest_at = |weight: f64| (0..values.len()).map(|idx| sum(idx, weight)).fold(f64::NEG_INFINITY, f64::max);
        // Of the greatest sums at a weight, the one with most of the value.
        let value_at = |weight: f64| {
            let tied = (0..values.len()).filter(|&idx| sum(idx, weight) >= greatest_at(weight) - 1e-9);
            tied.map(|idx| values[idx].1[0]).fold(f64::NEG_INFINITY, f64::max)
        };
        prop_assert!(sum(best, added) >= greatest_at(added) - 1e-9);
        let most = values.iter().map(|(_, value)| value[0]).fold(f64::NEG_INFINITY, f64::max);
        let won = values[best].1[0];
        if most < at_least {
            prop_assert_eq!(won, most);
        } else {
            prop_assert!(won >= at_least);
            if added > 0.0 {
                // Sums of whole numbers cross at fractions of small denominators, no two nearer than this.
                prop_assert!(value_at(added - 1e-3) < at_least);
            }
        }
    }
}
