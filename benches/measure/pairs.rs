//! Pairs: two ways of doing the same, in turns, and their ratio with its interval.

/// A ratio of two figures that were taken in pairs.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    /// The geometric mean of the ratios of the pairs.
    pub value: f64,
    /// Where the mean lies with 95 % confidence, by Student's t on the logarithms.
    pub interval: (f64, f64),
}

/// Runs `ours` and `theirs` `rounds` times each, in turns, whoever was second being first the next time, and returns
/// what they measured. What the machine does beside hits both alike.
pub fn alternate<E>(
    rounds: usize,
    mut ours: impl FnMut() -> Result<f64, E>,
    mut theirs: impl FnMut() -> Result<f64, E>,
) -> Result<Vec<(f64, f64)>, E> {
    let mut pairs = Vec::with_capacity(rounds);
    for round in 0..rounds {
        pairs.push(if round % 2 == 0 {
            let first = ours()?;
            (first, theirs()?)
        } else {
            let first = theirs()?;
            (ours()?, first)
        });
    }
    Ok(pairs)
}

/// The two-sided 95 % quantiles of Student's t by degrees of freedom.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

impl Ratio {
    /// Of the first figures to the second.
    #[must_use]
    pub fn of(pairs: &[(f64, f64)]) -> Self {
        let logarithms: Vec<f64> = pairs.iter().map(|(ours, theirs)| (ours / theirs).ln()).collect();
        let count = logarithms.len() as f64;
        let mean = logarithms.iter().sum::<f64>() / count;
        let squares: f64 = logarithms.iter().map(|value| (value - mean).powi(2)).sum();
        let half = match logarithms.len().checked_sub(2) {
            Some(freedom) => {
                let quantile = STUDENT.get(freedom).copied().unwrap_or(1.96);
                quantile * (squares / (count - 1.0) / count).sqrt()
            }
            None => f64::INFINITY,
        };
        Self { value: mean.exp(), interval: ((mean - half).exp(), (mean + half).exp()) }
    }
}

/// The value that so large a share lies below or at; not a number where there is none.
#[must_use]
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

/// Sorts figures, for [`percentile`].
#[must_use]
pub fn sorted(mut figures: Vec<f64>) -> Vec<f64> {
    figures.sort_by(f64::total_cmp);
    figures
}

/// The figure in the middle.
#[must_use]
pub fn median(figures: &[f64]) -> f64 {
    percentile(&sorted(figures.to_vec()), 0.5)
}
