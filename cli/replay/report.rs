//! A replay for people: hit rates by capacity and policy, and what would raise them.

use super::grid::{Curve, Grid, Run};
use crate::output;
use policy::replay::cold_misses;
use policy::verdict::{Lever, Point, Verdict, working_set};

/// The table of the first `shown` curves, and the verdict on all of them.
pub(super) fn text(grid: &Grid, curves: &[Curve], shown: usize) -> String {
    let rates = rates(grid, &curves[..shown]);
    match verdicts(grid, curves).as_slice() {
        [] => rates,
        [only] => format!("{rates}\n{only}\n"),
        verdicts => format!(
            "{rates}\nWhere the misses are, in points of the hit rate:\n{}\n{}\n",
            gaps(verdicts),
            fits(verdicts)
        ),
    }
}

fn gaps(verdicts: &[Verdict]) -> String {
    let points = |share: f64| format!("{:.2}", 100.0 * share);
    let row = |verdict: &Verdict| {
        let lever = match verdict.lever() {
            Some(Lever::Policy) => "policy",
            Some(Lever::Capacity) => "more slots or fewer bits",
            Some(Lever::Start) => "warm start",
            None => "none needed",
        };
        let [policy, capacity, compulsory] =
            [verdict.policy_gap, verdict.capacity_gap, verdict.compulsory_gap].map(points);
        [verdict.capacity.to_string(), verdict.policy.clone(), policy, capacity, compulsory, lever.to_owned()]
    };
    let header =
        ["slots", "best policy", "a better policy wins", "working set", "first demands", "largest lever"];
    output::numbers(header.map(String::from), verdicts.iter().map(row))
}

fn fits(verdicts: &[Verdict]) -> String {
    match working_set(verdicts) {
        Some(slots) => format!("The working set fits from {slots} slots on."),
        None => "The working set fits in none of these.".to_owned(),
    }
}

/// Hit rates in per cent. Capacities and policies: what there are more of goes down, so that the table stays narrow.
fn rates(grid: &Grid, curves: &[Curve]) -> String {
    let mut columns: Vec<_> = grid.policies.iter().zip(curves).collect();
    columns.sort_by_key(|(policy, _)| policy.entry.clairvoyant);
    let titled = |title: &str, cells: Vec<String>| [vec![title.to_owned()], cells].concat();
    let sizes = &grid.sizes;
    let slots = titled("slots", sizes.iter().map(|size| size.slots.to_string()).collect());
    let memory: Vec<String> =
        sizes.iter().filter_map(|size| size.bytes.map(|bytes| bytes.to_string())).collect();
    let memory = (!memory.is_empty()).then(|| titled("memory", memory));
    let rates = columns.iter().map(|(policy, curve)| {
        let rate = |run: &Run| format!("{:.2}", 100.0 * run.hit_rate);
        titled(&format!("{} %", policy.entry.name), curve.iter().map(rate).collect())
    });
    let mut lines: Vec<Vec<String>> = std::iter::once(slots).chain(memory).chain(rates).collect();
    if curves.len() <= sizes.len() {
        lines = (0..=sizes.len()).map(|row| lines.iter().map(|line| line[row].clone()).collect()).collect();
    }
    let mut lines = lines.into_iter();
    let header = lines.next().unwrap_or_default();
    output::numbers(header, lines)
}

/// One for each capacity; none without a policy that does not know the future.
fn verdicts(grid: &Grid, curves: &[Curve]) -> Vec<Verdict> {
    let cold_misses = cold_misses(grid.demands, grid.reset);
    let verdict = |index: usize| {
        let runs = |clairvoyant: bool| {
            let of_kind = grid.policies.iter().zip(curves);
            of_kind
                .filter(move |(policy, _)| policy.entry.clairvoyant == clairvoyant)
                .map(move |(_, curve)| &curve[index])
        };
        // Of equals, the one named first.
        let best = runs(false).reduce(|best, run| if run.hits > best.hits { run } else { best })?;
        let bound = runs(true).next()?;
        let &Run { capacity_slots: capacity, accesses, .. } = best;
        Some(Verdict::new(&Point {
            capacity,
            accesses,
            cold_misses,
            best: (best.policy, best.hits),
            bound: bound.hits,
        }))
    };
    (0..grid.sizes.len()).filter_map(verdict).collect()
}
