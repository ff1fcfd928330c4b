//! Launches of the matrix kernels: many products of one format at once, and what an expert does between them.

use super::launch::{Launch, LaunchError, THREADS};
use policy::format::{FormatId, Scale};

/// Rows that a block of the fused kernels takes, for weights of eight bits and more; of four it takes twice as many.
const ROWS: u64 = 128;
/// Rows that a block of the kernel for any shape takes.
const ROWS_ANY: u64 = 8;
/// The fused kernels read whole runs of this many columns.
const RUN: u64 = 32;
/// The fewest columns worth a part of their own.
const PART_COLUMNS: u64 = 512;
/// Blocks of a fused kernel that a multiprocessor holds.
const RESIDENT: u64 = 2;

/// y[t][r] = sum over c of W[r][c] x[t][c], of one matrix of a copy. The kernels read it as it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Task {
    /// Address of the copy: a multiple of 256.
    pub copy: u64,
    /// Elements of the whole block.
    pub elements: u64,
    /// The matrix's first element in the block.
    pub first_element: u64,
    /// The matrix's first row, counted over the block's matrices.
    pub first_row: u64,
    /// Outputs.
    pub rows: u64,
    /// Inputs.
    pub columns: u64,
    /// Tokens.
    pub tokens: u64,
    /// Where the first token's inputs are, in numbers from the launch's x.
    pub x: u64,
    /// Where the first token's outputs go, in numbers from the launch's y.
    pub y: u64,
}

/// What products share: where their numbers lie, and memory for splitting a matrix by columns.
#[derive(Clone, Copy, Debug)]
pub struct Bench {
    /// Address of the inputs, f32.
    pub x: u64,
    /// Address of the outputs, f32.
    pub y: u64,
    /// Outputs in all, of every task.
    pub numbers: u64,
    /// Address of `parts_room` f32.
    pub parts: u64,
    /// Numbers that fit there.
    pub parts_room: u64,
    /// Address of `counters` u32, all zero.
    pub finished: u64,
    /// Counters there.
    pub counters: u64,
    /// Multiprocessors of the device.
    pub processors: u64,
}

/// Tokens that the fused kernels read the weights once for.
const FUSED_TOKENS: u64 = 16;

/// Whether a library's product of full precision serves a task better than ours.
pub(super) fn suits_library(format: FormatId, task: &Task) -> bool {
    format == FormatId::BF16 && task.tokens > FUSED_TOKENS && is_fused(format, task)
}

/// Whether the fused kernels take a task; those for any shape take all.
fn is_fused(format: FormatId, task: &Task) -> bool {
    let runs = [task.elements, task.first_element, task.columns];
    format.name() != "fp32"
        && task.columns < 1 << 31
        && runs.iter().all(|count| count.is_multiple_of(RUN))
        && task.x.is_multiple_of(4)
}

/// Multiplies. `tasks_at` is the address of `tasks` in the device's memory; none of them is without rows or tokens.
pub fn matmul(format: FormatId, tasks: &[Task], tasks_at: u64, bench: &Bench) -> Result<Launch, LaunchError> {
    let name = format.name();
    let fused = tasks.iter().all(|task| is_fused(format, task));
    let tokens = tasks.iter().map(|task| task.tokens).max().unwrap_or(0);
    let kind = if !fused {
        "any"
    } else if tokens <= 8 {
        "8"
    } else {
        "16"
    };
    let kernel = format!("matmul_{name}_{kind}");
    let four_bits = format.get().scale != Scale::None && format.get().quarter_bits == 16;
    let rows = if !fused {
        ROWS_ANY
    } else if four_bits {
        2 * ROWS
    } else {
        ROWS
    };
    let tallest = tasks.iter().map(|task| task.rows.div_ceil(rows)).max().unwrap_or(0);
    let mut launch = Launch::new(kernel, tallest, vec![tasks_at, bench.x, bench.y])?;
    launch.grid[1] = height(&launch, tasks.len() as u64)?;
    if fused {
        launch.grid[2] = parts(tasks, rows, tallest, bench);
        launch.arguments.extend([bench.parts, bench.numbers, bench.finished]);
    }
    Ok(launch)
}

/// A grid's y, of which there are fewer than of its x.
fn height(launch: &Launch, blocks: u64) -> Result<u32, LaunchError> {
    let most = u16::MAX as u64;
    match u32::try_from(blocks) {
        Ok(y) if blocks <= most => Ok(y),
        _ => Err(LaunchError::TooLarge { kernel: launch.kernel.clone(), blocks, most }),
    }
}

/// Into how many parts the columns are split so that every multiprocessor has its blocks, if memory and columns allow.
fn parts(tasks: &[Task], rows: u64, tallest: u64, bench: &Bench) -> u32 {
    let blocks: u64 = tasks.iter().map(|task| task.rows.div_ceil(rows)).sum();
    let columns = tasks.iter().map(|task| task.columns).max().unwrap_or(0);
    if tallest * tasks.len() as u64 > bench.counters {
        return 1;
    }
    let wanted = (bench.processors * RESIDENT).div_ceil(blocks.max(1));
    let room = bench.parts_room / bench.numbers.max(1);
    wanted.min(room).min(columns.div_ceil(PART_COLUMNS)).clamp(1, 64) as u32
}

/// Numbers that the parts of a launch take where its columns are split as far as is of use, with as many tokens as the
/// fused kernels read the weights once for; with more, or beside launches in other formats, it is split less. A launch
/// that is split has fewer blocks than the multiprocessors hold, so its parts have less than twice as many. `columns` are
/// those of the widest matrix.
pub fn parts_room(processors: u64, columns: u64) -> u64 {
    match columns.div_ceil(PART_COLUMNS) {
        0 | 1 => 0,
        _ => 2 * processors * RESIDENT * 2 * ROWS * FUSED_TOKENS,
    }
}

/// out = silu(gate) * up over `numbers` f32 at three addresses.
pub fn silu_mul(gate: u64, up: u64, out: u64, numbers: u64) -> Result<Launch, LaunchError> {
    Launch::new("silu_mul", numbers.div_ceil(THREADS as u64), vec![gate, up, out, numbers])
}

/// high + low = x as nearly as two bf16 can, over `numbers` f32 at `x`.
pub fn split_bf16(x: u64, high: u64, low: u64, numbers: u64) -> Result<Launch, LaunchError> {
    Launch::new("split_bf16", numbers.div_ceil(THREADS as u64), vec![x, high, low, numbers])
}

/// Row `i` of `out` is row `token_of[i]` of `x`, for `rows` rows of `columns` f32; `token_of` is the address of u32.
pub fn gather(x: u64, token_of: u64, out: u64, rows: u64, columns: u64) -> Result<Launch, LaunchError> {
    let mut launch = Launch::new("gather", rows, vec![x, token_of, out, columns])?;
    launch.grid[1] = height(&launch, columns.div_ceil(THREADS as u64))?;
    Ok(launch)
}

/// Which rows of the experts' outputs belong to a token, and with what weight.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Address of `tokens * chosen` u32: rows of y.
    pub row_of: u64,
    /// Address of as many f32: gate weights.
    pub weight: u64,
    /// Rows a token has.
    pub chosen: u64,
}

/// Row `t` of `out` is the weighted sum of the rows of `y` that token `t` has, added in their order.
pub fn combine(y: u64, choice: Choice, out: u64, tokens: u64, columns: u64) -> Result<Launch, LaunchError> {
    let arguments = vec![y, choice.row_of, choice.weight, out, choice.chosen, columns];
    let mut launch = Launch::new("combine", tokens, arguments)?;
    launch.grid[1] = height(&launch, columns.div_ceil(THREADS as u64))?;
    Ok(launch)
}
