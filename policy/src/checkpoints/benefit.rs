//! Expected time saved for a byte: of all copies and all that may be done with them, the action that loses least.
//!
//! A copy saves, with the rate at which checkpoints like it are used again, the time between restoring from it and the next best
//! thing: another copy, or the checkpoint before it and the tokens between. Dropping it loses that; fewer bits lose what
//! expanding takes; a lower memory loses what its longer way takes, and what its room is worth there. Each is divided by
//! the bytes that become free.

use super::evict::{Action, Evict, View};
use super::{Copy, Entry};

pub(super) struct BenefitPerByte;

impl Evict for BenefitPerByte {
    fn choose(&self, view: &View<'_>) -> Option<(u64, Action)> {
        let below = view.pool + 1;
        let rent = if below < view.pools.len() { rent(view, below) } else { 0.0 };
        let choices = view.candidates().flat_map(|(node, entry, copy)| {
            actions(view, node, entry, copy, rent).map(move |(action, loss)| (loss, node, action))
        });
        let least = choices.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))?;
        // What the newcomer would save here, at the same scale.
        let newcomer = view.entries.get(&view.newcomer).and_then(|entry| worth(view, view.newcomer, entry));
        (newcomer.is_none_or(|worth| worth >= least.0)).then_some((least.1, least.2))
    }
}

/// What may be done with a copy, and what each loses for a byte that becomes free.
fn actions(
    view: &View<'_>,
    node: u64,
    entry: &Entry,
    copy: Copy,
    rent: f64,
) -> impl Iterator<Item = (Action, f64)> {
    let rate = view.reuse.rate(node, entry.children);
    let pool = view.pool;
    let here = view.costs.restore(pool, copy.format).0 as f64;
    let drop = Some((Action::Drop, rate * (without(view, entry, pool) - here).max(0.0) / copy.bytes as f64));
    let free_below = (pool + 1 < view.pools.len() && entry.copies[pool + 1].is_none()).then_some(pool + 1);
    let lower = free_below.map(|below| {
        let format = view.lowered(copy, below);
        let there = view.costs.restore(below, format).0 as f64;
        let taken = view.costs.footprint(below, format) as f64;
        let loss = rate * (there - here).max(0.0) + rent * taken;
        (Action::Lower(below), loss / copy.bytes as f64)
    });
    let reduced = view.pools[pool].reduce_to.filter(|_| copy.format.is_exact());
    let reduce = reduced.and_then(|format| {
        let freed = copy.bytes.checked_sub(view.costs.footprint(pool, format)).filter(|&freed| freed > 0)?;
        let expanding = view.costs.restore(pool, format).0 as f64 - here;
        Some((Action::Reduce(format), rate * expanding.max(0.0) / freed as f64))
    });
    [drop, lower, reduce].into_iter().flatten()
}

/// Nanoseconds until a request could go on without the copy in a pool: from one further down, or from the checkpoint before it.
/// A nearer copy does not count: it goes first, and then this one is what is left.
fn without(view: &View<'_>, entry: &Entry, pool: usize) -> f64 {
    let others = entry.copies.iter().enumerate().filter(|(other, _)| *other > pool);
    let ready = others.filter_map(|(other, copy)| copy.map(|copy| view.costs.restore(other, copy.format).0));
    let recompute = view.costs.prefill(view.behind(entry), entry.position).0;
    ready.chain([recompute]).min().unwrap_or(recompute) as f64
}

/// What a checkpoint that is to come saves in the pool for a byte.
fn worth(view: &View<'_>, node: u64, entry: &Entry) -> Option<f64> {
    let format = view.pools[view.pool].format;
    let here = view.costs.restore(view.pool, format).0 as f64;
    let saved = (without(view, entry, view.pool) - here).max(0.0);
    Some(
        view.reuse.rate(node, entry.children) * saved / view.costs.footprint(view.pool, format).max(1) as f64,
    )
}

/// What a byte of a pool is worth: nothing while it has room, else what its least valued copy saves.
fn rent(view: &View<'_>, pool: usize) -> f64 {
    let held = view.entries.iter().filter_map(|(node, entry)| Some((*node, entry, entry.copies[pool]?)));
    let used: u64 = held.clone().map(|(_, _, copy)| copy.bytes).sum();
    let room = view.pools[pool].room.0.saturating_sub(used);
    let least = held.map(|(node, entry, copy)| {
        let here = view.costs.restore(pool, copy.format).0 as f64;
        let loss = view.reuse.rate(node, entry.children) * (without(view, entry, pool) - here).max(0.0);
        (loss / copy.bytes as f64, copy.bytes)
    });
    match least.min_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((worth, bytes)) if bytes > room => worth,
        _ => 0.0,
    }
}
