//! The lossless packing: bit-exact, refused where it must be, and never read outside of what is there.

use crate::codec::{fresh, recoded, status};
use crate::cpu::{Buffer, kernels};
use crate::numbers::{named, rng, transcoded, weights};
use hw::codec::CodecError;
use hw::cuda::launch::{Place, Status, packed_room, recode};
use policy::model::Matrix;
use proptest::prelude::*;
use rand::RngExt;

fn bf16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()).collect()
}

fn row(elements: u64) -> [Matrix; 1] {
    [Matrix { rows: 1, columns: elements }]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_packed_comes_back_bit_for_bit(elements in 640u64..20_000, seed: u64, backward: bool, odd in 0u32..64) {
        let Some(kernels) = kernels() else { return Ok(()) };
        let (bf16_format, packed) = (named("bf16"), named("bf16_packed"));
        let mut values = weights(elements, seed);
        // Infinities, NaN, zeros and denormals, a few.
        let mut rng = rng(seed);
        for _ in 0..odd.min(elements as u32 / 200) {
            let at = rng.random_range(0..values.len());
            values[at] = f32::from_bits([0x7f80_0000, 0xffc1_0000, 0, 0x8001_0000][at % 4]);
        }
        let native = bf16(&values);
        let (copy, status) = recoded(kernels, bf16_format, &native, packed, &row(elements), backward);
        if status.without_code > packed_room(elements).unwrap() {
            let host = transcoded(bf16_format, &native, packed, &row(elements));
            let room = packed_room(elements).unwrap();
            prop_assert_eq!(host, Err(CodecError::DoesNotPack { escapes: status.without_code, room }));
            return Ok(());
        }
        prop_assert_eq!(status, Status { without_code: status.without_code, ..Status::FRESH });
        prop_assert_eq!(&copy, &transcoded(bf16_format, &native, packed, &row(elements)).unwrap());
        let (back, status) = recoded(kernels, packed, &copy, bf16_format, &row(elements), backward);
        prop_assert_eq!(status.refused, u64::MAX);
        prop_assert_eq!(back, native.clone());
        let wide: Vec<u8> = values.iter().flat_map(|value| (value.to_bits() & 0xffff_0000).to_le_bytes()).collect();
        prop_assert_eq!(recoded(kernels, named("fp32"), &wide, packed, &row(elements), backward).0, copy);
    }

    #[test]
    fn corrupt_bytes_are_reported_and_harm_nothing(seed: u64, flips in 1usize..40) {
        let Some(kernels) = kernels() else { return Ok(()) };
        let elements = 9_000;
        let (mut copy, _) =
            recoded(kernels, named("bf16"), &bf16(&weights(elements, seed)), named("bf16_packed"), &row(elements), false);
        let mut rng = rng(seed);
        let (codes, escapes) = (9_000, 9_000 + 3_375 + 8 + 12);
        for _ in 0..flips {
            copy[rng.random_range(codes..escapes)] ^= rng.random_range(1..=255u8);
        }
        recoded(kernels, named("bf16_packed"), &copy, named("bf16"), &row(elements), false);
        // An offset that is wrong is always noticed.
        copy[codes + 3_375 + 8 + 5] ^= 0x40;
        let (_, status) = recoded(kernels, named("bf16_packed"), &copy, named("bf16"), &row(elements), false);
        prop_assert_ne!(status.refused, u64::MAX);
    }
}

#[test]
fn a_block_with_too_many_exponents_is_counted_and_not_written_outside() {
    let Some(kernels) = kernels() else { return };
    let patterns: Vec<u16> = (0..=u16::MAX).collect();
    let (_, status) = recoded(
        kernels,
        named("bf16"),
        bytemuck::cast_slice(&patterns),
        named("bf16_packed"),
        &row(65_536),
        false,
    );
    assert_eq!(status.without_code, 65_536 * 249 / 256);
    assert!(status.without_code > packed_room(65_536).unwrap());
}

#[test]
fn values_that_bf16_cannot_hold_are_refused() {
    let Some(kernels) = kernels() else { return };
    let mut values = vec![1.0f32; 2_000];
    values[1_234] = 1.0 + f32::EPSILON;
    let (_, status) = recoded(
        kernels,
        named("fp32"),
        bytemuck::cast_slice(&values),
        named("bf16_packed"),
        &row(2_000),
        false,
    );
    assert_eq!(status.refused, 1_234);
}

#[test]
fn counters_are_clear_for_the_next_block() {
    let Some(kernels) = kernels() else { return };
    let native = bf16(&weights(5_000, 1));
    let (mut source, mut copy, mut status_at) = (Buffer::of(&native), Buffer::unset(7_032), fresh());
    let ends = |format, address| Place { format: named(format), address };
    let from = ends("bf16", source.address());
    let launches =
        recode(from, ends("bf16_packed", copy.address()), &row(5_000), 0, status_at.address()).unwrap();
    kernels.run(&launches, false);
    let (first, counted) = (copy.read(), status(&status_at));
    kernels.run(&launches, true);
    assert_eq!((copy.read(), status(&status_at)), (first, counted));
}
