//! A tiered cache of states with real bytes: a window of the last ones in eight bits in fast memory, and every one as it was computed, in
//! sixteen, in the host's, written there when it is made. So what leaves the window is only forgotten, and what is read from
//! behind it is what was computed, bit for bit.

use super::RecurrentError;
use crate::codec;
use half::f16;
use half::slice::HalfFloatSliceExt;
use policy::FormatId;
use policy::model::Matrix;

/// See the module.
#[derive(Debug)]
pub struct Window {
    numbers: usize,
    slots: usize,
    format: FormatId,
    /// The fast memory: `slots` states, each with its scale.
    fast: Vec<u8>,
    /// The host's: states one after the other.
    host: Vec<f16>,
    made: usize,
    /// Room for one state on its way from one form to the other.
    passing: Vec<f32>,
}

impl Window {
    /// Room for the last `slots` states of so many numbers, coded in eight bits.
    pub fn new(numbers: usize, slots: usize) -> Result<Window, RecurrentError> {
        if numbers == 0 || slots == 0 {
            return Err(RecurrentError::Shape("a window has states of some numbers"));
        }
        let format = FormatId::named("fp8_e4m3").unwrap_or(FormatId::BF16);
        let bytes = format.bytes(numbers as u64, 1).0 as usize;
        let (fast, passing) = (vec![0; bytes * slots], vec![0.0; numbers]);
        Ok(Window { numbers, slots, format, fast, host: Vec::new(), made: 0, passing })
    }

    /// Keeps the next state: in the window in eight bits, in the host's memory as it is.
    pub fn push(&mut self, state: &[f16]) -> Result<(), RecurrentError> {
        super::check("state", self.numbers, state.len())?;
        self.host.extend_from_slice(state);
        state.convert_to_f32_slice(&mut self.passing);
        let bytes = self.fast.len() / self.slots;
        let slot = &mut self.fast[self.made % self.slots * bytes..][..bytes];
        codec::encode(self.format, &self.passing, &row(self.numbers), slot)?;
        self.made += 1;
        Ok(())
    }

    /// Whether a state is in the window.
    pub fn is_hot(&self, place: usize) -> bool {
        place < self.made && self.made - place <= self.slots
    }

    /// Reads a state from the window; `false` if it has left it.
    pub fn read_hot(&self, place: usize, state: &mut [f32]) -> Result<bool, RecurrentError> {
        super::check("state", self.numbers, state.len())?;
        if !self.is_hot(place) {
            return Ok(false);
        }
        let bytes = self.fast.len() / self.slots;
        let slot = &self.fast[place % self.slots * bytes..][..bytes];
        codec::decode(self.format, slot, &row(self.numbers), state)?;
        Ok(true)
    }

    /// Copies a state back from the host's memory, as it was computed; `false` if there is none.
    pub fn read_exact(&self, place: usize, state: &mut [f16]) -> Result<bool, RecurrentError> {
        super::check("state", self.numbers, state.len())?;
        let Some(kept) = self.host.get(place * self.numbers..(place + 1) * self.numbers) else {
            return Ok(false);
        };
        state.copy_from_slice(kept);
        Ok(true)
    }

    /// States so far, those in the window, and those only in the host's memory.
    pub fn counts(&self) -> (usize, usize, usize) {
        let hot = self.made.min(self.slots);
        (self.made, hot, self.made - hot)
    }

    /// Bytes of fast memory, scales included, and of the host's.
    pub fn bytes(&self) -> (usize, usize) {
        (self.fast.len(), 2 * self.host.len())
    }
}

/// A state as one row, with one scale.
fn row(numbers: usize) -> [Matrix; 1] {
    [Matrix { rows: 1, columns: numbers as u64 }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_slides_and_nothing_is_lost() {
        let mut window = Window::new(40, 4).unwrap();
        let state = |place: usize| -> Vec<f16> {
            (0..40).map(|at| f16::from_f32(((place * 40 + at) as f32 * 0.37).sin())).collect()
        };
        for place in 0..11 {
            window.push(&state(place)).unwrap();
        }
        assert_eq!(window.counts(), (11, 4, 7));
        assert_eq!(window.bytes(), (4 * (40 + 4), 11 * 80));
        let (mut hot, mut exact) = (vec![0.0; 40], vec![f16::ZERO; 40]);
        for place in 0..11 {
            assert!(window.read_exact(place, &mut exact).unwrap());
            assert_eq!(exact, state(place));
            assert_eq!(window.read_hot(place, &mut hot).unwrap(), place >= 7);
            if place >= 7 {
                // Three bits of mantissa: half a step is a sixteenth.
                let off = |(found, kept): (&f32, &f16)| {
                    (found - kept.to_f32()).abs() <= 0.07 * kept.to_f32().abs() + 1e-3
                };
                assert!(hot.iter().zip(&state(place)).all(off));
            }
        }
        assert!(!window.read_exact(11, &mut exact).unwrap() && !window.is_hot(11));
        assert!(window.push(&exact[1..]).is_err() && Window::new(0, 4).is_err());
    }
}
