//! Recurrent layers on an accelerator: what its kernels give, against the recurrence in float64, and that their times are taken.

use crate::engine::DEVICE;
use half::f16;
use hw::cuda::gpu::{Gpu, Stream};
use hw::cuda::launch::Launch;
use hw::cuda::memory::Slab;
use hw::cuda::recurrent::{
    Places, Prompt, Rings, Workspace, dequantise, quantise, read_coded, replay, tile_stride,
};
use hw::recurrent::made;
use hw::recurrent::mixers::{Kept, Mixer};
use hw::recurrent::quantised::Bits;
use hw::recurrent::reference::{self, relative_error};
use hw::recurrent::shape::Shape;
use policy::units::Nanos;
use std::sync::Arc;

const TOKENS: usize = 150;
const RING: usize = 8;

fn shape() -> Shape {
    Shape::new(4, 16, 64, 2).unwrap()
}

struct Device {
    gpu: Arc<Gpu>,
    stream: Stream,
}

impl Device {
    /// The accelerator under test, if there is one.
    fn open() -> Option<Device> {
        let name = std::env::var(DEVICE).ok()?;
        let gpu = Gpu::open(name.strip_prefix("cuda:")?.parse().ok()?).unwrap();
        let stream = gpu.stream(false).unwrap();
        Some(Device { gpu, stream })
    }

    fn put<T: bytemuck::Pod>(&self, numbers: &[T]) -> Slab {
        let bytes: &[u8] = bytemuck::cast_slice(numbers);
        let slab = Slab::new(&self.gpu, bytes.len() as u64).unwrap();
        slab.save(0, bytes).unwrap();
        slab
    }

    fn room(&self, bytes: u64) -> Slab {
        Slab::new(&self.gpu, bytes).unwrap()
    }

    #[allow(unsafe_code)]
    fn run(&self, launches: &[Launch]) {
        for launch in launches {
            // SAFETY: the slabs are of the sizes that the launches are made for, and outlive `finish`.
            unsafe { self.stream.launch(launch) }.unwrap();
        }
        self.stream.finish().unwrap();
    }
}

fn numbers(slab: &Slab) -> Vec<f32> {
    let mut numbers = vec![0.0f32; slab.len() as usize / 4];
    slab.load(0, bytemuck::cast_slice_mut(&mut numbers)).unwrap();
    numbers
}

#[test]
fn an_accelerator_runs_recurrent_layers_as_float64_does() {
    let Some(device) = Device::open() else { return };
    let shape = shape();
    let made = made::layer::<f16>(shape, TOKENS + RING, 5);
    let inputs = made.inputs.lend();
    let mut exact = vec![0.0; shape.state()];
    let exact_y = reference::ssd(shape, &made.a, inputs.of(shape, 0..TOKENS), &mut exact);

    let prompt = Prompt { shape, sequences: 1, tokens: TOKENS as u64, chunk: 64 };
    let slabs = [
        device.put(&made.inputs.x),
        device.put(&made.inputs.dt),
        device.put(&made.inputs.b),
        device.put(&made.inputs.c),
        device.put(&made.a),
    ];
    let [x, dt, b, c, a] = slabs.each_ref().map(Slab::start);
    let places = Places { x, dt, b, c };
    let room =
        [prompt.decay_numbers(), prompt.decay_numbers(), prompt.state_numbers(), prompt.pair_numbers()]
            .map(|count| device.room(4 * count));
    let [high, low, states, pairs] = room.each_ref().map(Slab::start);
    let (state, y) = (device.put(&vec![0.0f32; shape.state()]), device.room(2 * exact_y.len() as u64));
    let work = Workspace { high, low, states, pairs };
    device.run(&prompt.run(a, places, work, state.start(), y.start(), None).unwrap());
    let mut half = vec![f16::ZERO; exact_y.len()];
    y.load(0, bytemuck::cast_slice_mut(&mut half)).unwrap();
    let got: Vec<f32> = half.iter().map(|number| number.to_f32()).collect();
    assert!(relative_error(&got, &exact_y) <= 2e-3, "{:e}", relative_error(&got, &exact_y));
    assert!(relative_error(&numbers(&state), &exact) <= 1e-5);

    // Its codes, and the tokens after the prompt as a ring.
    let heads = shape.heads() as u64;
    let tiles = device.room(heads * tile_stride(shape, Bits::Eight));
    let (refused, y) = (device.put(&[u64::MAX]), device.room(4 * shape.width() as u64));
    let mut launches =
        quantise(shape, Bits::Eight, heads, state.start(), tiles.start(), refused.start()).unwrap();
    launches.push(dequantise(shape, Bits::Eight, heads, tiles.start(), state.start()).unwrap());
    device.run(&launches);
    let mut coded: Vec<f64> = numbers(&state).into_iter().map(f64::from).collect();
    let error = relative_error(&numbers(&state), &exact);
    assert!((1e-4..1e-2).contains(&error), "eight bits: {error:e}");
    let after = TOKENS as u64;
    let of_token = |address: u64, bytes: usize| address + after * bytes as u64;
    let ring = Places {
        x: of_token(x, 2 * shape.width()),
        dt: of_token(dt, 4 * shape.heads()),
        b: of_token(b, 2 * shape.shared()),
        c: of_token(c, 2 * shape.shared()) + ((RING - 1) * 2 * shape.shared()) as u64,
    };
    let rings = Rings { at: ring, kept: RING as u64, room: RING as u64 };
    device.run(&[
        read_coded(shape, 1, tiles.start(), rings, a, y.start()).unwrap(),
        replay(shape, 1, state.start(), rings, a).unwrap(),
    ]);
    let exact_y = reference::ssd(shape, &made.a, inputs.of(shape, TOKENS..TOKENS + RING), &mut coded);
    let last = &exact_y[(RING - 1) * shape.width()..];
    assert!(relative_error(&numbers(&y), last) <= 1e-4, "{:e}", relative_error(&numbers(&y), last));
    assert!(relative_error(&numbers(&state), &coded) <= 1e-5);
}

#[test]
fn an_accelerator_takes_the_times_of_recurrent_layers() {
    let Ok(name) = std::env::var(DEVICE) else { return };
    let mixers = hw::open::mixers(&name, Nanos(1)).unwrap();
    assert!(mixers.name().starts_with(&name));
    let recurrent = Mixer::Recurrent(shape());
    assert!(mixers.prefill(recurrent, 2, 90).unwrap().is_some());
    assert!(mixers.decode(recurrent, 2, 90).unwrap().is_some());
    for kept in [Kept::Fp32, Kept::Fp16, Kept::Gated(3)] {
        assert!(mixers.step(shape(), kept, 2).unwrap().is_some(), "{kept:?}");
    }
    let attention = Mixer::Attention { heads: 2, head_dim: 8 };
    assert!(mixers.prefill(attention, 1, 9).unwrap().is_none(), "a library's, not ours");
}
