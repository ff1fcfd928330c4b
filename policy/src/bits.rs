//! Sets as words of bits.

/// The places of the ones of a word, ascending.
#[inline(always)]
pub(crate) fn ones(mut word: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let place = (word != 0).then(|| word.trailing_zeros())?;
        word &= word - 1;
        Some(place)
    })
}

/// Puts `member` into a set, or takes it out.
#[inline]
pub(crate) fn set(words: &mut [u64], member: u32, is_in: bool) {
    let (word, bit) = (&mut words[(member / u64::BITS) as usize], member % u64::BITS);
    *word = *word & !(1 << bit) | u64::from(is_in) << bit;
}
