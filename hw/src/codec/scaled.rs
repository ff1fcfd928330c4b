//! The formats whose elements share a scale: which elements share one, and where planes lie. What an element and a
//! scale look like is the [`Element`]'s affair.

use super::element::{self, CHUNK, Element, magnitude, store_bytes};
use super::nibble;
use super::plain::{Plain, TILE};
use super::{Codec, CodecError, Tiles, elements};
use crate::compute::Kernel;
use fearless_simd::{Level, Simd, dispatch};
use policy::model::Matrix;
use std::marker::PhantomData;
use std::ops::Range;

/// How finite values become elements and scales.
pub(super) trait Quantised: Element {
    /// Stores the scales of groups with these largest magnitudes, and leaves in `peaks` what [`Quantised::code`] needs
    /// to know of each, or zero where the scale underflows.
    fn store_scales(peaks: &mut [f32], scales: &mut [u8]);

    /// The code of a value of a group.
    fn code(value: f32, unit: f32) -> u8;
}

/// Which elements share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// So many in order, whatever row they belong to; the last group may be smaller.
    Group(usize),
    /// A row of a matrix.
    Row,
}

/// Elements of small groups that are coded at a time: so few that the next are on their way from memory meanwhile.
const STRIP: usize = 1024;

/// A coder of elements `E`.
pub(super) struct Scaled<E> {
    name: &'static str,
    sharing: Sharing,
    element: PhantomData<E>,
}

impl<E: Quantised> Scaled<E> {
    pub(super) const fn by_row(name: &'static str) -> Self {
        assert!(E::BITS == 8, "a row begins at a byte");
        Scaled { name, sharing: Sharing::Row, element: PhantomData }
    }

    pub(super) const fn by_group(name: &'static str, size: usize) -> Self {
        assert!(size >= CHUNK && size.is_power_of_two(), "a chunk lies in one group");
        assert!(size <= STRIP || E::BITS == 8, "long groups are coded as rows are");
        Scaled { name, sharing: Sharing::Group(size), element: PhantomData }
    }

    fn not_finite(&self, first: usize, values: &[f32]) -> CodecError {
        let at = values.iter().position(|value| !value.is_finite()).unwrap_or(0);
        CodecError::NotFinite { format: self.name, element: (first + at) as u64, value: values[at] }
    }

    /// Codes groups of `size`, a strip holding some of them.
    #[inline(always)]
    fn encode_groups<S: Simd>(
        &self,
        simd: S,
        source: Plain<'_>,
        size: usize,
        payload: &mut [u8],
        scales: &mut [u8],
    ) -> Result<(), CodecError> {
        let (mut strip, mut codes, mut peaks) = ([0.0f32; STRIP], [0u8; STRIP], [0.0f32; STRIP / CHUNK]);
        let elements = source.elements();
        let stored = payload.chunks_mut(STRIP * E::BITS / 8).zip(scales.chunks_mut(STRIP / size * E::SCALE));
        for (first, (payload, scales)) in (0..elements).step_by(STRIP).zip(stored) {
            let values = &mut strip[..STRIP.min(elements - first)];
            source.load(simd, first, values);
            let peaks = &mut peaks[..values.len().div_ceil(size)];
            for (peak, group) in peaks.iter_mut().zip(values.chunks(size)) {
                // A loop of a known length is unrolled: most groups are chunks.
                *peak = match <&[f32; CHUNK]>::try_from(group) {
                    Ok(chunk) => magnitude(simd, chunk),
                    Err(_) => magnitude(simd, group),
                };
            }
            if !magnitude(simd, peaks).is_finite() {
                return Err(self.not_finite(first, values));
            }
            E::store_scales(peaks, scales);
            let coded = if E::BITS == 4 { &mut codes[..values.len()] } else { &mut *payload };
            for (unit, (group, coded)) in peaks.iter().zip(values.chunks(size).zip(coded.chunks_mut(size))) {
                code::<E>(group, *unit, coded);
            }
            if E::BITS == 4 {
                nibble::pair(simd, &codes[..values.len()], payload);
            }
        }
        Ok(())
    }

    /// Codes elements of a byte that share a scale over spans of any length, reading a span twice where it is longer than a tile.
    #[inline(always)]
    fn encode_spans<S: Simd>(
        &self,
        simd: S,
        source: Plain<'_>,
        spans: impl Iterator<Item = Range<usize>>,
        payload: &mut [u8],
        scales: &mut [u8],
    ) -> Result<(), CodecError> {
        let mut tile = [0.0f32; TILE];
        for (span, scale) in spans.zip(scales.chunks_exact_mut(E::SCALE)) {
            let mut unit = [0.0f32];
            for piece in pieces(&span) {
                let values = &mut tile[..piece.len()];
                source.load(simd, piece.start, values);
                let most = magnitude(simd, values);
                if !most.is_finite() {
                    return Err(self.not_finite(piece.start, values));
                }
                unit[0] = unit[0].max(most);
            }
            E::store_scales(&mut unit, scale);
            for piece in pieces(&span) {
                let values = &mut tile[..piece.len()];
                if span.len() > TILE {
                    source.load(simd, piece.start, values);
                }
                code::<E>(values, unit[0], &mut payload[piece]);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn decode_with<S: Simd>(&self, simd: S, bytes: &[u8], matrices: &[Matrix], tiles: Tiles<'_>) {
        let elements = elements(matrices);
        let (payload, scales) = bytes.split_at((elements * E::BITS).div_ceil(8));
        let mut tile = [0.0f32; TILE];
        match self.sharing {
            Sharing::Group(size) => {
                for piece in pieces(&(0..elements)) {
                    let values = &mut tile[..piece.len()];
                    let groups = scales[piece.start / size * E::SCALE..].chunks_exact(E::SCALE);
                    let firsts = piece.clone().step_by(size.min(TILE));
                    for ((values, scale), first) in values.chunks_mut(size).zip(groups).zip(firsts) {
                        element::read::<S, E>(simd, payload, first, E::scale(scale), values);
                    }
                    tiles(piece.start, values);
                }
            }
            Sharing::Row => {
                for (row, scale) in rows(matrices).zip(scales.chunks_exact(E::SCALE)) {
                    for piece in pieces(&row) {
                        let values = &mut tile[..piece.len()];
                        element::read::<S, E>(simd, payload, piece.start, E::scale(scale), values);
                        tiles(piece.start, values);
                    }
                }
            }
        }
    }
}

/// The codes of values that share a scale, a byte each.
#[inline(always)]
fn code<E: Quantised>(values: &[f32], unit: f32, codes: &mut [u8]) {
    if unit == 0.0 {
        codes.fill(E::code(0.0, 1.0));
    } else {
        store_bytes(values, codes, |value| E::code(value, unit));
    }
}

/// The elements of each row.
fn rows(matrices: &[Matrix]) -> impl Iterator<Item = Range<usize>> {
    let widths = matrices.iter().flat_map(|matrix| (0..matrix.rows).map(|_| matrix.columns as usize));
    widths.scan(0, |start, width| {
        *start += width;
        Some(*start - width..*start)
    })
}

/// A span in pieces of a tile.
fn pieces(span: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = span.end;
    span.clone().step_by(TILE).map(move |start| start..end.min(start + TILE))
}

impl<E: Quantised> Codec for Scaled<E> {
    fn encode(
        &self,
        level: Level,
        source: Plain<'_>,
        matrices: &[Matrix],
        out: &mut [u8],
    ) -> Result<(), CodecError> {
        let elements = source.elements();
        let (payload, scales) = out.split_at_mut((elements * E::BITS).div_ceil(8));
        match self.sharing {
            Sharing::Group(size) if size <= STRIP => {
                dispatch!(level, simd => self.encode_groups(simd, source, size, payload, scales))
            }
            Sharing::Group(size) => {
                let spans = (0..elements).step_by(size).map(|start| start..elements.min(start + size));
                dispatch!(level, simd => self.encode_spans(simd, source, spans, payload, scales))
            }
            Sharing::Row => {
                dispatch!(level, simd => self.encode_spans(simd, source, rows(matrices), payload, scales))
            }
        }
    }

    fn decode(
        &self,
        level: Level,
        bytes: &[u8],
        matrices: &[Matrix],
        tiles: Tiles<'_>,
    ) -> Result<(), CodecError> {
        dispatch!(level, simd => self.decode_with(simd, bytes, matrices, tiles));
        Ok(())
    }

    fn kernel(&self) -> Option<Kernel> {
        Some(Kernel::of::<E>(self.sharing))
    }
}
