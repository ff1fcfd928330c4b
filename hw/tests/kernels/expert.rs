//! What an expert does between its products.

use crate::cpu::{Buffer, kernels};
use crate::numbers::{rng, weights};
use hw::cuda::products::{Choice, combine, gather, silu_mul};
use rand::RngExt;

#[test]
fn silu_times_up_is_that_of_float64() {
    let Some(kernels) = kernels() else { return };
    let (gate, up) = (weights(1000, 1).iter().map(|v| v * 300.0).collect::<Vec<_>>(), weights(1000, 2));
    let (mut gate_at, mut up_at, mut out) =
        (Buffer::numbers(&gate), Buffer::numbers(&up), Buffer::unset(4000));
    kernels.run(&[silu_mul(gate_at.address(), up_at.address(), out.address(), 1000).unwrap()], false);
    for ((got, gate), up) in out.read_numbers().iter().zip(&gate).zip(&up) {
        let (gate, up) = (*gate as f64, *up as f64);
        let exact = gate / (1.0 + (-gate).exp()) * up;
        assert!((*got as f64 - exact).abs() <= exact.abs() * 1e-6, "{got} for {exact}");
    }
}

#[test]
fn rows_are_gathered_and_combined_in_order() {
    let Some(kernels) = kernels() else { return };
    let (tokens, chosen, columns, rows) = (5u64, 3u64, 700u64, 9u64);
    let mut rng = rng(3);
    let y = weights(rows * columns, 4);
    let row_of: Vec<u32> = (0..tokens * chosen).map(|_| rng.random_range(0..rows as u32)).collect();
    let weight: Vec<f32> = (0..tokens * chosen).map(|_| rng.random_range(0.0..1.0)).collect();
    let mut y_at = Buffer::numbers(&y);
    let (mut row_at, mut weight_at) = (Buffer::of(bytemuck::cast_slice(&row_of)), Buffer::numbers(&weight));
    let (mut gathered, mut out) =
        (Buffer::unset(tokens * chosen * columns * 4), Buffer::unset(tokens * columns * 4));
    let choice = Choice { row_of: row_at.address(), weight: weight_at.address(), chosen };
    let launches = [
        gather(y_at.address(), row_at.address(), gathered.address(), tokens * chosen, columns).unwrap(),
        combine(y_at.address(), choice, out.address(), tokens, columns).unwrap(),
    ];
    kernels.run(&launches, false);
    let row = |at: usize| &y[row_of[at] as usize * columns as usize..][..columns as usize];
    let all: Vec<f32> = (0..row_of.len()).flat_map(|at| row(at).to_vec()).collect();
    assert_eq!(gathered.read_numbers(), all);
    for (at, got) in out.read_numbers().iter().enumerate() {
        let (token, column) = (at / columns as usize, at % columns as usize);
        let places = token * chosen as usize..(token + 1) * chosen as usize;
        let sum = places.fold(0.0f32, |sum, place| weight[place].mul_add(row(place)[column], sum));
        assert_eq!(*got, sum);
    }
}
