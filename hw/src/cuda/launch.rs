//! Launches that code, decode and check copies. The kernels are in `hw/kernels`; addresses are the device's.

use crate::codec::has_coder;
use policy::format::{FormatId, Scale};
use policy::model::Matrix;
use policy::recipe::Recipe;
use std::ops::Range;
use thiserror::Error;

/// Threads in a block, of every kernel.
pub const THREADS: u32 = 256;
/// Elements that a thread of an encoder takes at once.
const UNIT: u64 = 8;
/// Units that a thread of a decoder takes.
const DECODE_UNITS: u64 = 4;
/// Rows that a thread of the kernel that follows recipes takes.
const MERGE_ROWS: u64 = 4;
/// Elements of a tile of `bf16_packed`.
const TILE: u64 = 4096;
/// Blocks of the kernels that count or sum over a copy: a few for each multiprocessor of any accelerator.
const SUMMING_BLOCKS: u64 = 1024;
/// Bytes that a block of the checksum kernel takes at once.
const CHECKSUM_BYTES: u64 = THREADS as u64 * 8 * 16;

/// A launch: a kernel of `hw/kernels` by name, its grid, and its arguments, all of eight bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The kernel.
    pub kernel: String,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// The arguments, in order.
    pub arguments: Vec<u64>,
}

/// Why no launch does what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LaunchError {
    /// No kernel turns one format into the other.
    #[error("no kernel turns {from} into {to}")]
    NoKernel {
        /// The source's format.
        from: &'static str,
        /// The destination's.
        to: &'static str,
    },
    /// More blocks than a grid has.
    #[error("{kernel} would take {blocks} blocks, a grid has {most}")]
    TooLarge {
        /// The kernel.
        kernel: String,
        /// Blocks it would take.
        blocks: u64,
        /// Blocks there are.
        most: u64,
    },
    /// More than a kernel keeps at once.
    #[error("the kernels have room for {what} of {most}, not of {got}")]
    NoRoom {
        /// Of what.
        what: &'static str,
        /// How large it is.
        got: u64,
        /// How large it may be.
        most: u64,
    },
    /// Rows that are no whole groups of 32.
    #[error("the kernels for states in fewer bits take rows of whole groups of 32 numbers, not of {columns}")]
    PartGroups {
        /// Numbers of a row.
        columns: u64,
    },
    /// A block too small for what `bf16_packed` stores beside the elements.
    #[error("bf16_packed has no room for its tables in a block of {elements} elements; keep it in bf16")]
    TooSmallToPack {
        /// Elements of the block.
        elements: u64,
    },
}

impl Launch {
    pub(super) fn new(
        kernel: impl Into<String>,
        blocks: u64,
        arguments: Vec<u64>,
    ) -> Result<Launch, LaunchError> {
        let (kernel, most) = (kernel.into(), i32::MAX as u64);
        match u32::try_from(blocks) {
            Ok(x) if blocks <= most => Ok(Launch { kernel, grid: [x, 1, 1], arguments }),
            _ => Err(LaunchError::TooLarge { kernel, blocks, most }),
        }
    }
}

/// What kernels report and count in: one for each stream, in the device's memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Status {
    /// The least element that an encoder refuses or the least tile that a decoder finds corrupt; all ones if none.
    pub refused: u64,
    /// A checksum, and what the kernel needs while it is being made.
    pub checksum: [u64; 3],
    /// Counters of `bf16_packed`'s encoder: zeros between launches.
    pub counters: [u32; 256],
    /// Exponents without a code in the last block packed.
    pub without_code: u64,
}

impl Status {
    /// As it must be before the first launch, and `refused` before each that may refuse.
    pub const FRESH: Status =
        Status { refused: u64::MAX, checksum: [0; 3], counters: [0; 256], without_code: 0 };

    fn refused(status: u64) -> u64 {
        status
    }

    fn checksum(status: u64) -> u64 {
        status + std::mem::offset_of!(Status, checksum) as u64
    }

    fn counters(status: u64) -> u64 {
        status + std::mem::offset_of!(Status, counters) as u64
    }
}

/// A copy in the device's memory.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its format.
    pub format: FormatId,
    /// Where it begins: a multiple of 256.
    pub address: u64,
}

fn is_plain(format: FormatId) -> bool {
    let row = format.get();
    row.scale == Scale::None && row.lossless_of.is_none()
}

/// What a change of format goes through: kernels read and write plain formats, decode the scaled ones to two of them,
/// and `bf16_packed` to bf16.
fn through(from: FormatId, to: FormatId) -> Option<FormatId> {
    let name = match from.get().lossless_of {
        _ if is_plain(from) => return None,
        Some(native) if native == to.name() => return None,
        Some(native) => native,
        None if matches!(to.name(), "bf16" | "fp32") => return None,
        None => "fp32",
    };
    FormatId::named(name)
}

/// Bytes of scratch that [`recode`] needs for a block of `elements`.
pub fn scratch_bytes(from: FormatId, to: FormatId, elements: u64) -> u64 {
    through(from, to).map_or(0, |format| format.bytes(elements, 0).0)
}

/// Writes a copy in another format. `scratch` has [`scratch_bytes`] and begins at a multiple of 256; `status` is the
/// address of a [`Status`]. The two formats differ: a copy as it is takes no kernel.
pub fn recode(
    from: Place,
    to: Place,
    matrices: &[Matrix],
    scratch: u64,
    status: u64,
) -> Result<Vec<Launch>, LaunchError> {
    let Some(format) = through(from.format, to.format) else { return directly(from, to, matrices, status) };
    let between = Place { format, address: scratch };
    let mut launches = directly(from, between, matrices, status)?;
    launches.extend(directly(between, to, matrices, status)?);
    Ok(launches)
}

/// Writes a copy in a format that one set of kernels reaches.
fn directly(from: Place, to: Place, matrices: &[Matrix], status: u64) -> Result<Vec<Launch>, LaunchError> {
    let elements: u64 = matrices.iter().map(|matrix| matrix.elements()).sum();
    let (reads, writes) = (from.format.name(), to.format.name());
    if !has_coder(from.format) || !has_coder(to.format) || from.format == to.format {
        return Err(LaunchError::NoKernel { from: reads, to: writes });
    }
    if elements == 0 {
        return Ok(Vec::new());
    }
    let ends = [from.address, to.address, elements];
    if !is_plain(from.format) {
        let kernel = format!("decode_{reads}_to_{writes}");
        let span = THREADS as u64 * UNIT * DECODE_UNITS;
        return match from.format.get().scale {
            Scale::None => unpack(kernel, ends, status),
            Scale::Group { .. } => Ok(vec![Launch::new(kernel, elements.div_ceil(span), ends.to_vec())?]),
            // The first unit may begin before the matrix.
            Scale::Row { .. } => {
                by_matrix(&kernel, ends, matrices, |matrix| (matrix.elements() + UNIT).div_ceil(span), None)
            }
        };
    }
    let kernel = format!("encode_{writes}_from_{reads}");
    let span = THREADS as u64 * UNIT;
    match to.format.get().scale {
        Scale::None if is_plain(to.format) => {
            Ok(vec![Launch::new(kernel, elements.div_ceil(span), ends.to_vec())?])
        }
        Scale::None => pack(reads, ends, status),
        Scale::Group { size, .. } => {
            let blocks = elements.div_ceil(span.max(size as u64));
            Ok(vec![Launch::new(kernel, blocks, [&ends[..], &[Status::refused(status)]].concat())?])
        }
        Scale::Row { .. } => {
            let warps = THREADS as u64 / 32;
            by_matrix(
                &kernel,
                ends,
                matrices,
                |matrix| matrix.rows.div_ceil(warps),
                Some(Status::refused(status)),
            )
        }
    }
}

/// A launch for each matrix: row scales belong to a matrix's rows.
fn by_matrix(
    kernel: &str,
    ends: [u64; 3],
    matrices: &[Matrix],
    blocks: impl Fn(&Matrix) -> u64,
    last: Option<u64>,
) -> Result<Vec<Launch>, LaunchError> {
    let (mut first_element, mut first_row) = (0, 0);
    let mut launches = Vec::new();
    for matrix in matrices {
        let place = [first_element, first_row, matrix.rows, matrix.columns];
        if matrix.rows > 0 {
            let arguments = ends.into_iter().chain(place).chain(last).collect();
            launches.push(Launch::new(kernel, blocks(matrix), arguments)?);
        }
        first_element += matrix.elements();
        first_row += matrix.rows;
    }
    Ok(launches)
}

/// Exponents without a code that `bf16_packed` has room for in a block; `None` if its tables do not fit. An encoder that
/// counts more ([`Status::without_code`]) has written nothing of worth.
pub fn packed_room(elements: u64) -> Option<u64> {
    let tables = elements + (elements * 3).div_ceil(8) + 8 + 4 * elements.div_ceil(TILE);
    (elements * 45).div_ceil(32).checked_sub(tables)
}

fn pack(reads: &str, [source, copy, elements]: [u64; 3], status: u64) -> Result<Vec<Launch>, LaunchError> {
    if packed_room(elements).is_none() {
        return Err(LaunchError::TooSmallToPack { elements });
    }
    let (refused, counters) = (Status::refused(status), Status::counters(status));
    let (tiles, units) = (elements.div_ceil(TILE), elements.div_ceil(THREADS as u64 * UNIT));
    let named = |part: &str| format!("packed_{part}_from_{reads}");
    Ok(vec![
        Launch::new(
            named("histogram"),
            units.min(SUMMING_BLOCKS),
            vec![source, elements, counters, refused],
        )?,
        Launch::new("packed_table", 1, vec![copy, elements, counters])?,
        Launch::new(named("split"), tiles, vec![source, copy, elements, refused])?,
        Launch::new("packed_scan", 1, vec![copy, elements, counters])?,
        Launch::new(named("escapes"), tiles, vec![source, copy, elements, counters, refused])?,
    ])
}

fn unpack(kernel: String, [copy, out, elements]: [u64; 3], status: u64) -> Result<Vec<Launch>, LaunchError> {
    if packed_room(elements).is_none() {
        return Err(LaunchError::TooSmallToPack { elements });
    }
    let arguments = vec![copy, out, elements, Status::refused(status)];
    Ok(vec![Launch::new(kernel, elements.div_ceil(TILE), arguments)?])
}

/// The elements of a block that recipes are to make.
#[derive(Clone, Copy, Debug)]
pub struct Ingredients {
    /// The base of the block's layer, in the block's native format.
    pub base: Place,
    /// The address of its factors, as [`Merge`](crate::merge::Merge) has them.
    pub factors: u64,
    /// Its recipe.
    pub recipe: Recipe,
}

/// Makes `elements` of a block whose whole copy begins at `out`, a multiple of 256.
pub fn merge(
    of: Ingredients,
    out: u64,
    matrices: &[Matrix],
    elements: Range<u64>,
) -> Result<Vec<Launch>, LaunchError> {
    let Ingredients { base, factors, recipe } = of;
    let (rank, mut first_element, mut left) = (u64::from(recipe.rank), 0, 0);
    let mut launches = Vec::new();
    for matrix in matrices {
        let end = first_element + matrix.elements();
        let (from, to) = (elements.start.max(first_element), elements.end.min(end));
        let right = left + matrix.rows * rank;
        if from < to {
            let rows =
                [(from - first_element) / matrix.columns, (to - first_element).div_ceil(matrix.columns)];
            let threads = (rows[1] - rows[0]).div_ceil(MERGE_ROWS) * matrix.columns.div_ceil(UNIT);
            let place = [from, to, first_element, matrix.columns, rows[0], rows[1], rank, left, right];
            let arguments = [base.address, factors, out].into_iter().chain(place).collect();
            let kernel = format!("merge_{}", base.format.name());
            launches.push(Launch::new(kernel, threads.div_ceil(THREADS.into()), arguments)?);
        }
        (first_element, left) = (end, right + rank * matrix.columns);
    }
    Ok(launches)
}

/// Sums `bytes` from `address`, a multiple of 16, into the checksum of `status`.
pub fn checksum(address: u64, bytes: u64, status: u64) -> Result<Launch, LaunchError> {
    let blocks = bytes.div_ceil(CHECKSUM_BYTES).clamp(1, SUMMING_BLOCKS);
    Launch::new("checksum", blocks, vec![address, bytes, Status::checksum(status)])
}
