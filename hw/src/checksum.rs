//! The checksum of a copy: 64 bits over its bytes, made of independent terms, so that an accelerator computes it in
//! parallel and arrives at the same number.
//!
//! The bytes, padded with zeros, are little-endian words `w_i` of 64 bits. With `k_i = (i + 1) * KEY` and
//! `m_i = w_i ^ k_i`, all wrapping, the sum of `low32(m_i) * high32(m_i) + w_i` and the length are mixed by the finaliser
//! of SplitMix64. It finds faults, not forgeries. One flipped bit goes unseen only in the lower half of a word whose
//! upper half is that of its key but for the lowest bit: one word in 2^32 by chance.

/// 2^64 over the golden ratio.
const KEY: u64 = 0x9E37_79B9_7F4A_7C15;
/// The second prime of XXH64; it spreads the length.
const LENGTH: u64 = 0xC2B2_AE3D_27D4_EB4F;

/// The checksum of a copy's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Checksum(pub u64);

impl Checksum {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Checksum {
        let (words, rest) = bytes.as_chunks::<8>();
        let (mut sum, mut key) = (0u64, KEY);
        for word in words {
            sum = sum.wrapping_add(term(u64::from_le_bytes(*word), key));
            key = key.wrapping_add(KEY);
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            sum = sum.wrapping_add(term(u64::from_le_bytes(last), key));
        }
        Checksum(mix(sum ^ (bytes.len() as u64).wrapping_mul(LENGTH)))
    }
}

fn term(word: u64, key: u64) -> u64 {
    let mixed = word ^ key;
    // Halves of 32 bits: the product fits.
    ((mixed & 0xffff_ffff) * (mixed >> 32)).wrapping_add(word)
}

/// SplitMix64's finaliser (Steele, Lea, Flood 2014, variant 13 of Stafford).
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_vectors() {
        let counted: Vec<u8> = (0..4096).map(|at| at as u8).collect();
        let squares: Vec<u8> = (0..4099u64).map(|at| (at * at % 251) as u8).collect();
        // From the definition, in Python's unbounded integers.
        let known: [(&[u8], u64); 7] = [
            (b"", 0),
            (b"\0", 0x9986_b7e1_a56b_754d),
            (&[0; 8], 0x3f9b_8161_7f75_bfc3),
            (b"Hotset", 0x4895_244a_cb13_2903),
            (b"A checksum in parallel.", 0xe30d_b3bd_8370_044d),
            (&counted, 0xbafe_d0de_e0b3_53cf),
            (&squares, 0x91de_28e3_2f9f_40f0),
        ];
        for (bytes, expected) in known {
            assert_eq!(Checksum::of(bytes), Checksum(expected), "{} bytes", bytes.len());
        }
    }

    #[test]
    fn zeros_of_every_length_differ() {
        let zeros = [0u8; 4096];
        let mut seen: Vec<Checksum> = (0..zeros.len()).map(|len| Checksum::of(&zeros[..len])).collect();
        seen.sort();
        assert!(seen.is_sorted_by(|one, next| one < next), "two lengths share a checksum");
    }

    #[test]
    fn every_flipped_bit_shows() {
        let mut bytes: Vec<u8> = (0..1021u64).map(|at| ((at * 2_654_435_761) >> 11) as u8).collect();
        let intact = Checksum::of(&bytes);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Checksum::of(&bytes), intact, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    proptest! {
        #[test]
        fn swapped_words_show(words in prop::collection::vec(any::<u64>(), 2..200), one: prop::sample::Index,
                              other: prop::sample::Index) {
            let (one, other) = (one.index(words.len()), other.index(words.len()));
            prop_assume!(words[one] != words[other]);
            let mut swapped = words.clone();
            swapped.swap(one, other);
            let of = |words: &[u64]| Checksum::of(bytemuck::cast_slice(words));
            prop_assert_ne!(of(&words), of(&swapped));
        }
    }
}
