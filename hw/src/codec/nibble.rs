//! Two four-bit codes to a byte, the earlier element in the low half; an odd last one leaves the high half zero.

/// Stores the code of every value.
pub(super) fn pack(values: &[f32], elements: &mut [u8], code: impl Fn(f32) -> u8) {
    let (pairs, odd) = values.as_chunks::<2>();
    for (element, [low, high]) in elements.iter_mut().zip(pairs) {
        *element = code(*low) | code(*high) << 4;
    }
    if let (Some(element), [value]) = (elements.last_mut(), odd) {
        *element = code(*value);
    }
}

/// Reads the value of every code.
pub(super) fn unpack(elements: &[u8], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let (pairs, odd) = out.as_chunks_mut::<2>();
    for ([low, high], element) in pairs.iter_mut().zip(elements) {
        (*low, *high) = (value(element & 15), value(element >> 4));
    }
    if let (Some(element), [last]) = (elements.last(), odd) {
        *last = value(element & 15);
    }
}
