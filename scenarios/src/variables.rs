//! `${NAME}` in a path: a variable of the environment.

use crate::diagnostics::Wrong;
use std::ffi::OsString;

/// Where `${HOTSET_DATA}` points if the environment does not say.
const DATA: (&str, &str) = ("HOTSET_DATA", "../shared/data");

/// A path with every variable replaced by its value.
pub(crate) fn expand(text: &str) -> Result<OsString, Wrong> {
    let mut path = OsString::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        path.push(before);
        let (name, behind) = after.split_once('}').ok_or_else(|| {
            Wrong::new("a `${` without its `}`", "write `${NAME}`, as in `${HOTSET_DATA}/traces/a.npz`")
        })?;
        path.push(value(name)?);
        rest = behind;
    }
    path.push(rest);
    Ok(path)
}

fn value(name: &str) -> Result<OsString, Wrong> {
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !letters || !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
        let hint = "letters, digits and `_`, as in `${HOTSET_DATA}`";
        return Err(Wrong::new(format!("`${{{name}}}` names no variable"), hint));
    }
    match std::env::var_os(name) {
        Some(value) if !value.is_empty() => Ok(value),
        _ if name == DATA.0 => Ok(OsString::from(DATA.1)),
        unset => {
            let message = match unset {
                Some(_) => format!("{name} is empty in the environment"),
                None => format!("{name} is not set in the environment"),
            };
            Err(Wrong::new(message, format!("set it: `export {name}=/a/folder`, or write the path out")))
        }
    }
}
