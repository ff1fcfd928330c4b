//! The header of a NumPy array file (`.npy`, versions 1 to 3).

use crate::error::Problem;

const MAGIC: &[u8] = b"\x93NUMPY";

/// The shape and the data of an array in C order whose elements are `dtype`, `width` bytes each. The data is exactly
/// as long as the shape says.
pub(crate) fn decode<'a>(
    file: &'a [u8],
    dtype: &'static str,
    width: u64,
) -> Result<(Vec<u64>, &'a [u8]), Problem> {
    let (header, data) = split(file)?;
    let found = quoted(after(header, "'descr':")?)?;
    if found != dtype {
        return Err(Problem::Dtype { found: found.to_owned(), expected: dtype });
    }
    if !after(header, "'fortran_order':")?.starts_with("False") {
        return Err(Problem::NpyHeader("the array is in Fortran order or does not say"));
    }
    let shape = dimensions(after(header, "'shape':")?)?;
    let declared = shape.iter().try_fold(width, |bytes, &n| bytes.checked_mul(n)).unwrap_or(u64::MAX);
    if declared != data.len() as u64 {
        return Err(Problem::Size { declared, actual: data.len() as u64 });
    }
    Ok((shape, data))
}

fn split(file: &[u8]) -> Result<(&str, &[u8]), Problem> {
    let cut = Problem::NpyHeader("the file ends in the header");
    let rest = file.strip_prefix(MAGIC).ok_or(Problem::NpyHeader("it does not start as a NumPy array"))?;
    let (len, rest) = match *rest {
        [1, _, a, b, ref rest @ ..] => (u16::from_le_bytes([a, b]) as usize, rest),
        [2 | 3, _, a, b, c, d, ref rest @ ..] => (u32::from_le_bytes([a, b, c, d]) as usize, rest),
        [version, ..] if !(1..=3).contains(&version) => return Err(Problem::NpyHeader("unknown version")),
        _ => return Err(cut),
    };
    let (header, data) = rest.split_at_checked(len).ok_or(cut)?;
    let header = std::str::from_utf8(header).map_err(|_| Problem::NpyHeader("it is not text"))?;
    Ok((header, data))
}

fn after<'a>(header: &'a str, key: &str) -> Result<&'a str, Problem> {
    let (_, rest) =
        header.split_once(key).ok_or(Problem::NpyHeader("descr, fortran_order or shape is missing"))?;
    Ok(rest.trim_start())
}

fn quoted(text: &str) -> Result<&str, Problem> {
    let inner = text.strip_prefix('\'').and_then(|rest| rest.split_once('\''));
    inner.map(|(text, _)| text).ok_or(Problem::NpyHeader("descr is no plain type"))
}

fn dimensions(text: &str) -> Result<Vec<u64>, Problem> {
    let malformed = Problem::NpyHeader("shape is no list of numbers");
    let inner = text.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let Some((inner, _)) = inner else { return Err(malformed) };
    let numbers = inner.split(',').map(str::trim).filter(|number| !number.is_empty());
    numbers.map(str::parse).collect::<Result<_, _>>().map_err(|_| malformed)
}
