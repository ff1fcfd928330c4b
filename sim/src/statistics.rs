//! What may be said of a few paired measurements: intervals, tests and corrections.

mod bootstrap;
mod signed_rank;

pub use bootstrap::{Bootstrap, Estimate};
pub use signed_rank::{SignedRank, signed_rank};

/// The level at which a difference counts as one.
pub const SIGNIFICANCE: f64 = 0.05;

/// Holm's step-down correction (Scandinavian Journal of Statistics 1979): the p-values in the same order, made to hold
/// for all of them together, under any dependence between them.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]).then(a.cmp(&b)));
    let mut adjusted = vec![0.0; p.len()];
    let mut least: f64 = 0.0;
    for (place, &index) in order.iter().enumerate() {
        least = least.max(p[index] * (p.len() - place) as f64).min(1.0);
        adjusted[index] = least;
    }
    adjusted
}

/// The fewest pairs with which `comparisons` signed-rank tests can come out significant after Holm's correction: `n`
/// pairs that all agree have p = 2 / 2^n.
pub fn pairs_needed(comparisons: usize) -> usize {
    let reachable = |pairs: &usize| {
        let p = 2.0 * 0.5_f64.powi(i32::try_from(*pairs).unwrap_or(i32::MAX));
        p * comparisons.max(1) as f64 <= SIGNIFICANCE
    };
    // Even 2^64 comparisons need no more than 70.
    (1..128).find(reachable).unwrap_or(128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holm_is_as_statsmodels_has_it() {
        // multipletests([0.01, 0.04, 0.03, 0.005, 0.9], method="holm")[1], statsmodels 0.14.
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005, 0.9]);
        for (ours, theirs) in adjusted.iter().zip([0.04, 0.09, 0.09, 0.025, 0.9]) {
            assert!((ours - theirs).abs() < 1e-12, "{adjusted:?}");
        }
        assert_eq!(holm(&[0.7, 0.6]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn a_test_needs_so_many_pairs() {
        // 2/2^6 = 0.031; with six comparisons 6 * 2/2^8 = 0.047.
        assert_eq!((pairs_needed(1), pairs_needed(2), pairs_needed(6)), (6, 7, 8));
        assert_eq!(pairs_needed(0), 6);
    }
}
