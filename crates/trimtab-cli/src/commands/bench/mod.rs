//! `trimtab bench`: what this machine does with a model, measured through the same engine that answers prompts.

pub(super) mod best_of_n;
pub(super) mod decode;
mod heads;
pub(super) mod precision;
mod reencoding;
mod round;
mod steered;
pub(super) mod train;

/// Median of some measurements; NaN of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => f64::midpoint(values[len / 2 - 1], values[len / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
