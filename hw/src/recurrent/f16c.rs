//! fp16 and back by the processor's own instructions, eight numbers at a time. The `half` crate asks for them again at every eight numbers,
//! which made attention over a cache three times slower.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Numbers of an instruction.
#[cfg(target_arch = "x86_64")]
const LANES: usize = 8;

/// Reads `from` into `to`, which is as long.
pub(super) fn expand(from: &[f16], to: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("f16c") && is_x86_feature_detected!("avx") {
        // SAFETY: the processor has the instructions.
        #[allow(unsafe_code)]
        return unsafe { expand_lanes(from, to) };
    }
    from.convert_to_f32_slice(to);
}

/// Stores `from`, to the nearest, ties to even, in `to`, which is as long.
pub(super) fn narrow(from: &[f32], to: &mut [f16]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("f16c") && is_x86_feature_detected!("avx") {
        // SAFETY: the processor has the instructions.
        #[allow(unsafe_code)]
        return unsafe { narrow_lanes(from, to) };
    }
    to.convert_from_f32_slice(from);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx,f16c")]
#[allow(unsafe_code)]
fn expand_lanes(from: &[f16], to: &mut [f32]) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
    let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<LANES>(), to.as_chunks_mut::<LANES>());
    for (from, to) in from.iter().zip(to) {
        // SAFETY: eight numbers each.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast()))) };
    }
    from_rest.convert_to_f32_slice(to_rest);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx,f16c")]
#[allow(unsafe_code)]
fn narrow_lanes(from: &[f32], to: &mut [f16]) {
    use std::arch::x86_64::{_MM_FROUND_TO_NEAREST_INT, _mm_storeu_si128, _mm256_cvtps_ph, _mm256_loadu_ps};
    let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<LANES>(), to.as_chunks_mut::<LANES>());
    for (from, to) in from.iter().zip(to) {
        // SAFETY: eight numbers each.
        unsafe {
            let nearest = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(from.as_ptr()));
            _mm_storeu_si128(to.as_mut_ptr().cast(), nearest);
        }
    }
    to_rest.convert_from_f32_slice(from_rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_half_crate() {
        let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).filter(|number| !number.is_nan()).collect();
        for length in [all.len(), 13, 0] {
            let mut values = vec![0.0; length];
            expand(&all[..length], &mut values);
            assert!(
                values.iter().zip(&all).all(|(value, half)| value.to_bits() == half.to_f32_const().to_bits())
            );
            // Between numbers, where they round.
            let between: Vec<f32> = values.windows(2).map(|two| two[0] + (two[1] - two[0]) * 0.5).collect();
            let mut stored = vec![f16::ZERO; between.len()];
            narrow(&between, &mut stored);
            for (value, stored) in between.iter().zip(&stored) {
                let expected = f16::from_f32_const(*value);
                assert!(*stored == expected || value.is_nan(), "{value} is stored as {stored}");
            }
        }
    }
}
