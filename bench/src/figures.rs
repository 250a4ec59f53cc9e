//! What becomes of many measured values: one that stands for them.

use std::time::Duration;

/// The middle one; of an even number, the higher of the two.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The lowest value, in milliseconds, that so many of a hundred do not exceed.
pub(crate) fn percentile(values: &[Duration], of_hundred: usize) -> f64 {
    let mut sorted = values.to_vec();
    let rank = (sorted.len() * of_hundred).div_ceil(100).max(1);
    if rank > sorted.len() {
        return f64::NAN;
    }
    let (_, value, _) = sorted.select_nth_unstable(rank - 1);
    value.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 3.0);
        assert_eq!(median(&[7.0]), 7.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_percentile_is_the_lowest_value_that_so_many_do_not_exceed() {
        let hundred: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&hundred, 50), 50.0);
        assert_eq!(percentile(&hundred, 99), 99.0);
        assert_eq!(percentile(&hundred, 100), 100.0);
        assert_eq!(percentile(&hundred[..1], 50), 100.0);
        assert_eq!(percentile(&hundred[..3], 50), 99.0);
        assert!(percentile(&[], 50).is_nan());
    }
}
