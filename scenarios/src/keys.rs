//! The language as data: the keys a map has and what each takes. The reader and the JSON Schema both stand on these
//! tables, so that neither knows a key that the other does not.

use crate::catalogue::{Kind, MACHINE, MODEL, SCENARIO};
use crate::units::Quantity;

/// A closed set of names.
pub(crate) type Names = fn() -> Vec<&'static str>;

/// What a value may be.
#[derive(Clone, Copy)]
pub(crate) enum Type {
    /// Any single value.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number between two bounds.
    Whole(u64, u64),
    /// A plain number between two bounds.
    Number(f64, f64),
    /// A fraction from 0 to 1, or a percentage.
    Fraction,
    /// A number with its unit, zero included.
    Quantity(&'static Quantity),
    /// A number with its unit, more than zero.
    AboveZero(&'static Quantity),
    /// A number of slots, such as `192 slots`.
    Slots,
    /// One of a closed set.
    Name(Names),
    /// A policy of the registry, by name or with its parameters.
    Policy,
    /// A policy's parameters.
    Params,
    /// The one or the other.
    Either(&'static Type, &'static Type),
    /// A list, or the one value that stands in its place.
    List(&'static Type),
    /// A map of known keys.
    Map(&'static Table),
    /// A map whose keys the author chooses.
    Rows(&'static Rows),
    /// One of several, with its settings: `{ name: settings }`.
    Choice(&'static [Choice]),
    /// A catalogue name, a path, or the thing itself: inline, or on top of `base`.
    File(Kind),
}

/// The known keys of a map.
pub(crate) struct Table {
    /// What the schema calls it.
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) keys: &'static [Key],
    /// Whether further keys are let through, and `null` for a key that is left out: a model's config has both.
    pub(crate) open: bool,
}

/// A key of a map.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) takes: Type,
    pub(crate) need: Need,
    /// What it means, in one line.
    pub(crate) about: &'static str,
}

/// Whether a key must be given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Yes; an example of what to write.
    Required(&'static str),
    /// No; this stands in its place.
    Default(&'static str),
    /// No, and nothing stands in its place; an example of what to write.
    Optional(&'static str),
}

/// A map whose keys the author chooses, each with the same kind of value.
pub(crate) struct Rows {
    pub(crate) about: &'static str,
    pub(crate) key: RowKey,
    pub(crate) value: Type,
    /// Whether an including file adds rows to it, or replaces it whole.
    pub(crate) merges: bool,
}

/// What the keys of [`Rows`] may be.
pub(crate) enum RowKey {
    /// A name of the author's.
    Any,
    /// One of a closed set.
    Name(Names),
    /// A quantity of more than zero.
    AboveZero(&'static Quantity),
    /// A whole number of at least 1.
    Count,
}

/// One of the things a [`Type::Choice`] may be.
pub(crate) struct Choice {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) takes: Type,
}

/// What a file of a kind holds.
pub(crate) fn language(kind: Kind) -> Type {
    match kind {
        SCENARIO => Type::Map(&crate::check::SCENARIO),
        MACHINE => Type::Map(&crate::machine_keys::MACHINE),
        MODEL => Type::Map(&crate::model_keys::MODEL),
        _ => Type::Rows(&crate::sensitivity::SENSITIVITIES),
    }
}

impl Type {
    /// What a key of a map of this type takes, if that is known.
    pub(crate) fn below(self, key: &str) -> Option<Type> {
        match self {
            Type::Map(table) => table.key(key).map(|key| key.takes),
            Type::Rows(rows) => Some(rows.value),
            Type::Choice(choices) => {
                choices.iter().find(|choice| choice.name == key).map(|choice| choice.takes)
            }
            Type::Policy => Some(Type::Params),
            _ => None,
        }
    }
}

impl Key {
    /// A key that must be given.
    pub(crate) const fn required(
        name: &'static str,
        takes: Type,
        example: &'static str,
        about: &'static str,
    ) -> Key {
        Key { name, takes, need: Need::Required(example), about }
    }

    /// A key with a default.
    pub(crate) const fn default(
        name: &'static str,
        takes: Type,
        default: &'static str,
        about: &'static str,
    ) -> Key {
        Key { name, takes, need: Need::Default(default), about }
    }

    /// A key that may be left out.
    pub(crate) const fn optional(
        name: &'static str,
        takes: Type,
        example: &'static str,
        about: &'static str,
    ) -> Key {
        Key { name, takes, need: Need::Optional(example), about }
    }

    /// What to write, for example.
    pub(crate) fn example(&self) -> &'static str {
        match self.need {
            Need::Required(text) | Need::Default(text) | Need::Optional(text) => text,
        }
    }
}

impl Table {
    /// A key by its name.
    pub(crate) fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The names of the keys.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.keys.iter().map(|key| key.name)
    }

    /// What to write, for example: the required keys, or all where none is.
    pub(crate) fn example(&self) -> String {
        let required = || self.keys.iter().filter(|key| matches!(key.need, Need::Required(_)));
        let shown: Vec<&Key> =
            if required().next().is_some() { required().collect() } else { self.keys.iter().collect() };
        let pairs: Vec<String> = shown.iter().map(|key| format!("{}: {}", key.name, key.example())).collect();
        format!("{{ {} }}", pairs.join(", "))
    }
}
