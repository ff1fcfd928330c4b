//! The forms of a run as bits of a word.

use crate::event::Form;
use crate::format::{FORMATS, FormatId};
use crate::id::TierId;
use crate::machine::{Class, Machine};
use crate::refused::Refused;

/// The most (tier, format) pairs a run can have.
pub const MAX_FORMS: usize = 64;

/// The forms of a run as bits, so that a block's copies are one word.
#[derive(Clone, Debug)]
pub(crate) struct Forms {
    pub(crate) all: Vec<Form>,
    /// The bit of each format in each tier; zero for a form that is not part of the run.
    bits: Vec<[u64; FORMATS.len()]>,
    pub(crate) fast: u64,
    pub(crate) direct: u64,
    pub(crate) staged: u64,
    pub(crate) cold: u64,
    pub(crate) of_format: [u64; FORMATS.len()],
}

impl Forms {
    /// Every one of these formats in every tier.
    pub(crate) fn new(machine: &Machine, formats: &[FormatId]) -> Forms {
        let mut forms = Forms {
            all: Vec::new(),
            bits: vec![[0; FORMATS.len()]; machine.tiers.len()],
            fast: 0,
            direct: 0,
            staged: 0,
            cold: 0,
            of_format: [0; FORMATS.len()],
        };
        for tier in (0..machine.tiers.len() as u8).map(TierId) {
            for &format in formats {
                let bit = 1u64.checked_shl(forms.all.len() as u32).unwrap_or(0);
                forms.all.push(Form { tier, format });
                forms.bits[tier.index()][format.0 as usize] = bit;
                match machine.tier(tier).class {
                    Class::Fast => forms.fast |= bit,
                    Class::Staged => forms.staged |= bit,
                    Class::Cold => forms.cold |= bit,
                }
                if format.get().direct {
                    forms.direct |= bit;
                }
                forms.of_format[format.0 as usize] |= bit;
            }
        }
        forms
    }

    /// The bit of a form.
    pub(crate) fn bit(&self, form: Form) -> Result<u64, Refused> {
        match self.bits.get(form.tier.index()).map_or(0, |tier| tier[form.format.0 as usize]) {
            0 => Err(Refused::UnknownForm(form)),
            bit => Ok(bit),
        }
    }

    /// The first of some copies: the fast tier's before others, the native format's before others.
    pub(crate) fn first(&self, copies: u64) -> Option<Form> {
        (copies != 0).then(|| self.all[copies.trailing_zeros() as usize])
    }
}
