//! A figure's axis: which range it shows, where its ticks are, how they read. Knows no mark, no SVG.

/// A linear axis from a data range to a range of the page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Axis {
    lo: f64,
    hi: f64,
    tick_step: f64,
    page_start: f64,
    page_end: f64,
}

impl Axis {
    /// An axis that shows all of `values` with a margin and lies between two page positions.
    ///
    /// `limits` are ends the quantity cannot pass (0 for a KL, 0 and 1 for a win rate); the margin stops there.
    pub(super) fn fitting(values: impl Iterator<Item = f64>, limits: (f64, f64), page: (f64, f64)) -> Self {
        let (mut lo, mut hi) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), value| {
                (lo.min(value), hi.max(value))
            });
        if lo > hi {
            (lo, hi) = (0.0, 1.0);
        }
        let span = hi - lo;
        let margin = if span > 0.0 {
            span * 0.06
        } else {
            hi.abs().max(1.0) * 0.1
        };
        lo = (lo - margin).max(limits.0);
        hi = (hi + margin).min(limits.1);
        // Three to six ticks.
        let tick_step = nice_step((hi - lo) / 6.0);
        Self {
            lo,
            hi,
            tick_step,
            page_start: page.0,
            page_end: page.1,
        }
    }

    /// Page position of a value.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = (value - self.lo) / (self.hi - self.lo);
        self.page_start + share.clamp(0.0, 1.0) * (self.page_end - self.page_start)
    }

    /// Tick values with their texts, ascending.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let (first, last) = (
            (self.lo / self.tick_step).ceil(),
            (self.hi / self.tick_step + 1e-9).floor(),
        );
        let num_decimals = (-self.tick_step.log10().floor()).max(0.0) as usize;
        (first as i64..=last as i64)
            .map(|idx| {
                let value = idx as f64 * self.tick_step;
                (value, with_minus(&format!("{value:.num_decimals$}")))
            })
            .collect()
    }
}

/// The text with a proper minus sign in place of a hyphen.
pub(super) fn with_minus(number: &str) -> String {
    number.replace('-', "\u{2212}")
}

/// The least of 1, 2, 5 times a power of ten that is not below `at_least`.
fn nice_step(at_least: f64) -> f64 {
    let magnitude = 10.0_f64.powf(at_least.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|factor| factor * magnitude)
        .find(|&step| step >= at_least * 0.999_999)
        .unwrap_or(10.0 * magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[f64], limits: (f64, f64)) -> Vec<String> {
        let axis = Axis::fitting(values.iter().copied(), limits, (0.0, 100.0));
        axis.ticks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_numbers_around_the_data() {
        const FREE: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);
        let check = |values: &[f64], limits: (f64, f64), expect: &str| {
            assert_eq!(texts(values, limits).join(" "), expect);
        };
        check(&[0.0, 1.83], (0.0, f64::INFINITY), "0.0 0.5 1.0 1.5");
        check(&[0.5, 0.93], (0.0, 1.0), "0.5 0.6 0.7 0.8 0.9");
        check(&[0.1, 1.0], (0.0, 1.0), "0.2 0.4 0.6 0.8 1.0");
        check(
            &[-3.1, -2.2],
            FREE,
            "\u{2212}3.0 \u{2212}2.8 \u{2212}2.6 \u{2212}2.4 \u{2212}2.2",
        );
        check(&[12.0, 1024.0], (0.0, f64::INFINITY), "0 200 400 600 800 1000");
    }

    #[test]
    fn degenerate_ranges_still_make_an_axis() {
        for values in [vec![], vec![0.0], vec![-7.0, -7.0], vec![f64::NAN]] {
            let axis = Axis::fitting(
                values.iter().copied(),
                (f64::NEG_INFINITY, f64::INFINITY),
                (0.0, 100.0),
            );
            assert!(axis.ticks().len() >= 2, "{values:?}");
            assert!(axis.at(-7.0).is_finite());
        }
    }

    #[test]
    fn the_page_may_run_downwards() {
        let axis = Axis::fitting([0.0, 1.0].into_iter(), (0.0, 1.0), (300.0, 20.0));
        assert_eq!((axis.at(0.0), axis.at(1.0)), (300.0, 20.0));
    }
}
