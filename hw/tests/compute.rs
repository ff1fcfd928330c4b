//! The matrix products against double precision, in every format that is read as it is.

use hw::codec::{CodecError, coded, decode, encode};
use hw::compute::{ComputeError, Scratch, Weights};
use policy::FormatId;
use policy::model::Matrix;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64Mcg;

fn named(name: &str) -> FormatId {
    FormatId::named(name).unwrap()
}

fn direct_formats() -> impl Iterator<Item = FormatId> {
    coded().filter(|format| format.get().direct)
}

fn gaussian(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    (0..count).map(|_| StandardNormal.sample(&mut rng)).collect()
}

fn elements(matrices: &[Matrix]) -> usize {
    matrices.iter().map(|matrix| matrix.elements() as usize).sum()
}

/// Gaussian weights in a format, as bytes and as the numbers that the bytes mean.
fn weights(format: FormatId, matrices: &[Matrix]) -> (Vec<u8>, Vec<f32>) {
    let rows = matrices.iter().map(|matrix| matrix.rows).sum();
    let mut bytes = vec![0; format.bytes(elements(matrices) as u64, rows).0 as usize];
    encode(format, &gaussian(1, elements(matrices)), matrices, &mut bytes).unwrap();
    let mut values = vec![0.0; elements(matrices)];
    decode(format, &bytes, matrices, &mut values).unwrap();
    (bytes, values)
}

/// The product of a row and a token, and the most that rounding may change it: half a unit of the largest partial sum
/// for each addition and each multiplication.
fn exact(row: &[f32], x: &[f32]) -> (f64, f64) {
    let terms = || row.iter().zip(x).map(|(weight, x)| *weight as f64 * *x as f64);
    let magnitude: f64 = terms().map(f64::abs).sum();
    (terms().sum(), magnitude * (row.len() + 2) as f64 * 2f64.powi(-24))
}

fn shapes() -> impl Strategy<Value = Vec<Matrix>> {
    // Odd widths, widths of whole chunks and of whole groups, and none; groups reach from one matrix into the next.
    let columns = prop_oneof![4 => 0u64..300, 2 => (1u64..9).prop_map(|chunks| chunks * 32)];
    prop::collection::vec((1u64..8, columns).prop_map(|(rows, columns)| Matrix { rows, columns }), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn products_are_those_of_double_precision(matrices in shapes(), tokens in 1usize..18) {
        let mut scratch = Scratch::default();
        for format in direct_formats() {
            let (bytes, values) = weights(format, &matrices);
            let weights = Weights::new(format, &bytes, &matrices).unwrap();
            let mut first = 0;
            for (index, matrix) in matrices.iter().enumerate() {
                let (rows, columns) = (matrix.rows as usize, matrix.columns as usize);
                let x = gaussian(2, tokens * columns);
                let mut y = vec![f32::NAN; tokens * rows];
                weights.product(index, 0..matrix.rows, tokens, &x, &mut y, &mut scratch).unwrap();
                for (at, got) in y.iter().enumerate() {
                    let (token, row) = (at / rows, at % rows);
                    let row = &values[first + row * columns..][..columns];
                    let (expected, error) = exact(row, &x[token * columns..][..columns]);
                    prop_assert!((*got as f64 - expected).abs() <= error, "{}: {got}, not {expected}", format.name());
                }
                first += rows * columns;
            }
        }
    }

    #[test]
    fn neither_splitting_rows_nor_other_tokens_change_a_product(matrices in shapes(), tokens in 2usize..12,
                                                                split: prop::sample::Index) {
        let mut scratch = Scratch::default();
        for format in direct_formats() {
            let (bytes, _) = weights(format, &matrices);
            let weights = Weights::new(format, &bytes, &matrices).unwrap();
            let last = matrices.len() - 1;
            let (rows, columns) = (matrices[last].rows, matrices[last].columns as usize);
            let x = gaussian(3, tokens * columns);
            let mut whole = vec![f32::NAN; tokens * rows as usize];
            weights.product(last, 0..rows, tokens, &x, &mut whole, &mut scratch).unwrap();
            let middle = split.index(rows as usize) as u64;
            for (token, x) in (0..tokens).map(|token| (token, &x[token * columns..][..columns])) {
                for part in [0..middle, middle..rows] {
                    let mut y = vec![f32::NAN; (part.end - part.start) as usize];
                    weights.product(last, part.clone(), 1, x, &mut y, &mut scratch).unwrap();
                    let from = token * rows as usize + part.start as usize;
                    prop_assert_eq!(&y[..], &whole[from..from + y.len()], "{}", format.name());
                }
            }
        }
    }
}

#[test]
fn an_expert_is_that_of_double_precision() {
    for (hidden, inner, tokens) in [(96, 160, 1), (64, 128, 3), (33, 45, 5), (128, 96, 17)] {
        let up = Matrix { rows: inner, columns: hidden };
        let matrices = [up, up, Matrix { rows: hidden, columns: inner }];
        let (hidden, inner) = (hidden as usize, inner as usize);
        let x = gaussian(4, tokens * hidden);
        for format in direct_formats() {
            let (bytes, values) = weights(format, &matrices);
            let mut y = vec![f32::NAN; tokens * hidden];
            let weights = Weights::new(format, &bytes, &matrices).unwrap();
            weights.expert(tokens, &x, &mut y, &mut Scratch::default()).unwrap();
            let times = |matrix: &[f32], x: &[f64]| -> Vec<f64> {
                matrix
                    .chunks(x.len())
                    .map(|row| row.iter().zip(x).map(|(w, x)| *w as f64 * x).sum())
                    .collect()
            };
            for (x, y) in x.chunks(hidden).zip(y.chunks(hidden)) {
                let x: Vec<f64> = x.iter().map(|x| *x as f64).collect();
                let gate = times(&values[..hidden * inner], &x);
                let up = times(&values[hidden * inner..2 * hidden * inner], &x);
                let raised: Vec<f64> =
                    gate.iter().zip(&up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect();
                let expected = times(&values[2 * hidden * inner..], &raised);
                let scale = expected.iter().map(|y| y * y).sum::<f64>().sqrt();
                let off =
                    expected.iter().zip(y).map(|(y, got)| (y - *got as f64).powi(2)).sum::<f64>().sqrt();
                assert!(off < 1e-5 * scale, "{}: {off} of {scale}", format.name());
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let matrices = [Matrix { rows: 4, columns: 6 }, Matrix { rows: 6, columns: 4 }];
    let bf16 = named("bf16");
    let short = Weights::new(bf16, &[0; 95], &matrices).err();
    let wrong = CodecError::WrongSize { format: "bf16", expected: 96, got: 95 };
    assert_eq!(short, Some(ComputeError::Codec(wrong)));
    let packed = Weights::new(named("bf16_packed"), &[0; 68], &matrices).err();
    assert_eq!(packed, Some(ComputeError::NotDirect("bf16_packed")));
    let (weights, mut scratch) = (Weights::new(bf16, &[0; 96], &matrices).unwrap(), Scratch::default());
    let mut product = |matrix, rows, x: usize, y: usize| {
        weights.product(matrix, rows, 2, &vec![0.0; x], &mut vec![0.0; y], &mut scratch)
    };
    assert_eq!(product(0, 1..3, 12, 4), Ok(()));
    assert_eq!(product(2, 0..1, 12, 2), Err(ComputeError::NoRows { matrix: 2, rows: 0..1 }));
    assert_eq!(product(0, 3..5, 12, 4), Err(ComputeError::NoRows { matrix: 0, rows: 3..5 }));
    let long = ComputeError::WrongLength { what: "activations", expected: 12, got: 13 };
    assert_eq!(product(0, 0..1, 13, 2), Err(long));
    let long = ComputeError::WrongLength { what: "results", expected: 2, got: 3 };
    assert_eq!(product(0, 0..1, 12, 3), Err(long));
    let expert = weights.expert(1, &[0.0; 6], &mut [0.0; 6], &mut Scratch::default());
    assert_eq!(expert, Err(ComputeError::NotAnExpert(matrices.to_vec())));
}
