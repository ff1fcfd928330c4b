//! Launches of the kernels of recurrent layers, `hw/kernels/recurrent_*.cu`. Addresses are the device's. Activations and shared vectors
//! are f16, steps and rates f32, laid out as [`Inputs`](crate::recurrent::inputs::Inputs) has them, sequence after sequence.

use super::launch::{Launch, LaunchError, THREADS};
use crate::recurrent::quantised::Bits;
use crate::recurrent::shape::Shape;

/// Tokens of a chunk, and of a ring, that the kernels have room for.
const MOST_CHUNK: u64 = 256;
const MOST_RING: u64 = 64;
/// Rows and columns of a product that a block makes.
const SIDE: u64 = 64;
/// Warps of a block.
const WARPS: u64 = THREADS as u64 / 32;
/// Numbers that a block of the kernels for codes takes.
const CODED: u64 = 2048;
/// Numbers of a row that selective_scan has room for.
const MOST_ROW: u64 = 256;

/// Where a layer's inputs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// `x`.
    pub x: u64,
    /// `dt`.
    pub dt: u64,
    /// `b`.
    pub b: u64,
    /// `c`.
    pub c: u64,
}

/// Prompts of one length in several sequences, run in chunks.
#[derive(Clone, Copy, Debug)]
pub struct Prompt {
    /// The layer.
    pub shape: Shape,
    /// Sequences.
    pub sequences: u64,
    /// Tokens of each.
    pub tokens: u64,
    /// Tokens of a chunk, 1 to 256.
    pub chunk: u64,
}

/// Memory that a prompt is run in, beside its inputs.
#[derive(Clone, Copy, Debug)]
pub struct Workspace {
    /// [`Prompt::decay_numbers`] f32.
    pub high: u64,
    /// As many.
    pub low: u64,
    /// [`Prompt::state_numbers`] f32.
    pub states: u64,
    /// [`Prompt::pair_numbers`] f32.
    pub pairs: u64,
}

/// Checkpoints that a prompt leaves: the state in f16 before every so many chunks.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoints {
    /// Where they go, `[sequences][checkpoints]` states.
    pub address: u64,
    /// Chunks from one to the next.
    pub every: u64,
}

impl Prompt {
    /// Chunks of all sequences.
    pub fn chunks(&self) -> u64 {
        self.sequences * self.tokens.div_ceil(self.chunk)
    }

    /// Numbers of each of the two parts of the sums of steps.
    pub fn decay_numbers(&self) -> u64 {
        self.chunks() * self.shape.heads() as u64 * self.chunk
    }

    /// Numbers of the states between chunks.
    pub fn state_numbers(&self) -> u64 {
        self.chunks() * self.shape.state() as u64
    }

    /// Products of pairs of tokens.
    pub fn pair_numbers(&self) -> u64 {
        self.chunks() * self.shape.groups() as u64 * self.chunk * self.chunk
    }

    /// Runs the prompts from `state`, `[sequences]` states in f32, on, which is left as it is after the last token; `y` is f16. `a` is
    /// the rate of each head.
    pub fn run(
        &self,
        a: u64,
        at: Places,
        work: Workspace,
        state: u64,
        y: u64,
        checkpoints: Option<Checkpoints>,
    ) -> Result<Vec<Launch>, LaunchError> {
        let Prompt { shape, sequences, tokens, chunk } = *self;
        room("chunks, in tokens,", chunk, MOST_CHUNK)?;
        let (heads, chunks) = (shape.heads() as u64, self.chunks());
        let (rows, columns) = (shape.head_dim() as u64, shape.state_dim() as u64);
        let dims = dims(shape);
        let Places { x, dt, b, c } = at;
        let Workspace { high, low, states, pairs } = work;
        let (kept, every) = checkpoints.map_or((0, 0), |kept| (kept.address, kept.every));
        let numbers = sequences * shape.state() as u64;
        let with_dims = |first: &[u64]| [first, &dims, &[tokens, chunk]].concat();
        let pass = vec![states, state, high, kept, every, sequences, heads, rows * columns, tokens, chunk];
        let sides = |of: u64| of.div_ceil(SIDE);
        Ok(vec![
            threads("ssd_cumsum", chunks * heads, vec![dt, a, high, low, heads, tokens, chunk, chunks])?,
            blocks(
                "ssd_chunk_state",
                [chunks * heads, sides(rows), sides(columns)],
                with_dims(&[x, dt, b, high, low, states]),
            )?,
            threads("ssd_pass_states", numbers, pass)?,
            blocks(
                "ssd_pairs",
                [chunks * shape.groups() as u64, sides(chunk), sides(chunk)],
                vec![b, c, pairs, shape.groups() as u64, columns, tokens, chunk],
            )?,
            blocks(
                "ssd_chunk_scan",
                [chunks * heads, sides(chunk), sides(rows)],
                with_dims(&[x, dt, c, high, low, states, pairs, y]),
            )?,
        ])
    }
}

/// Mamba-1 over the prompt of one sequence: addresses of `x`, `dt`, `b`, `c` in f32 as
/// [`Channels`](crate::recurrent::reference::Channels) has them, the rates, the state, and the outputs, `[channels][tokens]`.
pub fn selective_scan(
    channels: u64,
    state_dim: u64,
    tokens: u64,
    at: Places,
    a: u64,
    state: u64,
    y: u64,
) -> Result<Launch, LaunchError> {
    room("rows, in numbers,", state_dim, MOST_ROW)?;
    let Places { x, dt, b, c } = at;
    let arguments = vec![x, dt, b, c, a, state, y, channels, state_dim, tokens];
    Launch::new("selective_scan", channels.div_ceil(WARPS), arguments)
}

/// One token of each sequence, of states in `format`, `fp32` or `fp16`; `y` is f32.
pub fn step(
    shape: Shape,
    format: &'static str,
    sequences: u64,
    a: u64,
    at: Places,
    states: u64,
    y: u64,
) -> Result<Launch, LaunchError> {
    let Places { x, dt, b, c } = at;
    let arguments = [&[states, x, dt, b, c, a, y][..], &dims(shape)].concat();
    Launch::new(format!("ssm_step_{format}"), sequences * shape.heads() as u64, arguments)
}

/// One token of each sequence of a gated delta net, named as [`delta`](crate::recurrent::delta) has it: `gates` are f32, `states` in
/// `format`, `fp32` or `fp16`; `y` is f32.
pub fn delta_step(
    shape: Shape,
    format: &'static str,
    sequences: u64,
    gates: u64,
    at: Places,
    states: u64,
    y: u64,
) -> Result<Launch, LaunchError> {
    let Places { x, dt, b, c } = at;
    let arguments = [&[states, x, dt, b, c, gates, y][..], &dims(shape)].concat();
    Launch::new(format!("delta_step_{format}"), sequences * shape.heads() as u64, arguments)
}

/// Rings of inputs, `[sequences][room]` tokens of which `kept` are there.
#[derive(Clone, Copy, Debug)]
pub struct Rings {
    /// `x`, `dt` and `b` of the ring; `c` is that of the present token.
    pub at: Places,
    /// Tokens that are there.
    pub kept: u64,
    /// Tokens that have room, at most 64.
    pub room: u64,
}

/// Bytes from one head's codes to the next.
pub fn tile_stride(shape: Shape, bits: Bits) -> u64 {
    (bits.tile_bytes(shape) as u64).next_multiple_of(256)
}

/// The outputs of states in eight bits with rings beside them; `y` is f32.
pub fn read_coded(
    shape: Shape,
    sequences: u64,
    tiles: u64,
    rings: Rings,
    a: u64,
    y: u64,
) -> Result<Launch, LaunchError> {
    whole_groups(shape)?;
    room("rings, in tokens,", rings.room, MOST_RING)?;
    let Rings { at: Places { x, dt, b, c }, kept, room } = rings;
    let stride = tile_stride(shape, Bits::Eight);
    let arguments = [&[tiles, stride, x, dt, b, kept, room, c, a, y][..], &dims(shape)].concat();
    Launch::new("ssm_read_int8", sequences * shape.heads() as u64, arguments)
}

/// Turns states in f32 before the kept tokens of rings into those after them.
pub fn replay(
    shape: Shape,
    sequences: u64,
    states: u64,
    rings: Rings,
    a: u64,
) -> Result<Launch, LaunchError> {
    let Rings { at: Places { x, dt, b, .. }, kept, room } = rings;
    let arguments = [&[states, x, dt, b, kept, room, a, sequences][..], &dims(shape)].concat();
    threads("ring_replay", sequences * shape.state() as u64, arguments)
}

/// Codes `heads` states in f32; `refused` is the address of the least index of a number that is not finite, all ones before.
pub fn quantise(
    shape: Shape,
    bits: Bits,
    heads: u64,
    states: u64,
    tiles: u64,
    refused: u64,
) -> Result<Vec<Launch>, LaunchError> {
    whole_groups(shape)?;
    let arguments =
        vec![states, tiles, tile_stride(shape, bits), shape.head_dim() as u64, shape.state_dim() as u64];
    let columns = Launch::new(format!("state_columns_{}", name(bits)), heads, arguments.clone())?;
    let grid = [heads, (shape.tile() as u64).div_ceil(CODED), 1];
    let kernel = format!("state_encode_{}", name(bits));
    Ok(vec![columns, blocks(&kernel, grid, [arguments, vec![refused]].concat())?])
}

/// Reads `heads` states back in f32.
pub fn dequantise(
    shape: Shape,
    bits: Bits,
    heads: u64,
    tiles: u64,
    states: u64,
) -> Result<Launch, LaunchError> {
    whole_groups(shape)?;
    let dims = [shape.head_dim() as u64, shape.state_dim() as u64];
    let arguments = [&[tiles, tile_stride(shape, bits), states][..], &dims].concat();
    let grid = [heads, (shape.tile() as u64).div_ceil(CODED), 1];
    blocks(&format!("state_decode_{}", name(bits)), grid, arguments)
}

/// The length of what one token adds to each head of each sequence; `norms` is `[sequences][heads]` f32.
pub fn injection_norms(shape: Shape, sequences: u64, at: Places, norms: u64) -> Result<Launch, LaunchError> {
    let heads = sequences * shape.heads() as u64;
    let arguments = [&[at.x, at.dt, at.b, norms, sequences][..], &dims(shape)].concat();
    Launch::new("injection_norms", heads.div_ceil(WARPS), arguments)
}

/// How the kernels call a layer's dimensions.
fn dims(shape: Shape) -> [u64; 4] {
    [shape.heads(), shape.head_dim(), shape.groups(), shape.state_dim()].map(|dim| dim as u64)
}

fn name(bits: Bits) -> &'static str {
    match bits {
        Bits::Four => "int4",
        Bits::Eight => "int8",
    }
}

/// What a kernel keeps at once is as large as that or smaller, and something.
fn room(what: &'static str, got: u64, most: u64) -> Result<(), LaunchError> {
    if (1..=most).contains(&got) { Ok(()) } else { Err(LaunchError::NoRoom { what, got, most }) }
}

/// The kernels for codes take rows of whole groups.
fn whole_groups(shape: Shape) -> Result<(), LaunchError> {
    let rows = shape.state_dim() as u64;
    if rows.is_multiple_of(32) { Ok(()) } else { Err(LaunchError::PartGroups { columns: rows }) }
}

/// A launch of a thread a number.
fn threads(kernel: &str, count: u64, arguments: Vec<u64>) -> Result<Launch, LaunchError> {
    Launch::new(kernel, count.div_ceil(THREADS.into()), arguments)
}

/// A launch over a grid.
fn blocks(kernel: &str, [x, y, z]: [u64; 3], arguments: Vec<u64>) -> Result<Launch, LaunchError> {
    let mut launch = Launch::new(kernel, x, arguments)?;
    let most = u16::MAX as u64;
    for (side, blocks) in launch.grid[1..].iter_mut().zip([y, z]) {
        let too_large = |_| LaunchError::TooLarge { kernel: kernel.to_owned(), blocks, most };
        *side = u16::try_from(blocks).map_err(too_large)?.into();
    }
    Ok(launch)
}
