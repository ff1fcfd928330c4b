//! OCP E4M3 with an f32 scale. Encoding is written out so that the compiler handles several values at once; the
//! `float8` crate, which it is tested against, goes value by value.

use super::scaled::Element;
use float8::F8E4M3;

const MAX: f32 = 448.0;
/// The smallest normal value: 2^-6.
const MIN_NORMAL: f32 = 0.015625;
/// Adding this leaves multiples of 2^-9, the smallest step, in the low bits of the mantissa.
const TO_STEPS: f32 = 24_576.0;

/// What each code stands for.
static VALUES: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        values[code] = F8E4M3::from_bits(code as u8).to_f32();
        code += 1;
    }
    values
};

/// The code nearest to `value`, ties to even; beyond 448 it is the one of 448.
fn code(value: f32) -> u8 {
    let magnitude = value.abs().min(MAX);
    let bits = magnitude.to_bits();
    let nearest = bits + 0x7_ffff + (bits >> 20 & 1);
    let normal = (nearest >> 20).wrapping_sub((127 - 7) << 3);
    let subnormal = (magnitude + TO_STEPS).to_bits();
    let code = if magnitude < MIN_NORMAL { subnormal } else { normal };
    (code & 0x7f | value.to_bits() >> 24 & 0x80) as u8
}

pub(super) struct E4m3;

impl Element for E4m3 {
    const BITS: usize = 8;
    const SCALE: usize = 4;

    fn store(values: &[f32], peak: f32, elements: &mut [u8], scale: &mut [u8]) {
        let step = peak / MAX;
        scale.copy_from_slice(&step.to_le_bytes());
        if step == 0.0 {
            elements.fill(0);
            return;
        }
        for (element, value) in elements.iter_mut().zip(values) {
            *element = code(value / step);
        }
    }

    fn load(elements: &[u8], scale: &[u8], out: &mut [f32]) {
        let step = f32::from_le_bytes([scale[0], scale[1], scale[2], scale[3]]);
        for (value, element) in out.iter_mut().zip(elements) {
            *value = VALUES[*element as usize] * step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn codes_are_those_of_the_float8_crate_for_every_f16_and_around_every_tie() {
        let halves =
            (0..=u16::MAX).map(|bits| f16::from_bits(bits).to_f32()).filter(|value| value.is_finite());
        let middles = (0..0x7e).map(|code| (VALUES[code] + VALUES[code + 1]) / 2.0);
        let around =
            middles.flat_map(|tie| [tie.next_down(), tie, tie.next_up()]).flat_map(|value| [value, -value]);
        for value in halves.chain(around) {
            assert_eq!(code(value), F8E4M3::from_f32(value).to_bits(), "{value}");
        }
    }
}
