use super::*;
use proptest::prelude::*;
use safetensors::SafeTensors;
use std::io::Write;

fn file_of(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn read_bytes(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, HeaderError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    read(&file)
}

fn refusal(header: &str, data: usize) -> String {
    read_bytes(&file_of(header, data)).unwrap_err().to_string()
}

#[test]
fn what_is_wrong_is_said() {
    let one = |body: &str| format!(r#"{{"a":{{{body}}}}}"#);
    let cases = [
        (
            one(r#""dtype":"F32","shape":[2],"data_offsets":[0,8]"#),
            7,
            "the tensors have 8 bytes, the file has 7",
        ),
        (one(r#""dtype":"F32","shape":[3],"data_offsets":[0,8]"#), 8, "F32 [3] is not what bytes 0 to 8"),
        (one(r#""dtype":"F32","shape":[2],"data_offsets":[8,0]"#), 8, "begins at byte 8 of the data"),
        (one(r#""dtype":"F99","shape":[2],"data_offsets":[0,8]"#), 8, "there is no type `F99`"),
        (one(r#""dtype":"F4","shape":[3],"data_offsets":[0,2]"#), 2, "F4 [3] is not what"),
        (one(r#""dtype":"F32","shape":[-1],"data_offsets":[0,8]"#), 8, "byte 8 and on: invalid value"),
        (one(r#""dtype":"F32","shape":[2]"#), 8, "missing field `data_offsets`"),
        ("[]".into(), 0, "expected an object of tensors by name"),
        (String::new(), 0, "EOF while parsing"),
    ];
    for (header, data, expected) in cases {
        let said = refusal(&header, data);
        assert!(said.contains(expected), "{header}: {said}");
    }
    let entry = r#""a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    assert!(refusal(&format!("{{{entry},{entry}}}"), 1).contains("tensor `a` is there twice"));
    let huge = r#"{"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#;
    assert!(refusal(huge, 0).contains("is not what bytes 0 to 0"));
    let wraps = format!(r#"{{"a":{{"dtype":"U8","shape":[{0}],"data_offsets":[0,{0}]}}}}"#, u64::MAX);
    assert!(refusal(&wraps, 8).contains("is not what"), "{}", refusal(&wraps, 8));
}

#[test]
fn a_length_beyond_the_file_or_all_measure_is_refused_before_anything_is_taken_for_it() {
    for said in [3, 1 << 40, u64::MAX] {
        let mut bytes = file_of("{}", 0);
        bytes[..8].copy_from_slice(&u64::to_le_bytes(said));
        assert!(matches!(read_bytes(&bytes), Err(HeaderError::Length { .. })));
    }
    assert!(matches!(read_bytes(&[0; 7]), Err(HeaderError::NoLength { len: 7 })));
    // A sparse file long enough for such a header.
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&(LONGEST + 1).to_le_bytes()).unwrap();
    file.set_len(1 << 30).unwrap();
    assert!(matches!(read(&file), Err(HeaderError::Length { .. })));
}

/// An entry near what is right: tensors of one to three sides, offsets that may be off by one.
fn entry() -> impl Strategy<Value = (usize, Vec<u64>, i64, i64)> {
    let off = || prop_oneof![20 => Just(0i64), 1 => Just(1), 1 => Just(-1)];
    (0..DTYPES.len(), prop::collection::vec(0u64..5, 0..3), off(), off())
}

proptest! {
    #[test]
    fn what_the_safetensors_crate_takes_is_taken_and_nothing_else(
        entries in prop::collection::vec(entry(), 0..4),
        more in prop_oneof![8 => Just(0i64), 1 => -2i64..3],
        reversed: bool,
    ) {
        let mut at = 0i64;
        let mut texts = vec![r#""__metadata__":{"format":"pt"}"#.to_owned()];
        for (number, (dtype, shape, early, late)) in entries.iter().enumerate() {
            let row = &DTYPES[*dtype];
            let bytes = (shape.iter().product::<u64>() * row.bits / 8) as i64;
            let (begin, end) = ((at + early).max(0), (at + bytes + late).max(0));
            let name = row.name;
            texts.push(format!(r#""t{number}":{{"dtype":"{name}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#));
            at += bytes;
        }
        if reversed {
            texts.reverse();
        }
        let bytes = file_of(&format!("{{{}}}", texts.join(",")), (at + more).max(0) as usize);
        let (ours, theirs) = (read_bytes(&bytes), SafeTensors::deserialize(&bytes));
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?}", ours, theirs.err());
        for (name, tensor) in ours.unwrap_or_default() {
            let theirs = theirs.as_ref().unwrap().tensor(&name).unwrap();
            prop_assert_eq!(theirs.shape().iter().map(|side| *side as u64).collect::<Vec<_>>(), tensor.shape);
            prop_assert_eq!(theirs.data(), &bytes[tensor.at as usize..][..tensor.bytes as usize]);
            prop_assert_eq!(format!("{:?}", theirs.dtype()), tensor.dtype.name);
        }
    }
}
