//! Copies: by size, with the other direction busy, with products running.

use super::bench::{Bench, DRAM, FAST, compute, expert, plain};
use super::{CalibrateError, Plan, Steady, TIERS};
use crate::device::{Device, Finished};
use crate::refusal::DeviceError;
use policy::event::{Command, Form, Part, Read};
use policy::fit::{Fit, Sample, fit};
use policy::units::{Bandwidth, Bytes, Nanos};
use policy::{BlockId, FormatId, MoveId, TierId};

/// One direction between two tiers.
#[derive(Debug)]
pub struct Direction {
    from: usize,
    to: usize,
    /// Sizes and times of a copy.
    pub times: Vec<(Bytes, Steady)>,
    /// What they come to.
    pub fit: Fit,
    /// The rate of large copies while the other direction is busy.
    pub duplex: Bandwidth,
}

impl Direction {
    /// The rate of a copy once its submit cost is paid.
    pub(super) fn rate_at(&self, size: Bytes) -> Bandwidth {
        rate(size, self.fit.rate.time_for(size))
    }

    pub(super) fn touches(&self, tier: usize) -> bool {
        self.from == tier || self.to == tier
    }

    /// The name of the tier it begins at.
    pub fn from_name(&self) -> &'static str {
        TIERS[self.from].0
    }

    /// The name of the tier it ends at.
    pub fn to_name(&self) -> &'static str {
        TIERS[self.to].0
    }
}

/// Large copies into fast memory and products in it: each alone, and both at once.
#[derive(Clone, Copy, Debug)]
pub struct Contention {
    /// Copies alone.
    pub copy: Bandwidth,
    /// Products alone.
    pub product: Bandwidth,
    /// Copies while products run.
    pub copy_beside: Bandwidth,
    /// Products while copies run.
    pub product_beside: Bandwidth,
}

impl Contention {
    /// The rate of a memory that leaves products, beside copies, the share that was left to them.
    pub(super) fn shared(&self) -> Bandwidth {
        let alone = Bandwidth(self.copy.0.saturating_add(self.product.0));
        let lost = self.product.0.saturating_sub(self.product_beside.0);
        if lost == 0 {
            return alone;
        }
        let shared = u128::from(self.copy.0) * u128::from(self.product.0) / u128::from(lost);
        Bandwidth(u64::try_from(shared).unwrap_or(u64::MAX)).min(alone)
    }
}

/// Times copies and products are run beside each other.
const ROUNDS: usize = 6;

/// The directions that are measured.
pub(super) fn pairs(plan: &Plan) -> Vec<(usize, usize)> {
    let mut pairs = vec![(1, 0), (0, 1)];
    if plan.capacity[2] > Bytes::ZERO {
        pairs.extend([(2, 1), (1, 2)]);
    }
    pairs
}

fn form(tier: usize) -> Form {
    Form { tier: TierId(tier as u8), format: FormatId::BF16 }
}

/// Enough blocks of a size to be cold when their turn comes again.
fn count(plan: &Plan, size: Bytes) -> u32 {
    (plan.cold.0 / size.0.max(1)).clamp(2, 256) as u32
}

pub(super) fn direction(bench: &Bench<'_>, from: usize, to: usize) -> Result<Direction, CalibrateError> {
    let mut times = Vec::new();
    for &size in &bench.plan.sizes {
        let blocks: Vec<_> = (0..count(bench.plan, size)).map(|index| plain(index, size)).collect();
        let ids: Vec<BlockId> = (0..blocks.len() as u32).map(BlockId).collect();
        let copies: Vec<_> = ids.iter().map(|id| (*id, form(from))).collect();
        let mut device = bench.device(blocks, &copies)?;
        let steady =
            Steady::measure(bench.plan.patience, || bench.round(&mut device, &ids, form(from), form(to)))?;
        times.push((size, steady));
    }
    // A lane does one copy after the other: n of them take n times as long.
    let samples = times.iter().flat_map(|(bytes, steady)| {
        let time = |copies| Nanos(steady.median().0.max(1) * u64::from(copies));
        [1, 8].map(|copies| Sample { bytes: *bytes, copies, time: time(copies) })
    });
    let failed = |source| CalibrateError::Link { from: TIERS[from].0, to: TIERS[to].0, source };
    let fit = fit(&samples.collect::<Vec<_>>()).map_err(failed)?;
    // In the file a rate ends with the largest size that was measured.
    let peak = times.last().map_or(fit.rate.peak(), |(size, _)| rate(*size, fit.rate.time_for(*size)));
    let duplex = duplex(bench, from, to)?.min(peak);
    Ok(Direction { from, to, times, fit, duplex })
}

/// The rate of large copies while others go the other way.
fn duplex(bench: &Bench<'_>, from: usize, to: usize) -> Result<Bandwidth, CalibrateError> {
    let half = count(bench.plan, bench.plan.large) / 2;
    let blocks: Vec<_> = (0..2 * half).map(|index| plain(index, bench.plan.large)).collect();
    let ids: Vec<BlockId> = (0..2 * half).map(BlockId).collect();
    let (there, back) = ids.split_at(half as usize);
    let copies = there.iter().map(|id| (*id, form(from))).chain(back.iter().map(|id| (*id, form(to))));
    let mut device = bench.device(blocks, &copies.collect::<Vec<_>>())?;
    let steady = Steady::measure(bench.plan.patience, || {
        let mut moves = Vec::new();
        for (there, back) in there.iter().zip(back) {
            moves.push(begin(bench, &mut device, *there, form(from), form(to))?);
            begin(bench, &mut device, *back, form(to), form(from))?;
        }
        let times = both(&mut device, &moves)?;
        for (ids, made) in [(there, form(to)), (back, form(from))] {
            for &block in ids {
                device.submit(&Command::Drop { block, form: made })?;
            }
        }
        Ok::<_, DeviceError>(times)
    })?;
    Ok(rate(bench.plan.large, steady.median()))
}

fn begin(
    bench: &Bench<'_>,
    device: &mut Device,
    block: BlockId,
    from: Form,
    to: Form,
) -> Result<MoveId, DeviceError> {
    let (id, command) = bench.move_of(device, block, from, to);
    device.submit(&command).map(|()| id)
}

/// Waits for all moves; the times of those that are named, without the first and the last quarter, which may have been
/// alone.
fn both(device: &mut Device, named: &[MoveId]) -> Result<Vec<Nanos>, DeviceError> {
    let mut times = Vec::new();
    while let Some(finished) = device.next(None)? {
        let took = device.see(finished)?;
        if matches!(finished, Finished::Chunk(id) if named.contains(&id)) {
            times.push(took);
        }
    }
    let edge = times.len() / 4;
    Ok(times[edge..times.len() - edge].to_vec())
}

pub(super) fn rate(bytes: Bytes, time: Nanos) -> Bandwidth {
    let rate = u128::from(bytes.0) * 1_000_000_000 / u128::from(time.0.max(1));
    Bandwidth(u64::try_from(rate).unwrap_or(u64::MAX).max(1))
}

/// Copies into fast memory beside products in it.
pub(super) fn contention(bench: &Bench<'_>) -> Result<Contention, CalibrateError> {
    let size = expert(0, bench.plan.expert).bytes(FormatId::BF16);
    let half = count(bench.plan, size) / 2 + 1;
    let blocks: Vec<_> = (0..2 * half).map(|index| expert(index, bench.plan.expert)).collect();
    let ids: Vec<BlockId> = (0..2 * half).map(BlockId).collect();
    let (moved, read) = ids.split_at(half as usize);
    let (dram, fast) = (form(DRAM.index()), form(FAST.index()));
    let copies = moved.iter().map(|id| (*id, dram)).chain(read.iter().map(|id| (*id, fast)));
    let mut device = bench.device(blocks, &copies.collect::<Vec<_>>())?;
    let (mut copies, mut products, mut copies_beside, mut products_beside) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        copies.extend(bench.round(&mut device, moved, dram, fast)?);
        for &block in read {
            products.push(multiply(&mut device, block)?);
        }
        let mut under_way = Vec::new();
        for &block in moved {
            under_way.push(begin(bench, &mut device, block, dram, fast)?);
        }
        for &block in read.iter().cycle() {
            let took = multiply(&mut device, block)?;
            while let Some(&id) = under_way.first().filter(|&&id| device.is_over(id)) {
                copies_beside.push(device.wait(id)?.took);
                under_way.remove(0);
            }
            if under_way.is_empty() {
                break;
            }
            // It ended before the last copy did.
            products_beside.push(took);
        }
        for &block in moved {
            device.submit(&Command::Drop { block, form: fast })?;
        }
    }
    let of = |times| rate(size, Steady::of(times).median());
    Ok(Contention {
        copy: of(copies),
        product: of(products),
        copy_beside: of(copies_beside),
        product_beside: of(products_beside),
    })
}

/// One product in fast memory.
fn multiply(device: &mut Device, block: BlockId) -> Result<Nanos, DeviceError> {
    let reads = vec![Read { block, form: form(FAST.index()), tokens: 1 }];
    device.submit(&compute(Part::Experts, reads))?;
    Ok(device.wait_compute(Part::Experts)?.took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shared_rate_leaves_products_what_was_left_to_them() {
        let rate = |copy, product, product_beside| {
            let contention = Contention {
                copy: Bandwidth(copy),
                product: Bandwidth(product),
                copy_beside: Bandwidth(copy),
                product_beside: Bandwidth(product_beside),
            };
            contention.shared().0
        };
        // A product loses 12 of 24 to a copy of 12.
        assert_eq!(rate(12, 30, 15), 24);
        assert_eq!(rate(12, 30, 30), 42, "neither slows the other");
        assert_eq!(rate(12, 30, 29), 42, "hardly");
        assert_eq!(rate(12, 30, 0), 12);
    }
}
