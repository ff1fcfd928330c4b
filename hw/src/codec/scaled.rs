//! The formats whose elements share a scale: which elements share one, and where planes lie. What an element and a
//! scale look like is the [`Element`]'s affair.

use super::plain::Plain;
use super::{Codec, CodecError};
use std::marker::PhantomData;
use std::ops::Range;

/// How one element and its scale are stored.
pub(super) trait Element: Sync {
    /// Bits of an element: 8 or 4.
    const BITS: usize;
    /// Bytes of a scale.
    const SCALE: usize;

    /// Stores finite values that share a scale; `peak` is their largest magnitude.
    fn store(values: &[f32], peak: f32, elements: &mut [u8], scale: &mut [u8]);

    /// Reads them back.
    fn load(elements: &[u8], scale: &[u8], out: &mut [f32]);
}

/// A coder of elements `E`: a scale for each group of `group` elements, or for each row where it is `None`.
pub(super) struct Scaled<E> {
    name: &'static str,
    group: Option<usize>,
    element: PhantomData<E>,
}

impl<E: Element> Scaled<E> {
    pub(super) const fn by_row(name: &'static str) -> Self {
        Scaled { name, group: None, element: PhantomData }
    }

    pub(super) const fn by_group(name: &'static str, size: usize) -> Self {
        assert!((size * E::BITS).is_multiple_of(8), "a group begins at a byte");
        Scaled { name, group: Some(size), element: PhantomData }
    }

    /// The elements that share a scale, scale by scale.
    fn spans(&self, elements: usize, rows: usize) -> Result<impl Iterator<Item = Range<usize>>, CodecError> {
        if self.group.is_none() && rows == 0 && elements > 0 {
            return Err(CodecError::NoRows { format: self.name });
        }
        let group = self.group;
        let start = move |span: usize| match group {
            Some(size) => (span * size).min(elements),
            None => (span as u128 * elements as u128 / rows as u128) as usize,
        };
        let spans = group.map_or(rows, |size| elements.div_ceil(size));
        Ok((0..spans).map(move |span| start(span)..start(span + 1)))
    }

    /// The payload bytes of a span.
    fn stored(span: &Range<usize>) -> Range<usize> {
        span.start * E::BITS / 8..(span.end * E::BITS).div_ceil(8)
    }
}

/// The largest magnitude among `values`, or the index of the first that is not finite.
fn peak(values: &[f32]) -> Result<f32, usize> {
    // Magnitudes order as their bits do, and integers compare several at a time.
    let bits = values.iter().fold(0, |peak, value| (value.to_bits() & 0x7fff_ffff).max(peak));
    let peak = f32::from_bits(bits);
    if peak.is_finite() {
        Ok(peak)
    } else {
        Err(values.iter().position(|value| !value.is_finite()).unwrap_or(0))
    }
}

impl<E: Element> Codec for Scaled<E> {
    fn encode(&self, source: Plain<'_>, rows: usize, out: &mut [u8]) -> Result<(), CodecError> {
        let elements = source.elements();
        let (payload, scales) = out.split_at_mut((elements * E::BITS).div_ceil(8));
        let mut values = Vec::new();
        for (span, scale) in self.spans(elements, rows)?.zip(scales.chunks_exact_mut(E::SCALE)) {
            values.resize(span.len(), 0.0);
            source.load(span.start, &mut values);
            let peak = peak(&values).map_err(|at| CodecError::NotFinite {
                format: self.name,
                element: (span.start + at) as u64,
                value: values[at],
            })?;
            E::store(&values, peak, &mut payload[Self::stored(&span)], scale);
        }
        Ok(())
    }

    fn decode(&self, bytes: &[u8], rows: usize, out: &mut [f32]) -> Result<(), CodecError> {
        let (payload, scales) = bytes.split_at((out.len() * E::BITS).div_ceil(8));
        for (span, scale) in self.spans(out.len(), rows)?.zip(scales.chunks_exact(E::SCALE)) {
            E::load(&payload[Self::stored(&span)], scale, &mut out[span]);
        }
        Ok(())
    }
}
