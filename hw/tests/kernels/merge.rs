//! Recipes: the host against float64, the kernel against the host, byte for byte.

use crate::cpu::{Buffer, kernels};
use crate::numbers::{named, weights};
use hw::codec;
use hw::cuda::launch::{Ingredients, Place, merge};
use policy::FormatId;
use policy::model::Matrix;
use policy::recipe::Recipe;
use proptest::prelude::*;
use proptest::sample::select;

/// Numbers in a format without scales, as bytes and as what those stand for.
fn stored(format: FormatId, count: u64, seed: u64) -> (Vec<u8>, Vec<f32>) {
    let row = [Matrix { rows: 1, columns: count }];
    let mut bytes = vec![0; format.bytes(count, 0).0 as usize];
    codec::encode(format, &weights(count, seed), &row, &mut bytes).unwrap();
    let mut numbers = vec![0.0; count as usize];
    codec::decode(format, &bytes, &row, &mut numbers).unwrap();
    (bytes, numbers)
}

/// Base plus product in float64.
fn plain(matrices: &[Matrix], rank: usize, base: &[f32], factors: &[f32]) -> Vec<f64> {
    let (mut sums, mut first) = (Vec::new(), 0);
    for matrix in matrices {
        let (rows, columns) = (matrix.rows as usize, matrix.columns as usize);
        let (left, right) = factors[first..].split_at(rows * rank);
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            let products =
                (0..rank).map(|k| f64::from(left[row * rank + k]) * f64::from(right[k * columns + column]));
            sums.push(f64::from(base[sums.len()]) + products.sum::<f64>());
        }
        first += (rows + columns) * rank;
    }
    sums
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_recipe_is_followed_alike_on_both_sides(
        native in select(vec!["bf16", "fp16", "fp32"]),
        shapes in prop::collection::vec((1u64..20, 1u64..70), 1..4),
        rank in 1u32..9,
        cut in (0.0f64..1.0, 0.0f64..1.0),
        seed: u64,
        backward: bool,
    ) {
        let Some(kernels) = kernels() else { return Ok(()) };
        let format = named(native);
        let matrices: Vec<Matrix> = shapes.iter().map(|&(rows, columns)| Matrix { rows, columns }).collect();
        let recipe = Recipe { rank };
        let all: u64 = matrices.iter().map(|matrix| matrix.elements()).sum();
        let (base, base_numbers) = stored(format, all, seed);
        let (factors, numbers) = stored(format, recipe.elements(&matrices), seed ^ 1);
        let (low, high) = cut;
        let at = |share: f64| (share * all as f64) as u64;
        let elements = at(f64::min(low, high))..at(f64::max(low, high)) + 1;

        let size = format.bytes(1, 0).0;
        let inside = (elements.start * size) as usize..(elements.end * size) as usize;
        let mut made = vec![0; inside.len()];
        let first = elements.start * size;
        hw::merge::merge(format, &matrices, recipe, (&base, &numbers), elements.clone(), |at, bytes| {
            made[(at - first) as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok::<_, codec::CodecError>(())
        })
        .unwrap();

        let exact = plain(&matrices, rank as usize, &base_numbers, &numbers);
        let mut got = vec![0.0; (elements.end - elements.start) as usize];
        codec::decode(format, &made, &[Matrix { rows: 1, columns: got.len() as u64 }], &mut got).unwrap();
        // Half a step of the stored format, and as many roundings of f32 as there are sums.
        let step = match native { "bf16" => 2f64.powi(-8), "fp16" => 2f64.powi(-11), _ => 2f64.powi(-24) };
        for (got, exact) in got.iter().zip(&exact[elements.start as usize..]) {
            let bound = exact.abs() * step + 1e-6 * f64::from(rank) + 2f64.powi(-25);
            prop_assert!((f64::from(*got) - exact).abs() <= bound, "{got} is not {exact}");
        }

        let (mut base, mut factors) = (Buffer::of(&base), Buffer::of(&factors));
        let mut out = Buffer::unset(all * size);
        let of = Ingredients { base: Place { format, address: base.address() }, factors: factors.address(), recipe };
        kernels.run(&merge(of, out.address(), &matrices, elements).unwrap(), backward);
        let out = out.read();
        prop_assert_eq!(&out[inside.clone()], &made[..]);
        let outside = out[..inside.start].iter().chain(&out[inside.end..]);
        prop_assert!(outside.copied().all(|byte| byte == 0xa5), "written outside of the range");
    }
}
