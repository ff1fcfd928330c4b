//! A tiered cache of states with real bytes: a window of the last ones in eight bits in fast memory, and every one as it was computed, in
//! sixteen, in the host's, written there when it is made. So what leaves the window is only forgotten, and what is read from
//! behind it is what was computed, bit for bit.
//!
//! The eight bits are fp8_e4m3 without a scale: a state's numbers are of one magnitude for as long as its layer is the same, and what
//! is lost near zero is little (`hotset bench states` prints it). A state with a number beyond 448 has no place in the window and is read
//! from the host's memory.

use super::RecurrentError;
use crate::codec::fp8;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// See the module.
#[derive(Debug)]
pub struct Window {
    numbers: usize,
    slots: usize,
    /// The fast memory: a code a number of `slots` states.
    fast: Vec<u8>,
    /// Whether the codes of each slot hold its state.
    holds: Vec<bool>,
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
        let (fast, holds, passing) = (vec![0; numbers * slots], vec![false; slots], vec![0.0; numbers]);
        Ok(Window { numbers, slots, fast, holds, host: Vec::new(), made: 0, passing })
    }

    /// Keeps the next state: in the window in eight bits, in the host's memory as it is.
    pub fn push(&mut self, state: &[f16]) -> Result<(), RecurrentError> {
        super::check("state", self.numbers, state.len())?;
        self.host.extend_from_slice(state);
        state.convert_to_f32_slice(&mut self.passing);
        let slot = self.made % self.slots;
        let codes = &mut self.fast[slot * self.numbers..][..self.numbers];
        self.holds[slot] = fp8::encode_unscaled(&self.passing, codes);
        self.made += 1;
        Ok(())
    }

    /// Whether a state is in the window.
    pub fn is_hot(&self, place: usize) -> bool {
        place < self.made && self.made - place <= self.slots && self.holds[place % self.slots]
    }

    /// Reads a state from the window; `false` if it has left it, or never was in it.
    pub fn read_hot(&self, place: usize, state: &mut [f32]) -> Result<bool, RecurrentError> {
        super::check("state", self.numbers, state.len())?;
        if !self.is_hot(place) {
            return Ok(false);
        }
        fp8::decode_unscaled(&self.fast[place % self.slots * self.numbers..][..self.numbers], state);
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
        let hot = self.holds.iter().filter(|holds| **holds).count();
        (self.made, hot, self.made - hot)
    }

    /// Bytes of fast memory, and of the host's.
    pub fn bytes(&self) -> (usize, usize) {
        (self.fast.len(), 2 * self.host.len())
    }
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
        assert_eq!(window.bytes(), (4 * 40, 11 * 80));
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
        // What fp8 has no code for is only where everything is.
        exact[3] = f16::from_f32(500.0);
        window.push(&exact).unwrap();
        assert!(!window.is_hot(11) && !window.read_hot(11, &mut hot).unwrap() && window.is_hot(10));
        assert!(window.read_exact(11, &mut exact).unwrap() && exact[3].to_f32() == 500.0);
    }
}
