//! Medians and their 95% intervals, from the order of the values alone: no shape is assumed.

/// A median with its 95% interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Lower end of the interval.
    pub low: f64,
    /// The median.
    pub median: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Estimate {
    /// Width of the interval as a part of the median.
    pub fn width(self) -> f64 {
        match self.median == 0.0 {
            true => 0.0,
            false => (self.high - self.low) / self.median.abs(),
        }
    }
}

/// Chance that the median lies outside of the interval.
const OUTSIDE: f64 = 0.05;

/// Median and interval of values, of which there is at least one. Below six values no interval
/// holds 95%; the widest that there is stands for it.
pub fn estimate(values: &[f64]) -> Estimate {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let cut = cut(count);
    let middle = count / 2;
    let median = match count % 2 {
        0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    };
    Estimate {
        low: sorted[cut],
        median,
        high: sorted[count - 1 - cut],
    }
}

/// How many values may be left out at each end: the largest number for which a fair coin, thrown
/// `count` times, shows that many heads or fewer in at most 2.5% of all cases.
fn cut(count: usize) -> usize {
    let mut chance = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut sum = 0.0;
    let mut cut = 0;
    for heads in 0..count / 2 {
        sum += chance;
        if sum > OUTSIDE / 2.0 {
            break;
        }
        cut = heads;
        let (left, right) = (to_f64(count - heads), to_f64(heads + 1));
        chance *= left / right;
    }
    cut
}

#[expect(clippy::cast_precision_loss, reason = "counts of pairs are small")]
fn to_f64(count: usize) -> f64 {
    count as f64
}

/// The value below which this part of the values lies; there is at least one.
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let wanted = (to_f64(sorted.len()) * part).ceil();
    let index = (1..=sorted.len()).find(|&rank| to_f64(rank) >= wanted);
    sorted[index.map_or(0, |rank| rank - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_has_the_ranks_of_the_tables() {
        // Ranks of the 95% interval of a median, from 0: 6 values all, 9 the second to the
        // eighth, 15 the fourth to the twelfth, 20 the sixth to the fifteenth.
        for (count, expected) in [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (15, 3), (20, 5)] {
            assert_eq!(cut(count), expected, "{count}");
        }
    }

    #[test]
    fn median_and_width() {
        let nine: Vec<f64> = (1..=9).rev().map(f64::from).collect();
        let found = estimate(&nine);
        assert_eq!((found.low, found.median, found.high), (2.0, 5.0, 8.0));
        assert!((found.width() - 1.2).abs() < 1e-12);
        assert_eq!(estimate(&[1.0, 3.0]).median, 2.0);
    }

    #[test]
    fn percentiles_take_a_measured_value() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 0.99), 99.0);
        assert_eq!(percentile(&hundred, 0.5), 50.0);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
    }
}
