//! Symmetric integers of eight and four bits with an f16 scale.

use super::nibble;
use super::scaled::Element;
use half::f16;

/// Adding this to a number below 2^22 leaves its nearest integer, ties to even, in the low bits of the mantissa, in
/// two's complement. Unlike a conversion it costs one instruction on every processor.
const TO_INTEGER: f32 = 12_582_912.0;

/// Stores the scale for values up to `peak` in steps up to `largest`, and returns what to multiply values by.
fn store_scale(peak: f32, largest: f32, scale: &mut [u8]) -> f32 {
    let exact = (peak / largest).min(f16::MAX.to_f32());
    let stored = f16::from_f32(exact);
    scale.copy_from_slice(&stored.to_le_bytes());
    // As in GGUF, values are divided by the scale before it was rounded.
    if stored == f16::ZERO { 0.0 } else { 1.0 / exact }
}

fn load_scale(scale: &[u8]) -> f32 {
    f16::from_le_bytes([scale[0], scale[1]]).to_f32()
}

/// The low eight bits of the integer nearest to `value`, which is clamped to `largest`.
fn nearest(value: f32, largest: f32) -> u8 {
    (value.clamp(-largest, largest) + TO_INTEGER).to_bits() as u8
}

/// -127 ..= 127.
pub(super) struct Int8;

impl Element for Int8 {
    const BITS: usize = 8;
    const SCALE: usize = 2;

    fn store(values: &[f32], peak: f32, elements: &mut [u8], scale: &mut [u8]) {
        let inverse = store_scale(peak, 127.0, scale);
        for (element, value) in elements.iter_mut().zip(values) {
            *element = nearest(value * inverse, 127.0);
        }
    }

    fn load(elements: &[u8], scale: &[u8], out: &mut [f32]) {
        let scale = load_scale(scale);
        for (value, element) in out.iter_mut().zip(elements) {
            *value = *element as i8 as f32 * scale;
        }
    }
}

/// -7 ..= 7, stored plus 8.
pub(super) struct Int4;

impl Element for Int4 {
    const BITS: usize = 4;
    const SCALE: usize = 2;

    fn store(values: &[f32], peak: f32, elements: &mut [u8], scale: &mut [u8]) {
        let inverse = store_scale(peak, 7.0, scale);
        nibble::pack(values, elements, |value| nearest(value * inverse, 7.0).wrapping_add(8));
    }

    fn load(elements: &[u8], scale: &[u8], out: &mut [f32]) {
        let scale = load_scale(scale);
        nibble::unpack(elements, out, |code| (code as i8 - 8) as f32 * scale);
    }
}
