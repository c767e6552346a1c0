use proptest::prelude::*;

use super::*;

const HEAD_DIM: usize = 32;

fn frequencies() -> Vec<f64> {
    (0..HEAD_DIM / 2)
        .map(|i| 1e4_f64.powf(-2.0 * i as f64 / HEAD_DIM as f64))
        .collect()
}

fn expected(head: &[f32], position: u32, factor: f64) -> Vec<f64> {
    let half = HEAD_DIM / 2;
    let mut out = vec![0.0; HEAD_DIM];
    for (i, frequency) in frequencies().into_iter().enumerate() {
        let (sin, cos) = (f64::from(position) * frequency).sin_cos();
        let (a, b) = (f64::from(head[i]), f64::from(head[i + half]));
        out[i] = factor * (a * cos - b * sin);
        out[i + half] = factor * (b * cos + a * sin);
    }
    out
}

proptest! {
    #[test]
    fn heads_turn_by_their_position_and_the_rest_of_a_row_stays(
        positions in prop::collection::vec(prop_oneof![0_u32..300, any::<u32>()], 1..20),
        num_heads in 1_usize..5,
        rest in 0_usize..40,
        num_threads in 1_usize..3,
    ) {
        let table = RopeTable::new(&frequencies(), 1.25);
        let row_len = num_heads * HEAD_DIM + rest;
        let before: Vec<f32> = (0..positions.len() * row_len).map(|i| (i as f32 * 0.7).sin()).collect();
        let mut after = before.clone();
        let pool = Pool::new(num_threads);
        apply_rope(&pool, &mut after, row_len, num_heads, HEAD_DIM, &positions, &table);
        let rows = before.chunks_exact(row_len).zip(after.chunks_exact(row_len)).zip(&positions);
        for ((before, after), &position) in rows {
            let (heads, untouched) = after.split_at(num_heads * HEAD_DIM);
            prop_assert_eq!(untouched, &before[num_heads * HEAD_DIM..]);
            for (before, after) in before.chunks_exact(HEAD_DIM).zip(heads.chunks_exact(HEAD_DIM)) {
                for (&got, expected) in after.iter().zip(expected(before, position, 1.25)) {
                    prop_assert!((f64::from(got) - expected).abs() < 4e-7, "{position}: {got}, expected {expected}");
                }
            }
            // The same alone, from a table that has seen nothing else.
            let mut alone = before.to_vec();
            let table = RopeTable::new(&frequencies(), 1.25);
            apply_rope(&Pool::new(1), &mut alone, row_len, num_heads, HEAD_DIM, &[position], &table);
            prop_assert_eq!(&alone, after);
        }
    }
}

#[test]
fn position_zero_changes_nothing() {
    let mut row: Vec<f32> = (0..HEAD_DIM).map(|i| i as f32).collect();
    let before = row.clone();
    let table = RopeTable::new(&frequencies(), 1.0);
    apply_rope(&Pool::new(1), &mut row, HEAD_DIM, 1, HEAD_DIM, &[0], &table);
    assert_eq!(row, before);
}

#[test]
fn instruction_sets_agree_to_the_last_bit() {
    let cos_sin: Vec<f32> = (0..HEAD_DIM).map(|i| (i as f32).cos()).collect();
    let run = |isa: Isa| {
        let mut row: Vec<f32> = (0..4 * HEAD_DIM).map(|i| (i as f32).sin()).collect();
        let (heads, cos_sin) = (&mut *row, &*cos_sin);
        for_isa!(isa, rotate_heads(heads: &mut [f32], cos_sin: &[f32]));
        row
    };
    for isa in Isa::available() {
        assert_eq!(run(isa), run(Isa::Portable), "{isa:?}");
    }
}

#[test]
#[should_panic(expected = "expected a row for each position")]
fn rows_without_a_position_are_refused() {
    let table = RopeTable::new(&frequencies(), 1.0);
    apply_rope(
        &Pool::new(1),
        &mut [0.0; 2 * HEAD_DIM],
        HEAD_DIM,
        1,
        HEAD_DIM,
        &[0],
        &table,
    );
}
