//! Wilcoxon's signed-rank test of paired differences (Biometrics Bulletin 1945), two-sided.
//!
//! Differences of zero are dropped, equal ones share their mean rank. Up to fifty pairs the p-value is exact given the
//! ranks, ties included: every pattern of signs is equally likely where neither side is better. Beyond, the sum of ranks
//! is taken as normal, with the variance of the ranks as they are and no correction for continuity.

use statrs::function::erf::erfc;

/// The most pairs whose patterns of signs are counted.
const EXACT: usize = 50;

/// What the test says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignedRank {
    /// The chance of ranks at least as one-sided where neither side is better.
    pub p: f64,
    /// Matched-pairs rank-biserial correlation (Kerby, Comprehensive Psychology 2014): the share of ranks with a positive
    /// difference less that with a negative one, from -1 to 1; 0 where all differences are zero.
    pub rank_biserial: f64,
}

/// Tests whether differences, none of them NaN, lean to one side.
pub fn signed_rank(differences: &[f64]) -> SignedRank {
    let mut sorted: Vec<f64> = differences.iter().copied().filter(|&d| d != 0.0).collect();
    sorted.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let ranks = double_ranks(&sorted);
    let total: usize = ranks.iter().sum();
    if total == 0 {
        return SignedRank { p: 1.0, rank_biserial: 0.0 };
    }
    let positive: usize = sorted.iter().zip(&ranks).filter(|(d, _)| **d > 0.0).map(|(_, rank)| rank).sum();
    let lesser = positive.min(total - positive);
    let p = if ranks.len() <= EXACT { exact(&ranks, lesser) } else { normal(&ranks, lesser) };
    SignedRank { p, rank_biserial: (2.0 * positive as f64 - total as f64) / total as f64 }
}

/// Twice the ranks of values sorted by size, so that the mean rank of equal ones is whole.
fn double_ranks(sorted: &[f64]) -> Vec<usize> {
    let mut ranks = Vec::with_capacity(sorted.len());
    for equal in sorted.chunk_by(|a, b| a.abs() == b.abs()) {
        let before = ranks.len();
        ranks.extend(std::iter::repeat_n(2 * before + equal.len() + 1, equal.len()));
    }
    ranks
}

/// The share of the patterns of signs with a sum at most `lesser` on either side.
fn exact(ranks: &[usize], lesser: usize) -> f64 {
    let total: usize = ranks.iter().sum();
    // The chance of each sum of the ranks so far.
    let mut chance = vec![0.0; total + 1];
    chance[0] = 1.0;
    let mut reached = 0;
    for &rank in ranks {
        reached += rank;
        for sum in (0..=reached).rev() {
            let with = if sum >= rank { chance[sum - rank] } else { 0.0 };
            chance[sum] = 0.5 * (chance[sum] + with);
        }
    }
    (2.0 * chance[..=lesser].iter().sum::<f64>()).min(1.0)
}

fn normal(ranks: &[usize], lesser: usize) -> f64 {
    let mean = ranks.iter().sum::<usize>() as f64 / 2.0;
    let variance = ranks.iter().map(|&rank| (rank * rank) as f64).sum::<f64>() / 4.0;
    let z = (lesser as f64 - mean) / variance.sqrt();
    erfc(-z / std::f64::consts::SQRT_2).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Plant heights of cross- and self-fertilised maize (Darwin 1876), the example of scipy's `wilcoxon`.
    const MAIZE: [f64; 15] =
        [6.0, 8.0, 14.0, 16.0, 23.0, 24.0, 28.0, 29.0, 41.0, -48.0, 49.0, 56.0, 60.0, -67.0, 75.0];

    #[test]
    fn small_samples_are_as_scipy_has_them() {
        // scipy.stats.wilcoxon(d).pvalue: W = 24, p = 0.041259765625.
        let maize = signed_rank(&MAIZE);
        assert!((maize.p - 0.041259765625).abs() < 1e-15, "{maize:?}");
        assert!((maize.rank_biserial - (96.0 - 24.0) / 120.0).abs() < 1e-15);
        // All of one sign: 2 / 2^n.
        for n in [5, 6, 8] {
            let same: Vec<f64> = (1..=n).map(f64::from).collect();
            assert!((signed_rank(&same).p - 2.0 * 0.5_f64.powi(n)).abs() < 1e-15);
            assert_eq!(signed_rank(&same).rank_biserial, 1.0);
        }
    }

    #[test]
    fn many_pairs_are_as_scipy_has_them() {
        // d = [((7 * i * i + 3 * i) % 113 - 47) / 10 for i in range(60)]; wilcoxon(d, method="approx").pvalue.
        let d: Vec<f64> = (0..60).map(|i| f64::from((7 * i * i + 3 * i) % 113 - 47) / 10.0).collect();
        let result = signed_rank(&d);
        assert!((result.p - GOLDEN_APPROX).abs() < 1e-9, "{result:?}");
    }
    const GOLDEN_APPROX: f64 = 0.645161844294485;

    #[test]
    fn nothing_is_no_difference() {
        assert_eq!(signed_rank(&[]), SignedRank { p: 1.0, rank_biserial: 0.0 });
        assert_eq!(signed_rank(&[0.0, -0.0]).p, 1.0);
        assert_eq!(signed_rank(&[0.0, 1.0, -1.0]), SignedRank { p: 1.0, rank_biserial: 0.0 });
    }

    /// The definition: all patterns of signs, one by one.
    fn by_counting(differences: &[f64]) -> f64 {
        let kept: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
        let rank = |d: &f64| {
            let below = kept.iter().filter(|other| other.abs() < d.abs()).count() as f64;
            let equal = kept.iter().filter(|other| other.abs() == d.abs()).count() as f64;
            below + (equal + 1.0) / 2.0
        };
        let ranks: Vec<f64> = kept.iter().map(rank).collect();
        let total: f64 = ranks.iter().sum();
        let sum =
            |signs: u32| (0..ranks.len()).filter(|i| signs >> i & 1 == 1).map(|i| ranks[i]).sum::<f64>();
        let seen = (0..kept.len()).filter(|&i| kept[i] > 0.0).fold(0, |signs, i| signs | 1 << i);
        let lesser = |signs| sum(signs).min(total - sum(signs));
        let patterns = 1_u32 << ranks.len();
        let as_rare = (0..patterns).filter(|&signs| lesser(signs) <= lesser(seen)).count();
        as_rare as f64 / f64::from(patterns)
    }

    proptest! {
        #[test]
        fn ties_and_zeros_are_counted_exactly(d in prop::collection::vec(-4_i32..=4, 0..10)) {
            let d: Vec<f64> = d.into_iter().map(f64::from).collect();
            prop_assert!((signed_rank(&d).p - by_counting(&d)).abs() < 1e-12);
        }

        #[test]
        fn the_sides_are_alike(d in prop::collection::vec(-100.0..100.0_f64, 0..70)) {
            let mirrored: Vec<f64> = d.iter().map(|d| -d).collect();
            let (there, back) = (signed_rank(&d), signed_rank(&mirrored));
            prop_assert!((there.p - back.p).abs() < 1e-12);
            prop_assert!((0.0..=1.0).contains(&there.p));
            prop_assert_eq!(there.rank_biserial, -back.rank_biserial);
        }
    }
}
