//! A replay for people: hit rates by capacity and policy, and what would raise them.

use super::grid::{Curve, Grid, Run};
use crate::output;
use policy::replay::cold_misses;
use policy::verdict::{Point, Verdict, working_set};

/// The table of the first `shown` curves, and the verdict on all of them.
pub(super) fn text(grid: &Grid, curves: &[Curve], shown: usize) -> String {
    let mut text = table(grid, &curves[..shown]);
    let verdicts = verdicts(grid, curves);
    if verdicts.is_empty() {
        return text;
    }
    verdicts.iter().for_each(|verdict| text += &format!("\n{verdict}\n"));
    text += &match working_set(&verdicts) {
        Some(slots) => format!("\nThe working set fits from {slots} slots on.\n"),
        None => "\nThe working set fits in none of these.\n".to_owned(),
    };
    text
}

fn table(grid: &Grid, curves: &[Curve]) -> String {
    let mut columns: Vec<_> = grid.policies.iter().zip(curves).collect();
    columns.sort_by_key(|(policy, _)| policy.entry.clairvoyant);
    let mut header = vec!["slots".to_owned()];
    header.extend(grid.sizes.iter().take(1).filter_map(|size| size.bytes.map(|_| "memory".to_owned())));
    header.extend(columns.iter().map(|(policy, _)| format!("{} %", policy.entry.name)));
    let row = |(index, size): (usize, &super::sizes::Size)| {
        let mut row = vec![size.slots.to_string()];
        row.extend(size.bytes.map(|bytes| bytes.to_string()));
        row.extend(columns.iter().map(|(_, curve)| format!("{:.2}", 100.0 * curve[index].hit_rate)));
        row
    };
    output::numbers(header, grid.sizes.iter().enumerate().map(row))
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
