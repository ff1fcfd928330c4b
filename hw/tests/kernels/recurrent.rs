//! Recurrent layers: the kernels against the recurrence in float64, and against the host's codes byte for byte.

use crate::cpu::{Buffer, Kernels, kernels};
use half::f16;
use hw::cuda::launch::Launch;
use hw::cuda::recurrent::{
    Checkpoints, Places, Prompt, Rings, Workspace, delta_step, dequantise, injection_norms, quantise,
    read_coded, replay, selective_scan, step, tile_stride,
};
use hw::recurrent::gated;
use hw::recurrent::inputs::Owned;
use hw::recurrent::made;
use hw::recurrent::number::{expanded, narrowed};
use hw::recurrent::quantised::{Bits, Tile};
use hw::recurrent::reference::{self, Channels, relative_error};
use hw::recurrent::shape::Shape;
use proptest::prelude::*;

const FP32: f64 = 1e-5;
const FP16: f64 = 2e-3;

/// A layer's inputs where the kernels find them.
struct Given {
    buffers: [Buffer; 5],
}

impl Given {
    fn new(a: &[f32], inputs: &Owned<f16>) -> Given {
        let half = |numbers: &[f16]| Buffer::of(bytemuck::cast_slice(numbers));
        let Owned { x, dt, b, c } = inputs;
        Given { buffers: [half(x), Buffer::numbers(dt), half(b), half(c), Buffer::numbers(a)] }
    }

    fn places(&mut self) -> (Places, u64) {
        let [x, dt, b, c, a] = self.buffers.each_mut().map(Buffer::address);
        (Places { x, dt, b, c }, a)
    }
}

/// A layer whose heads forget over from less than a token to ten thousand.
fn layer(shape: Shape, tokens: usize, seed: u64) -> (Vec<f32>, Owned<f16>) {
    let mut made = made::layer::<f16>(shape, tokens, seed);
    let lives = [1e4, 0.3, 30.0];
    for (at, dt) in made.inputs.dt.iter_mut().enumerate() {
        let head = at % shape.heads();
        *dt *= -1.0 / (0.03 * lives[head % lives.len()] * made.a[head]);
    }
    (made.a, made.inputs)
}

fn begin(count: usize) -> Vec<f32> {
    (0..count).map(|at| (at as f32).sin()).collect()
}

fn as_f64(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

fn half_numbers(buffer: &Buffer) -> Vec<f32> {
    let bytes = buffer.read();
    bytes.as_chunks().0.iter().map(|bits| f16::from_le_bytes(*bits).to_f32()).collect()
}

/// The distance over the length of what is exact, or of numbers of a half.
fn error(got: &[f32], exact: &[f64]) -> f64 {
    let length = exact.iter().map(|exact| exact * exact).sum::<f64>().sqrt();
    relative_error(got, exact) * (length / length.max(0.5 * (exact.len() as f64).sqrt()))
}

/// What prompts leave: outputs, states, and checkpoints.
fn run(
    kernels: &Kernels,
    prompt: Prompt,
    a: &[f32],
    inputs: &Owned<f16>,
    every: u64,
    backward: bool,
) -> [Vec<f32>; 3] {
    let mut given = Given::new(a, inputs);
    let (places, a) = given.places();
    let mut state = Buffer::numbers(&begin(prompt.sequences as usize * prompt.shape.state()));
    let mut y = Buffer::unset(2 * inputs.x.len() as u64);
    let numbers =
        [prompt.decay_numbers(), prompt.decay_numbers(), prompt.state_numbers(), prompt.pair_numbers()];
    let mut work = numbers.map(|count| Buffer::unset(4 * count));
    let [high, low, states, pairs] = work.each_mut().map(Buffer::address);
    let checkpoints = prompt.tokens.div_ceil(prompt.chunk).div_ceil(every);
    let mut kept = Buffer::unset(2 * prompt.sequences * checkpoints * prompt.shape.state() as u64);
    let work = Workspace { high, low, states, pairs };
    let left = Some(Checkpoints { address: kept.address(), every });
    kernels.run(&prompt.run(a, places, work, state.address(), y.address(), left).unwrap(), backward);
    [half_numbers(&y), state.read_numbers(), half_numbers(&kept)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn prompts_of_any_length_give_what_the_recurrence_does(
        dims in (1usize..3, 1usize..3, 1usize..70, 1usize..70), sequences in 1usize..3, tokens in 1usize..100,
        chunk in 8u64..90, every in 1u64..4, seed: u64, backward: bool,
    ) {
        let Some(kernels) = kernels() else { return Ok(()) };
        let shape = Shape::new(dims.0 * dims.1, dims.2, dims.3, dims.0).unwrap();
        let (a, inputs) = layer(shape, sequences * tokens, seed);
        let prompt = Prompt { shape, sequences: sequences as u64, tokens: tokens as u64, chunk };
        let [y, state, kept] = run(kernels, prompt, &a, &inputs, every, backward);
        let checkpoints = kept.len() / shape.state() / sequences;
        for sequence in 0..sequences {
            let own = inputs.lend().of(shape, sequence * tokens..(sequence + 1) * tokens);
            let mut exact = as_f64(&begin(sequences * shape.state())[sequence * shape.state()..][..shape.state()]);
            for checkpoint in 0..checkpoints {
                let stop = |checkpoint: usize| tokens.min(checkpoint * (every * chunk) as usize);
                let kept = &kept[(sequence * checkpoints + checkpoint) * shape.state()..][..shape.state()];
                prop_assert!(error(kept, &exact) <= FP16, "checkpoint {checkpoint}: {:e}", error(kept, &exact));
                let part = own.of(shape, stop(checkpoint)..stop(checkpoint + 1));
                let exact_y = reference::ssd(shape, &a, part, &mut exact);
                let first = (sequence * tokens + stop(checkpoint)) * shape.width();
                let got = error(&y[first..][..exact_y.len()], &exact_y);
                prop_assert!(got <= FP16, "outputs: {got:e}");
            }
            let state = &state[sequence * shape.state()..][..shape.state()];
            prop_assert!(error(state, &exact) <= FP32, "state: {:e}", error(state, &exact));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn a_scan_gives_what_the_recurrence_does(
        channels in 1usize..12, state_dim in 1usize..70, tokens in 1usize..40, seed: u64, backward: bool,
    ) {
        let Some(kernels) = kernels() else { return Ok(()) };
        let inputs = made::layer::<f32>(Shape::new(channels, 1, state_dim, 1).unwrap(), tokens, seed).inputs;
        let rates: Vec<f32> = (0..channels * state_dim).map(|at| -((at % state_dim + 1) as f32)).collect();
        let given = Channels { x: &inputs.x, dt: &inputs.dt, b: &inputs.b, c: &inputs.c };
        let mut exact = as_f64(&begin(rates.len()));
        let exact_y = reference::selective_scan(state_dim, &rates, given, &mut exact);
        let mut buffers = [&inputs.x, &inputs.dt, &inputs.b, &inputs.c, &rates].map(|of| Buffer::numbers(of));
        let (mut state, mut y) = (Buffer::numbers(&begin(rates.len())), Buffer::unset(4 * inputs.x.len() as u64));
        let [x, dt, b, c, a] = buffers.each_mut().map(Buffer::address);
        let (places, sizes) = (Places { x, dt, b, c }, [channels, state_dim, tokens].map(|size| size as u64));
        let launch = selective_scan(sizes[0], sizes[1], sizes[2], places, a, state.address(), y.address()).unwrap();
        kernels.run(&[launch], backward);
        // `[channels][tokens]` to `[tokens][channels]`.
        let y = y.read_numbers();
        let y: Vec<f32> = (0..y.len()).map(|at| y[at % channels * tokens + at / channels]).collect();
        prop_assert!(error(&y, &exact_y) <= FP32, "{:e}", error(&y, &exact_y));
        prop_assert!(error(&state.read_numbers(), &exact) <= FP32);
    }

    #[test]
    fn a_token_of_a_delta_net_gives_what_the_recurrence_does(
        dims in (1usize..3, 1usize..4, 1usize..20, 1usize..80), sequences in 1usize..4, seed: u64, backward: bool,
    ) {
        let Some(kernels) = kernels() else { return Ok(()) };
        let shape = Shape::new(dims.0 * dims.1, dims.2, dims.3, dims.0).unwrap();
        let (inputs, gates) = made::delta::<f16>(shape, sequences, seed);
        let state = begin(sequences * shape.state());
        let half: Vec<f16> = narrowed(&state);
        for (format, bytes, bound) in [("fp32", bytemuck::cast_slice(&state), FP32), ("fp16", bytemuck::cast_slice(&half), FP16)] {
            let mut given = Given::new(&gates, &inputs);
            let (places, gates_at) = given.places();
            let (mut states, mut y) = (Buffer::of(bytes), Buffer::unset(4 * inputs.x.len() as u64));
            let launch =
                delta_step(shape, format, sequences as u64, gates_at, places, states.address(), y.address()).unwrap();
            kernels.run(&[launch], backward);
            let mut exact = if format == "fp32" { as_f64(&state) } else { as_f64(&expanded(&half)) };
            let got = if format == "fp32" { states.read_numbers() } else { half_numbers(&states) };
            let exact_y: Vec<f64> = (0..sequences).flat_map(|sequence| {
                let token = inputs.lend().of(shape, sequence..sequence + 1);
                let gates = &gates[sequence * shape.heads()..][..shape.heads()];
                reference::delta(shape, token, gates, &mut exact[sequence * shape.state()..][..shape.state()])
            }).collect();
            prop_assert!(error(&got, &exact) <= bound, "{format}: {:e}", error(&got, &exact));
            prop_assert!(error(&y.read_numbers(), &exact_y) <= FP32, "{format}: {:e}", error(&y.read_numbers(), &exact_y));
        }
    }

    #[test]
    fn a_token_gives_what_the_recurrence_does(
        dims in (1usize..3, 1usize..4, 1usize..20, 1usize..80), sequences in 1usize..4, seed: u64, backward: bool,
    ) {
        let Some(kernels) = kernels() else { return Ok(()) };
        let shape = Shape::new(dims.0 * dims.1, dims.2, dims.3, dims.0).unwrap();
        let (a, inputs) = layer(shape, sequences, seed);
        let state = begin(sequences * shape.state());
        let half: Vec<f16> = narrowed(&state);
        for (format, bytes, bound) in [("fp32", bytemuck::cast_slice(&state), FP32), ("fp16", bytemuck::cast_slice(&half), FP16)] {
            let mut given = Given::new(&a, &inputs);
            let (places, a_at) = given.places();
            let (mut states, mut y) = (Buffer::of(bytes), Buffer::unset(4 * inputs.x.len() as u64));
            let launch = step(shape, format, sequences as u64, a_at, places, states.address(), y.address()).unwrap();
            kernels.run(&[launch], backward);
            let mut exact = if format == "fp32" { as_f64(&state) } else { as_f64(&expanded(&half)) };
            let got = if format == "fp32" { states.read_numbers() } else { half_numbers(&states) };
            let exact_y: Vec<f64> = (0..sequences).flat_map(|sequence| {
                let token = inputs.lend().of(shape, sequence..sequence + 1);
                reference::ssd(shape, &a, token, &mut exact[sequence * shape.state()..][..shape.state()])
            }).collect();
            prop_assert!(error(&got, &exact) <= bound, "{format}: {:e}", error(&got, &exact));
            prop_assert!(error(&y.read_numbers(), &exact_y) <= FP32, "{format}: {:e}", error(&y.read_numbers(), &exact_y));
        }
    }

    #[test]
    fn codes_are_the_hosts_byte_for_byte(
        heads in 1usize..3, rows in 1usize..50, groups in 1usize..4, four: bool, seed: u64, backward: bool,
    ) {
        let Some(kernels) = kernels() else { return Ok(()) };
        let shape = Shape::new(heads, rows, 32 * groups, 1).unwrap();
        let bits = if four { Bits::Four } else { Bits::Eight };
        let state = expanded(&made::layer::<f32>(Shape::new(1, shape.state(), 1, 1).unwrap(), 1, seed).inputs.x);
        let stride = tile_stride(shape, bits);
        let (mut states, mut tiles) = (Buffer::numbers(&state), Buffer::unset(heads as u64 * stride));
        let (mut refused, mut back) = (Buffer::of(&u64::MAX.to_le_bytes()), Buffer::unset(4 * state.len() as u64));
        let heads_there = heads as u64;
        kernels.run(&quantise(shape, bits, heads_there, states.address(), tiles.address(), refused.address()).unwrap(), backward);
        kernels.run(&[dequantise(shape, bits, heads_there, tiles.address(), back.address()).unwrap()], backward);
        prop_assert_eq!(refused.read(), u64::MAX.to_le_bytes());
        let (tiles, back) = (tiles.read(), back.read_numbers());
        for (head, state) in state.chunks(shape.tile()).enumerate() {
            let tile = Tile::quantise(shape, bits, state).unwrap();
            let columns: Vec<u8> = tile.columns().iter().flat_map(|scale| scale.to_le_bytes()).collect();
            let mut host = vec![0.0; shape.tile()];
            tile.dequantise(shape, &mut host).unwrap();
            prop_assert_eq!(&tiles[head * stride as usize..][..tile.bytes()], &[tile.coded(), &columns].concat()[..]);
            prop_assert_eq!(&back[head * shape.tile()..][..shape.tile()], &host[..]);
        }
    }

    #[test]
    fn codes_and_a_ring_give_what_the_recurrence_does(
        dims in (1usize..3, 1usize..3, 1usize..20, 1usize..3), sequences in 1usize..3, kept in 1usize..9, spare in 0usize..3,
        seed: u64, backward: bool,
    ) {
        let Some(kernels) = kernels() else { return Ok(()) };
        let shape = Shape::new(dims.0 * dims.1, dims.2, 32 * dims.3, dims.0).unwrap();
        let room = kept + spare;
        let (a, ring) = layer(shape, sequences * room, seed);
        // The present token's c is that of the last kept one, sequence after sequence.
        let last = |sequence: usize| ring.lend().of(shape, sequence * room + kept - 1..sequence * room + kept);
        let c: Vec<f16> = (0..sequences).flat_map(|sequence| last(sequence).c.to_vec()).collect();
        let state = begin(sequences * shape.state());
        let heads = (sequences * shape.heads()) as u64;
        let stride = tile_stride(shape, Bits::Eight);
        let mut given = Given::new(&a, &Owned { c, ..ring.clone() });
        let (places, a_at) = given.places();
        let (mut states, mut tiles) = (Buffer::numbers(&state), Buffer::unset(heads * stride));
        let mut y = Buffer::unset(4 * (sequences * shape.width()) as u64);
        let mut refused = Buffer::of(&u64::MAX.to_le_bytes());
        let rings = Rings { at: places, kept: kept as u64, room: room as u64 };
        let mut launches: Vec<Launch> =
            quantise(shape, Bits::Eight, heads, states.address(), tiles.address(), refused.address()).unwrap();
        launches.push(read_coded(shape, sequences as u64, tiles.address(), rings, a_at, y.address()).unwrap());
        launches.push(dequantise(shape, Bits::Eight, heads, tiles.address(), states.address()).unwrap());
        kernels.run(&launches, backward);
        // From the codes as they are, nothing is lost but f32's roundings.
        let mut exact = as_f64(&states.read_numbers());
        kernels.run(&[replay(shape, sequences as u64, states.address(), rings, a_at).unwrap()], backward);
        let mut exact_y = Vec::new();
        for sequence in 0..sequences {
            let tokens = ring.lend().of(shape, sequence * room..sequence * room + kept);
            let all = reference::ssd(shape, &a, tokens, &mut exact[sequence * shape.state()..][..shape.state()]);
            exact_y.extend_from_slice(&all[(kept - 1) * shape.width()..]);
        }
        let (y, states) = (y.read_numbers(), states.read_numbers());
        prop_assert!(error(&y, &exact_y) <= FP32, "outputs: {:e}", error(&y, &exact_y));
        prop_assert!(error(&states, &exact) <= FP32, "states: {:e}", error(&states, &exact));
    }
}

#[test]
fn norms_of_what_tokens_add_are_the_hosts() {
    let Some(kernels) = kernels() else { return };
    let shape = Shape::new(6, 40, 96, 2).unwrap();
    let (a, inputs) = layer(shape, 3, 5);
    let mut given = Given::new(&a, &inputs);
    let mut norms = Buffer::unset(4 * 18);
    kernels.run(&[injection_norms(shape, 3, given.places().0, norms.address()).unwrap()], false);
    let of = |token| -> Vec<f32> {
        gated::injection_norms(shape, inputs.lend().of(shape, token..token + 1)).unwrap()
    };
    let exact: Vec<f64> = as_f64(&(0..3).flat_map(of).collect::<Vec<f32>>());
    assert!(relative_error(&norms.read_numbers(), &exact) <= 1e-6);
}

#[test]
fn what_the_kernels_have_no_room_for_is_refused() {
    let shape = Shape::new(1, 2, 40, 1).unwrap();
    let refused = quantise(shape, Bits::Eight, 1, 0, 0, 0).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the kernels for states in fewer bits take rows of whole groups of 32 numbers, not of 40"
    );
    let none = Places { x: 0, dt: 0, b: 0, c: 0 };
    let work = Workspace { high: 0, low: 0, states: 0, pairs: 0 };
    let prompt = Prompt { shape, sequences: 1, tokens: 9, chunk: 257 };
    let refused = prompt.run(0, none, work, 0, 0, None).unwrap_err();
    assert_eq!(refused.to_string(), "the kernels have room for chunks, in tokens, of 256, not of 257");
    assert!(selective_scan(1, 257, 1, none, 0, 0, 0).is_err());
}
