//! Percentile intervals of any statistic, by resampling groups of items. Knows indices, not what they stand for.
//!
//! Pairs about one prompt are alike, so groups are drawn, not pairs. With few groups a percentile interval is too narrow;
//! where every group is one item and the statistic a share, exact intervals are the better choice.

use std::collections::BTreeMap;

use rand_chacha::rand_core::Rng;
use trimtab_base::rng::Purpose;
use trimtab_base::{PromptKey, SampleStream};

use crate::confidence::{Bootstrap, Interval, index_below, quantile};

/// Items by group, in order of first appearance of the group's key.
pub(crate) fn groups_of(keys: &[u64]) -> Vec<Vec<usize>> {
    let mut place_of = BTreeMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (item, &key) in keys.iter().enumerate() {
        let place = *place_of.entry(key).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Vec::new());
        }
        groups[place].push(item);
    }
    groups
}

/// Interval of `statistic` over resampled items; resamples of which it says nothing are left out.
///
/// `None` for fewer than two groups, or where no resample gives a number.
pub(crate) fn percentile_interval(
    groups: &[Vec<usize>],
    bootstrap: Bootstrap,
    statistic: &mut dyn FnMut(&[usize]) -> Option<f64>,
) -> Option<Interval> {
    if groups.len() < 2 {
        return None;
    }
    let stream = SampleStream::new(
        bootstrap.seed,
        PromptKey(groups.len() as u64),
        1,
        Purpose::Bootstrap,
    );
    let mut items = Vec::new();
    let mut values = Vec::new();
    for resample in 0..u64::from(bootstrap.num_resamples.max(1)) {
        let mut rng = stream.rng(resample);
        items.clear();
        for _ in groups {
            items.extend_from_slice(&groups[index_below(groups.len(), rng.next_u64())]);
        }
        values.extend(statistic(&items).filter(|value| value.is_finite()));
    }
    if values.is_empty() {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let tail = (1.0 - bootstrap.level) / 2.0;
    Some(Interval {
        lo: quantile(&values, tail),
        hi: quantile(&values, 1.0 - tail),
    })
}

#[cfg(test)]
mod tests {
    use trimtab_base::Seed;

    use super::*;

    #[test]
    fn groups_keep_their_items_together() {
        assert_eq!(groups_of(&[7, 3, 7, 9]), [vec![0, 2], vec![1], vec![3]]);
        let groups = groups_of(&[1, 1, 2, 2]);
        let bootstrap = Bootstrap::of_seed(Seed(1));
        let interval = percentile_interval(&groups, bootstrap, &mut |items| {
            assert_eq!(items.len(), 4);
            Some(items.iter().filter(|&&item| item < 2).count() as f64 / 4.0)
        });
        // Of two groups a resample holds none, one or two.
        assert_eq!(interval, Some(Interval { lo: 0.0, hi: 1.0 }));
        assert_eq!(
            percentile_interval(&groups[..1], bootstrap, &mut |_| Some(1.0)),
            None
        );
        assert_eq!(percentile_interval(&groups, bootstrap, &mut |_| None), None);
    }

    /// The interval of a mean of normal values is about 1.96 standard errors to each side.
    #[test]
    fn means_have_the_width_of_their_error() {
        let values: Vec<f64> = (0..400).map(|idx| f64::from(idx % 20)).collect();
        let groups: Vec<Vec<usize>> = (0..400).map(|idx| vec![idx]).collect();
        let interval = percentile_interval(&groups, Bootstrap::of_seed(Seed(2)), &mut |items| {
            Some(items.iter().map(|&item| values[item]).sum::<f64>() / items.len() as f64)
        });
        let Interval { lo, hi } = interval.unwrap();
        let expect = 1.96 * (33.25_f64 / 400.0).sqrt();
        assert!(
            (9.5 - lo - expect).abs() < 0.06 && (hi - 9.5 - expect).abs() < 0.06,
            "{lo} {hi}"
        );
    }
}
