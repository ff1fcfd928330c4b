//! Walks the tree and collects what is wrong with it, so that one reading reports every error.

use crate::diagnostics::{Report, Wrong, one_of};
use crate::keys::{Choice, Key, Need, Table};
use crate::source::At;
use crate::tree::{Entry, Node, Value};

/// A value with the path and the key that lead to it.
#[derive(Clone)]
pub(crate) struct Field<'t> {
    pub(crate) node: &'t Node,
    pub(crate) path: String,
    /// Where the key stands, or the value itself where it has no key.
    pub(crate) key_at: At,
}

/// A map whose keys the author chooses.
pub(crate) struct Fields<'t> {
    pub(crate) path: String,
    at: At,
    pub(crate) entries: &'t [Entry],
}

/// A map of known keys.
pub(crate) struct Keys<'t> {
    fields: Fields<'t>,
    table: &'static Table,
}

impl<'t> Field<'t> {
    /// The top of a text.
    pub(crate) fn root(node: &'t Node, path: &str) -> Field<'t> {
        Field { node, path: path.to_owned(), key_at: node.at }
    }

    /// Reports an error at the value.
    pub(crate) fn error(&self, report: &mut Report, wrong: Wrong) {
        report.error(self.node.at, &self.path, wrong);
    }

    /// Reports an error at the key.
    pub(crate) fn key_error(&self, report: &mut Report, wrong: Wrong) {
        report.error(self.key_at, &self.path, wrong);
    }

    /// The text of a scalar.
    pub(crate) fn text(&self, report: &mut Report) -> Option<&'t str> {
        let found = match &self.node.value {
            Value::Scalar(text) => return Some(text),
            Value::Null => "no value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        };
        self.error(
            report,
            Wrong::new(format!("{found} where a single value is expected"), "write `key: value`"),
        );
        None
    }

    /// A scalar, read by `parse`.
    pub(crate) fn read<T>(
        &self,
        report: &mut Report,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let text = self.text(report)?;
        parse(text).map_err(|wrong| self.error(report, wrong)).ok()
    }

    /// A map of the keys of `table`; reports every other key.
    pub(crate) fn keys(&self, report: &mut Report, table: &'static Table) -> Option<Keys<'t>> {
        let fields = self.fields(report, &format!("write `{}`", table.example()))?;
        for entry in fields.entries.iter().filter(|entry| table.key(&entry.key).is_none()) {
            let wrong = Wrong::new(format!("unknown key `{}`", entry.key), one_of(&entry.key, table.names()));
            fields.field(entry).key_error(report, wrong);
        }
        Some(Keys { fields, table })
    }

    /// The entries of a map; `what` says what belongs here.
    pub(crate) fn fields(&self, report: &mut Report, what: &str) -> Option<Fields<'t>> {
        match &self.node.value {
            Value::Map(entries) => Some(Fields { path: self.path.clone(), at: self.key_at, entries }),
            Value::Null => {
                self.error(report, Wrong::new("no value", what));
                None
            }
            _ => {
                self.error(report, Wrong::new("a map is expected", what));
                None
            }
        }
    }

    /// The items of a list, or the one value that stands in its place.
    pub(crate) fn items(&self) -> Vec<Field<'t>> {
        match &self.node.value {
            Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(index, node)| Field { node, path: format!("{}[{index}]", self.path), key_at: node.at })
                .collect(),
            _ => vec![self.clone()],
        }
    }

    /// One of `choices` with its settings.
    pub(crate) fn choice(
        &self,
        report: &mut Report,
        choices: &'static [Choice],
    ) -> Option<(&'static str, Field<'t>)> {
        let names = || choices.iter().map(|choice| choice.name);
        let what =
            format!("write `{{ name: settings }}` with one of: {}", names().collect::<Vec<_>>().join(", "));
        let (name, chosen) = self.variant(report, &what)?;
        let known = names().find(|known| *known == name);
        if known.is_none() {
            let message = format!("`{name}` is not known here");
            chosen.key_error(report, Wrong::new(message, one_of(name, names())));
        }
        Some((known?, chosen))
    }

    /// A choice with its settings: a plain name, or `{ name: settings }`.
    pub(crate) fn variant(&self, report: &mut Report, what: &str) -> Option<(&'t str, Field<'t>)> {
        match &self.node.value {
            Value::Scalar(name) => Some((name, Field { key_at: self.node.at, ..self.clone() })),
            Value::Map(entries) if entries.len() == 1 => {
                let entry = &entries[0];
                let path = join(&self.path, &entry.key);
                Some((&entry.key, Field { node: &entry.value, path, key_at: entry.key_at }))
            }
            Value::Map(entries) => {
                let message = match entries.len() {
                    0 => "nothing chosen".to_owned(),
                    count => format!("{count} given where one is chosen"),
                };
                let at = entries.get(1).map_or(self.node.at, |second| second.key_at);
                report.error(at, &self.path, Wrong::new(message, what));
                None
            }
            Value::Null | Value::List(_) => {
                self.error(report, Wrong::new("a name, or one `name: settings`, is expected", what));
                None
            }
        }
    }
}

impl<'t> Fields<'t> {
    /// The value of a key, if it is given.
    pub(crate) fn get(&self, key: &str) -> Option<Field<'t>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| self.field(entry))
    }

    /// An entry as a field.
    pub(crate) fn field(&self, entry: &'t Entry) -> Field<'t> {
        Field { node: &entry.value, path: join(&self.path, &entry.key), key_at: entry.key_at }
    }

    /// The value of a key that must be given; `hint` says what to write.
    pub(crate) fn need(&self, report: &mut Report, key: &str, hint: &str) -> Option<Field<'t>> {
        let field = self.get(key);
        if field.is_none() {
            report.error(
                self.at,
                &self.path,
                Wrong::new(format!("`{key}` is missing"), format!("add `{key}: {hint}`")),
            );
        }
        field
    }
}

impl<'t> Keys<'t> {
    /// The value of a key, if it is given.
    pub(crate) fn get(&self, name: &str) -> Option<Field<'t>> {
        self.fields.get(self.key(name)?.name)
    }

    /// The value of a key that must be given.
    pub(crate) fn need(&self, report: &mut Report, name: &str) -> Option<Field<'t>> {
        let key = self.key(name)?;
        self.fields.need(report, key.name, key.example())
    }

    /// A scalar that must be given.
    pub(crate) fn required<T>(
        &self,
        report: &mut Report,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        self.need(report, name)?.read(report, parse)
    }

    /// A scalar, or the table's default.
    pub(crate) fn or_default<T>(
        &self,
        report: &mut Report,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        match (self.get(name), self.key(name)?.need) {
            (Some(field), _) => field.read(report, parse),
            (None, Need::Default(text)) => parse(text).ok(),
            (None, _) => None,
        }
    }

    /// A scalar that may be left out; `None` where it is wrong.
    pub(crate) fn optional<T>(
        &self,
        report: &mut Report,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<Option<T>> {
        self.get(name).map_or(Some(None), |field| field.read(report, parse).map(Some))
    }

    /// A key of the table; the reader asks for no other.
    fn key(&self, name: &str) -> Option<&'static Key> {
        let key = self.table.key(name);
        debug_assert!(key.is_some(), "`{name}` is not in the table of {}", self.table.name);
        key
    }
}

/// The path of `key` below `path`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A parser of names: one of `table`, or an error that suggests.
pub(crate) fn name_of<T: Copy>(what: &str, table: &[(&str, T)]) -> impl Fn(&str) -> Result<T, Wrong> {
    move |written| match table.iter().find(|(name, _)| *name == written) {
        Some(&(_, value)) => Ok(value),
        None => {
            let hint = one_of(written, table.iter().map(|(name, _)| *name));
            Err(Wrong::new(format!("`{written}` is no {what}"), hint))
        }
    }
}

/// Reads any text that says something.
pub(crate) fn text(written: &str) -> Result<String, Wrong> {
    match written.trim().is_empty() {
        true => Err(Wrong::new("an empty text", "a few words")),
        false => Ok(written.to_owned()),
    }
}

/// Reads the name of a number format.
pub(crate) fn format(written: &str) -> Result<policy::FormatId, Wrong> {
    policy::FormatId::named(written)
        .ok_or_else(|| Wrong::new(format!("`{written}` is no format"), one_of(written, format_names())))
}

/// The names of the formats.
pub(crate) fn format_names() -> Vec<&'static str> {
    policy::format::FORMATS.iter().map(|format| format.name).collect()
}

/// The names of a table of names.
pub(crate) fn names<T>(table: &[(&'static str, T)]) -> Vec<&'static str> {
    table.iter().map(|(name, _)| *name).collect()
}

/// Reads `true` or `false`.
pub(crate) fn flag(written: &str) -> Result<bool, Wrong> {
    name_of("truth value", &[("true", true), ("false", false)])(written)
}
