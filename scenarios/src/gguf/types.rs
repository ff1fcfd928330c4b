//! The tensor types of ggml: their numbers in a file, the size of their blocks, and the format that each is here.

use policy::FormatId;

/// A type of ggml.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TensorType {
    /// Its number in a file.
    id: u32,
    pub(crate) name: &'static str,
    /// Elements of a block; a row has a whole number of blocks.
    pub(crate) block: u64,
    /// Bytes of a block.
    pub(crate) bytes: u64,
    /// The format of the same numbers; weights that move need one.
    format: Option<&'static str>,
}

const fn row(
    id: u32,
    name: &'static str,
    block: u64,
    bytes: u64,
    format: Option<&'static str>,
) -> TensorType {
    TensorType { id, name, block, bytes, format }
}

/// `ggml_type` of ggml.h, with the sizes of `GGML_QUANT_SIZES` of the Python package gguf 0.19.0.
const TYPES: &[TensorType] = &[
    row(0, "F32", 1, 4, Some("fp32")),
    row(1, "F16", 1, 2, Some("fp16")),
    row(2, "Q4_0", 32, 18, Some("int4_g32")),
    row(3, "Q4_1", 32, 20, Some("q4_1")),
    row(6, "Q5_0", 32, 22, Some("q5_0")),
    row(7, "Q5_1", 32, 24, Some("q5_1")),
    row(8, "Q8_0", 32, 34, Some("int8_g32")),
    row(9, "Q8_1", 32, 40, None),
    row(10, "Q2_K", 256, 84, Some("q2_k")),
    row(11, "Q3_K", 256, 110, Some("q3_k")),
    row(12, "Q4_K", 256, 144, Some("q4_k")),
    row(13, "Q5_K", 256, 176, Some("q5_k")),
    row(14, "Q6_K", 256, 210, Some("q6_k")),
    row(15, "Q8_K", 256, 292, None),
    row(16, "IQ2_XXS", 256, 66, Some("iq2_xxs")),
    row(17, "IQ2_XS", 256, 74, Some("iq2_xs")),
    row(18, "IQ3_XXS", 256, 98, Some("iq3_xxs")),
    row(19, "IQ1_S", 256, 50, Some("iq1_s")),
    row(20, "IQ4_NL", 32, 18, Some("iq4_nl")),
    row(21, "IQ3_S", 256, 110, Some("iq3_s")),
    row(22, "IQ2_S", 256, 82, Some("iq2_s")),
    row(23, "IQ4_XS", 256, 136, Some("iq4_xs")),
    row(24, "I8", 1, 1, None),
    row(25, "I16", 1, 2, None),
    row(26, "I32", 1, 4, None),
    row(27, "I64", 1, 8, None),
    row(28, "F64", 1, 8, None),
    row(29, "IQ1_M", 256, 56, Some("iq1_m")),
    row(30, "BF16", 1, 2, Some("bf16")),
    row(34, "TQ1_0", 256, 54, Some("tq1_0")),
    row(35, "TQ2_0", 256, 66, Some("tq2_0")),
    row(39, "MXFP4", 32, 17, Some("mxfp4")),
    row(40, "NVFP4", 64, 36, Some("nvfp4")),
];

impl TensorType {
    /// The type with a number.
    pub(crate) fn numbered(id: u32) -> Option<&'static TensorType> {
        TYPES.iter().find(|row| row.id == id)
    }

    /// The format of the same numbers, if a block may be in it.
    pub(crate) fn format(&self) -> Option<FormatId> {
        self.format.and_then(FormatId::named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::Bytes;

    #[test]
    fn a_format_takes_the_bytes_of_its_type() {
        for row in TYPES {
            let Some(format) = row.format() else { continue };
            assert_eq!(format.bytes(row.block * 35, 7), Bytes(row.bytes * 35), "{}", row.name);
        }
        assert!(TYPES.iter().all(|row| row.format.is_none() == row.format().is_none()));
        assert_eq!(TensorType::numbered(4), None);
    }
}
