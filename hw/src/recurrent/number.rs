//! The numbers that activations and states are stored in. Kernels compute in f32 whatever they are.

use half::f16;
use half::slice::HalfFloatSliceExt;
use std::fmt::Debug;

/// How a number is stored.
pub trait Number: Copy + Default + Debug + PartialEq + Send + Sync + 'static {
    /// Bytes of one.
    const BYTES: usize = size_of::<Self>();

    /// Reads `from` into `to`, which is as long.
    fn expand(from: &[Self], to: &mut [f32]);

    /// Stores `from`, to the nearest, in `to`, which is as long.
    fn narrow(from: &[f32], to: &mut [Self]);
}

impl Number for f32 {
    #[inline(always)]
    fn expand(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    #[inline(always)]
    fn narrow(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
}

impl Number for f16 {
    #[inline(always)]
    fn expand(from: &[f16], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }

    #[inline(always)]
    fn narrow(from: &[f32], to: &mut [f16]) {
        to.convert_from_f32_slice(from);
    }
}

/// All of `from`, as f32.
pub fn expanded<T: Number>(from: &[T]) -> Vec<f32> {
    let mut to = vec![0.0; from.len()];
    T::expand(from, &mut to);
    to
}

/// All of `from`, as stored.
pub fn narrowed<T: Number>(from: &[f32]) -> Vec<T> {
    let mut to = vec![T::default(); from.len()];
    T::narrow(from, &mut to);
    to
}
