//! What the runs of a cell say of its policies: estimates, ranks, and which differences are differences.

use super::regime::{Pressure, bound_s, stall_s};
use super::{Cell, Measured, Regime};
use crate::metric::{METRICS, STALL, Values};
use crate::statistics::{Bootstrap, Estimate, SIGNIFICANCE, holm, pairs_needed, signed_rank};
use indexmap::IndexMap;
use serde::Serialize;

/// One policy in one cell. The best policy is the one with the least mean stall among those that do not know the future;
/// only these are ranked.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// The scenario.
    pub scenario: String,
    /// What the sweeps set.
    pub sweep: IndexMap<String, String>,
    /// The policy, and where its parameters are from if they have a name.
    pub policy: String,
    /// Its parameters.
    pub params: IndexMap<&'static str, f64>,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The cell's regime.
    pub regime: Regime,
    /// What the regime is told by.
    #[serde(flatten)]
    pub pressure: Pressure,
    /// Each figure over the seeds; nulls where the runs have no sample of it.
    #[serde(flatten)]
    pub metrics: IndexMap<&'static str, Estimate>,
    /// The least mean stall any policy could have, in seconds: what the working set costs. Null where it is not known.
    pub stall_bound_s: Option<f64>,
    /// Mean stall beyond that, in seconds: what a better policy could save.
    pub stall_over_bound_s: Option<f64>,
    /// Mean stall beyond the best policy's, as a share of it; null for a policy that knows the future, and where the best
    /// has no stall and this one has some.
    pub regret: Option<f64>,
    /// Mean stall over the best policy's, resampled in pairs.
    pub ratio_to_best: Option<Estimate>,
    /// Rank by mean stall, 1 is best, equal means share theirs; null for a policy that knows the future.
    pub rank: Option<usize>,
    /// Whether the corrected test cannot tell its stall from the best one's. With too few seeds that is so of every policy.
    pub tie: bool,
    /// Whether there are seeds enough, and runs that differ, for the test to tell anything.
    pub tested: bool,
    /// The fewest seeds with which it could.
    pub seeds_needed: usize,
    /// Wilcoxon's signed-rank test against the best policy, paired by seed; null for the best and where nothing is tested.
    pub p_value: Option<f64>,
    /// The same after Holm's correction over the policies of the cell.
    pub p_holm: Option<f64>,
    /// Matched-pairs rank-biserial correlation of the stall with the best one's: 1 where it is more with every seed.
    pub rank_biserial: Option<f64>,
}

/// What a test against the best policy says.
struct Tested {
    p_value: f64,
    p_holm: f64,
    rank_biserial: f64,
}

/// Compares the policies of a cell, in the order of its contenders.
pub fn compare(cell: &Cell, measured: &Measured) -> Vec<Compared> {
    let runs = &measured.runs;
    let ranked: Vec<usize> = (0..runs.len()).filter(|&i| !cell.contenders[i].entry.clairvoyant).collect();
    let best = ranked.iter().copied().min_by(|&a, &b| stall_s(&runs[a]).total_cmp(&stall_s(&runs[b])));
    let resamples = Bootstrap::new(cell.cases.len());
    let seeds_needed = pairs_needed(ranked.len().saturating_sub(1));
    let tested = cell.cases.len() >= seeds_needed && ranked.len() > 1 && !alike(runs);
    let tests = best.filter(|_| tested).map(|best| tests(runs, &ranked, best)).unwrap_or_default();
    let pressure = Pressure::new(measured);
    let bound = bound_s(measured);
    let compared = cell.contenders.iter().enumerate().map(|(index, contender)| {
        let best = best.filter(|_| ranked.contains(&index));
        let stall = stall_s(&runs[index]);
        let column =
            |of: usize, place: usize| runs[of].iter().map(|values| values[place]).collect::<Vec<_>>();
        let figures = METRICS.iter().enumerate();
        let metrics = figures.map(|(place, metric)| (metric.name, resamples.mean(&column(index, place))));
        let test = tests.get(&index);
        Compared {
            scenario: cell.scenario.clone(),
            sweep: cell.sweep.clone(),
            policy: contender.label.clone(),
            params: contender
                .entry
                .params
                .iter()
                .map(|param| param.name)
                .zip(contender.params.clone())
                .collect(),
            seeds: cell.seeds(),
            regime: pressure.regime(),
            pressure,
            metrics: metrics.collect(),
            stall_bound_s: bound,
            stall_over_bound_s: bound.map(|bound| stall - bound),
            regret: best.and_then(|best| regret(stall, stall_s(&runs[best]))),
            ratio_to_best: best.map(|best| resamples.ratio(&column(index, STALL), &column(best, STALL))),
            rank: best.map(|_| 1 + ranked.iter().filter(|&&other| stall_s(&runs[other]) < stall).count()),
            tie: best.is_some() && test.is_none_or(|test| test.p_holm > SIGNIFICANCE),
            tested,
            seeds_needed,
            p_value: test.map(|test| test.p_value),
            p_holm: test.map(|test| test.p_holm),
            rank_biserial: test.map(|test| test.rank_biserial),
        }
    });
    compared.collect()
}

/// Stall beyond the best one's, as a share of it.
fn regret(stall: f64, best: f64) -> Option<f64> {
    match best > 0.0 {
        true => Some(stall / best - 1.0),
        false => (stall <= best).then_some(0.0),
    }
}

/// Whether all seeds gave the same runs: then there is one run, however many seeds there are.
fn alike(runs: &[Vec<Values>]) -> bool {
    let bits = |values: &Values| values.map(f64::to_bits);
    runs.iter().all(|runs| runs.windows(2).all(|pair| bits(&pair[0]) == bits(&pair[1])))
}

/// Every policy but the best against the best, by its place among the contenders.
fn tests(runs: &[Vec<Values>], ranked: &[usize], best: usize) -> IndexMap<usize, Tested> {
    // Stall is counted in whole nanoseconds; what is less is rounding.
    let nanos = |a: &Values, b: &Values| ((a[STALL] - b[STALL]) * 1e9).round();
    let others: Vec<usize> = ranked.iter().copied().filter(|&other| other != best).collect();
    let against = |other: &usize| {
        let differences: Vec<f64> = runs[*other].iter().zip(&runs[best]).map(|(a, b)| nanos(a, b)).collect();
        signed_rank(&differences)
    };
    let tests: Vec<_> = others.iter().map(against).collect();
    let corrected = holm(&tests.iter().map(|test| test.p).collect::<Vec<_>>());
    let all = tests.iter().zip(corrected).map(|(test, p_holm)| Tested {
        p_value: test.p,
        p_holm,
        rank_biserial: test.rank_biserial,
    });
    others.into_iter().zip(all).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{Contender, Standing, standings};
    use crate::metric::place;
    use policy::registry::lookup;

    /// A cell of these contenders with made-up runs.
    fn cell(names: &[&str], seeds: usize) -> Cell {
        let text = include_str!("../../../scenarios/quickstart.yaml");
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios/quickstart.yaml");
        let scenario = scenarios::load_text(file, text, &[], &crate::resolve::check_policy).unwrap();
        let case = crate::Case::from_scenario(&scenario).unwrap();
        let contender = |name: &&str| {
            let entry = lookup(name).unwrap();
            let params = entry.params.iter().map(|param| param.default).collect();
            Contender { label: (*name).to_owned(), entry, params }
        };
        Cell {
            scenario: "made up".to_owned(),
            sweep: IndexMap::new(),
            cases: (0..seeds as u64).map(|seed| crate::Case { seed, ..case.clone() }).collect(),
            contenders: names.iter().map(contender).collect(),
        }
    }

    /// Runs with these stalls, each on a link as busy and as stalled as said.
    fn runs(stalls: &[f64], busy: f64, stalled: f64) -> Vec<Values> {
        let run = |&stall_s: &f64| {
            let mut values = [0.0; METRICS.len()];
            let figures = [("stall_s", stall_s), ("link_utilization", busy), ("stall_fraction", stalled)];
            figures
                .into_iter()
                .chain([("compute_s", 1.0)])
                .for_each(|(name, v)| values[place(name).unwrap()] = v);
            values
        };
        stalls.iter().map(run).collect()
    }

    fn measured(stalls: &[&[f64]], bound: f64) -> Measured {
        let runs: Vec<_> = stalls.iter().map(|stalls| runs(stalls, 0.9, 0.5)).collect();
        Measured { reference: runs[0].clone(), bounds: vec![Some(bound); stalls[0].len()], runs }
    }

    #[test]
    fn a_difference_in_every_seed_is_told_and_noise_is_a_tie() {
        let noise = [0.3, -0.2, 0.1, -0.4, 0.25, -0.15, 0.05, -0.35];
        let base = [10.0, 11.0, 9.5, 10.4, 12.0, 8.8, 10.1, 9.9];
        let worse: Vec<f64> = base.iter().zip(noise).map(|(b, n)| b + 5.0 + n).collect();
        let close: Vec<f64> = base.iter().zip(noise).map(|(b, n)| b + n + 0.1).collect();
        let compared = compare(
            &cell(&["lru", "lfu", "lfru", "belady"], 8),
            &measured(&[&base, &worse, &close, &[1.0; 8]], 0.5),
        );
        let of = |i: usize| (compared[i].rank, compared[i].tie, compared[i].tested);
        assert_eq!(
            [of(0), of(1), of(2), of(3)],
            [(Some(1), true, true), (Some(3), false, true), (Some(2), true, true), (None, false, true)]
        );
        // Two comparisons: 2 * 2 / 2^8.
        assert_eq!((compared[1].p_value, compared[1].p_holm), (Some(2.0 / 256.0), Some(4.0 / 256.0)));
        assert_eq!((compared[1].rank_biserial, compared[0].p_value), (Some(1.0), None));
        assert_eq!((compared[0].regret, compared[3].regret), (Some(0.0), None));
        assert_eq!(compared[0].stall_over_bound_s, Some(base.iter().sum::<f64>() / 8.0 - 0.5));
        assert_eq!(compared[0].regime, Regime::Tight);
        let ratio = compared[1].ratio_to_best.unwrap();
        assert!(ratio.ci95_low > 1.3 && ratio.ci95_low < ratio.mean && ratio.mean < ratio.ci95_high);
    }

    #[test]
    fn standings_count_what_was_tested() {
        let base: Vec<f64> = (0..8).map(|i| 10.0 + f64::from(i)).collect();
        let worse: Vec<f64> = base.iter().map(|b| 2.0 * b).collect();
        // Four up, four down: no difference.
        let level: Vec<f64> = base.iter().zip([1.0, -1.0].into_iter().cycle()).map(|(b, d)| b + d).collect();
        let names = cell(&["lru", "lfu"], 8);
        let cells = [[&base, &worse], [&base, &level], [&worse, &base]];
        let cells = cells.map(|stalls| compare(&names, &measured(&stalls.map(Vec::as_slice), 0.0)));
        let few = compare(&cell(&["lru", "lfu"], 1), &measured(&[&[1.0], &[3.0]], 0.0));
        let all = standings(&[&cells[..], &[few]].concat(), None);
        let of = |each: &Standing| (each.cells, each.first, each.wins, each.ties, each.losses);
        assert_eq!((of(&all[0]), of(&all[1])), ((4, 3, 1, 1, 1), (4, 2, 1, 1, 1)));
        assert_eq!((all[0].mean_rank, all[1].mean_rank), (1.25, 1.5));
        // Over the best: 1, 1, 2, 1; and 2, 1, 1, 3.
        assert_eq!((all[0].median_ratio, all[1].median_ratio), (Some(1.0), Some(1.5)));
        assert!(standings(&cells, Some(Regime::Slack)).is_empty());
    }

    #[test]
    fn few_seeds_and_equal_runs_tell_nothing() {
        let few =
            compare(&cell(&["lru", "lfu"], 5), &measured(&[&[1.0, 2.0, 3.0, 4.0, 5.0], &[9.0; 5]], 0.0));
        assert!(few.iter().all(|each| !each.tested && each.tie && each.seeds_needed == 6));
        assert_eq!((few[1].p_holm, few[1].rank), (None, Some(2)));
        let same = compare(&cell(&["lru", "lfu"], 8), &measured(&[&[1.0; 8], &[9.0; 8]], 0.0));
        assert!(same.iter().all(|each| !each.tested && each.tie));
    }

    #[test]
    fn without_stall_everyone_is_first() {
        let none = compare(&cell(&["lru", "lfu"], 1), &measured(&[&[0.0], &[0.0]], 0.0));
        assert!(none.iter().all(|each| each.rank == Some(1) && each.regret == Some(0.0)));
        let some = compare(&cell(&["lru", "lfu"], 1), &measured(&[&[0.0], &[1.0]], 0.0));
        assert_eq!((some[1].rank, some[1].regret), (Some(2), None));
    }
}
