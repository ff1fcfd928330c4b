//! Products against float64, from the very bytes the kernels read.

use crate::cpu::{Buffer, kernels};
use crate::numbers::{SCALED, decoded, elements, encoded, named, weights};
use hw::cuda::launch::{Ingredients, Place, merge, recode};
use hw::cuda::products::{Bench, Choice, Task, combine, gather, matmul, silu_mul, split_bf16};
use policy::model::Matrix;
use policy::recipe::Recipe;
use proptest::prelude::*;
use std::collections::BTreeSet;

const DIRECT: [&str; 10] = [
    "fp32",
    "bf16",
    "fp16",
    "fp8_e4m3",
    "fp8_e4m3_b128",
    "int8",
    "int8_g32",
    "mxfp4",
    "int4_g32",
    "int4_g128",
];

/// Some blocks, each of one or two matrices, and how many tokens each gets.
#[derive(Clone, Debug)]
struct Case {
    format: &'static str,
    blocks: Vec<(Vec<Matrix>, u64)>,
    processors: u64,
    seed: u64,
    backward: bool,
}

/// Multiplies every matrix of every block by its tokens in one launch, and compares.
fn check(case: &Case) -> Result<(), TestCaseError> {
    let Some(kernels) = kernels() else { return Ok(()) };
    let format = named(case.format);
    let mut copies: Vec<(Buffer, Vec<f32>)> = Vec::new();
    let (mut tasks, mut xs, mut numbers) = (Vec::new(), Vec::new(), 0);
    for (index, (matrices, tokens)) in case.blocks.iter().enumerate() {
        let seed = case.seed.wrapping_add(index as u64);
        let bytes = encoded(format, &weights(elements(matrices), seed), matrices);
        let values = decoded(format, &bytes, matrices);
        copies.push((Buffer::of(&bytes), values));
        let (mut first_element, mut first_row) = (0, 0);
        for &Matrix { rows, columns } in matrices {
            let copy = copies[index].0.address();
            let (x, y) = (xs.len() as u64, numbers);
            tasks.push((
                index,
                Task {
                    copy,
                    elements: elements(matrices),
                    first_element,
                    first_row,
                    rows,
                    columns,
                    tokens: *tokens,
                    x,
                    y,
                },
            ));
            xs.extend(weights(tokens * columns, seed ^ 77).iter().map(|value| value * 50.0));
            xs.resize(xs.len().next_multiple_of(4), f32::NAN);
            numbers += rows * tokens;
            first_element += rows * columns;
            first_row += rows;
        }
    }
    let only_tasks: Vec<Task> = tasks.iter().map(|(_, task)| *task).collect();
    let mut tasks_at = Buffer::of(bytemuck::cast_slice(&only_tasks));
    let (mut x, mut y) = (Buffer::numbers(&xs), Buffer::unset(numbers * 4));
    let parts_room = numbers * 3;
    let (mut parts, mut finished) = (Buffer::unset(parts_room * 4), Buffer::of(&[0; 4 * 64]));
    let bench = Bench {
        x: x.address(),
        y: y.address(),
        numbers,
        parts: parts.address(),
        parts_room,
        finished: finished.address(),
        counters: 64,
        processors: case.processors,
    };
    let launch = matmul(format, &only_tasks, tasks_at.address(), &bench).unwrap();
    kernels.run(std::slice::from_ref(&launch), case.backward);
    prop_assert!(finished.read().iter().all(|&byte| byte == 0));
    parts.read();
    let got = y.read_numbers();
    for (index, task) in &tasks {
        for token in 0..task.tokens {
            for row in 0..task.rows {
                let weights = &copies[*index].1[(task.first_element + row * task.columns) as usize..]
                    [..task.columns as usize];
                let inputs = &xs[(task.x + token * task.columns) as usize..][..task.columns as usize];
                let terms = || weights.iter().zip(inputs).map(|(w, x)| *w as f64 * *x as f64);
                let (exact, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
                let found = got[(task.y + token * task.rows + row) as usize] as f64;
                // Inputs have 16 bits, so half a step of the 17th each; sums of f32 add little.
                prop_assert!(
                    (found - exact).abs() <= size * 2f64.powi(-16) + 1e-30,
                    "{} token {token} row {row}: {found} for {exact} of {size}, {launch:?}",
                    case.format
                );
            }
        }
    }
    Ok(())
}

/// Shapes that the fused kernels take: columns in runs of 32, so that groups of 128 and larger straddle rows.
fn fused() -> impl Strategy<Value = Vec<(Vec<Matrix>, u64)>> {
    let matrix = (1u64..300, 1u64..40).prop_map(|(rows, runs)| Matrix { rows, columns: runs * 32 });
    proptest::collection::vec((proptest::collection::vec(matrix, 1..3), 1u64..18), 1..3)
}

/// Any shapes at all.
fn ragged() -> impl Strategy<Value = Vec<(Vec<Matrix>, u64)>> {
    let matrix = (1u64..40, 1u64..100).prop_map(|(rows, columns)| Matrix { rows, columns });
    proptest::collection::vec((proptest::collection::vec(matrix, 1..3), 1u64..18), 1..3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn fused_products_are_right(
        format in proptest::sample::select(&DIRECT[1..]), blocks in fused(), processors in 0u64..20, seed: u64, backward: bool,
    ) {
        check(&Case { format, blocks, processors, seed, backward })?;
    }

    #[test]
    fn products_of_any_shape_are_right(format in proptest::sample::select(&DIRECT[..]), blocks in ragged(), seed: u64) {
        check(&Case { format, blocks, processors: 0, seed, backward: false })?;
    }
}

/// Each format at the width of gpt-oss, 2880 columns, in several parts.
#[test]
fn every_format_multiplies_a_wide_matrix_in_parts() {
    for format in DIRECT {
        for tokens in [1, 17] {
            let blocks = vec![(vec![Matrix { rows: 40, columns: 2880 }], tokens)];
            check(&Case { format, blocks, processors: 2, seed: 5, backward: tokens == 1 }).unwrap();
        }
    }
}

#[test]
fn every_kernel_has_a_launch_and_every_launch_a_kernel() {
    let Some(kernels) = kernels() else { return };
    let mut planned = BTreeSet::from(["checksum".to_string()]);
    let matrices = [Matrix { rows: 2, columns: 4096 }];
    let formats = || DIRECT.iter().chain(["bf16_packed"].iter()).map(|name| named(name));
    for (from, to) in
        formats().flat_map(|from| formats().map(move |to| (from, to))).filter(|(from, to)| from != to)
    {
        let place = |format| Place { format, address: 0 };
        let launches = recode(place(from), place(to), &matrices, 0, 0).unwrap();
        planned.extend(launches.into_iter().map(|launch| launch.kernel));
    }
    let bench =
        Bench { x: 0, y: 0, numbers: 1, parts: 0, parts_room: 0, finished: 0, counters: 0, processors: 1 };
    let task = |columns, tokens| Task {
        copy: 0,
        elements: columns,
        first_element: 0,
        first_row: 0,
        rows: 1,
        columns,
        tokens,
        x: 0,
        y: 0,
    };
    for (format, columns, tokens) in
        DIRECT.iter().flat_map(|format| [(format, 32, 1), (format, 32, 9), (format, 33, 1)])
    {
        planned.insert(matmul(named(format), &[task(columns, tokens)], 0, &bench).unwrap().kernel);
    }
    for native in ["bf16", "fp16", "fp32"] {
        let base = Place { format: named(native), address: 0 };
        let of = Ingredients { base, factors: 0, recipe: Recipe { rank: 1 } };
        planned.extend(merge(of, 0, &matrices, 0..1).unwrap().into_iter().map(|launch| launch.kernel));
    }
    let choice = Choice { row_of: 0, weight: 0, chosen: 1 };
    let others =
        [split_bf16(0, 0, 0, 1), silu_mul(0, 0, 0, 1), gather(0, 0, 0, 1, 1), combine(0, choice, 0, 1, 1)];
    planned.extend(others.into_iter().map(|launch| launch.unwrap().kernel));
    // The launches of recurrent layers are those that the tests of `recurrent` run.
    let recurrent = ["delta_", "ssd_", "ssm_", "state_", "ring_", "selective_", "injection_"];
    let here = |name: &String| !recurrent.iter().any(|family| name.starts_with(family));
    assert_eq!(planned, kernels.names().into_iter().filter(here).collect());
    assert_eq!(SCALED.len() + 3, DIRECT.len());
}
