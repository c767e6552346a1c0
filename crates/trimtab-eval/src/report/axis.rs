//! A figure's axis: which range it shows, where its ticks are, how they read. Knows no mark, no SVG.

/// A linear or logarithmic axis from a data range to a range of the page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Axis {
    /// Ends of the range; their logarithms on a logarithmic axis.
    lo: f64,
    hi: f64,
    ticks: Ticks,
    page_start: f64,
    page_end: f64,
}

/// Where ticks are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ticks {
    /// At multiples of a step.
    Every(f64),
    /// At 1, 2 and 5 times powers of ten, on a logarithmic axis.
    Decades,
    /// At powers of two, on a logarithmic axis.
    Doublings,
}

/// Ranges that span less than this factor are shown on linear axes, where they have more ticks.
const MIN_LOG_RANGE: f64 = 8.0;

impl Axis {
    /// A logarithmic axis that shows all of `values` with a margin; a linear one from zero where some value is not
    /// positive or all are near to each other.
    pub(super) fn log_fitting(values: impl Iterator<Item = f64> + Clone, page: (f64, f64)) -> Self {
        let (lo, hi) = positive_ends(values.clone());
        if lo <= 0.0 || hi / lo < MIN_LOG_RANGE || lo > hi {
            return Self::fitting(values.chain([0.0]), (0.0, f64::INFINITY), page);
        }
        Self::logarithmic((lo, hi), Ticks::Decades, page)
    }

    /// A logarithmic axis with ticks at powers of two; a linear one where fewer than two of these lie among the values.
    pub(super) fn doublings(values: impl Iterator<Item = f64> + Clone, page: (f64, f64)) -> Self {
        let (lo, hi) = positive_ends(values.clone());
        if lo <= 0.0 || lo > hi || hi.log2().floor() - lo.log2().ceil() < 1.0 {
            return Self::fitting(values, (f64::NEG_INFINITY, f64::INFINITY), page);
        }
        Self::logarithmic((lo, hi), Ticks::Doublings, page)
    }

    /// Between two positive numbers, with a margin.
    fn logarithmic((lo, hi): (f64, f64), ticks: Ticks, page: (f64, f64)) -> Self {
        let margin = (hi / lo).ln() * 0.06;
        Self {
            lo: lo.ln() - margin,
            hi: hi.ln() + margin,
            ticks,
            page_start: page.0,
            page_end: page.1,
        }
    }

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
        Self {
            lo,
            hi,
            // Three to six of them.
            ticks: Ticks::Every(nice_step((hi - lo) / 6.0)),
            page_start: page.0,
            page_end: page.1,
        }
    }

    /// Page position of a value.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = match self.ticks {
            Ticks::Every(_) => value,
            Ticks::Decades | Ticks::Doublings => value.ln(),
        };
        let share = (value - self.lo) / (self.hi - self.lo);
        self.page_start + share.clamp(0.0, 1.0) * (self.page_end - self.page_start)
    }

    /// Tick values with their texts, ascending.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        match self.ticks {
            Ticks::Every(step) => self.linear_ticks(step),
            Ticks::Decades => self.decade_ticks(),
            Ticks::Doublings => self.doubling_ticks(),
        }
    }

    fn linear_ticks(&self, step: f64) -> Vec<(f64, String)> {
        let (first, last) = ((self.lo / step).ceil(), (self.hi / step + 1e-9).floor());
        let num_decimals = (-step.log10().floor()).max(0.0) as usize;
        (first as i64..=last as i64)
            .map(|idx| {
                let value = idx as f64 * step;
                (value, with_minus(&format!("{value:.num_decimals$}")))
            })
            .collect()
    }

    fn decade_ticks(&self) -> Vec<(f64, String)> {
        let (first, last) = (
            self.lo / std::f64::consts::LN_10,
            self.hi / std::f64::consts::LN_10,
        );
        (first.floor() as i32..=last.floor() as i32)
            .flat_map(|exponent| [1.0, 2.0, 5.0].map(|factor| factor * 10.0_f64.powi(exponent)))
            .filter(|value| (self.lo..=self.hi).contains(&value.ln()))
            .map(|value| (value, value.to_string()))
            .collect()
    }

    fn doubling_ticks(&self) -> Vec<(f64, String)> {
        let exponent = |end: f64| end / std::f64::consts::LN_2;
        (exponent(self.lo).ceil() as i32..=exponent(self.hi).floor() as i32)
            .map(|exponent| 2.0_f64.powi(exponent))
            .map(|value| (value, value.to_string()))
            .collect()
    }
}

/// The least and the greatest of the finite values, for an axis of positive ones.
fn positive_ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|value| value.is_finite());
    finite.fold((f64::INFINITY, 0.0_f64), |(lo, hi), value| {
        (lo.min(value), hi.max(value))
    })
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
    fn wide_ranges_of_positive_numbers_are_logarithmic() {
        let check = |values: &[f64], expect: &str| {
            let axis = Axis::log_fitting(values.iter().copied(), (0.0, 100.0));
            let texts: Vec<String> = axis.ticks().into_iter().map(|(_, text)| text).collect();
            assert_eq!(texts.join(" "), expect);
        };
        check(&[90.0, 5_800.0], "100 200 500 1000 2000 5000");
        check(&[0.4, 40.0], "0.5 1 2 5 10 20 50");
        check(&[90.0, 400.0], "0 100 200 300 400");
        check(&[0.0, 4_000.0], "0 1000 2000 3000 4000");
        assert!(Axis::log_fitting(std::iter::empty(), (0.0, 100.0)).ticks().len() >= 2);
        let axis = Axis::log_fitting([1.0, 100.0].into_iter(), (0.0, 100.0));
        assert!((axis.at(10.0) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn counts_that_double_have_even_distances() {
        let check = |values: &[f64], expect: &str| {
            let axis = Axis::doublings(values.iter().copied(), (0.0, 100.0));
            let texts: Vec<String> = axis.ticks().into_iter().map(|(_, text)| text).collect();
            assert_eq!(texts.join(" "), expect);
        };
        check(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0], "1 2 4 8 16 32");
        check(&[2.0, 3.0, 5.0], "2 4");
        check(&[5.0, 6.0, 7.0], "5.0 5.5 6.0 6.5 7.0");
        let axis = Axis::doublings([1.0, 16.0].into_iter(), (0.0, 100.0));
        assert!((axis.at(4.0) - 50.0).abs() < 1e-9);
        assert!(Axis::doublings(std::iter::empty(), (0.0, 100.0)).ticks().len() >= 2);
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
