//! Failures on purpose, for tests: a seeded plan of which calls of the memories fail. A memory holds one where a test
//! asks for it, and otherwise nothing.
//!
//! Each kind counts its own calls while the plan is armed, and whether the n-th fails follows from the seed, the kind and
//! n. So equal orders of calls meet equal failures; with several threads the order is the threads'.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Dxsm;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An allocation, for which there would be room.
    Allocation,
    /// Reading the bytes of a slot.
    Read,
    /// Writing them.
    Write,
    /// Nothing is reported, but one bit of what was written is wrong.
    Flip,
    /// The system transfers fewer bytes to or from a file than asked. No error: the rest has to be asked for.
    Short,
}

/// Every kind.
pub const FAULTS: [Fault; 5] = [Fault::Allocation, Fault::Read, Fault::Write, Fault::Flip, Fault::Short];

/// A plan of failures, and the count of those that happened.
#[derive(Debug, Default)]
pub struct Faults {
    seed: u64,
    armed: AtomicBool,
    one_in: [u64; FAULTS.len()],
    calls: [AtomicU64; FAULTS.len()],
    struck: [AtomicU64; FAULTS.len()],
}

impl Faults {
    /// On average one call in `one_in` fails, of each kind that is named, once the plan is armed.
    pub fn new(seed: u64, plan: &[(Fault, u64)]) -> Faults {
        let mut faults = Faults { seed, ..Faults::default() };
        for (fault, one_in) in plan {
            faults.one_in[*fault as usize] = *one_in;
        }
        faults
    }

    /// Whether calls fail from now on.
    pub fn arm(&self, armed: bool) {
        self.armed.store(armed, Ordering::Relaxed);
    }

    /// How often this kind has failed so far.
    pub fn struck(&self, fault: Fault) -> u64 {
        self.struck[fault as usize].load(Ordering::Relaxed)
    }

    /// Whether this call fails; if so, a number that says where.
    pub(crate) fn strike(&self, fault: Fault) -> Option<u64> {
        let kind = fault as usize;
        let one_in = self.one_in[kind];
        if one_in == 0 || !self.armed.load(Ordering::Relaxed) {
            return None;
        }
        let call = self.calls[kind].fetch_add(1, Ordering::Relaxed);
        let which = call.wrapping_mul(FAULTS.len() as u64).wrapping_add(kind as u64);
        let draw = Pcg64Dxsm::seed_from_u64(self.seed.rotate_left(32) ^ which).next_u64();
        if !draw.is_multiple_of(one_in) {
            return None;
        }
        self.struck[kind].fetch_add(1, Ordering::Relaxed);
        Some(draw / one_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_fails_about_as_often_as_planned_and_alike_for_one_seed() {
        let run = |seed| {
            let faults = Faults::new(seed, &[(Fault::Flip, 10)]);
            assert_eq!(faults.strike(Fault::Flip), None, "not armed");
            faults.arm(true);
            let struck: Vec<bool> = (0..10_000).map(|_| faults.strike(Fault::Flip).is_some()).collect();
            assert_eq!(faults.struck(Fault::Flip), struck.iter().filter(|struck| **struck).count() as u64);
            assert_eq!((faults.strike(Fault::Read), faults.struck(Fault::Read)), (None, 0));
            struck
        };
        let first = run(1);
        // Five standard deviations of a binomial count.
        let count = first.iter().filter(|struck| **struck).count();
        assert!(count.abs_diff(1000) < 150, "{count}");
        assert_eq!(first, run(1));
        assert_ne!(first, run(2));
    }
}
