//! Confidence intervals by resampling: bias-corrected and accelerated (BCa: Efron, JASA 1987).

use crate::report::percentile;
use rand_distr::{Distribution, Uniform};
use rand_pcg::Pcg64Mcg;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, Normal};

/// Resamples of an interval. The ends of a 95 % interval have 125 of them outside each.
const RESAMPLES: usize = 5000;
/// The resamples are the same in every run.
const SEED: u128 = 0x0062_6f6f_7473_7472_6170;
/// The share of the resamples on either side of an interval, and the middle.
const TAILS: [f64; 2] = [0.025, 0.975];

/// A figure of a sample with its 95 % confidence interval; with one measurement the interval is the figure itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The figure: a mean, or a ratio of means.
    pub mean: f64,
    /// Lower end of its interval.
    pub ci95_low: f64,
    /// Upper end.
    pub ci95_high: f64,
}

/// The resamples of `n` measurements. Figures that are compared share them, so that pairs stay together.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    measurements: usize,
    /// For each resample, which measurements it draws.
    drawn: Vec<usize>,
}

impl Bootstrap {
    /// The resamples of this many measurements.
    pub fn new(measurements: usize) -> Bootstrap {
        let mut random = Pcg64Mcg::new(SEED);
        let drawn = match Uniform::new(0, measurements) {
            Ok(any) => any.sample_iter(&mut random).take(RESAMPLES * measurements).collect(),
            Err(_) => Vec::new(),
        };
        Bootstrap { measurements, drawn }
    }

    /// The mean of a sample of as many measurements.
    pub fn mean(&self, sample: &[f64]) -> Estimate {
        let mean = |drawn: &[usize]| drawn.iter().map(|&i| sample[i]).sum::<f64>() / drawn.len() as f64;
        // Without spread every resample is the sample.
        if sample.windows(2).all(|pair| pair[0] == pair[1]) {
            let mean = mean(&(0..sample.len()).collect::<Vec<_>>());
            return Estimate { mean, ci95_low: mean, ci95_high: mean };
        }
        self.estimate(mean)
    }

    /// The mean of one sample over the mean of the other, measurements paired; infinite where the other is zero.
    pub fn ratio(&self, above: &[f64], below: &[f64]) -> Estimate {
        self.estimate(|drawn| {
            let sum = |sample: &[f64]| drawn.iter().map(|&i| sample[i]).sum::<f64>();
            match (sum(above), sum(below)) {
                (0.0, 0.0) => 1.0,
                (above, below) => above / below,
            }
        })
    }

    fn estimate(&self, figure: impl Fn(&[usize]) -> f64) -> Estimate {
        let all: Vec<usize> = (0..self.measurements).collect();
        let whole = figure(&all);
        if self.measurements < 2 {
            return Estimate { mean: whole, ci95_low: whole, ci95_high: whole };
        }
        let mut resampled: Vec<f64> = self.drawn.chunks_exact(self.measurements).map(&figure).collect();
        resampled.sort_by(f64::total_cmp);
        let left_out = |out: usize| figure(&all.iter().copied().filter(|&i| i != out).collect::<Vec<_>>());
        let left_out: Vec<f64> = all.iter().map(|&out| left_out(out)).collect();
        let [low, high] = TAILS.map(|tail| {
            let tail = corrected(tail, whole, &resampled, &left_out).unwrap_or(tail);
            percentile(&resampled, 100.0 * tail).unwrap_or(whole)
        });
        Estimate { mean: whole, ci95_low: low, ci95_high: high }
    }
}

/// Which share of the resamples lies beyond the end of an interval, bias and skew taken into account. `None` where they
/// cannot be told: all resamples on one side, or no spread at all.
fn corrected(tail: f64, whole: f64, resampled: &[f64], left_out: &[f64]) -> Option<f64> {
    let normal = Normal::standard();
    let below = resampled.iter().filter(|&&value| value < whole).count() as f64;
    let equal = resampled.iter().filter(|&&value| value == whole).count() as f64;
    let bias = normal.inverse_cdf((below + 0.5 * equal) / resampled.len() as f64);
    let mean = left_out.iter().sum::<f64>() / left_out.len() as f64;
    let power = |n: i32| left_out.iter().map(|value| (mean - value).powi(n)).sum::<f64>();
    let acceleration = power(3) / (6.0 * power(2).powf(1.5));
    let shifted = bias + normal.inverse_cdf(tail);
    let z = bias + shifted / (1.0 - acceleration * shifted);
    z.is_finite().then(|| normal.cdf(z))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const X: [f64; 8] = [8.1, 9.4, 7.7, 12.9, 10.2, 9.9, 8.8, 21.5];
    const Y: [f64; 8] = [6.0, 8.9, 7.0, 10.1, 9.9, 9.0, 8.0, 15.5];

    fn near(ours: Estimate, mean: f64, low: f64, high: f64, within: f64) {
        assert!((ours.mean - mean).abs() < 1e-12, "{ours:?}");
        assert!((ours.ci95_low - low).abs() < within && (ours.ci95_high - high).abs() < within, "{ours:?}");
    }

    #[test]
    fn intervals_are_as_scipy_has_them() {
        // scipy.stats.bootstrap((x,), np.mean, method="BCa", n_resamples=400000) and of x.mean() / y.mean(), paired=True:
        // scipy 1.17.1, other draws.
        let resamples = Bootstrap::new(X.len());
        near(resamples.mean(&X), 11.0625, 9.1125, 15.9125, 0.2);
        near(resamples.ratio(&X, &Y), 88.5 / 74.4, 1.1, 1.30986, 0.01);
    }

    #[test]
    fn without_spread_there_is_no_interval() {
        for sample in [&[7.0][..], &[7.0; 5]] {
            let same = Bootstrap::new(sample.len()).mean(sample);
            assert_eq!((same.mean, same.ci95_low, same.ci95_high), (7.0, 7.0, 7.0));
        }
        let zero = Bootstrap::new(3).ratio(&[0.0; 3], &[0.0; 3]);
        assert_eq!((zero.mean, zero.ci95_low, zero.ci95_high), (1.0, 1.0, 1.0));
    }

    #[test]
    fn nothing_has_no_mean() {
        assert!(Bootstrap::new(0).mean(&[]).mean.is_nan());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn an_interval_is_within_the_sample_and_moves_with_it(
            sample in prop::collection::vec(-50..50_i32, 2..12), by in -9..9_i32,
        ) {
            let plain: Vec<f64> = sample.iter().map(|&x| f64::from(x)).collect();
            let moved: Vec<f64> = sample.iter().map(|&x| f64::from(x + by)).collect();
            let resamples = Bootstrap::new(plain.len());
            let (here, there) = (resamples.mean(&plain), resamples.mean(&moved));
            let least = plain.iter().copied().fold(f64::INFINITY, f64::min);
            let most = plain.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(least - 1e-9 <= here.ci95_low && here.ci95_low <= here.ci95_high && here.ci95_high <= most + 1e-9);
            prop_assert!((there.mean - here.mean - f64::from(by)).abs() < 1e-9);
        }
    }
}
