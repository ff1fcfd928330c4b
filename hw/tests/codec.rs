//! The codecs against closed forms, the published reference implementations, and their own sizes.

use hw::codec::{CodecError, Fault, coded, decode, encode, has_coder, transcode};
use policy::FormatId;
use policy::format::{FORMATS, Scale};
use policy::model::Matrix;
use proptest::prelude::*;

fn named(name: &str) -> FormatId {
    FormatId::named(name).unwrap()
}

/// One matrix of `rows` rows.
fn matrix(rows: u64, columns: u64) -> [Matrix; 1] {
    [Matrix { rows, columns }]
}

fn bytes(format: FormatId, matrices: &[Matrix]) -> usize {
    let total = |of: fn(&Matrix) -> u64| matrices.iter().map(of).sum();
    format.bytes(total(|matrix| matrix.elements()), total(|matrix| matrix.rows)).0 as usize
}

fn encoded(format: FormatId, values: &[f32], matrices: &[Matrix]) -> Result<Vec<u8>, CodecError> {
    let mut out = vec![0xa5; bytes(format, matrices)];
    encode(format, values, matrices, &mut out).map(|()| out)
}

fn decoded(format: FormatId, bytes: &[u8], matrices: &[Matrix]) -> Result<Vec<f32>, CodecError> {
    let mut out = vec![f32::NAN; matrices.iter().map(|matrix| matrix.elements() as usize).sum()];
    decode(format, bytes, matrices, &mut out).map(|()| out)
}

fn round_trip(format: FormatId, values: &[f32], matrices: &[Matrix]) -> Vec<f32> {
    decoded(format, &encoded(format, values, matrices).unwrap(), matrices).unwrap()
}

/// The same for values in one row.
fn one_row(format: FormatId, values: &[f32]) -> Vec<f32> {
    round_trip(format, values, &matrix(1, values.len() as u64))
}

fn scaled_formats() -> impl Iterator<Item = FormatId> {
    coded().filter(|format| format.get().scale != Scale::None)
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
    assert_eq!(encoded(named("int8_g32"), &golden_values(), &matrix(1, 128)).unwrap(), hex(golden));
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
    let ours = encoded(format, &values, &matrix(1, 128)).unwrap();
    assert_eq!(ours[64..], golden[64..], "scales");
    // gguf drops the sign of what rounds to zero; the numbers are the same.
    assert_eq!(decoded(format, &ours, &matrix(1, 128)), decoded(format, &golden, &matrix(1, 128)));
}

#[test]
fn fp8_stores_what_ml_dtypes_stores() {
    let golden = "fe7a7362ecf6fb7c786fd6f1f9fd7b7568e9f5fb7d797154f0f8fc7b766ce3f3fa7e7a7361ecf7fc7c786fd9f2f9fd7b\
                  7568e9f5fb7d797150f0f8fd7b766be4f4fa7e7a7361edf7fc7c786fdbf2f9fe7b7467eaf5fb7d797149f0f8fd7b766b\
                  0000000000000000000000000000000000000000000000000000000000000000213cda3995ef58352f34573b00000000";
    assert_eq!(encoded(named("fp8_e4m3"), &golden_values(), &matrix(4, 32)).unwrap(), hex(golden));
}

#[test]
fn formats_without_a_coder_are_those_of_ggml_and_are_refused() {
    for format in (0..FORMATS.len() as u8).map(FormatId).filter(|&format| !has_coder(format)) {
        let name = format.name();
        assert!(["q", "iq", "tq", "nv"].iter().any(|family| name.starts_with(family)), "{name}");
        assert_eq!(encoded(format, &[0.0; 256], &matrix(4, 64)), Err(CodecError::NoCoder(name)));
    }
    for format in coded() {
        let zeros = round_trip(format, &[0.0; 512], &matrix(4, 128));
        assert!(zeros.iter().all(|value| *value == 0.0), "{}", format.name());
    }
    let number = FORMATS.len() as u8;
    assert_eq!(encode(FormatId(number), &[], &[], &mut []), Err(CodecError::UnknownFormat(number)));
}

#[test]
fn scaled_formats_refuse_what_is_not_finite_and_name_the_element() {
    for format in scaled_formats() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = [1.0; 300];
            values[217] = bad;
            let refused = encoded(format, &values, &matrix(3, 100));
            assert!(matches!(refused, Err(CodecError::NotFinite { element: 217, .. })), "{refused:?}");
        }
    }
}

#[test]
fn plain_formats_keep_infinities_and_nan_and_saturate_finite_values() {
    for (name, largest) in [("bf16", 3.389_531_4e38), ("fp16", 65504.0)] {
        let values = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, -f32::MAX];
        let back = one_row(named(name), &values);
        assert_eq!([back[0], back[1]], [f32::INFINITY, f32::NEG_INFINITY]);
        assert!(back[2].is_nan());
        assert_eq!([back[3], back[4]], [largest, -largest], "{name}");
    }
}

#[test]
fn a_scale_beyond_its_range_saturates_and_one_below_gives_zeros() {
    for (name, largest) in [("int8", 127.0), ("int8_g32", 127.0), ("int4_g32", 7.0), ("int4_g128", 7.0)] {
        assert_eq!(one_row(named(name), &[f32::MAX, -1e30]), [65504.0 * largest, -65504.0 * largest]);
        assert_eq!(one_row(named(name), &[1e-9, -1e-12]), [0.0, 0.0]);
    }
    assert_eq!(one_row(named("mxfp4"), &[f32::MAX, -1.0]), [6.0 * 2f32.powi(125), -0.0]);
    assert_eq!(one_row(named("fp8_e4m3"), &[f32::from_bits(1), 0.0]), [0.0, 0.0]);
}

#[test]
fn buffers_of_the_wrong_size_are_refused() {
    let int8 = named("int8");
    let short = encode(int8, &[0.0; 8], &matrix(2, 4), &mut [0; 11]);
    assert_eq!(short, Err(CodecError::WrongSize { format: "int8", expected: 12, got: 11 }));
    let few = encode(int8, &[0.0; 7], &matrix(2, 4), &mut [0; 12]);
    assert_eq!(few, Err(CodecError::WrongCount { elements: 8, values: 7 }));
    let many = decode(int8, &[0; 12], &matrix(2, 4), &mut [0.0; 9]);
    assert_eq!(many, Err(CodecError::WrongCount { elements: 8, values: 9 }));
    let huge = decode(int8, &[], &matrix(u64::MAX, 2), &mut []);
    assert_eq!(huge, Err(CodecError::TooLarge));
}

#[test]
fn a_row_scale_belongs_to_a_row_of_a_matrix() {
    // Rows of different widths, each of one magnitude: a scale of its own stores it exactly.
    let matrices =
        [Matrix { rows: 3, columns: 5 }, Matrix { rows: 2, columns: 0 }, Matrix { rows: 2, columns: 33 }];
    let widths = [5, 5, 5, 33, 33];
    let values: Vec<f32> =
        widths.iter().zip(1..).flat_map(|(width, row)| vec![127.0 * 0.5f32.powi(row * 2); *width]).collect();
    assert_eq!(round_trip(named("int8"), &values, &matrices), values);
    let sevens: Vec<f32> = values.iter().map(|value| value / 127.0 * 448.0).collect();
    assert_eq!(round_trip(named("fp8_e4m3"), &sevens, &matrices), sevens);
}

fn native(bits: &[u16]) -> Vec<u8> {
    bits.iter().flat_map(|bits| bits.to_le_bytes()).collect()
}

fn packed(bits: &[u16]) -> Result<Vec<u8>, CodecError> {
    let (format, matrices) = (named("bf16_packed"), matrix(1, bits.len() as u64));
    let mut coded = vec![0xa5; bytes(format, &matrices)];
    transcode(named("bf16"), &native(bits), format, &matrices, &mut coded).map(|()| coded)
}

fn unpacked(coded: &[u8], elements: usize) -> Result<Vec<u16>, CodecError> {
    let mut back = vec![0; elements * 2];
    transcode(named("bf16_packed"), coded, named("bf16"), &matrix(1, elements as u64), &mut back)?;
    Ok(back.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect())
}

fn packed_round_trip(bits: &[u16]) -> Result<Vec<u16>, CodecError> {
    unpacked(&packed(bits)?, bits.len())
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
        let others = (0..7 * 1300).map(|i| bf16(i & 1, (exponent + 1 + i % 7) % 256, i % 128));
        let escaped: Vec<u16> = others.chain(patterns).collect();
        assert_eq!(packed_round_trip(&escaped).as_ref(), Ok(&escaped));
    }
}

/// Every exponent of this many elements has a code, but for those of the first `escapes`.
fn with_escapes(elements: u16, escapes: u16) -> Vec<u16> {
    (0..elements).map(|i| if i < escapes { bf16(0, 100, i % 128) } else { bf16(1, i % 7, i % 128) }).collect()
}

#[test]
fn packing_refuses_a_block_exactly_when_its_exponents_do_not_fit() {
    // 3200 elements: 4500 bytes; the planes take 4400, table and offset 12, and leave room for 88.
    let block = |escapes| with_escapes(3200, escapes);
    assert_eq!(packed_round_trip(&block(88)), Ok(block(88)));
    assert_eq!(packed_round_trip(&block(89)), Err(CodecError::DoesNotPack { escapes: 89, room: 88 }));
    assert_eq!(packed_round_trip(&[0; 160]), Err(CodecError::DoesNotPack { escapes: 0, room: 0 }));
    let inexact = encoded(named("bf16_packed"), &[0.1; 512], &matrix(1, 512));
    assert_eq!(inexact, Err(CodecError::NotBf16 { element: 0, value: 0.1 }));
}

#[test]
fn packed_parts_lie_where_they_are_said_to() {
    // Three tiles, the last one odd; escapes in the first and in the last.
    let mut bits = with_escapes(8233, 5);
    bits[8232] = bf16(0, 200, 77);
    let coded = packed(&bits).unwrap();
    let (codes, table) = (8233, 8233 + 3088);
    assert_eq!(coded.len(), 11578);
    for (at, bits) in bits.iter().enumerate() {
        assert_eq!(coded[at], (bits >> 8 & 0x80 | bits & 0x7f) as u8);
        let word = u16::from_le_bytes([coded[codes + at * 3 / 8], coded[codes + at * 3 / 8 + 1]]);
        let code = word >> (at * 3 % 8) & 7;
        let exponent = bits >> 7 & 0xff;
        assert_eq!(
            coded[table..table + 7].iter().position(|coded| *coded as u16 == exponent).unwrap_or(7),
            code as usize
        );
    }
    assert_eq!(coded[table + 7], 0);
    assert_eq!(coded[table + 8..table + 20], [0, 0, 0, 0, 5, 0, 0, 0, 5, 0, 0, 0]);
    assert_eq!(coded[table + 20..table + 27], [100, 100, 100, 100, 100, 200, 0]);
    assert_eq!(unpacked(&coded, bits.len()), Ok(bits));
}

#[test]
fn packed_bytes_no_encoder_wrote_are_an_error() {
    let corrupt = |fault| Err(CodecError::Corrupt { format: "bf16_packed", fault });
    let mut coded = packed(&with_escapes(8233, 5)).unwrap();
    let offsets = 8233 + 3088 + 8;
    coded[offsets + 4] = 6;
    assert_eq!(unpacked(&coded, 8233), corrupt(Fault::Offset { tile: 1, stored: 6, counted: 5 }));
    coded[offsets] = 1;
    assert_eq!(unpacked(&coded, 8233), corrupt(Fault::Offset { tile: 0, stored: 1, counted: 0 }));
    assert_eq!(unpacked(&[0; 282], 200), corrupt(Fault::Room { needed: 0, room: 0 }));
    let mut full = vec![0xff; 4500];
    full[4408..4412].fill(0);
    assert_eq!(unpacked(&full, 3200), corrupt(Fault::Room { needed: 3200, room: 88 }));
}

/// A number over many magnitudes.
fn value() -> impl Strategy<Value = f32> {
    let value = (-1.0f32..1.0, -16i32..12).prop_map(|(part, power)| part * 2f32.powi(power));
    prop_oneof![9 => value, 1 => Just(0.0)]
}

/// Matrices of any shapes, and their elements.
fn block() -> impl Strategy<Value = (Vec<Matrix>, Vec<f32>)> {
    let shape = (1u64..9, 0u64..70).prop_map(|(rows, columns)| Matrix { rows, columns });
    prop::collection::vec(shape, 1..4).prop_flat_map(|matrices| {
        let elements = matrices.iter().map(|matrix| matrix.elements() as usize).sum::<usize>();
        (Just(matrices), prop::collection::vec(value(), elements))
    })
}

/// The largest magnitude among the elements that share a scale with element `at`.
fn peak(values: &[f32], format: FormatId, matrices: &[Matrix], at: usize) -> f32 {
    let group = match format.get().scale {
        Scale::Group { size, .. } => {
            let start = at / size as usize * size as usize;
            start..values.len().min(start + size as usize)
        }
        _ => {
            let widths =
                matrices.iter().flat_map(|matrix| vec![matrix.columns as usize; matrix.rows as usize]);
            let mut end = 0;
            let mut rows = widths.map(|width| {
                end += width;
                end - width..end
            });
            rows.find(|row| row.contains(&at)).unwrap()
        }
    };
    values[group].iter().fold(0.0, |peak, value| peak.max(value.abs()))
}

proptest! {
    #[test]
    fn sizes_are_exact_and_every_byte_is_written((matrices, values) in block()) {
        for format in coded() {
            let size = bytes(format, &matrices);
            let (mut ones, mut zeros) = (vec![0xff; size], vec![0; size]);
            if encode(format, &values, &matrices, &mut ones).is_ok() {
                encode(format, &values, &matrices, &mut zeros).unwrap();
                prop_assert_eq!(ones, zeros, "{}", format.name());
            }
            let mut long = vec![0; size + 1];
            prop_assert!(encode(format, &values, &matrices, &mut long).is_err());
        }
    }

    #[test]
    fn integers_are_within_half_a_step_and_the_rounding_of_the_scale((matrices, values) in block()) {
        for (name, largest) in [("int8", 127.0), ("int8_g32", 127.0), ("int4_g32", 7.0), ("int4_g128", 7.0)] {
            let back = round_trip(named(name), &values, &matrices);
            for (at, (value, back)) in values.iter().zip(&back).enumerate() {
                let step = peak(&values, named(name), &matrices, at) / largest;
                // An f16 has 11 bits; below 2^-14 its steps are 2^-24.
                let scale_error = (step * 2f32.powi(-11)).max(2f32.powi(-25));
                let bound = (step / 2.0 + largest * scale_error) * 1.00001;
                prop_assert!((value - back).abs() <= bound, "{name}: {value} came back as {back}");
            }
        }
    }

    #[test]
    fn fp8_is_within_a_sixteenth_or_half_the_smallest_step((matrices, values) in block()) {
        let format = named("fp8_e4m3");
        let back = round_trip(format, &values, &matrices);
        for (at, (value, back)) in values.iter().zip(&back).enumerate() {
            let step = peak(&values, format, &matrices, at) / 448.0;
            let bound = (value.abs() / 16.0).max(step * 2f32.powi(-10)) * 1.00001;
            prop_assert!((value - back).abs() <= bound, "{value} came back as {back}");
        }
    }

    #[test]
    fn mxfp4_takes_the_nearest_value_its_scale_has((matrices, values) in block()) {
        let format = named("mxfp4");
        let back = round_trip(format, &values, &matrices);
        for (at, (value, back)) in values.iter().zip(&back).enumerate() {
            let peak = peak(&values, format, &matrices, at) as f64;
            let scale = if peak > 0.0 { (peak.log2().floor() - 2.0).exp2() } else { 1.0 };
            let distance = |code: &f64| (value.abs() as f64 - code * scale).abs();
            let codes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
            let nearest = codes.iter().map(distance).fold(f64::MAX, f64::min);
            prop_assert_eq!((value.abs() as f64 - back.abs() as f64).abs(), nearest);
            prop_assert_eq!(value.is_sign_negative(), back.is_sign_negative());
        }
    }

    #[test]
    fn halves_are_the_nearest((matrices, values) in block()) {
        for (name, relative, smallest) in [("bf16", 2f32.powi(-9), 0.0), ("fp16", 2f32.powi(-12), 2f32.powi(-25))] {
            for (value, back) in values.iter().zip(round_trip(named(name), &values, &matrices)) {
                prop_assert!((value - back).abs() <= (value.abs() * relative * 2.0).max(smallest));
            }
        }
        let expected: Vec<f32> = values.iter().map(|value| half::bf16::from_f32(*value).to_f32()).collect();
        prop_assert_eq!(round_trip(named("bf16"), &values, &matrices), expected);
    }

    #[test]
    fn coding_from_bf16_bytes_is_coding_from_their_values((matrices, values) in block()) {
        let bf16 = named("bf16");
        let native = encoded(bf16, &values, &matrices).unwrap();
        let values = decoded(bf16, &native, &matrices).unwrap();
        for format in coded() {
            let mut direct = vec![0; bytes(format, &matrices)];
            let coded = transcode(bf16, &native, format, &matrices, &mut direct);
            prop_assert_eq!(coded.map(|()| direct), encoded(format, &values, &matrices));
        }
    }

    #[test]
    fn any_format_becomes_any_other_through_its_values((matrices, values) in block()) {
        for from in coded() {
            let Ok(copy) = encoded(from, &values, &matrices) else { continue };
            let values = decoded(from, &copy, &matrices).unwrap();
            for to in coded() {
                let mut direct = vec![0; bytes(to, &matrices)];
                let recoded = transcode(from, &copy, to, &matrices, &mut direct);
                let expected = if from == to { Ok(copy.clone()) } else { encoded(to, &values, &matrices) };
                prop_assert_eq!(recoded.map(|()| direct), expected, "{} to {}", from.name(), to.name());
            }
        }
    }

    #[test]
    fn packing_keeps_any_mix_that_fits(
        table in prop::collection::vec(0u16..256, 7),
        rest in prop::collection::vec((any::<u16>(), 0usize..7), 400..9000),
        places in any::<u64>(),
    ) {
        let (n, stride) = (rest.len(), places as usize % 97 + 1);
        let room = (n * 45).div_ceil(32) - n - (n * 3).div_ceil(8) - 8 - n.div_ceil(4096) * 4;
        let mut left = room;
        let bits: Vec<u16> = rest
            .iter()
            .enumerate()
            .map(|(at, (bits, place))| {
                let free = left > 0 && at % stride == 0;
                left -= free as usize;
                if free { *bits } else { bits & 0x807f | table[*place] << 7 }
            })
            .collect();
        prop_assert_eq!(packed_round_trip(&bits), Ok(bits));
    }

    #[test]
    fn packed_bytes_at_random_never_panic(bytes in prop::collection::vec(any::<u8>(), 563..564)) {
        // 400 elements.
        let _ = unpacked(&bytes, 400);
    }
}
