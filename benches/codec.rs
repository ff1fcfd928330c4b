//! The host's numbers, one core: encode and decode of each format, in bytes of bf16 a second; an expert read from each
//! format, in bytes of the copy a second; and what this machine's memory gives to read, copy and check.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hw::checksum::Checksum;
use hw::codec::{coded, transcode};
use hw::compute::{Scratch, Weights};
use policy::FormatId;
use policy::model::Matrix;
use rand::SeedableRng;
use rand_distr::{Distribution, Normal};
use rand_pcg::Pcg64;
use std::hint::black_box;

/// An expert of 24 MiB in bf16: more than a core's share of the caches.
const HIDDEN: u64 = 2048;
const MATRICES: [Matrix; 3] = [Matrix { rows: HIDDEN, columns: HIDDEN }; 3];

fn elements() -> u64 {
    MATRICES.iter().map(|matrix| matrix.elements()).sum()
}

/// Gaussian weights in bf16, as trained ones are: the lossless format has exponents to code.
fn native() -> Vec<u8> {
    let (mut rng, weights) =
        (Pcg64::seed_from_u64(1), Normal::new(0.0f32, 0.02).expect("a finite deviation"));
    (0..elements()).flat_map(|_| ((weights.sample(&mut rng).to_bits() >> 16) as u16).to_le_bytes()).collect()
}

fn bf16() -> FormatId {
    FormatId::named("bf16").expect("a format")
}

fn buffer(format: FormatId) -> Vec<u8> {
    vec![0; format.bytes(elements(), 3 * HIDDEN).0 as usize]
}

fn memory(criterion: &mut Criterion) {
    let (source, mut target) = (native(), buffer(bf16()));
    let mut group = criterion.benchmark_group("memory");
    group.throughput(Throughput::Bytes(source.len() as u64)).sample_size(20);
    group.bench_function("read", |bench| {
        bench.iter(|| {
            let (words, _) = source.as_chunks::<8>();
            black_box(words.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word))))
        })
    });
    group.bench_function("copy", |bench| bench.iter(|| target.copy_from_slice(black_box(&source))));
    group.bench_function("checksum", |bench| bench.iter(|| Checksum::of(black_box(&source))));
    group.finish();
}

fn coders(criterion: &mut Criterion) {
    let (native, mut back) = (native(), buffer(bf16()));
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Bytes(native.len() as u64)).sample_size(10);
    for format in coded() {
        let mut coded = buffer(format);
        let id = BenchmarkId::new("encode", format.name());
        let encode = |coded: &mut [u8]| transcode(bf16(), &native, format, &MATRICES, coded);
        group.bench_function(id, |bench| bench.iter(|| encode(&mut coded).expect("weights that fit")));
        let id = BenchmarkId::new("decode", format.name());
        let mut decode = || transcode(format, &coded, bf16(), &MATRICES, &mut back);
        group.bench_function(id, |bench| bench.iter(|| decode().expect("bytes of the encoder")));
    }
    group.finish();
}

fn experts(criterion: &mut Criterion) {
    let native = native();
    let x: Vec<f32> = (0..16 * HIDDEN).map(|at| (at % 17) as f32 / 16.0 - 0.5).collect();
    let (mut y, mut scratch) = (vec![0.0; x.len()], Scratch::default());
    let mut group = criterion.benchmark_group("expert");
    group.sample_size(10);
    for format in coded().filter(|format| format.get().direct) {
        let mut coded = buffer(format);
        transcode(bf16(), &native, format, &MATRICES, &mut coded).expect("weights that fit");
        let weights = Weights::new(format, &coded, &MATRICES).expect("a copy");
        group.throughput(Throughput::Bytes(coded.len() as u64));
        for tokens in [1, 4, 16] {
            let numbers = tokens * HIDDEN as usize;
            let mut run = || weights.expert(tokens, &x[..numbers], &mut y[..numbers], &mut scratch);
            let id = BenchmarkId::new(format.name(), tokens);
            group.bench_function(id, |bench| bench.iter(|| run().expect("an expert")));
        }
    }
    group.finish();
}

criterion_group!(benches, memory, coders, experts);
criterion_main!(benches);
