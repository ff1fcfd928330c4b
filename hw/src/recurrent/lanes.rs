//! Rows of numbers, sixteen lanes at a time. Sums are taken in one order whatever the processor: number `n` goes to lane `n % 16`,
//! then the upper half of the lanes is added to the lower one until one is left. No operation is fused.

use fearless_simd::prelude::*;
use fearless_simd::{Simd, f32x16, u32x16};

const LANES: usize = 16;

/// `row = decay row + injected b`; the result is `row c`.
#[inline(always)]
pub(super) fn advance<S: Simd>(
    simd: S,
    row: &mut [f32],
    decay: f32,
    injected: f32,
    b: &[f32],
    c: &[f32],
) -> f32 {
    let mut sums = f32x16::splat(simd, 0.0);
    let (full, rest) = row.as_chunks_mut::<LANES>();
    let (b_full, b_rest) = b.as_chunks::<LANES>();
    let (c_full, c_rest) = c.as_chunks::<LANES>();
    for (row, (b, c)) in full.iter_mut().zip(b_full.iter().zip(c_full)) {
        let next = f32x16::load_array_ref(simd, row) * decay + f32x16::load_array_ref(simd, b) * injected;
        next.store_slice(row);
        sums += next * f32x16::load_array_ref(simd, c);
    }
    let mut lanes = [0.0; LANES];
    sums.store_slice(&mut lanes);
    for (lane, (number, (b, c))) in lanes.iter_mut().zip(rest.iter_mut().zip(b_rest.iter().zip(c_rest))) {
        *number = *number * decay + b * injected;
        *lane += *number * c;
    }
    total(lanes)
}

/// `row = decays row + injected b`, a decay for each number; the result is `row c`.
#[inline(always)]
pub(super) fn advance_each<S: Simd>(
    simd: S,
    row: &mut [f32],
    decays: &[f32],
    injected: f32,
    b: &[f32],
    c: &[f32],
) -> f32 {
    let mut lanes = [0.0; LANES];
    for (at, numbers) in row.chunks_mut(LANES).enumerate() {
        let part = at * LANES..at * LANES + numbers.len();
        let (decays, b, c) = (&decays[part.clone()], &b[part.clone()], &c[part]);
        if let Ok(full) = <&mut [f32; LANES]>::try_from(&mut *numbers) {
            let injected = f32x16::from_slice(simd, b) * injected;
            let next = f32x16::load_array_ref(simd, full) * f32x16::from_slice(simd, decays) + injected;
            next.store_slice(full);
            let sums = f32x16::from_slice(simd, &lanes) + next * f32x16::from_slice(simd, c);
            sums.store_slice(&mut lanes);
            continue;
        }
        for (lane, number) in numbers.iter_mut().enumerate() {
            *number = *number * decays[lane] + b[lane] * injected;
            lanes[lane] += *number * c[lane];
        }
    }
    total(lanes)
}

/// `a b`.
#[inline(always)]
pub(super) fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sums = f32x16::splat(simd, 0.0);
    let ((a_full, a_rest), (b_full, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_full.iter().zip(b_full) {
        sums += f32x16::load_array_ref(simd, a) * f32x16::load_array_ref(simd, b);
    }
    let mut lanes = [0.0; LANES];
    sums.store_slice(&mut lanes);
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += a * b;
    }
    total(lanes)
}

/// The sum of all numbers.
#[inline(always)]
pub(super) fn sum<S: Simd>(simd: S, numbers: &[f32]) -> f32 {
    let mut sums = f32x16::splat(simd, 0.0);
    let (full, rest) = numbers.as_chunks::<LANES>();
    for numbers in full {
        sums += f32x16::load_array_ref(simd, numbers);
    }
    let mut lanes = [0.0; LANES];
    sums.store_slice(&mut lanes);
    lanes.iter_mut().zip(rest).for_each(|(lane, number)| *lane += number);
    total(lanes)
}

/// The largest number; the least there is where there are none.
#[inline(always)]
pub(super) fn largest<S: Simd>(simd: S, numbers: &[f32]) -> f32 {
    let mut most = f32x16::splat(simd, f32::MIN);
    let (full, rest) = numbers.as_chunks::<LANES>();
    for numbers in full {
        most = most.max(f32x16::load_array_ref(simd, numbers));
    }
    let mut lanes = [0.0; LANES];
    most.store_slice(&mut lanes);
    lanes.iter().chain(rest).fold(f32::MIN, |most, number| most.max(*number))
}

fn total(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// e to each of `values`, within 2e-7 of it; what is below -87 gives 1.6e-38, where an f32 still has all its digits.
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, values: &mut [f32]) {
    let (full, rest) = values.as_chunks_mut::<LANES>();
    for values in full {
        exp_lanes(simd, f32x16::load_array_ref(simd, values)).store_slice(values);
    }
    if !rest.is_empty() {
        let mut last = [0.0; LANES];
        last[..rest.len()].copy_from_slice(rest);
        exp_lanes(simd, f32x16::load_array_ref(simd, &last)).store_slice(&mut last);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// Cephes' expf (Moshier): the fraction of x / ln 2 by a polynomial, the rest as an exponent.
#[inline(always)]
fn exp_lanes<S: Simd>(simd: S, x: f32x16<S>) -> f32x16<S> {
    const POLYNOMIAL: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    /// ln 2 in two parts, of which the first has so few digits that its multiples are exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let x = x.max(f32x16::splat(simd, -87.0)).min(f32x16::splat(simd, 88.0));
    let whole = (x * std::f32::consts::LOG2_E).round_ties_even();
    let rest = x - whole * LN_2[0] - whole * LN_2[1];
    let mut sum = f32x16::splat(simd, POLYNOMIAL[0]);
    for term in &POLYNOMIAL[1..] {
        sum = sum * rest + *term;
    }
    let fraction = sum * (rest * rest) + rest + 1.0;
    let exponent: u32x16<S> = (whole + 127.0).to_int();
    let power: f32x16<S> = (exponent << 23).bitcast();
    fraction * power
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::levels;
    use fearless_simd::dispatch;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exp_is_within_a_few_roundings(values in prop::collection::vec(-90.0f32..88.0, 1..40)) {
            for level in levels() {
                let mut got = values.clone();
                dispatch!(level, simd => exp(simd, &mut got));
                for (got, value) in got.iter().zip(&values) {
                    let exact = libm::exp(f64::from(value.max(-87.0)));
                    prop_assert!((f64::from(*got) / exact - 1.0).abs() < 2e-7, "exp({value}) is not {got}");
                }
            }
        }

        #[test]
        fn rows_are_the_same_on_all_vectors(numbers in prop::collection::vec(-2.0f32..2.0, 1..70), decay in 0.0f32..1.0) {
            let (b, c): (Vec<f32>, Vec<f32>) = (numbers.iter().rev().copied().collect(), numbers.clone());
            let decays = vec![decay; numbers.len()];
            let results = levels().map(|level| {
                let (mut row, mut each) = (numbers.clone(), numbers.clone());
                let read = dispatch!(level, simd => advance(simd, &mut row, decay, 0.5, &b, &c));
                let read_each = dispatch!(level, simd => advance_each(simd, &mut each, &decays, 0.5, &b, &c));
                let again = dispatch!(level, simd => dot(simd, &row, &c));
                (row, each, [read, read_each, again].map(f32::to_bits))
            });
            let results: Vec<_> = results.collect();
            for (row, each, reads) in &results {
                prop_assert_eq!(row, each);
                prop_assert_eq!(reads, &[reads[0]; 3]);
                prop_assert_eq!(&results[0].0, row);
                prop_assert_eq!(&results[0].2, reads);
            }
        }
    }
}
