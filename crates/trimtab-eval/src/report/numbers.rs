//! How numbers read in tables, for people. Knows no layout.

use super::axis::with_minus;
use crate::confidence::Interval;
use crate::frontier::FrontierPoint;
use crate::kl::KlKind;

/// A number with as many decimals as four significant digits need, at most three; a dash for one that is none.
pub(super) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "\u{2013}".to_owned();
    }
    let num_decimals = match value.abs() {
        large if large >= 1000.0 => 0,
        large if large >= 100.0 => 1,
        medium if medium >= 10.0 => 2,
        _ => 3,
    };
    with_minus(&format!("{value:.num_decimals$}"))
}

/// The same with its sign, whichever it is.
pub(super) fn signed(value: f64) -> String {
    let sign = if value > 0.0 { "+" } else { "" };
    format!("{sign}{}", number(value))
}

/// `[lo, hi]`, or what is said where there is no interval.
pub(super) fn interval(interval: Option<Interval>) -> String {
    interval.map_or_else(
        || "no interval".to_owned(),
        |ends| format!("[{}, {}]", number(ends.lo), number(ends.hi)),
    )
}

/// The KL with its kind: `≤ 1.835` for a bound, `≈` for an estimate.
pub(super) fn kl(point: &FrontierPoint) -> String {
    kl_of_kind(point.kl_nats, point.kl_kind)
}

/// A KL in nats with its kind, as [`kl`].
pub(super) fn kl_of_kind(kl_nats: f64, kind: KlKind) -> String {
    let sign = match kind {
        KlKind::Exact => "",
        KlKind::Bound => "\u{2264} ",
        KlKind::Estimate => "\u{2248} ",
    };
    format!("{sign}{}", number(kl_nats))
}

/// A probability as a percentage, e.g. `95%` or `99.5%`.
pub(super) fn percent(probability: f64) -> String {
    format!("{}%", (probability * 1000.0).round() / 10.0)
}

/// A name that fits beside an axis.
pub(super) fn shortened(name: &str) -> String {
    const MAX_CHARS: usize = 32;
    match name.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}\u{2026}", &name[..end]),
        None => name.to_owned(),
    }
}

/// A count with thin spaces between groups of three digits.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::new();
    for (idx, digit) in digits.chars().enumerate() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_four_digits() {
        let check = |value: f64, expect: &str| assert_eq!(number(value), expect);
        check(0.0, "0.000");
        check(-1.83512, "\u{2212}1.835");
        check(12.3456, "12.35");
        check(512.04, "512.0");
        check(20_480.4, "20480");
        check(f64::NAN, "\u{2013}");
        check(f64::NEG_INFINITY, "\u{2013}");
        assert_eq!(
            [signed(0.0123), signed(-0.5), signed(0.0)],
            ["+0.012", "\u{2212}0.500", "0.000"]
        );
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
    }
}
