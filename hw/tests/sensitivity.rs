//! How much a format changes what an expert computes: the relative error at the branch output of a SwiGLU expert,
//! y = W2 (silu(W1 x) * W3 x), with Gaussian weights and activations. Reference: the same expert in bf16.
//!
//! One draw is new weights and one new x; its error is |y' - y| / |y|. The bound is the one-sided 95 % one of Student's
//! t for the mean over draws. `HOTSET_SENSITIVITY=hidden,inter,draws` prints the table for other sizes.

use hw::codec::{decode, encode};
use policy::FormatId;
use policy::model::Matrix;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64Mcg;
use statrs::distribution::{ContinuousCDF, StudentsT};

const SIGMA: f32 = 0.02;

/// What the sensitivity table holds: format, mean error, at hidden 1024 and inter 2048, 64 draws.
const MEASURED: [(&str, f64); 7] = [
    ("fp16", 2.943e-8),
    ("fp8_e4m3", 4.571e-2),
    ("int8", 1.393e-2),
    ("int8_g32", 9.358e-3),
    ("mxfp4", 1.967e-1),
    ("int4_g32", 1.703e-1),
    ("int4_g128", 2.044e-1),
];

fn format(name: &str) -> FormatId {
    FormatId::named(name).unwrap()
}

/// Values as they come back from a copy in `format`.
fn through(format: FormatId, values: &[f32], rows: usize) -> Vec<f32> {
    let matrix = [Matrix { rows: rows as u64, columns: (values.len() / rows) as u64 }];
    let mut bytes = vec![0; format.bytes(values.len() as u64, rows as u64).0 as usize];
    encode(format, values, &matrix, &mut bytes).unwrap();
    let mut back = vec![0.0; values.len()];
    decode(format, &bytes, &matrix, &mut back).unwrap();
    back
}

fn gaussian(rng: &mut Pcg64Mcg, count: usize, sigma: f32) -> Vec<f32> {
    (0..count).map(|_| Distribution::<f32>::sample(&StandardNormal, rng) * sigma).collect()
}

/// A matrix of rows as long as `x`, times `x`, in double precision.
fn times(matrix: &[f32], x: &[f64]) -> Vec<f64> {
    matrix.chunks(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| *w as f64 * x).sum()).collect()
}

/// W1 and W3 with `inter` rows, W2 with `hidden`.
struct Expert {
    gate: Vec<f32>,
    up: Vec<f32>,
    down: Vec<f32>,
}

impl Expert {
    fn draw(rng: &mut Pcg64Mcg, hidden: usize, inter: usize) -> Expert {
        let mut matrix = || gaussian(rng, hidden * inter, SIGMA);
        let drawn = Expert { gate: matrix(), up: matrix(), down: matrix() };
        drawn.in_format(format("bf16"), hidden, inter)
    }

    fn in_format(&self, format: FormatId, hidden: usize, inter: usize) -> Expert {
        let (gate, up) = (through(format, &self.gate, inter), through(format, &self.up, inter));
        Expert { gate, up, down: through(format, &self.down, hidden) }
    }

    fn output(&self, x: &[f64]) -> Vec<f64> {
        let silu = |z: f64| z / (1.0 + (-z).exp());
        let gated: Vec<f64> =
            times(&self.gate, x).iter().zip(times(&self.up, x)).map(|(gate, up)| silu(*gate) * up).collect();
        times(&self.down, &gated)
    }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// Errors of each format over `draws` experts.
fn errors(formats: &[&str], hidden: usize, inter: usize, draws: u64) -> Vec<Vec<f64>> {
    let mut errors = vec![Vec::new(); formats.len()];
    for draw in 0..draws {
        let mut rng = Pcg64Mcg::seed_from_u64(draw);
        let expert = Expert::draw(&mut rng, hidden, inter);
        let x: Vec<f64> = gaussian(&mut rng, hidden, 1.0).iter().map(|x| *x as f64).collect();
        let exact = expert.output(&x);
        for (name, errors) in formats.iter().zip(&mut errors) {
            let output = expert.in_format(format(name), hidden, inter).output(&x);
            let difference = norm(output.iter().zip(&exact).map(|(got, exact)| got - exact));
            errors.push(difference / norm(exact.iter().copied()));
        }
    }
    errors
}

/// The mean, and the upper end of its one-sided 95 % confidence interval.
fn mean_and_upper(errors: &[f64]) -> (f64, f64) {
    let n = errors.len() as f64;
    let mean = errors.iter().sum::<f64>() / n;
    let variance = errors.iter().map(|error| (error - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let t = StudentsT::new(0.0, 1.0, n - 1.0).unwrap().inverse_cdf(0.95);
    (mean, mean + t * (variance / n).sqrt())
}

#[test]
fn errors_at_the_branch_output_are_those_of_the_sensitivity_table() {
    let formats = MEASURED.map(|(name, _)| name);
    let asked = std::env::var("HOTSET_SENSITIVITY").ok();
    let sizes = asked.iter().flat_map(|text| text.split(',')).map(|number| number.parse().unwrap());
    if let [hidden, inter, draws] = sizes.collect::<Vec<usize>>()[..] {
        for (name, errors) in formats.iter().zip(errors(&formats, hidden, inter, draws as u64)) {
            let (mean, upper) = mean_and_upper(&errors);
            let most = errors.iter().copied().fold(0.0, f64::max);
            println!("{name}: {{ error: {mean:.4e}, upper: {upper:.4e} }} # largest of {draws}: {most:.4e}");
        }
        return;
    }
    for ((name, expected), errors) in MEASURED.iter().zip(errors(&formats, 1024, 2048, 1)) {
        assert!((errors[0] / expected - 1.0).abs() < 0.1, "{name}: {}, the table has {expected}", errors[0]);
    }
}

#[test]
fn lossless_formats_change_nothing() {
    for errors in errors(&["bf16", "fp32", "bf16_packed"], 128, 256, 2) {
        assert_eq!(errors, [0.0, 0.0]);
    }
}
