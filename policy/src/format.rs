//! Number formats: how many bits a block's elements take, scales included, and whether kernels read them as they are.

use crate::units::Bytes;
use serde::{Deserialize, Serialize};

/// A row of [`FORMATS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FormatId(pub u8);

/// How scales are laid over the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// No scale is stored.
    None,
    /// One scale of `bits` for every `size` elements.
    Group {
        /// Elements that share a scale.
        size: u32,
        /// Bits of one scale.
        bits: u32,
    },
    /// One scale of `bits` for every row of the block's matrices.
    Row {
        /// Bits of one scale.
        bits: u32,
    },
}

/// A number format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Its name in YAML, logs and reports.
    pub name: &'static str,
    /// Quarter bits of one element, scales apart: 17/4 bits are written 17.
    pub quarter_bits: u32,
    /// The scales.
    pub scale: Scale,
    /// Kernels read it as it is; otherwise it is expanded before use.
    pub direct: bool,
    /// The format this one codes without loss, if it does.
    pub lossless_of: Option<&'static str>,
}

const fn plain(name: &'static str, bits: u32) -> Format {
    Format { name, quarter_bits: bits * 4, scale: Scale::None, direct: true, lossless_of: None }
}

/// A type of ggml: super-blocks of `size` elements of `bits` each, and `scale_bits` of scales and minima in each.
const fn ggml(name: &'static str, bits: u32, size: u32, scale_bits: u32) -> Format {
    scaled(name, bits, Scale::Group { size, bits: scale_bits })
}

const fn scaled(name: &'static str, bits: u32, scale: Scale) -> Format {
    Format { name, quarter_bits: bits * 4, scale, direct: true, lossless_of: None }
}

/// Every format, in no order of quality. `fp8_e4m3_b128`: DeepSeek-V3's, a 32-bit scale for each tile of 128 by 128. `mxfp4`: OCP Microscaling v1.0, 32 elements share an 8-bit exponent.
/// `bf16_packed`: sign and mantissa as they are (8 bits), the exponent as a 3-bit code of the seven most frequent ones,
/// and a quarter bit an element for the exponents that have no code; trained weights fit (DFloat11 reports 67.6 to
/// 69.5 % of BF16 with entropy coding), a block that does not is refused by the encoder. The last rows are the types of
/// ggml that no other row stores the same numbers in (its Q4_0 is `int4_g32`, its Q8_0 `int8_g32`), with the block sizes
/// of its `ggml-common.h`; llama.cpp's kernels read all of them as they are.
pub const FORMATS: &[Format] = &[
    plain("fp32", 32),
    plain("bf16", 16),
    plain("fp16", 16),
    scaled("fp8_e4m3", 8, Scale::Row { bits: 32 }),
    scaled("fp8_e4m3_b128", 8, Scale::Group { size: 128 * 128, bits: 32 }),
    scaled("int8", 8, Scale::Row { bits: 16 }),
    scaled("int8_g32", 8, Scale::Group { size: 32, bits: 16 }),
    scaled("mxfp4", 4, Scale::Group { size: 32, bits: 8 }),
    scaled("int4_g32", 4, Scale::Group { size: 32, bits: 16 }),
    scaled("int4_g128", 4, Scale::Group { size: 128, bits: 16 }),
    Format {
        name: "bf16_packed",
        quarter_bits: 45,
        scale: Scale::None,
        direct: false,
        lossless_of: Some("bf16"),
    },
    ggml("q4_1", 4, 32, 32),
    ggml("q5_0", 5, 32, 16),
    ggml("q5_1", 5, 32, 32),
    ggml("q2_k", 2, 256, 160),
    ggml("q3_k", 3, 256, 112),
    ggml("q4_k", 4, 256, 128),
    ggml("q5_k", 5, 256, 128),
    ggml("q6_k", 6, 256, 144),
    ggml("iq1_s", 1, 256, 144),
    ggml("iq1_m", 1, 256, 192),
    ggml("iq2_xxs", 2, 256, 16),
    ggml("iq2_xs", 2, 256, 80),
    ggml("iq2_s", 2, 256, 144),
    ggml("iq3_xxs", 3, 256, 16),
    ggml("iq3_s", 3, 256, 112),
    ggml("iq4_nl", 4, 32, 16),
    ggml("iq4_xs", 4, 256, 64),
    ggml("tq1_0", 1, 256, 176),
    ggml("tq2_0", 2, 256, 16),
    ggml("nvfp4", 4, 64, 32),
];

impl FormatId {
    /// What weights beside the managed blocks are kept in.
    pub const BF16: FormatId = FormatId(1);

    /// The format called `name`.
    pub fn named(name: &str) -> Option<FormatId> {
        FORMATS.iter().position(|format| format.name == name).map(|index| FormatId(index as u8))
    }

    /// The row of the table.
    pub fn get(self) -> &'static Format {
        &FORMATS[self.0 as usize]
    }

    /// The format's name.
    pub fn name(self) -> &'static str {
        self.get().name
    }

    /// Whether a copy in this format holds every bit of one in `native`.
    pub fn keeps(self, native: FormatId) -> bool {
        self == native || self.get().lossless_of == Some(native.name())
    }

    /// Exact bytes of `elements` numbers in `rows` rows, scales included.
    pub fn bytes(self, elements: u64, rows: u64) -> Bytes {
        let format = self.get();
        let payload_bits = (elements as u128 * format.quarter_bits as u128).div_ceil(4);
        let scale_bits = match format.scale {
            Scale::None => 0,
            Scale::Group { size, bits } => elements.div_ceil(size as u64) as u128 * bits as u128,
            Scale::Row { bits } => rows as u128 * bits as u128,
        };
        Bytes(u64::try_from(payload_bits.div_ceil(8) + scale_bits.div_ceil(8)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expert_of_gpt_oss_20b_takes_the_published_bytes() {
        let mxfp4 = FormatId::named("mxfp4").unwrap();
        assert_eq!(mxfp4.bytes(3 * 2880 * 2880, 3 * 2880), Bytes(13_219_200));
    }

    #[test]
    fn names_are_unique_and_lossless_formats_name_a_format() {
        assert_eq!(FormatId::named("bf16"), Some(FormatId::BF16));
        for (index, format) in FORMATS.iter().enumerate() {
            assert_eq!(FormatId::named(format.name), Some(FormatId(index as u8)));
            assert!(format.lossless_of.is_none_or(|name| FormatId::named(name).is_some()));
        }
    }
}
