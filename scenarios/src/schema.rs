//! The JSON Schema (draft 2020-12) of the language, from the tables that the reader uses.

use crate::catalogue::{Kind, MACHINE, MODEL, SCENARIO, SENSITIVITY};
use crate::diagnostics::Report;
use crate::gguf;
use crate::include::BASE;
use crate::keys::{Choice, Key, Need, RowKey, Rows, Table, Type, language};
use crate::tree::{self, Node};
use crate::units::Quantity;
use policy::registry::registry;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// A kind of file that has a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// A scenario.
    Scenario,
    /// A machine.
    Machine,
    /// A model: the keys of a Hugging Face `config.json`.
    Model,
    /// A table of the errors of formats.
    Sensitivity,
}

/// The JSON Schema of a kind of file.
pub fn schema(document: Document) -> Value {
    let kind = match document {
        Document::Scenario => SCENARIO,
        Document::Machine => MACHINE,
        Document::Model => MODEL,
        Document::Sensitivity => SENSITIVITY,
    };
    let mut builder = Builder { definitions: Map::new() };
    let root = builder.file(kind, Extent::Whole);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("Hotset {}", kind.key),
        "$ref": root,
        "$defs": builder.definitions,
    })
}

/// How much of a map is to be given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Every required key.
    Whole,
    /// What differs from a base; `null` takes a key away.
    Part,
}

struct Builder {
    definitions: Map<String, Value>,
}

impl Builder {
    /// Defines a schema once; answers with its address.
    fn define(&mut self, name: String, schema: impl FnOnce(&mut Builder) -> Value) -> String {
        if !self.definitions.contains_key(&name) {
            // Its place is taken before it is built, as it may contain itself.
            self.definitions.insert(name.clone(), Value::Null);
            let built = schema(self);
            self.definitions.insert(name.clone(), built);
        }
        format!("#/$defs/{name}")
    }

    /// A file's content: whole, or on top of a base.
    fn file(&mut self, kind: Kind, extent: Extent) -> String {
        let part = self.define(format!("{}_on_base", kind.key), |builder| {
            let mut part = builder.shape(language(kind), Extent::Part);
            let names: Vec<&str> = kind.entries().map(|entry| entry.name).collect();
            part["properties"][BASE] = json!({
                "type": "string",
                "description": format!("The {} it starts from: a catalogue name, or a path", kind.key),
                "examples": names,
            });
            part
        });
        if extent == Extent::Part {
            return part;
        }
        self.define(format!("{}_file", kind.key), |builder| {
            let whole = builder.of(language(kind), Extent::Whole);
            let mut stand_ins = vec![json!({ "required": [BASE] })];
            if kind == MODEL {
                stand_ins.push(json!({ "required": [gguf::KEY] }));
            }
            json!({ "if": { "anyOf": stand_ins }, "then": { "$ref": part }, "else": whole })
        })
    }

    /// What a value may be.
    fn of(&mut self, takes: Type, extent: Extent) -> Value {
        match takes {
            Type::Text => json!({ "type": ["string", "number", "boolean"], "minLength": 1 }),
            Type::Flag => json!({ "type": "boolean" }),
            Type::Whole(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
            Type::Number(least, most) => json!({ "type": "number", "minimum": least, "maximum": most }),
            Type::Fraction => json!({
                "type": ["number", "string"],
                "minimum": 0,
                "maximum": 1,
                "pattern": r"^(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?)\s*%$",
            }),
            Type::Quantity(quantity) => json!({ "type": "string", "pattern": pattern(quantity, "") }),
            Type::AboveZero(quantity) => {
                json!({ "type": "string", "pattern": pattern(quantity, ABOVE_ZERO) })
            }
            Type::Slots => json!({ "type": "string", "pattern": r"^0*[1-9][0-9]{0,9}\s*slots?$" }),
            Type::Name(names) => json!({ "enum": names() }),
            Type::Policy => policies(),
            Type::Params => json!({ "type": ["object", "null"] }),
            Type::Either(one, other) => json!({ "anyOf": [self.of(*one, extent), self.of(*other, extent)] }),
            Type::List(item) => {
                let item = self.of(*item, extent);
                json!({ "anyOf": [item, { "type": "array", "items": item }] })
            }
            Type::Map(table) => {
                let name = match extent {
                    Extent::Whole => table.name.to_owned(),
                    Extent::Part => format!("{}_part", table.name),
                };
                json!({ "$ref": self.define(name, |builder| builder.table(table, extent)) })
            }
            Type::Rows(rows) => self.rows(rows, extent),
            Type::Choice(choices) => self.choice(choices, extent),
            Type::File(kind) => {
                let names: Vec<&str> = kind.entries().map(|entry| entry.name).collect();
                let named = json!({ "type": "string", "examples": names });
                json!({ "anyOf": [named, { "$ref": self.file(kind, extent) }] })
            }
        }
    }

    /// The same, written out where it stands.
    fn shape(&mut self, takes: Type, extent: Extent) -> Value {
        match takes {
            Type::Map(table) => self.table(table, extent),
            takes => self.of(takes, extent),
        }
    }

    fn table(&mut self, table: &'static Table, extent: Extent) -> Value {
        let null = extent == Extent::Part || table.open;
        let properties: Map<String, Value> =
            table.keys.iter().map(|key| (key.name.to_owned(), self.key(key, extent, null))).collect();
        let mut schema = json!({
            "type": "object",
            "description": table.about,
            "properties": properties,
            "additionalProperties": table.open,
        });
        let required: Vec<&str> = table
            .keys
            .iter()
            .filter(|key| matches!(key.need, Need::Required(_)))
            .map(|key| key.name)
            .collect();
        if extent == Extent::Whole && !required.is_empty() {
            schema["required"] = json!(required);
        }
        schema
    }

    fn key(&mut self, key: &Key, extent: Extent, null: bool) -> Value {
        let mut schema = self.of(key.takes, extent);
        if null {
            schema = or_null(schema);
        }
        schema["description"] = json!(key.about);
        match key.need {
            Need::Default(text) => schema["default"] = written(text).unwrap_or(Value::Null),
            Need::Required(text) | Need::Optional(text) => {
                if let Some(example) = written(text) {
                    schema["examples"] = json!([example]);
                }
            }
        }
        schema
    }

    fn rows(&mut self, rows: &Rows, extent: Extent) -> Value {
        let extent = if rows.merges { extent } else { Extent::Whole };
        let mut value = self.of(rows.value, extent);
        if extent == Extent::Part {
            value = or_null(value);
        }
        let mut schema = json!({ "type": "object", "description": rows.about, "properties": {} });
        match rows.key {
            RowKey::Any => schema["additionalProperties"] = value,
            RowKey::Name(names) => {
                let named: Map<String, Value> =
                    names().iter().map(|name| ((*name).to_owned(), value.clone())).collect();
                schema["properties"] = Value::Object(named);
                schema["additionalProperties"] = json!(false);
            }
            RowKey::AboveZero(quantity) => {
                schema["propertyNames"] = json!({ "pattern": pattern(quantity, ABOVE_ZERO) });
                schema["additionalProperties"] = value;
            }
            RowKey::Count => {
                schema["propertyNames"] = json!({ "pattern": COUNT });
                schema["additionalProperties"] = value;
            }
        }
        schema
    }

    fn choice(&mut self, choices: &[Choice], extent: Extent) -> Value {
        let properties: Map<String, Value> = choices
            .iter()
            .map(|choice| {
                let mut schema = self.of(choice.takes, extent);
                schema["description"] = json!(choice.about);
                (choice.name.to_owned(), schema)
            })
            .collect();
        one_of_these(properties)
    }
}

/// A policy of the registry that can be simulated: its name, or its name with parameters.
fn policies() -> Value {
    let known = || registry().iter().filter(|entry| entry.simulate.is_some());
    let names: Vec<&str> = known().filter(|entry| !entry.scripted).map(|entry| entry.name).collect();
    let properties: Map<String, Value> = known()
        .map(|entry| {
            let params: Map<String, Value> = entry
                .params
                .iter()
                .map(|param| {
                    let about = json!({
                        "type": "number",
                        "minimum": param.min,
                        "maximum": param.max,
                        "default": param.default,
                        "description": param.about,
                    });
                    (param.name.to_owned(), about)
                })
                .collect();
            let schema = match entry.scripted {
                true => json!({ "type": "string", "description": entry.about }),
                false => json!({
                    "type": ["object", "null"],
                    "description": entry.about,
                    "properties": params,
                    "additionalProperties": false,
                }),
            };
            (entry.name.to_owned(), schema)
        })
        .collect();
    json!({ "anyOf": [{ "enum": names }, one_of_these(properties)] })
}

/// A map of exactly one of some properties.
fn one_of_these(properties: Map<String, Value>) -> Value {
    json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        "minProperties": 1,
        "maxProperties": 1,
    })
}

fn or_null(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

/// Before a number: a digit of it is not zero.
/// A whole number of at least 1.
const COUNT: &str = "^0*[1-9][0-9]*$";
const ABOVE_ZERO: &str = "(?=[0-9.]*[1-9])";

/// A decimal number and a unit.
fn pattern(quantity: &Quantity, before: &str) -> String {
    let units: Vec<&str> = quantity.units.iter().map(|(name, _)| *name).collect();
    format!(r"^{before}[0-9]+(\.[0-9]{{1,18}})?\s*({})$", units.join("|"))
}

/// An example or a default as a value; `None` where it is abridged.
fn written(text: &str) -> Option<Value> {
    if text.contains("...") {
        return None;
    }
    let mut report = Report::default();
    let source = report.add_source(String::new(), text.to_owned(), PathBuf::new());
    tree::parse(&mut report, source, 0).map(|node| value(&node))
}

fn value(node: &Node) -> Value {
    match &node.value {
        tree::Value::Null => Value::Null,
        tree::Value::Scalar(text) => serde_json::from_str(text)
            .ok()
            .filter(|plain: &Value| plain.is_number() || plain.is_boolean())
            .unwrap_or_else(|| json!(text)),
        tree::Value::List(items) => items.iter().map(value).collect(),
        tree::Value::Map(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), value(&entry.value))).collect()
        }
    }
}

#[cfg(test)]
mod tests;
