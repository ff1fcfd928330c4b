//! Products: by format and tokens.

use super::bench::{Bench, DRAM, FAST, compute, expert};
use super::links::rate;
use super::{CalibrateError, Steady};
use crate::codec::has_coder;
use crate::device::Device;
use crate::refusal::DeviceError;
use policy::event::{Form, Part, Read};
use policy::format::FORMATS;
use policy::kernel::KernelRate;
use policy::units::{Bandwidth, Bytes, FlopRate, Nanos};
use policy::{BlockId, FormatId};

/// Products of one processor.
#[derive(Debug)]
pub struct Kernels {
    /// Format, tokens, and the time of one expert.
    pub times: Vec<(FormatId, u32, Steady)>,
    /// The same as rates.
    pub rates: Vec<KernelRate>,
    /// The rate at which weights are read where most are: in bf16, for one token.
    pub read: Bandwidth,
    /// The rate of operations with the most tokens that were measured, in bf16.
    pub flops: FlopRate,
    /// The time of a product of next to nothing.
    pub launch: Nanos,
}

/// Sides of the experts: gate and up take `HIDDEN` inputs to `WIDTH`, down takes them back.
const HIDDEN: u64 = 1024;
/// See [`HIDDEN`].
const WIDTH: u64 = 2048;

/// Formats that products read as they are.
fn direct() -> impl Iterator<Item = FormatId> {
    (0..FORMATS.len() as u8).map(FormatId).filter(|&format| has_coder(format) && format.get().direct)
}

pub(super) fn measure(bench: &Bench<'_>, on_host: bool) -> Result<Kernels, CalibrateError> {
    let (part, tier) = if on_host { (Part::Host, DRAM) } else { (Part::Experts, FAST) };
    let mut kernels = Kernels {
        times: Vec::new(),
        rates: Vec::new(),
        read: Bandwidth(1),
        flops: FlopRate(1),
        launch: launch(bench, part, Form { tier, format: FormatId::BF16 })?,
    };
    for format in direct() {
        let one = expert(0, HIDDEN, WIDTH);
        let bytes = one.bytes(format);
        let count = (bench.plan.cold.0 / bytes.0).clamp(2, 256) as u32;
        let blocks: Vec<_> = (0..count).map(|index| expert(index, HIDDEN, WIDTH)).collect();
        let form = Form { tier, format };
        let copies: Vec<_> = (0..count).map(|id| (BlockId(id), form)).collect();
        let mut device = bench.device(blocks, &copies)?;
        let mut points: Vec<(u32, Bandwidth)> = Vec::new();
        for &tokens in &bench.plan.tokens {
            let steady = Steady::measure(|| round(&mut device, part, &copies, tokens))?;
            let net = Nanos(steady.median().0.saturating_sub(kernels.launch.0).max(1));
            // More tokens never take less; what says so is noise.
            let most = points.last().map_or(Bandwidth(u64::MAX), |(_, rate)| *rate);
            points.push((tokens, rate(bytes, net).min(most)));
            if format == FormatId::BF16 {
                let operations = 2 * one.elements() * u64::from(tokens);
                kernels.flops = FlopRate(rate(Bytes(operations), net).0).max(kernels.flops);
            }
            kernels.times.push((format, tokens, steady));
        }
        if format == FormatId::BF16 {
            kernels.read = points.first().map_or(kernels.read, |(_, rate)| *rate);
        }
        let failed = |source| CalibrateError::Kernel { format: format.name(), source };
        kernels.rates.push(KernelRate::measured(format, points).map_err(failed)?);
    }
    Ok(kernels)
}

/// Each block in turn, one at a time.
fn round(
    device: &mut Device,
    part: Part,
    copies: &[(BlockId, Form)],
    tokens: u32,
) -> Result<Vec<Nanos>, DeviceError> {
    let time = |&(block, form): &(BlockId, Form)| {
        device.submit(&compute(part, vec![Read { block, form, tokens }]))?;
        Ok(device.wait_compute(part)?.took)
    };
    copies.iter().map(time).collect()
}

fn launch(bench: &Bench<'_>, part: Part, form: Form) -> Result<Nanos, DeviceError> {
    let copy = (BlockId(0), form);
    let mut device = bench.device(vec![expert(0, 32, 32)], &[copy])?;
    Ok(Steady::measure(|| round(&mut device, part, &[copy; 16], 1))?.median())
}
