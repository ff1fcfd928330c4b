//! Which exponents get a code: those that come most often.

use super::{Bits, CODED, parted};
use fearless_simd::prelude::*;
use fearless_simd::{Simd, u8x64};

/// How often each exponent comes.
pub(super) struct Census {
    pub(super) counts: [usize; 256],
    /// The largest exponent of the last tile.
    largest: u8,
}

impl Census {
    /// Exponents counted by comparing: trained weights lie within these below the largest, and comparing many at a time
    /// is faster than counting one by one.
    const NEAR: u8 = 16;
    /// The largest exponent of a tile is hardly ever more than this above that of the tile before.
    const ABOVE: u8 = 2;

    pub(super) fn new() -> Census {
        Census { counts: [0; 256], largest: 0 }
    }

    #[inline(always)]
    pub(super) fn count<S: Simd>(&mut self, simd: S, bits: &Bits) {
        let top = self.largest.saturating_add(Self::ABOVE);
        let (zero, one) = (u8x64::splat(simd, 0), u8x64::splat(simd, 1));
        // A tile has 64 chunks: a byte counts them.
        let (mut counts, mut largest) = ([zero; Self::NEAR as usize], zero);
        for bits in bits.as_chunks().0 {
            let (exponents, _) = parted(simd, bits);
            largest = largest.max(exponents);
            let distances = u8x64::splat(simd, top) - exponents;
            for (count, distance) in counts.iter_mut().zip(0..) {
                *count = distances.simd_eq(distance).select(*count + one, *count);
            }
            if distances.simd_ge(Self::NEAR).any_true() {
                let rare = exponents.to_array().into_iter();
                let rare = rare.filter(|exponent| top.wrapping_sub(*exponent) >= Self::NEAR);
                rare.for_each(|exponent| self.counts[exponent as usize] += 1);
            }
        }
        for (count, distance) in counts.into_iter().zip(0..) {
            let found = count.pairwise_widening_add().reduce_sum();
            self.counts[top.wrapping_sub(distance) as usize] += usize::from(found);
        }
        self.largest = largest.reduce_max();
    }

    /// The most frequent exponents.
    pub(super) fn table(&self) -> [u8; CODED] {
        let mut order: [u8; 256] = std::array::from_fn(|exponent| exponent as u8);
        order.sort_by_key(|&exponent| std::cmp::Reverse(self.counts[exponent as usize]));
        std::array::from_fn(|place| order[place])
    }
}
