//! The products of rows and tokens. One token takes each chunk of a row straight from its bytes. Several tokens share
//! the work of reading: a tile of some rows is expanded once, then multiplied by all tokens.

use super::panel::{Panel, TOKENS};
use crate::codec::{CHUNK, Element, Sharing, read, scaled};
use fearless_simd::prelude::*;
use fearless_simd::{Level, Simd, dispatch, f32x16};

/// Rows of a tile.
const ROWS: usize = 4;
/// Chunks of a row in a tile: tile and activations stay in the first-level cache.
const CHUNKS: usize = 16;

/// How the rows of a format are multiplied.
#[derive(Clone, Copy)]
pub(crate) struct Kernel {
    bits: usize,
    sharing: Sharing,
    run: fn(Level, &Rows<'_>, &Panel, &mut Sums, &mut [f32]),
}

/// Rows of a matrix, as bytes of a copy.
pub(super) struct Rows<'a> {
    pub(super) payload: &'a [u8],
    pub(super) scales: &'a [u8],
    pub(super) sharing: Sharing,
    /// The first row, counted over all matrices of the block.
    pub(super) first_row: usize,
    /// Its first element, counted likewise.
    pub(super) first: usize,
    pub(super) columns: usize,
    pub(super) count: usize,
}

/// What is kept between the tiles of a row.
#[derive(Default)]
pub(super) struct Sums {
    /// A scale for each chunk.
    scales: Vec<f32>,
    /// The lanes of each token and each row of a tile.
    lanes: Vec<[[f32; CHUNK]; ROWS]>,
}

impl Kernel {
    /// For elements `E`.
    pub(crate) const fn of<E: Element>(sharing: Sharing) -> Kernel {
        let run: fn(Level, &Rows<'_>, &Panel, &mut Sums, &mut [f32]) = |level, rows, panel, sums, y| {
            let aligned = rows.first.is_multiple_of(CHUNK) && rows.columns.is_multiple_of(CHUNK);
            if panel.tokens() == 1 && aligned {
                dispatch!(level, simd => one_token::<_, E>(simd, rows, panel, &mut sums.scales, y));
            } else {
                dispatch!(level, simd => many_tokens::<_, E>(simd, rows, panel, &mut sums.lanes, y));
            }
        };
        Kernel { bits: E::BITS, sharing, run }
    }

    /// Which elements share a scale.
    pub(super) fn sharing(self) -> Sharing {
        self.sharing
    }

    /// Bytes of so many elements, scales apart.
    pub(super) fn payload_bytes(self, elements: usize) -> usize {
        (elements * self.bits).div_ceil(8)
    }

    /// Multiplies `rows` by `panel` into `y`.
    pub(super) fn multiply(
        self,
        level: Level,
        rows: &Rows<'_>,
        panel: &Panel,
        sums: &mut Sums,
        y: &mut [f32],
    ) {
        (self.run)(level, rows, panel, sums, y);
    }
}

impl Rows<'_> {
    /// Reads the scale of each chunk of row `row`, which is aligned.
    #[inline(always)]
    fn read_scales<E: Element>(&self, row: usize, scales: &mut [f32]) {
        let first = self.first + row * self.columns;
        match self.sharing {
            Sharing::Row => scales.fill(self.scale::<E>(self.first_row + row)),
            Sharing::Group(CHUNK) => {
                let stored = self.scales[first / CHUNK * E::SCALE..].chunks_exact(E::SCALE);
                for (scale, stored) in scales.iter_mut().zip(stored) {
                    *scale = E::scale(stored);
                }
            }
            Sharing::Group(size) => {
                let (first, per_group) = (first / CHUNK, size / CHUNK);
                let mut chunk = 0;
                while chunk < scales.len() {
                    let group = (first + chunk) / per_group;
                    let end = scales.len().min((group + 1) * per_group - first);
                    scales[chunk..end].fill(self.scale::<E>(group));
                    chunk = end;
                }
            }
        }
    }

    #[inline(always)]
    fn scale<E: Element>(&self, index: usize) -> f32 {
        if E::SCALE == 0 { 1.0 } else { E::scale(&self.scales[index * E::SCALE..]) }
    }

    /// Expands columns from `column` on of row `row`; zeros beyond the last one.
    #[inline(always)]
    fn expand<S: Simd, E: Element>(&self, simd: S, row: usize, column: usize, out: &mut [f32]) {
        let start = self.first + row * self.columns;
        let (first, end) = (start + column, start + self.columns.min(column + out.len()));
        let mut at = first;
        while at < end {
            let (stop, scale) = match self.sharing {
                Sharing::Row => (end, self.first_row + row),
                Sharing::Group(size) => (end.min((at / size + 1) * size), at / size),
            };
            let values = &mut out[at - first..stop - first];
            read::<S, E>(simd, self.payload, at, self.scale::<E>(scale), values);
            at = stop;
        }
        out[end - first..].fill(0.0);
    }
}

/// Aligned rows times one token.
#[inline(always)]
fn one_token<S: Simd, E: Element>(
    simd: S,
    rows: &Rows<'_>,
    panel: &Panel,
    scales: &mut Vec<f32>,
    y: &mut [f32],
) {
    scales.resize(panel.chunks(), 1.0);
    let bytes = rows.columns * E::BITS / 8;
    for (row, y) in y.iter_mut().enumerate() {
        if E::SCALE > 0 {
            rows.read_scales::<E>(row, scales);
        }
        let stored = &rows.payload[rows.first * E::BITS / 8 + row * bytes..][..bytes];
        let mut sums = [f32x16::splat(simd, 0.0); 2];
        let chunks = stored.chunks_exact(E::CHUNK_BYTES).zip(panel.lanes()).zip(scales.iter());
        for ((bytes, x), scale) in chunks {
            let weights = scaled::<S, E>(E::chunk(simd, bytes), *scale);
            let x = [f32x16::from_slice(simd, &x[..16]), f32x16::from_slice(simd, &x[16..])];
            sums[0] += weights[0] * x[0];
            sums[1] += weights[1] * x[1];
        }
        let mut lanes = [0.0; CHUNK];
        sums[0].store_slice(&mut lanes[..16]);
        sums[1].store_slice(&mut lanes[16..]);
        *y = total(&lanes);
    }
}

/// A part of some rows, as numbers.
type Tile = [[[f32; CHUNK]; CHUNKS]; ROWS];

/// Any rows times any tokens.
#[inline(always)]
fn many_tokens<S: Simd, E: Element>(
    simd: S,
    rows: &Rows<'_>,
    panel: &Panel,
    sums: &mut Vec<[[f32; CHUNK]; ROWS]>,
    y: &mut [f32],
) {
    let mut tile: Tile = [[[0.0; CHUNK]; CHUNKS]; ROWS];
    sums.resize(panel.tokens(), [[0.0; CHUNK]; ROWS]);
    for first in (0..rows.count).step_by(ROWS) {
        let count = ROWS.min(rows.count - first);
        sums.fill([[0.0; CHUNK]; ROWS]);
        for chunk in (0..panel.chunks()).step_by(CHUNKS) {
            let chunks = CHUNKS.min(panel.chunks() - chunk);
            for (row, out) in tile[..count].iter_mut().enumerate() {
                let out = out[..chunks].as_flattened_mut();
                rows.expand::<S, E>(simd, first + row, chunk * CHUNK, out);
            }
            multiply_tile(simd, &tile, panel, chunk..chunk + chunks, sums);
        }
        for (token, sums) in sums.iter().enumerate() {
            for (row, lanes) in sums[..count].iter().enumerate() {
                y[token * rows.count + first + row] = total(lanes);
            }
        }
    }
}

/// Adds the products of a tile, which holds `chunks`, and all tokens. The same for every format: compiled once.
fn multiply_tile<S: Simd>(
    simd: S,
    tile: &Tile,
    panel: &Panel,
    chunks: std::ops::Range<usize>,
    sums: &mut [[[f32; CHUNK]; ROWS]],
) {
    simd.vectorize(
        #[inline(always)]
        || {
            for (first, width) in panel.groups() {
                let (x, sums) = (panel.group(first, width, chunks.clone()), &mut sums[first..]);
                match width {
                    TOKENS => add::<S, TOKENS>(simd, tile, x, sums),
                    2 => add::<S, 2>(simd, tile, x, sums),
                    _ => add::<S, 1>(simd, tile, x, sums),
                }
            }
        },
    );
}

#[inline(always)]
fn add<S: Simd, const T: usize>(simd: S, tile: &Tile, x: &[[f32; CHUNK]], sums: &mut [[[f32; CHUNK]; ROWS]]) {
    let x = x.as_chunks::<T>().0;
    // Half the lanes at a time, so that the sums stay in registers.
    for half in [0, 16] {
        let mut lanes = [[f32x16::splat(simd, 0.0); T]; ROWS];
        for row in 0..ROWS {
            for token in 0..T {
                lanes[row][token] = f32x16::from_slice(simd, &sums[token][row][half..half + 16]);
            }
        }
        for (chunk, x) in x.iter().enumerate() {
            let mut weights = [f32x16::splat(simd, 0.0); ROWS];
            for row in 0..ROWS {
                weights[row] = f32x16::from_slice(simd, &tile[row][chunk][half..half + 16]);
            }
            for token in 0..T {
                let x = f32x16::from_slice(simd, &x[token][half..half + 16]);
                for row in 0..ROWS {
                    lanes[row][token] += weights[row] * x;
                }
            }
        }
        for row in 0..ROWS {
            for token in 0..T {
                lanes[row][token].store_slice(&mut sums[token][row][half..half + 16]);
            }
        }
    }
}

/// The lanes added up, the upper half to the lower one.
#[inline(always)]
fn total(lanes: &[f32; CHUNK]) -> f32 {
    let mut lanes = *lanes;
    for half in [16, 8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}
