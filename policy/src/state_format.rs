//! Formats of recurrent states: what a checkpoint takes, and what coding it once costs in error.
//!
//! A state is coded once, from full precision, and never again: rounding what was rounded adds up over a long-lived head.

use crate::format::FormatId;
use crate::units::Bytes;
use serde::{Deserialize, Serialize};

/// A row of [`STATE_FORMATS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StateFormat(u8);

/// How the numbers of a state are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StateCode {
    /// Its name in YAML and reports.
    pub name: &'static str,
    /// The number format of the elements.
    format: &'static str,
    /// Whether the columns have a 16-bit scale each beside those of the number format.
    columns: bool,
    /// Relative error of a state coded once, in the Frobenius norm: zero where it is kept as it was computed.
    pub error: f64,
}

/// Every format of states, the finest first. Errors are those of random states with columns of unequal size, coded once:
/// the target that real states are held to.
pub const STATE_FORMATS: &[StateCode] = &[
    StateCode { name: "fp32", format: "fp32", columns: false, error: 0.0 },
    StateCode { name: "fp16", format: "fp16", columns: false, error: 0.0 },
    StateCode { name: "int8_g32", format: "int8_g32", columns: true, error: 0.0042 },
    StateCode { name: "int8", format: "int8", columns: false, error: 0.012 },
    StateCode { name: "fp8", format: "fp8_e4m3", columns: false, error: 0.02 },
    StateCode { name: "int4", format: "int4_g32", columns: true, error: 0.079 },
    StateCode { name: "int4_g32", format: "int4_g32", columns: false, error: 0.145 },
];

/// Bits of a column's scale.
const COLUMN_BITS: u64 = 16;

impl StateFormat {
    /// What states are computed in and kept in while their request runs, where nothing else is said: 16 bits.
    pub const SERVED: StateFormat = StateFormat(1);

    /// The format called `name`.
    pub fn named(name: &str) -> Option<StateFormat> {
        STATE_FORMATS.iter().position(|code| code.name == name).map(|index| StateFormat(index as u8))
    }

    /// All of them, the finest first.
    pub fn all() -> impl Iterator<Item = StateFormat> {
        (0..STATE_FORMATS.len() as u8).map(StateFormat)
    }

    /// Its place in the table.
    pub fn index(self) -> usize {
        self.0.into()
    }

    /// The row of the table.
    pub fn get(self) -> &'static StateCode {
        &STATE_FORMATS[self.index()]
    }

    /// The format's name.
    pub fn name(self) -> &'static str {
        self.get().name
    }

    /// Whether a state keeps what was computed: it may still be coded in fewer bits.
    pub fn is_exact(self) -> bool {
        self.get().error == 0.0
    }

    /// The format of the numbers themselves. Where that has a scale a row, a row is a column of the state.
    pub fn numbers(self) -> FormatId {
        FormatId::named(self.get().format).unwrap_or(FormatId::BF16)
    }

    /// Whether each column has a scale beside those of the numbers' format.
    pub fn scales_columns(self) -> bool {
        self.get().columns
    }

    /// The largest error of states whose numbers are in a format: zero where none are.
    pub fn coarsest_error(numbers: FormatId) -> f64 {
        let errors =
            StateFormat::all().filter(|format| format.numbers() == numbers).map(|format| format.get().error);
        errors.fold(0.0, f64::max)
    }

    /// Exact bytes of so many numbers in so many columns, scales included.
    pub fn bytes(self, numbers: u64, columns: u64) -> Bytes {
        let own = self.numbers().bytes(numbers, columns);
        own + if self.scales_columns() {
            Bytes(columns.saturating_mul(COLUMN_BITS).div_ceil(8))
        } else {
            Bytes::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_name_number_formats() {
        for (index, code) in STATE_FORMATS.iter().enumerate() {
            assert_eq!(StateFormat::named(code.name), Some(StateFormat(index as u8)));
            assert!(FormatId::named(code.format).is_some(), "{}", code.name);
        }
        assert_eq!(StateFormat::SERVED.name(), "fp16");
    }

    #[test]
    fn scales_are_counted_by_hand() {
        // A head of Nemotron-H: 64 by 128 numbers in 128 columns.
        let bytes = |name| StateFormat::named(name).unwrap().bytes(64 * 128, 128).0;
        assert_eq!(bytes("fp32"), 64 * 128 * 4);
        assert_eq!(bytes("int8"), 64 * 128 + 2 * 128);
        // Bits: 4, half a bit for groups of 32, a quarter for columns of 64.
        assert_eq!(bytes("int4") * 8, 64 * 128 * 19 / 4);
        assert_eq!(bytes("int4_g32") * 8, 64 * 128 * 9 / 2);
        assert_eq!(bytes("int8_g32") * 8, 64 * 128 * 35 / 4);
    }
}
