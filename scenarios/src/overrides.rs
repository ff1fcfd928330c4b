//! `--set path=value`: an override of one value, wherever it is; and the values that take turns in one place.

use crate::catalogue::{MACHINE, MODEL, SENSITIVITY};
use crate::diagnostics::{Report, Wrong};
use crate::include::{BASE, resolve};
use crate::reader::join;
use crate::source::At;
use crate::tree::{DEPTH, Entry, Node, Value, parse};
use std::path::PathBuf;

/// A step of a path.
enum Step<'p> {
    Key(&'p str),
    Item(usize),
}

/// Applies one override.
pub(crate) fn set(report: &mut Report, root: &mut Node, path: &str, value: &str) -> Option<()> {
    let source = report.add_source(format!("--set {path}"), format!("{path}={value}"), PathBuf::new());
    let at = |start, end| At { source, start, end };
    let (key_at, value_start) = (at(0, path.len()), path.len() + 1);
    let new = match value.trim().is_empty() {
        true => Node { at: at(value_start, value_start + value.len()), value: Value::Null },
        false => parse(report, source, value_start)?,
    };
    // As on top of a base, `~` takes a key away that is there.
    let takes_away = matches!(new.value, Value::Null) && !value.trim().is_empty();
    let steps = steps(path).map_err(|wrong| report.error(key_at, path, wrong)).ok()?;
    let mut node = root;
    let mut walked = String::new();
    let last = steps.len() - 1;
    for (place, step) in steps.into_iter().enumerate() {
        let kind = [MACHINE, MODEL, SENSITIVITY].into_iter().find(|kind| kind.key == walked);
        if let Some(kind) = kind {
            resolve(report, kind, node)?;
        }
        (node, walked) = match step {
            Step::Key(BASE) if walked.is_empty() || kind.is_some() => {
                report.error(key_at, path, base_is_fixed(&walked));
                return None;
            }
            Step::Key(key) if takes_away && place == last && take_away(node, key) => return Some(()),
            Step::Key(key) => (descend(report, node, key, key_at, &walked)?, join(&walked, key)),
            Step::Item(index) => (item(report, node, index, key_at, &walked)?, format!("{walked}[{index}]")),
        };
    }
    *node = new;
    Some(())
}

/// `base` has been followed by the time that a value is set.
fn base_is_fixed(walked: &str) -> Wrong {
    let hint = match walked {
        "" => "name the other scenario instead of this one".to_owned(),
        kind => format!("set it whole: `--set {kind}=NAME` or `--set {kind}='{{ base: NAME, ... }}'`"),
    };
    Wrong::new("`base` cannot be set", hint)
}

/// The keys and the items of `workload.routing.trace[0]`.
fn steps(path: &str) -> Result<Vec<Step<'_>>, Wrong> {
    let hint = "write `--set workload.limit_tokens=100`, or `--set workload.routing.trace[0]=...`";
    let mut steps = Vec::new();
    for part in path.split('.') {
        let (key, items) = part.split_at(part.find('[').unwrap_or(part.len()));
        if key.is_empty() {
            return Err(Wrong::new("an empty key", hint));
        }
        steps.push(Step::Key(key));
        if items.is_empty() {
            continue;
        }
        let inner = items.strip_prefix('[').and_then(|items| items.strip_suffix(']'));
        for index in inner.unwrap_or_default().split("][") {
            let index =
                index.parse().map_err(|_| Wrong::new(format!("`{items}` is no item of a list"), hint))?;
            steps.push(Step::Item(index));
        }
    }
    if steps.len() > DEPTH {
        let message = format!("a path of more than {DEPTH} steps");
        return Err(Wrong::new(message, "nothing here lies that deep"));
    }
    Ok(steps)
}

/// Takes a key out of a map; whether it was there.
fn take_away(node: &mut Node, key: &str) -> bool {
    let Value::Map(entries) = &mut node.value else { return false };
    let before = entries.len();
    entries.retain(|entry| entry.key != key);
    entries.len() < before
}

/// The value of `key`, made where it is absent.
fn descend<'n>(
    report: &mut Report,
    node: &'n mut Node,
    key: &str,
    key_at: At,
    walked: &str,
) -> Option<&'n mut Node> {
    let held = match &node.value {
        Value::Map(_) => None,
        // A plain name is a variant without settings: `policy: lru` and `--set policy.lru.x=1` agree.
        Value::Scalar(name) if name != key => Some(format!("`{name}`")),
        Value::List(_) => Some("a list".to_owned()),
        Value::Scalar(_) | Value::Null => {
            *node = Node { at: key_at, value: Value::Map(vec![]) };
            None
        }
    };
    if let Some(held) = held {
        let wrong = Wrong::new(
            format!("it is {held}, which has no `{key}`"),
            format!("set it whole: `--set {walked}=...`"),
        );
        report.error(key_at, walked, wrong);
        return None;
    }
    let Value::Map(entries) = &mut node.value else { return None };
    let index = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
        let value = Node { at: key_at, value: Value::Null };
        entries.push(Entry { key: key.to_owned(), key_at, value });
        entries.len() - 1
    });
    entries.get_mut(index).map(|entry| &mut entry.value)
}

/// An item of a list; one value that stands in a list's place is its item 0.
fn item<'n>(
    report: &mut Report,
    node: &'n mut Node,
    index: usize,
    key_at: At,
    walked: &str,
) -> Option<&'n mut Node> {
    let count = match &node.value {
        Value::List(items) => items.len(),
        Value::Scalar(_) => 1,
        Value::Map(_) | Value::Null => 0,
    };
    if index >= count {
        let message = match (&node.value, count) {
            (Value::Map(_), _) => format!("it is a map, which has no item {index}"),
            (_, 0) => format!("it is empty, and has no item {index}"),
            (_, count) => format!("its items are 0 to {}: there is no item {index}", count - 1),
        };
        report.error(key_at, walked, Wrong::new(message, format!("set it whole: `--set {walked}=...`")));
        return None;
    }
    match node {
        Node { value: Value::List(items), .. } => items.get_mut(index),
        one => Some(one),
    }
}

/// The values of `a,b,c`, without the blanks around them: commas within brackets and quotes do not part them.
pub fn alternatives(text: &str) -> Vec<&str> {
    let (mut found, mut start, mut depth, mut quote) = (Vec::new(), 0, 0_usize, None);
    // Whether a value begins here: only there is a quote more than an apostrophe.
    let mut begins = true;
    for (index, letter) in text.char_indices() {
        match (letter, quote) {
            (_, Some(open)) if letter == open => quote = None,
            (_, Some(_)) => {}
            ('\'' | '"', None) if begins => quote = Some(letter),
            ('[' | '{', None) => depth += 1,
            (']' | '}', None) => depth = depth.saturating_sub(1),
            (',', None) if depth == 0 => {
                found.push(text[start..index].trim());
                start = index + 1;
            }
            _ => {}
        }
        begins = matches!(letter, '[' | '{' | ',' | ':') || begins && letter.is_whitespace();
    }
    found.push(text[start..].trim());
    found
}

#[cfg(test)]
mod tests {
    use super::alternatives;

    #[test]
    fn commas_part_values_and_not_what_is_in_them() {
        assert_eq!(alternatives("96 slots, 192 slots"), ["96 slots", "192 slots"]);
        assert_eq!(alternatives("[1,2],[3]"), ["[1,2]", "[3]"]);
        assert_eq!(alternatives("{ a: [1, 2], b: 3 },lru"), ["{ a: [1, 2], b: 3 }", "lru"]);
        assert_eq!(alternatives("'a,b',\"c],d\",e"), ["'a,b'", "\"c],d\"", "e"]);
        assert_eq!(alternatives("['a]', b], it's, fine"), ["['a]', b]", "it's", "fine"]);
        assert_eq!(alternatives(",a]],\u{e9}"), ["", "a]]", "\u{e9}"]);
        assert_eq!(alternatives("[a,b"), ["[a,b"]);
    }
}
