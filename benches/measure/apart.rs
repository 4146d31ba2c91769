//! Apart: whether two lots of figures can be told from each other, by their means and by their shapes.

use crate::pairs::{percentile, sorted};

/// Welch's t of the means of two lots, whose spreads may differ; not a number for fewer than two figures each.
///
/// Beyond 4.5 in either direction a leak of time is commonly taken for shown (Goodwill and others, 2011).
#[must_use]
pub fn welch(one: &[f64], other: &[f64]) -> f64 {
    let moments = |lot: &[f64]| {
        let count = lot.len() as f64;
        let mean = lot.iter().sum::<f64>() / count;
        let squares: f64 = lot.iter().map(|figure| (figure - mean).powi(2)).sum();
        (mean, squares / (count - 1.0) / count)
    };
    let ((mean, spread), (of_other, spread_of_other)) = (moments(one), moments(other));
    (mean - of_other) / (spread + spread_of_other).sqrt()
}

/// Both lots without what lies above a percentile of the two together: a machine that does other things beside makes the
/// mean of the rest hard to see.
#[must_use]
pub fn cropped(one: &[f64], other: &[f64], share: f64) -> (Vec<f64>, Vec<f64>) {
    let most = percentile(&sorted(one.iter().chain(other).copied().collect()), share);
    let crop = |lot: &[f64]| lot.iter().copied().filter(|figure| *figure <= most).collect();
    (crop(one), crop(other))
}

/// The statistic of Kolmogorov and Smirnov, which is the widest gap between the shapes of two lots, and how likely so wide
/// a one is where both come from one source (the asymptotic series with Stephens' correction).
#[must_use]
pub fn kolmogorov_smirnov(one: &[f64], other: &[f64]) -> (f64, f64) {
    let (one, other) = (sorted(one.to_vec()), sorted(other.to_vec()));
    let share_at = |lot: &[f64], figure: f64| lot.partition_point(|other| *other <= figure) as f64 / lot.len() as f64;
    let gap = |figure: &f64| (share_at(&one, *figure) - share_at(&other, *figure)).abs();
    let widest = one.iter().chain(&other).map(gap).fold(0.0, f64::max);
    let root = ((one.len() * other.len()) as f64 / (one.len() + other.len()) as f64).sqrt();
    let scaled = (root + 0.12 + 0.11 / root) * widest;
    // The series does not converge where there is hardly a gap.
    if scaled < 0.2 {
        return (widest, 1.0);
    }
    let term = |number: i32| {
        let sign = if number % 2 == 1 { 2.0 } else { -2.0 };
        sign * (-2.0 * (f64::from(number) * scaled).powi(2)).exp()
    };
    (widest, (1..=100).map(term).sum::<f64>().clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-3
    }

    #[test]
    fn the_statistics_are_those_that_others_compute() {
        // By hand: means 3 and 4.5, spreads 2.5 / 5 and 3.5 / 6.
        let (one, other) = ([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert!(is_near(welch(&one, &other), -1.5 / (0.5_f64 + 3.5 / 6.0).sqrt()));
        let (gap, _) = kolmogorov_smirnov(&one, &other);
        assert!(is_near(gap, 1.0 / 3.0), "{gap}");
        assert!(is_near(kolmogorov_smirnov(&one, &one).1, 1.0));
    }

    #[test]
    fn lots_of_one_source_are_alike_and_a_shift_is_found() {
        let mut draws = crate::arrivals::Draws::new(7);
        let mut lot = |shift: f64| (0..2_000).map(|_| draws.below(1_000) as f64 + shift).collect::<Vec<_>>();
        let (one, other, shifted) = (lot(0.0), lot(0.0), lot(60.0));
        assert!(welch(&one, &other).abs() < 4.5 && kolmogorov_smirnov(&one, &other).1 > 0.001);
        assert!(welch(&one, &shifted) < -4.5 && kolmogorov_smirnov(&one, &shifted).1 < 0.001);
        let (one, other) = cropped(&one, &shifted, 0.5);
        assert!((1_990..2_020).contains(&(one.len() + other.len())), "half of them, and what is equal");
    }
}
