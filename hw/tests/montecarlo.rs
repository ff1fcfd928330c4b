//! The round-trip error of every lossy format against its Monte-Carlo value: plain double precision, nearest number by
//! number, which shares nothing with the coders but the definition of the format.

use hw::codec::{decode, encode};
use policy::FormatId;
use policy::format::Scale;
use policy::model::Matrix;
use rand::SeedableRng;
use rand_distr::{Distribution, Normal, StudentT};
use rand_pcg::Pcg64Mcg;

const MATRIX: Matrix = Matrix { rows: 2048, columns: 512 };
/// As in trained projection matrices.
const SIGMA: f64 = 0.02;

/// Weights of a shape: Gaussian, or Student's t with four degrees, whose tails are heavy.
fn draw(gaussian: bool, seed: u64) -> Vec<f32> {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let (normal, tailed) = (Normal::new(0.0, 1.0).unwrap(), StudentT::new(4.0).unwrap());
    let mut one = || if gaussian { normal.sample(&mut rng) } else { tailed.sample(&mut rng) };
    (0..MATRIX.elements()).map(|_| (one() * SIGMA) as f32).collect()
}

/// The nearest of some numbers and their negatives.
fn nearest(numbers: &[f64], value: f64) -> f64 {
    let above = numbers.partition_point(|number| *number < value.abs()).min(numbers.len() - 1);
    let around = [numbers[above.saturating_sub(1)], numbers[above]];
    let distance = |number: f64| (number - value.abs()).abs();
    let found = if distance(around[0]) < distance(around[1]) { around[0] } else { around[1] };
    found * value.signum()
}

/// The nonnegative numbers of a small float: exponent bits, mantissa bits, bias; the last `unused` patterns mean no number.
fn floats(exponent: i32, mantissa: i32, bias: i32, unused: usize) -> Vec<f64> {
    let steps = 1 << mantissa;
    let one = |code: i32| match (code / steps, code % steps) {
        (0, part) => part as f64 * 2f64.powi(1 - bias - mantissa),
        (power, part) => (steps + part) as f64 * 2f64.powi(power - bias - mantissa),
    };
    let mut numbers: Vec<f64> = (0..steps << exponent).map(one).collect();
    numbers.truncate(numbers.len() - unused);
    numbers
}

/// How a format's scale follows from the largest magnitude, and the numbers that are scaled.
fn definition(name: &str) -> (fn(f64) -> f64, Vec<f64>) {
    let integers = |most: i32| (0..=most).map(f64::from).collect();
    match name {
        "bf16" => (|_| 1.0, floats(8, 7, 127, 128)),
        "fp16" => (|_| 1.0, floats(5, 10, 15, 1024)),
        "fp8_e4m3" | "fp8_e4m3_b128" => (|peak| peak / 448.0, floats(4, 3, 7, 1)),
        "int8" | "int8_g32" => (|peak| peak / 127.0, integers(127)),
        "int4_g32" | "int4_g128" => (|peak| peak / 7.0, integers(7)),
        "mxfp4" => (|peak| (peak.log2().floor() - 2.0).exp2(), floats(2, 1, 1, 0)),
        other => panic!("{other} has no definition here"),
    }
}

/// The root of the squared errors over the squared weights.
fn relative(weights: &[f32], back: impl Iterator<Item = f64>) -> f64 {
    let squares: f64 = weights.iter().map(|weight| (*weight as f64).powi(2)).sum();
    let errors: f64 = weights.iter().zip(back).map(|(weight, back)| (*weight as f64 - back).powi(2)).sum();
    (errors / squares).sqrt()
}

fn monte_carlo(name: &str, weights: &[f32]) -> f64 {
    let (scale_of, numbers) = definition(name);
    let group = match FormatId::named(name).unwrap().get().scale {
        Scale::Group { size, .. } => size as usize,
        Scale::Row { .. } | Scale::None => MATRIX.columns as usize,
    };
    let back = weights.chunks(group).flat_map(|group| {
        let scale = scale_of(group.iter().fold(0.0, |peak: f64, weight| peak.max(weight.abs() as f64)));
        let numbers = &numbers;
        group.iter().map(move |weight| nearest(numbers, *weight as f64 / scale) * scale)
    });
    relative(weights, back)
}

fn round_trip(name: &str, weights: &[f32]) -> f64 {
    let format = FormatId::named(name).unwrap();
    let mut bytes = vec![0; format.bytes(MATRIX.elements(), MATRIX.rows).0 as usize];
    encode(format, weights, &[MATRIX], &mut bytes).unwrap();
    let mut back = vec![0.0; weights.len()];
    decode(format, &bytes, &[MATRIX], &mut back).unwrap();
    relative(weights, back.iter().map(|value| *value as f64))
}

const LOSSY: [&str; 9] =
    ["bf16", "fp16", "fp8_e4m3", "fp8_e4m3_b128", "int8", "int8_g32", "mxfp4", "int4_g32", "int4_g128"];

#[test]
fn errors_are_within_two_per_cent_of_their_monte_carlo_value() {
    for (gaussian, shape) in [(true, "Gaussian"), (false, "Student t, 4 degrees")] {
        let weights = draw(gaussian, 1);
        for name in LOSSY {
            let (expected, got) = (monte_carlo(name, &weights), round_trip(name, &weights));
            println!("{shape}, {name}: {:.4} %, Monte Carlo {:.4} %", got * 100.0, expected * 100.0);
            assert!((got / expected - 1.0).abs() < 0.02, "{shape}, {name}: {got}, Monte Carlo {expected}");
        }
    }
}

#[test]
fn gaussian_errors_do_not_depend_on_the_draw() {
    // Other weights on either side: for heavy tails the largest of a row decides, and no draw is like another.
    let (weights, others) = (draw(true, 2), draw(true, 3));
    for name in LOSSY {
        let (expected, got) = (monte_carlo(name, &others), round_trip(name, &weights));
        assert!((got / expected - 1.0).abs() < 0.02, "{name}: {got}, Monte Carlo {expected}");
    }
}
