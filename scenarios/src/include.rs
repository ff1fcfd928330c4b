//! `base`: a scenario, a machine, a model or a table of errors that starts from another one and differs in a few keys.
//!
//! Maps merge key by key, `null` takes a key away, and everything else replaces what the base has; of a choice
//! (`requests: { poisson: ... }`) and of measured points another one replaces the whole. Every value keeps the place
//! where it was written.

use crate::catalogue::{Kind, MODEL};
use crate::diagnostics::{Report, Wrong};
use crate::gguf;
use crate::keys::{Type, language};
use crate::load::open_after;
use crate::reader::{Field, join};
use crate::tree::{Entry, Node, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The key that names what a map starts from.
pub(crate) const BASE: &str = "base";
/// Files that may start from one another.
const LONGEST_CHAIN: usize = 16;

/// The files that led to the one that is read, each starting from the next.
pub(crate) type Chain<'c> = &'c [Origin];

/// A file in a chain.
#[derive(Clone)]
pub(crate) struct Origin {
    /// What is the same for the same file, however it is written.
    pub(crate) id: PathBuf,
    /// What messages call it.
    pub(crate) name: String,
}

/// Adds a file to a chain; reports a chain that comes back to it, or does not end.
pub(crate) fn follow(
    report: &mut Report,
    chain: Chain<'_>,
    next: Origin,
    field: Option<&Field<'_>>,
) -> Option<Vec<Origin>> {
    let again = chain.iter().any(|origin| origin.id == next.id);
    let too_long = chain.len() >= LONGEST_CHAIN;
    let chain: Vec<Origin> = chain.iter().cloned().chain([next]).collect();
    if let Some(field) = field.filter(|_| again || too_long) {
        let names: Vec<&str> = chain.iter().map(|origin| origin.name.as_str()).collect();
        let message = match again {
            true => format!("a file that starts from itself: {}", names.join(" -> ")),
            false => format!("more than {LONGEST_CHAIN} files that start from one another"),
        };
        field.error(report, Wrong::new(message, "remove one of the `base` keys, or name another file"));
        return None;
    }
    Some(chain)
}

/// Puts what a map starts from beneath it, if it has a `base`. `path` leads to the map.
pub(crate) fn on_base(
    report: &mut Report,
    kind: Kind,
    mut node: Node,
    path: &str,
    chain: Chain<'_>,
) -> Option<Node> {
    let Value::Map(entries) = &mut node.value else { return Some(node) };
    let Some(position) = entries.iter().position(|entry| entry.key == BASE) else { return Some(node) };
    let base = entries.remove(position);
    let field = Field { node: &base.value, path: join(path, BASE), key_at: base.key_at };
    let name = field.text(report)?;
    let lower = open_after(report, kind, name, Some(&field), chain)?;
    merge(report, language(kind), lower, node, path)
}

/// Puts the tree that a node stands for in its place: that of the file it names, or its own on top of its base. A node
/// that cannot be resolved stays a name, reported.
pub(crate) fn resolve(report: &mut Report, kind: Kind, node: &mut Node) -> Option<()> {
    *node = match &node.value {
        Value::Scalar(name) if kind == MODEL && gguf::is_gguf(name) => gguf::named(node),
        Value::Scalar(name) => open_after(report, kind, name, Some(&Field::root(node, kind.key)), &[])?,
        Value::Map(_) => {
            // Where the base cannot be had, nothing is left to check.
            let unresolved = Node { at: node.at, value: Value::Scalar(String::new()) };
            let inline = std::mem::replace(node, unresolved);
            on_base(report, kind, inline, kind.key, &[])?
        }
        Value::Null | Value::List(_) => return Some(()),
    };
    Some(())
}

/// `upper` on top of `lower`.
fn merge(report: &mut Report, takes: Type, mut lower: Node, upper: Node, path: &str) -> Option<Node> {
    if !extends(takes, &lower, &upper) {
        return Some(upper);
    }
    if let Type::File(kind) = takes {
        resolve(report, kind, &mut lower)?;
        return merge(report, language(kind), lower, upper, path);
    }
    let (Node { value: Value::Map(below), .. }, Node { value: Value::Map(above), at }) = (lower, upper)
    else {
        return None;
    };
    let places: BTreeMap<String, usize> =
        below.iter().enumerate().map(|(index, entry)| (entry.key.clone(), index)).collect();
    let mut entries: Vec<Option<Entry>> = below.into_iter().map(Some).collect();
    for mut entry in above {
        let Some(slot) = places.get(&entry.key).and_then(|&index| entries.get_mut(index)) else {
            entries.push(Some(entry));
            continue;
        };
        let below = slot.take();
        if matches!(entry.value.value, Value::Null) {
            continue;
        }
        if let Some((below, takes)) = below.zip(takes.below(&entry.key)) {
            entry.value = merge(report, takes, below.value, entry.value, &join(path, &entry.key))?;
        }
        *slot = Some(entry);
    }
    Some(Node { at, value: Value::Map(entries.into_iter().flatten().collect()) })
}

/// Whether `upper` adds to `lower`; otherwise it replaces it.
fn extends(takes: Type, lower: &Node, upper: &Node) -> bool {
    match (takes, &lower.value, &upper.value) {
        (Type::File(_), Value::Scalar(_) | Value::Map(_), Value::Map(above)) => {
            above.iter().all(|entry| entry.key != BASE)
        }
        (Type::Rows(rows), Value::Map(_), Value::Map(_)) => rows.merges,
        (Type::Choice(_) | Type::Policy, Value::Map(below), Value::Map(above)) => {
            matches!((&below[..], &above[..]), ([one], [other]) if one.key == other.key)
        }
        (Type::Map(_) | Type::Params, Value::Map(_), Value::Map(_)) => true,
        _ => false,
    }
}
