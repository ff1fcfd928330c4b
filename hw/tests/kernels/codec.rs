//! Every change of format: the kernels' bytes are the host's.

use crate::cpu::{Buffer, Kernels, kernels};
use crate::numbers::{PLAIN, SCALED, elements, encoded, named, transcoded, values};
use hw::checksum::Checksum;
use hw::cuda::launch::{LaunchError, Place, Status, checksum, recode, scratch_bytes};
use policy::format::FormatId;
use policy::model::Matrix;
use proptest::prelude::*;

pub(crate) fn fresh() -> Buffer {
    Buffer::of(bytemuck::bytes_of(&Status::FRESH))
}

pub(crate) fn status(buffer: &Buffer) -> Status {
    bytemuck::pod_read_unaligned(&buffer.read())
}

/// A copy in another format as the kernels make it, and what they report.
pub(crate) fn recoded(
    kernels: &Kernels,
    from: FormatId,
    bytes: &[u8],
    to: FormatId,
    matrices: &[Matrix],
    backward: bool,
) -> (Vec<u8>, Status) {
    let elements = elements(matrices);
    let mut source = Buffer::of(bytes);
    let mut out = Buffer::unset(crate::numbers::bytes(to, matrices));
    let mut scratch = Buffer::unset(scratch_bytes(from, to, elements));
    let mut status_at = fresh();
    let from = Place { format: from, address: source.address() };
    let to = Place { format: to, address: out.address() };
    let launches = recode(from, to, matrices, scratch.address(), status_at.address()).unwrap();
    kernels.run(&launches, backward);
    scratch.read();
    assert_eq!(source.read(), bytes, "the source was written to");
    (out.read(), status(&status_at))
}

/// Up to three matrices, from a single number to a few tiles.
pub(crate) fn shapes() -> impl Strategy<Value = Vec<Matrix>> {
    let side = || prop_oneof![1u64..4, 1u64..80, Just(32), Just(90), Just(128)];
    let matrix = (side(), side()).prop_map(|(rows, columns)| Matrix { rows, columns });
    proptest::collection::vec(matrix, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn encoders_write_the_bytes_of_the_host(
        matrices in shapes(), seed: u64, backward: bool,
        from in proptest::sample::select(&PLAIN), to in proptest::sample::select(&SCALED),
    ) {
        let Some(kernels) = kernels() else { return Ok(()) };
        let native = encoded(named(from), &values(elements(&matrices), seed), &matrices);
        let host = transcoded(named(from), &native, named(to), &matrices).unwrap();
        let (bytes, status) = recoded(kernels, named(from), &native, named(to), &matrices, backward);
        prop_assert_eq!(status, Status::FRESH);
        prop_assert_eq!(bytes, host);
    }

    #[test]
    fn decoders_and_plain_formats_write_the_bytes_of_the_host(
        matrices in shapes(), seed: u64, backward: bool,
        from in proptest::sample::select([&PLAIN[..], &SCALED].concat()), to in proptest::sample::select(&PLAIN),
    ) {
        let Some(kernels) = kernels() else { return Ok(()) };
        prop_assume!(from != to);
        let copy = encoded(named(from), &values(elements(&matrices), seed), &matrices);
        let host = transcoded(named(from), &copy, named(to), &matrices).unwrap();
        let (bytes, _) = recoded(kernels, named(from), &copy, named(to), &matrices, backward);
        prop_assert_eq!(bytes, host);
    }

    #[test]
    fn a_native_format_with_scales_becomes_another(matrices in shapes(), seed: u64, to in proptest::sample::select(&SCALED)) {
        let Some(kernels) = kernels() else { return Ok(()) };
        prop_assume!(to != "mxfp4");
        let native = encoded(named("mxfp4"), &values(elements(&matrices), seed), &matrices);
        let host = transcoded(named("mxfp4"), &native, named(to), &matrices).unwrap();
        prop_assert_eq!(recoded(kernels, named("mxfp4"), &native, named(to), &matrices, false).0, host);
    }

    #[test]
    fn what_is_not_finite_is_found_where_the_host_finds_it(
        matrices in shapes(), at in any::<proptest::sample::Index>(), also in any::<proptest::sample::Index>(),
        to in proptest::sample::select(&SCALED),
    ) {
        let Some(kernels) = kernels() else { return Ok(()) };
        let mut numbers = vec![1.0f32; elements(&matrices) as usize];
        let (at, also) = (at.index(numbers.len()), also.index(numbers.len()));
        numbers[also] = f32::NEG_INFINITY;
        numbers[at] = f32::NAN;
        let native: &[u8] = bytemuck::cast_slice(&numbers);
        let (_, status) = recoded(kernels, named("fp32"), native, named(to), &matrices, false);
        prop_assert_eq!(status.refused, at.min(also) as u64);
    }

    #[test]
    fn checksums_are_those_of_the_host(length in 0usize..100_000, seed: u64, backward: bool) {
        let Some(kernels) = kernels() else { return Ok(()) };
        let mut bytes = vec![0; length];
        rand::Rng::fill_bytes(&mut crate::numbers::rng(seed), &mut bytes);
        let (mut at, mut status_at) = (Buffer::of(&bytes), fresh());
        let launch = checksum(at.address(), length as u64, status_at.address()).unwrap();
        for _ in 0..2 {
            kernels.run(std::slice::from_ref(&launch), backward);
            prop_assert_eq!(status(&status_at).checksum, [Checksum::of(&bytes).0, 0, 0]);
        }
    }
}

/// All half-precision patterns, infinities and NaN among them, through every plain format.
#[test]
fn plain_formats_keep_every_pattern_as_the_host_does() {
    let Some(kernels) = kernels() else { return };
    let matrices = [Matrix { rows: 256, columns: 256 }];
    let patterns: Vec<u16> = (0..=u16::MAX).collect();
    let ties: Vec<u32> = (0..=u16::MAX as u32).map(|bits| bits << 16 | 0x7fff | (bits & 1) << 15).collect();
    let half: &[u8] = bytemuck::cast_slice(&patterns);
    let single: &[u8] = bytemuck::cast_slice(&ties);
    for (from, bytes) in [("bf16", half), ("fp16", half), ("fp32", single)] {
        for to in PLAIN.into_iter().filter(|to| *to != from) {
            let host = transcoded(named(from), bytes, named(to), &matrices).unwrap();
            let (ours, _) = recoded(kernels, named(from), bytes, named(to), &matrices, false);
            let differs = ours.iter().zip(&host).position(|(ours, host)| ours != host);
            assert_eq!(differs, None, "the first byte that differs, {from} to {to}");
        }
    }
}

#[test]
fn a_format_without_kernels_is_refused() {
    let ends = |from, to| {
        let (from, to) = (Place { format: named(from), address: 0 }, Place { format: named(to), address: 0 });
        recode(from, to, &[Matrix { rows: 1, columns: 64 }], 0, 0)
    };
    assert_eq!(ends("bf16", "q4_k"), Err(LaunchError::NoKernel { from: "bf16", to: "q4_k" }));
    assert_eq!(ends("q4_k", "bf16"), Err(LaunchError::NoKernel { from: "q4_k", to: "bf16" }));
    assert_eq!(ends("bf16", "bf16_packed"), Err(LaunchError::TooSmallToPack { elements: 64 }));
}
