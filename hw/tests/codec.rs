//! The codecs against closed forms, the published reference implementations, and their own sizes.

use hw::codec::{CodecError, decode, encode, has_coder, transcode};
use policy::FormatId;
use policy::format::{FORMATS, Scale};
use proptest::prelude::*;

fn named(name: &str) -> FormatId {
    FormatId::named(name).unwrap()
}

fn encoded(format: FormatId, values: &[f32], rows: u64) -> Result<Vec<u8>, CodecError> {
    let mut out = vec![0xa5; format.bytes(values.len() as u64, rows).0 as usize];
    encode(format, values, rows, &mut out).map(|()| out)
}

fn decoded(format: FormatId, bytes: &[u8], elements: usize, rows: u64) -> Result<Vec<f32>, CodecError> {
    let mut out = vec![f32::NAN; elements];
    decode(format, bytes, rows, &mut out).map(|()| out)
}

fn round_trip(format: FormatId, values: &[f32], rows: u64) -> Vec<f32> {
    decoded(format, &encoded(format, values, rows).unwrap(), values.len(), rows).unwrap()
}

fn coded_formats() -> impl Iterator<Item = FormatId> {
    (0..FORMATS.len() as u8).map(FormatId).filter(|&format| has_coder(format))
}

fn scaled_formats() -> impl Iterator<Item = FormatId> {
    coded_formats().filter(|format| format.get().scale != Scale::None)
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Four groups of 32: ordinary, small, large and zero.
fn golden_values() -> Vec<f32> {
    let size = [1.0f32, 1.0 / 512.0, 8.0, 0.0];
    (0..128).map(|i| ((i * 7919 % 1009) - 504) as f32 * 0.00037 * size[i as usize / 32]).collect()
}

// The next two were made with Python's gguf 0.19.0, `quantize(golden_values, Q8_0)` and `(.., MXFP4)`, whose blocks
// were taken apart into elements, in order, and scales; the third with ml_dtypes 0.6.0, rows of 32 divided by
// max / 448 and cast to float8_e4m3fn.

#[test]
fn int8_g32_stores_what_q8_0_stores() {
    let golden = "8159320ce5be98704923fcd5af88603913ecc69f77502a03ddb69067411af4cda67f58310be4bd966f4822fbd4ad8760\
                  3912ebc49e77502902dbb58e674019f3cba47f58310ae3bc946f4821fad3ac855f3811eac39c774f2801dab38c674019\
                  000000000000000000000000000000000000000000000000000000000000000004163000ee210000";
    assert_eq!(encoded(named("int8_g32"), &golden_values(), 1).unwrap(), hex(golden));
}

#[test]
fn mxfp4_means_what_gguf_means() {
    let codes =
        "f641bde7530cef652ade7640bdf6529ce7641bde7530cef652ade7640bef6529ce7641bde7539cef652ade7640cef652";
    let (values, format) = (golden_values(), named("mxfp4"));
    let mut golden: Vec<u8> = codes
        .as_bytes()
        .chunks(2)
        .map(|pair| hex(&format!("{}{}", pair[1] as char, pair[0] as char))[0])
        .collect();
    golden.resize(64, 0);
    golden.extend(hex("7a717d00"));
    let ours = encoded(format, &values, 1).unwrap();
    assert_eq!(ours[64..], golden[64..], "scales");
    // gguf drops the sign of what rounds to zero; the numbers are the same.
    assert_eq!(decoded(format, &ours, 128, 1), decoded(format, &golden, 128, 1));
}

#[test]
fn fp8_stores_what_ml_dtypes_stores() {
    let golden = "fe7a7362ecf6fb7c786fd6f1f9fd7b7568e9f5fb7d797154f0f8fc7b766ce3f3fa7e7a7361ecf7fc7c786fd9f2f9fd7b\
                  7568e9f5fb7d797150f0f8fd7b766be4f4fa7e7a7361edf7fc7c786fdbf2f9fe7b7467eaf5fb7d797149f0f8fd7b766b\
                  0000000000000000000000000000000000000000000000000000000000000000213cda3995ef58352f34573b00000000";
    assert_eq!(encoded(named("fp8_e4m3"), &golden_values(), 4).unwrap(), hex(golden));
}

#[test]
fn formats_without_a_coder_are_those_of_ggml_and_are_refused() {
    for format in (0..FORMATS.len() as u8).map(FormatId).filter(|&format| !has_coder(format)) {
        let name = format.name();
        assert!(["q", "iq", "tq", "nv"].iter().any(|family| name.starts_with(family)), "{name}");
        assert_eq!(encoded(format, &[0.0; 256], 4), Err(CodecError::NoCoder(name)));
    }
    for format in coded_formats() {
        let zeros = round_trip(format, &[0.0; 256], 4);
        assert!(zeros.iter().all(|value| *value == 0.0), "{}", format.name());
    }
    let number = FORMATS.len() as u8;
    assert_eq!(encode(FormatId(number), &[], 0, &mut []), Err(CodecError::UnknownFormat(number)));
}

#[test]
fn scaled_formats_refuse_what_is_not_finite_and_name_the_element() {
    for format in scaled_formats() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = [1.0; 300];
            values[217] = bad;
            let refused = encoded(format, &values, 3);
            assert!(matches!(refused, Err(CodecError::NotFinite { element: 217, .. })), "{refused:?}");
        }
    }
}

#[test]
fn plain_formats_keep_infinities_and_nan_and_saturate_finite_values() {
    for (name, largest) in [("bf16", 3.389_531_4e38), ("fp16", 65504.0)] {
        let back =
            round_trip(named(name), &[f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, -f32::MAX], 1);
        assert_eq!([back[0], back[1]], [f32::INFINITY, f32::NEG_INFINITY]);
        assert!(back[2].is_nan());
        assert_eq!([back[3], back[4]], [largest, -largest], "{name}");
    }
}

#[test]
fn a_scale_beyond_its_range_saturates_and_one_below_gives_zeros() {
    for (name, largest) in [("int8", 127.0), ("int8_g32", 127.0), ("int4_g32", 7.0), ("int4_g128", 7.0)] {
        assert_eq!(round_trip(named(name), &[f32::MAX, -1e30], 1), [65504.0 * largest, -65504.0 * largest]);
        assert_eq!(round_trip(named(name), &[1e-9, -1e-12], 1), [0.0, 0.0]);
    }
    assert_eq!(round_trip(named("mxfp4"), &[f32::MAX, -1.0], 1), [6.0 * 2f32.powi(125), -0.0]);
    assert_eq!(round_trip(named("fp8_e4m3"), &[f32::from_bits(1), 0.0], 1), [0.0, 0.0]);
}

#[test]
fn a_buffer_of_the_wrong_size_and_rows_that_are_missing_are_refused() {
    let int8 = named("int8");
    let short = encode(int8, &[0.0; 8], 2, &mut [0; 11]);
    assert_eq!(short, Err(CodecError::WrongSize { format: "int8", expected: 12, got: 11 }));
    assert_eq!(encode(int8, &[0.0; 8], 0, &mut [0; 8]), Err(CodecError::NoRows { format: "int8" }));
    assert_eq!(decode(int8, &[0; 8], 0, &mut [0.0; 8]), Err(CodecError::NoRows { format: "int8" }));
}

fn packed_round_trip(bits: &[u16]) -> Result<Vec<u16>, CodecError> {
    let (bf16, packed) = (named("bf16"), named("bf16_packed"));
    let native: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
    let elements = bits.len() as u64;
    let mut coded = vec![0xa5; packed.bytes(elements, 1).0 as usize];
    transcode(bf16, &native, packed, elements, 1, &mut coded)?;
    let mut back = vec![0; native.len()];
    transcode(packed, &coded, bf16, elements, 1, &mut back)?;
    Ok(back.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect())
}

fn bf16(sign: u16, exponent: u16, mantissa: u16) -> u16 {
    sign << 15 | exponent << 7 | mantissa
}

#[test]
fn packing_keeps_every_bf16_pattern_with_and_without_a_code() {
    for exponent in 0..256 {
        let patterns = (0..256).map(|rest| bf16(rest >> 7, exponent, rest & 127));
        let coded: Vec<u16> = patterns.clone().cycle().take(512).collect();
        assert_eq!(packed_round_trip(&coded).as_ref(), Ok(&coded));
        // Seven other exponents are more frequent, so none of the patterns has a code.
        let others = (0..7 * 1200).map(|i| bf16(i & 1, (exponent + 1 + i % 7) % 256, i % 128));
        let escaped: Vec<u16> = others.chain(patterns).collect();
        assert_eq!(packed_round_trip(&escaped).as_ref(), Ok(&escaped));
    }
}

#[test]
fn packing_refuses_a_block_exactly_when_its_exponents_do_not_fit() {
    // 3200 elements: 4500 bytes, 4400 for the planes and 7 for the table leave room for 93.
    let block = |escapes: u16| -> Vec<u16> {
        (0..3200).map(|i| if i < escapes { bf16(0, 100, i % 128) } else { bf16(1, i % 7, i % 128) }).collect()
    };
    assert_eq!(packed_round_trip(&block(93)), Ok(block(93)));
    assert_eq!(packed_round_trip(&block(94)), Err(CodecError::DoesNotPack { escapes: 94, room: 93 }));
    assert_eq!(packed_round_trip(&[0; 160]), Err(CodecError::DoesNotPack { escapes: 0, room: 0 }));
    let inexact = encoded(named("bf16_packed"), &[0.1; 512], 1);
    assert_eq!(inexact, Err(CodecError::NotBf16 { element: 0, value: 0.1 }));
}

#[test]
fn packed_bytes_no_encoder_wrote_are_an_error() {
    let refused = decoded(named("bf16_packed"), &[0xff; 450], 320, 1);
    assert_eq!(refused, Err(CodecError::Corrupt { format: "bf16_packed", needed: 320, room: 3 }));
}

/// Values over many magnitudes, zeros among them.
fn values(most: usize) -> impl Strategy<Value = Vec<f32>> {
    let value = (-1.0f32..1.0, -16i32..12).prop_map(|(part, power)| part * 2f32.powi(power));
    prop::collection::vec(prop_oneof![9 => value, 1 => Just(0.0)], 1..most)
}

/// The largest magnitude among the elements that share a scale with element `at`.
fn peak(values: &[f32], format: FormatId, rows: usize, at: usize) -> f32 {
    let n = values.len();
    let group = match format.get().scale {
        Scale::Group { size, .. } => {
            let start = at / size as usize * size as usize;
            start..n.min(start + size as usize)
        }
        _ => (0..rows).map(|r| r * n / rows..(r + 1) * n / rows).find(|row| row.contains(&at)).unwrap(),
    };
    values[group].iter().fold(0.0, |peak, value| peak.max(value.abs()))
}

proptest! {
    #[test]
    fn sizes_are_exact_and_every_byte_is_written(values in values(700), rows in 1u64..40) {
        for format in coded_formats() {
            let bytes = format.bytes(values.len() as u64, rows).0 as usize;
            let (mut ones, mut zeros) = (vec![0xff; bytes], vec![0; bytes]);
            if encode(format, &values, rows, &mut ones).is_ok() {
                encode(format, &values, rows, &mut zeros).unwrap();
                prop_assert_eq!(ones, zeros, "{}", format.name());
            }
            let mut long = vec![0; bytes + 1];
            prop_assert!(encode(format, &values, rows, &mut long).is_err());
        }
    }

    #[test]
    fn integers_are_within_half_a_step_and_the_rounding_of_the_scale(values in values(400), rows in 1u64..9) {
        for (name, largest) in [("int8", 127.0), ("int8_g32", 127.0), ("int4_g32", 7.0), ("int4_g128", 7.0)] {
            let back = round_trip(named(name), &values, rows);
            for (at, (value, back)) in values.iter().zip(&back).enumerate() {
                let step = peak(&values, named(name), rows as usize, at) / largest;
                // An f16 has 11 bits; below 2^-14 its steps are 2^-24.
                let scale_error = (step * 2f32.powi(-11)).max(2f32.powi(-25));
                let bound = (step / 2.0 + largest * scale_error) * 1.00001;
                prop_assert!((value - back).abs() <= bound, "{name}: {value} came back as {back}");
            }
        }
    }

    #[test]
    fn fp8_is_within_a_sixteenth_or_half_the_smallest_step(values in values(400), rows in 1u64..9) {
        let format = named("fp8_e4m3");
        let back = round_trip(format, &values, rows);
        for (at, (value, back)) in values.iter().zip(&back).enumerate() {
            let step = peak(&values, format, rows as usize, at) / 448.0;
            let bound = (value.abs() / 16.0).max(step * 2f32.powi(-10)) * 1.00001;
            prop_assert!((value - back).abs() <= bound, "{value} came back as {back}");
        }
    }

    #[test]
    fn mxfp4_takes_the_nearest_value_its_scale_has(values in values(400)) {
        let format = named("mxfp4");
        let back = round_trip(format, &values, 1);
        for (at, (value, back)) in values.iter().zip(&back).enumerate() {
            let peak = peak(&values, format, 1, at) as f64;
            let scale = if peak > 0.0 { (peak.log2().floor() - 2.0).exp2() } else { 1.0 };
            let distance = |code: &f64| (value.abs() as f64 - code * scale).abs();
            let codes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
            let nearest = codes.iter().map(distance).fold(f64::MAX, f64::min);
            prop_assert_eq!((value.abs() as f64 - back.abs() as f64).abs(), nearest);
            prop_assert!(value * back >= 0.0);
        }
    }

    #[test]
    fn halves_are_the_nearest(values in values(400)) {
        for (name, relative, smallest) in [("bf16", 2f32.powi(-9), 0.0), ("fp16", 2f32.powi(-12), 2f32.powi(-25))] {
            for (value, back) in values.iter().zip(round_trip(named(name), &values, 1)) {
                prop_assert!((value - back).abs() <= (value.abs() * relative * 2.0).max(smallest));
            }
        }
        let expected: Vec<f32> = values.iter().map(|value| half::bf16::from_f32(*value).to_f32()).collect();
        prop_assert_eq!(round_trip(named("bf16"), &values, 1), expected);
    }

    #[test]
    fn coding_from_bf16_bytes_is_coding_from_their_values(bits in prop::collection::vec(any::<u16>(), 1..600),
                                                         rows in 1u64..9) {
        let finite = |bits: u16| if bits >> 7 & 0xff == 0xff { bits & 0x807f } else { bits };
        let native: Vec<u8> = bits.iter().flat_map(|bits| finite(*bits).to_le_bytes()).collect();
        let values = decoded(named("bf16"), &native, bits.len(), rows).unwrap();
        for format in coded_formats() {
            let mut direct = vec![0; format.bytes(bits.len() as u64, rows).0 as usize];
            let coded = transcode(named("bf16"), &native, format, bits.len() as u64, rows, &mut direct);
            prop_assert_eq!(coded.map(|()| direct), encoded(format, &values, rows));
        }
    }

    #[test]
    fn packing_keeps_any_mix_that_fits(
        table in prop::collection::vec(0u16..256, 7),
        rest in prop::collection::vec((any::<u16>(), 0usize..7), 256..4000),
    ) {
        let room = (rest.len() * 45).div_ceil(32) - rest.len() - (rest.len() * 3).div_ceil(8) - 7;
        let bits: Vec<u16> = rest
            .iter()
            .enumerate()
            .map(|(at, (bits, place))| if at < room { *bits } else { bits & 0x807f | table[*place] << 7 })
            .collect();
        prop_assert_eq!(packed_round_trip(&bits), Ok(bits));
    }
}
