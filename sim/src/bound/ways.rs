//! The ways of blocks into fast memory, taken as one link: what all of them carry together.
//!
//! A byte crosses one of the links that end in fast memory. In a stretch of time each carries no more than it can, so neither
//! does any mean of them: with weights that add up to one, of what a load takes on the link it crosses, weighed by that link's
//! weight, there fits no more into the stretch than the stretch is long. The weights are the links' rates, which proves the most
//! where all are busy; and a load counts for the least of the ways that it could take.

use crate::simulate::Case;
use policy::machine::Link;
use policy::{Bytes, LinkId, Path, Paths, TierId};

/// See the module.
pub(super) struct Ways<'a> {
    case: &'a Case,
    /// Every tier that copies come from, and its path.
    from: Vec<(TierId, &'a Path)>,
    /// The rates of all links that these end with, together.
    rate: f64,
}

impl<'a> Ways<'a> {
    /// `None` where some tier has no path.
    pub(super) fn new(case: &'a Case, paths: &'a Paths, fast: TierId) -> Option<Ways<'a>> {
        let tiers = case.home.tiers().iter().chain(&case.staging);
        let from = tiers.map(|&tier| Some((tier, paths.between(tier, fast)?))).collect::<Option<Vec<_>>>()?;
        let mut last: Vec<LinkId> = from.iter().filter_map(|(_, path)| path.links.last().copied()).collect();
        last.sort_unstable();
        last.dedup();
        let rate = last.iter().map(|&link| peak(case.machine.link(link))).sum();
        Some(Ways { case, from, rate })
    }

    /// The least time of the one link for a copy of a block whose home is there, in nanoseconds.
    pub(super) fn least_time(&self, home: TierId, bytes: Bytes) -> f64 {
        let own = |tier: TierId| tier == home || self.case.staging.contains(&tier);
        let times =
            self.from.iter().filter(|(tier, _)| own(*tier)).map(|(_, path)| self.weighed(path, bytes));
        times.fold(f64::INFINITY, f64::min)
    }

    fn weighed(&self, path: &Path, bytes: Bytes) -> f64 {
        let Some(&last) = path.links.last() else { return 0.0 };
        let link = self.case.machine.link(last);
        // Copies that came over other links share the last one, and there take no more than their bytes; unless it has one
        // engine, which each takes from its beginning to its end.
        let alone = link.engines <= 1
            || self.from.iter().filter(|(_, other)| other.links.last() == Some(&last)).count() == 1;
        let time = if alone { least_time(self.case, path, bytes) } else { bytes.0 as f64 * 1e9 / peak(link) };
        time * peak(link) / self.rate
    }
}

fn peak(link: &Link) -> f64 {
    link.rate.peak().0.max(1) as f64
}

/// The least time of the link for a copy, in nanoseconds: whole, or in chunks with the rest of them at once. Copies that
/// go one at a time pay for being handed over; of others that may be hidden.
fn least_time(case: &Case, path: &Path, bytes: Bytes) -> f64 {
    let one_at_a_time = path.links.iter().any(|&link| case.machine.link(link).engines <= 1);
    let submit = if one_at_a_time { path.submit.0 as f64 } else { 0.0 };
    let chunk = case.pace.chunk.0.max(1);
    let work = |chunks: u64| {
        let rest = path.work(Bytes(bytes.0 - chunks * chunk)).0;
        chunks as f64 * path.work(Bytes(chunk)).0 as f64 + rest as f64
    };
    // So many chunks that trying them all takes long: then nothing but the bytes.
    let chunks = bytes.0.saturating_sub(1) / chunk;
    let least = if chunks > MANY_CHUNKS {
        bytes.0 as f64
    } else {
        (0..=chunks).map(work).fold(f64::INFINITY, f64::min)
    };
    submit + least * 1e9 / path.peak.0.max(1) as f64
}

/// Beyond so many chunks a block, not every way to cut it is tried.
const MANY_CHUNKS: u64 = 10_000;
