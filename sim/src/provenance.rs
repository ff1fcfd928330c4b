//! Where the compute time of a run comes from: for each kind of operator, what was measured, fitted, or taken from the roofline,
//! and what it would take at the machine's physical limit.

use policy::Nanos;
use policy::times::{BASES, Basis};
use std::collections::BTreeMap;

/// A kind of operator, as reports tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Projections, norms, router, shared experts; and attention itself, unless it is apart.
    Mixer,
    /// Attention itself, where only the rest of the mixer was measured.
    Attention,
    /// Norms, rotary embedding, activation functions and residuals, where no table has them.
    Elementwise,
    /// Managed blocks on the accelerator.
    Blocks,
    /// Managed blocks where they lie, on the host or on processors of memories.
    InPlace,
    /// The output head.
    Head,
    /// Sums over the accelerators that compute together.
    AllReduce,
    /// Tokens on their way to accelerators that have their experts, and back.
    AllToAll,
    /// Activations on their way to the next stage of a pipeline, and tokens back to the first.
    Send,
}

/// All kinds, in order, with their names in reports.
pub const KINDS: [(Kind, &str); 9] = [
    (Kind::Mixer, "mixer"),
    (Kind::Attention, "attention"),
    (Kind::Elementwise, "elementwise"),
    (Kind::Blocks, "blocks"),
    (Kind::InPlace, "in_place"),
    (Kind::Head, "head"),
    (Kind::AllReduce, "all_reduce"),
    (Kind::AllToAll, "all_to_all"),
    (Kind::Send, "send"),
];

/// What a kind of operator took, from one basis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Took {
    /// How many times it ran.
    pub times: u64,
    /// Time it takes alone, launches included; of what is missing, the least that it can take.
    pub time: Nanos,
    /// The same at the machine's limit: bytes and operations at its peak rates.
    pub limit: Nanos,
}

/// The most operators that one kernel is made of: a mixer, attention apart, and a sum; or blocks from three bases.
const MOST: usize = 4;

/// What one kernel is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Booked {
    entries: [Option<Entry>; MOST],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    kind: Kind,
    basis: Basis,
    time: Nanos,
    limit: Nanos,
}

impl Booked {
    /// Adds an operator.
    pub(crate) fn add(&mut self, kind: Kind, basis: Basis, time: Nanos, limit: Nanos) {
        let free = self.entries.iter_mut().find(|entry| entry.is_none());
        debug_assert!(free.is_some(), "a kernel of more than {MOST} operators");
        if let Some(free) = free {
            *free = Some(Entry { kind, basis, time, limit });
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    took: [[Took; BASES.len()]; KINDS.len()],
}

impl Provenance {
    /// Books so many runs of a kernel.
    #[inline]
    pub fn add(&mut self, booked: &Booked, runs: u64) {
        for entry in booked.entries.iter().map_while(Option::as_ref) {
            let took = &mut self.took[entry.kind as usize][entry.basis as usize];
            took.times += runs;
            took.time += Nanos(entry.time.0.saturating_mul(runs));
            took.limit += Nanos(entry.limit.0.saturating_mul(runs));
        }
    }

    /// What ran, by kind and basis.
    pub fn rows(&self) -> impl Iterator<Item = (Kind, Basis, Took)> + '_ {
        let of = |(kind, _)| BASES.map(|(basis, _)| (kind, basis, self.took[kind as usize][basis as usize]));
        KINDS.into_iter().flat_map(of).filter(|(.., took)| took.times > 0)
    }

    /// The same by the names of the bases.
    pub fn by_name(&self) -> BTreeMap<&'static str, f64> {
        BASES.iter().map(|(_, name)| *name).zip(self.shares()).collect()
    }

    /// The share of each basis in the time of all operators, in the order of [`BASES`]; zeros where nothing ran.
    pub fn shares(&self) -> [f64; BASES.len()] {
        let of =
            |(basis, _): (Basis, _)| self.took.iter().map(|kind| kind[basis as usize].time.0 as f64).sum();
        let sums: [f64; BASES.len()] = BASES.map(of);
        let total = sums.iter().sum::<f64>();
        sums.map(|sum| if total > 0.0 { sum / total } else { 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_all_time_and_rows_of_what_ran() {
        let mut provenance = Provenance::default();
        assert_eq!(provenance.shares(), [0.0; 4]);
        let (mut one, mut other) = (Booked::default(), Booked::default());
        one.add(Kind::Blocks, Basis::Measured, Nanos(60), Nanos(30));
        other.add(Kind::Blocks, Basis::Measured, Nanos(15), Nanos(15));
        other.add(Kind::Head, Basis::Roofline, Nanos(25), Nanos(25));
        provenance.add(&one, 1);
        provenance.add(&other, 1);
        assert_eq!(provenance.shares(), [0.75, 0.0, 0.25, 0.0]);
        let rows: Vec<_> = provenance.rows().collect();
        let blocks = Took { times: 2, time: Nanos(75), limit: Nanos(45) };
        assert_eq!(rows[0], (Kind::Blocks, Basis::Measured, blocks));
        assert_eq!((rows.len(), rows[1].0), (2, Kind::Head));
    }
}
