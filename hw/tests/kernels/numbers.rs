//! Numbers and shapes for the tests, from a seed.

use hw::codec::{self, CodecError};
use policy::format::FormatId;
use policy::model::Matrix;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64Mcg;

pub(crate) const PLAIN: [&str; 3] = ["bf16", "fp16", "fp32"];
pub(crate) const SCALED: [&str; 7] =
    ["fp8_e4m3", "fp8_e4m3_b128", "int8", "int8_g32", "mxfp4", "int4_g32", "int4_g128"];

pub(crate) fn named(name: &str) -> FormatId {
    FormatId::named(name).unwrap()
}

pub(crate) fn rng(seed: u64) -> Pcg64Mcg {
    Pcg64Mcg::seed_from_u64(seed)
}

/// Normal numbers whose size changes by powers of two from run to run, with zeros and whole runs of them.
pub(crate) fn values(count: u64, seed: u64) -> Vec<f32> {
    let mut rng = rng(seed);
    let mut size = 1.0f32;
    (0..count)
        .map(|at| {
            if at % 29 == 0 {
                size = match rng.random_range(0..16) {
                    0 => 0.0,
                    1 => 1e-30,
                    2 => 3e4,
                    exponent => f32::exp2(exponent as f32 - 10.0),
                };
            }
            let normal: f32 = StandardNormal.sample(&mut rng);
            normal * size
        })
        .collect()
}

/// Like weights of a model: normal, of one size.
pub(crate) fn weights(count: u64, seed: u64) -> Vec<f32> {
    let mut rng = rng(seed);
    (0..count)
        .map(|_| {
            let normal: f32 = StandardNormal.sample(&mut rng);
            normal * 0.02
        })
        .collect()
}

/// A copy of `values` on the host.
pub(crate) fn encoded(format: FormatId, values: &[f32], matrices: &[Matrix]) -> Vec<u8> {
    let mut out = vec![0; bytes(format, matrices) as usize];
    codec::encode(format, values, matrices, &mut out).unwrap();
    out
}

/// What a copy stands for, on the host.
pub(crate) fn decoded(format: FormatId, bytes: &[u8], matrices: &[Matrix]) -> Vec<f32> {
    let mut out = vec![0.0; elements(matrices) as usize];
    codec::decode(format, bytes, matrices, &mut out).unwrap();
    out
}

/// A copy in another format, on the host.
pub(crate) fn transcoded(
    from: FormatId,
    source: &[u8],
    to: FormatId,
    matrices: &[Matrix],
) -> Result<Vec<u8>, CodecError> {
    let mut out = vec![0; bytes(to, matrices) as usize];
    codec::transcode(from, source, to, matrices, &mut out).map(|()| out)
}

/// Bytes of a copy.
pub(crate) fn bytes(format: FormatId, matrices: &[Matrix]) -> u64 {
    format.bytes(elements(matrices), matrices.iter().map(|matrix| matrix.rows).sum()).0
}

pub(crate) fn elements(matrices: &[Matrix]) -> u64 {
    matrices.iter().map(|matrix| matrix.elements()).sum()
}
