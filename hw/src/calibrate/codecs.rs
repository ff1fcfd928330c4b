//! Changes of format within a tier.

use super::bench::{Bench, plain};
use super::links::rate;
use super::{CalibrateError, Steady};
use crate::codec;
use policy::event::Form;
use policy::format::{Format, Scale};
use policy::units::Bandwidth;
use policy::{BlockId, FormatId, TierId};

/// What coding a format costs, over native bytes.
#[derive(Clone, Copy, Debug)]
pub struct CodecRates {
    /// The format.
    pub format: FormatId,
    /// From bf16.
    pub encode: Bandwidth,
    /// To bf16; only lossless formats are expanded, the others are read as they are and have the rate of encoding here.
    pub decode: Bandwidth,
}

pub(super) fn measure(bench: &Bench<'_>, tier: u8) -> Result<Vec<CodecRates>, CalibrateError> {
    let size = bench.plan.large;
    let form = |format| Form { tier: TierId(tier), format };
    // A number that stands alone and is read as it is gains nothing from being coded.
    let plain_numbers = |row: &Format| row.direct && row.scale == Scale::None;
    let coded = codec::coded().filter(|format| !plain_numbers(format.get()));
    let count = (bench.plan.cold.0 / size.0 / 2).clamp(2, 64) as u32;
    let ids: Vec<BlockId> = (0..count).map(BlockId).collect();
    let blocks = || (0..count).map(|index| plain(index, size)).collect();
    let from = |format| ids.iter().map(|id| (*id, form(format))).collect::<Vec<_>>();
    coded
        .map(|format| {
            let mut device = bench.device(blocks(), &from(FormatId::BF16))?;
            let encoding = Steady::measure(bench.plan.patience, || {
                bench.round(&mut device, &ids, form(FormatId::BF16), form(format))
            })?;
            let encode = rate(size, encoding.median());
            if !format.keeps(FormatId::BF16) {
                return Ok(CodecRates { format, encode, decode: encode });
            }
            let mut device = bench.device(blocks(), &from(format))?;
            let expanding = Steady::measure(bench.plan.patience, || {
                bench.round(&mut device, &ids, form(format), form(FormatId::BF16))
            })?;
            Ok(CodecRates { format, encode, decode: rate(size, expanding.median()) })
        })
        .collect()
}
