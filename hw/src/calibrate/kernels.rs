//! Products: by format, tokens, and how many experts one command reads. What one more expert costs is its rate; what is left
//! of the time of the first is the launch.

use super::bench::{Bench, DRAM, FAST, compute, expert};
use super::links::rate;
use super::{CalibrateError, Steady};
use crate::codec;
use crate::device::Device;
use crate::refusal::DeviceError;
use policy::event::{Form, Part, Read};
use policy::kernel::KernelRate;
use policy::units::{Bandwidth, Bytes, FlopRate, Nanos};
use policy::{BlockId, FormatId, ProcessorId};

/// Products of one processor.
#[derive(Debug)]
pub struct Kernels {
    /// Every time that was measured.
    pub times: Vec<Timed>,
    /// The same as rates.
    pub rates: Vec<KernelRate>,
    /// The rate at which weights are read where most are: in bf16, for one token.
    pub read: Bandwidth,
    /// The highest rate of operations over all numbers of tokens, in bf16.
    pub flops: FlopRate,
    /// What the first expert of a command costs beside its bytes: in bf16, for one token.
    pub launch: Nanos,
}

/// The time of one command.
#[derive(Debug)]
pub struct Timed {
    /// The format of the weights.
    pub format: FormatId,
    /// Tokens that go through each expert.
    pub tokens: u32,
    /// Experts.
    pub experts: u32,
    /// Bytes of all of them.
    pub bytes: Bytes,
    /// The time.
    pub time: Steady,
}

/// Experts of one command: few, and more.
const EXPERTS: [u32; 2] = [1, 4];

pub(super) fn measure(bench: &Bench<'_>, on_host: bool) -> Result<Kernels, CalibrateError> {
    let (part, tier) = if on_host { (Part::Near(ProcessorId(0)), DRAM) } else { (Part::Experts, FAST) };
    let mut kernels = Kernels {
        times: Vec::new(),
        rates: Vec::new(),
        read: Bandwidth(1),
        flops: FlopRate(1),
        launch: Nanos::ZERO,
    };
    // Those that products read as they are.
    for format in codec::coded().filter(|format| format.get().direct) {
        let one = expert(0, bench.plan.expert);
        let bytes = one.bytes(format);
        let count = (bench.plan.cold.0 / bytes.0).clamp(2 * u64::from(EXPERTS[1]), 256) as u32;
        let blocks: Vec<_> = (0..count).map(|index| expert(index, bench.plan.expert)).collect();
        let form = Form { tier, format };
        let copies: Vec<_> = (0..count).map(|id| (BlockId(id), form)).collect();
        let mut device = bench.device(blocks, &copies)?;
        let mut points: Vec<(u32, Bandwidth)> = Vec::new();
        for &tokens in &bench.plan.tokens {
            let mut medians = [Nanos::ZERO; EXPERTS.len()];
            for (median, experts) in medians.iter_mut().zip(EXPERTS) {
                let time = Steady::measure(bench.plan.patience, || {
                    round(&mut device, part, &copies, experts, tokens)
                })?;
                *median = time.median();
                let bytes = Bytes(bytes.0 * u64::from(experts));
                kernels.times.push(Timed { format, tokens, experts, bytes, time });
            }
            let (further, launch) = slope(medians);
            // More tokens never take less; what says so is noise.
            let most = points.last().map_or(Bandwidth(u64::MAX), |(_, rate)| *rate);
            points.push((tokens, rate(bytes, further).min(most)));
            if format == FormatId::BF16 {
                let operations = 2 * one.elements() * u64::from(tokens);
                kernels.flops = FlopRate(rate(Bytes(operations), further).0).max(kernels.flops);
                if points.len() == 1 {
                    (kernels.read, kernels.launch) = (rate(bytes, further), launch);
                }
            }
        }
        let failed = |source| CalibrateError::Kernel { format: format.name(), source };
        kernels.rates.push(KernelRate::measured(format, points).map_err(failed)?);
    }
    Ok(kernels)
}

/// What one more expert costs, and what the first costs beside that.
fn slope([few, more]: [Nanos; 2]) -> (Nanos, Nanos) {
    let between = u64::from(EXPERTS[1] - EXPERTS[0]);
    let one = more.0.saturating_sub(few.0) / between;
    if one == 0 {
        return (Nanos((more.0 / u64::from(EXPERTS[1])).max(1)), Nanos::ZERO);
    }
    (Nanos(one), Nanos(few.0.saturating_sub(one * u64::from(EXPERTS[0]))))
}

/// So many experts a command, each in turn.
fn round(
    device: &mut Device,
    part: Part,
    copies: &[(BlockId, Form)],
    experts: u32,
    tokens: u32,
) -> Result<Vec<Nanos>, DeviceError> {
    let time = |group: &[(BlockId, Form)]| {
        let reads = group.iter().map(|&(block, form)| Read { block, form, tokens });
        device.submit(&compute(part, reads.collect()))?;
        Ok(device.wait_compute(part)?.took)
    };
    copies.chunks_exact(experts as usize).map(time).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launch_is_what_the_first_expert_costs_beside_its_bytes() {
        assert_eq!(slope([Nanos(110), Nanos(410)]), (Nanos(100), Nanos(10)));
        assert_eq!(slope([Nanos(110), Nanos(100)]), (Nanos(25), Nanos::ZERO), "noise");
    }
}
