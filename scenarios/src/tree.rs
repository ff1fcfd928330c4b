//! YAML (and JSON, which is YAML) as a tree in which every key and value knows where it was written.

use crate::diagnostics::{Report, Wrong};
use crate::reader::join;
use crate::source::At;
use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Nodes a file may have once its aliases are expanded.
const NODES: usize = 50_000;
/// Levels of nesting.
pub(crate) const DEPTH: usize = 32;
/// An extension of YAML 1.1 that copies another map's keys.
const MERGE_KEY: &str = "<<";

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: At,
    pub(crate) value: Value,
}

/// What a node holds. Scalars stay text: what they mean depends on the key.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value. Keys of one map are distinct.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: At,
    pub(crate) value: Node,
}

impl Node {
    /// The entries of a map, or none.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }
}

/// Reads a source, or reports why it cannot be read. `offset` is where the YAML starts in the source's text.
pub(crate) fn parse(report: &mut Report, source: usize, offset: usize) -> Option<Node> {
    let text = report.source(source).text.clone();
    let yaml = text.get(offset..)?;
    let mut builder = Builder {
        parser: Parser::new_from_str_with_options(yaml, granit_parser::options! { emit_comments: false }),
        source,
        offset,
        length: text.len(),
        anchors: BTreeMap::new(),
        nodes: 0,
        path: String::new(),
        report,
    };
    builder.document()
}

struct Builder<'t, 'r> {
    parser: Parser<'t, StrInput<'t>>,
    source: usize,
    offset: usize,
    length: usize,
    /// Anchored nodes with their size and height.
    anchors: BTreeMap<usize, (Node, usize, usize)>,
    nodes: usize,
    /// The path to the map that is being read.
    path: String,
    report: &'r mut Report,
}

impl<'t> Builder<'t, '_> {
    fn document(&mut self) -> Option<Node> {
        let mut root = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                _ if root.is_some() => {
                    self.refuse(span, "a second document", "a file holds one document: remove the `---`")?;
                }
                event => root = Some(self.node(event, span, 0)?.0),
            }
        }
        if root.is_none() {
            let wrong = Wrong::new("nothing in it", "the quickstart scenario shows what to write");
            let name = self.report.source(self.source).name.clone();
            self.report.file_error(&name, (0, 0), wrong);
        }
        root
    }

    /// The next event; `None` within `Some` at the end of the text.
    fn next(&mut self) -> Option<Option<(Event<'t>, Span)>> {
        match self.parser.next_event() {
            None => Some(None),
            Some(Ok(event)) => Some(Some(event)),
            Some(Err(error)) => {
                let start = self.offset + error.marker().byte_offset().unwrap_or(0);
                self.not_yaml(start, &error.info());
                None
            }
        }
    }

    /// Reports what the parser has against the text at `start`.
    fn not_yaml(&mut self, start: usize, info: &str) {
        let source = self.report.source(self.source);
        let (start, hint) = if info.contains("recursion") {
            (start, "nothing here needs that many levels")
        } else if info.contains("tab") {
            (source.leading_tab(start).unwrap_or(start), "indent with spaces: YAML refuses tabs there")
        } else if source.line(start).contains("${") {
            (start, "between brackets a path with a variable is quoted: `['${HOTSET_DATA}/a.npz']`")
        } else {
            (start, "YAML is indented with spaces; `key: value` needs a space after the colon")
        };
        let at = At { source: self.source, start, end: (start + 1).min(self.length) };
        self.error(at, Wrong::new(format!("not YAML: {info}"), hint));
    }

    /// A node with its size and its height.
    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Option<(Node, usize, usize)> {
        self.spend(1, depth, span)?;
        let before = self.nodes;
        let at = self.at(span);
        let (anchor, value, height) = match event {
            Event::Alias(id) => return self.alias(id, span, depth),
            Event::Scalar(text, style, anchor, tag) => {
                self.no_tag(tag, span)?;
                (anchor, scalar(text, style), 0)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.no_tag(tag, span)?;
                let (items, height) = self.list(depth)?;
                (anchor, Value::List(items), height)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.no_tag(tag, span)?;
                let (entries, height) = self.map(depth)?;
                (anchor, Value::Map(entries), height)
            }
            _ => return self.refuse(span, "unexpected YAML", "write `key: value` lines"),
        };
        let (node, size) = (Node { at, value }, self.nodes - before + 1);
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), size, height));
        }
        Some((node, size, height))
    }

    fn alias(&mut self, id: usize, span: Span, depth: usize) -> Option<(Node, usize, usize)> {
        let Some((size, height)) = self.anchors.get(&id).map(|(_, size, height)| (*size, *height)) else {
            return self.refuse(span, "an alias of a node that contains it", "write the value out");
        };
        self.spend(size, depth + height, span)?;
        self.anchors.get(&id).cloned()
    }

    fn list(&mut self, depth: usize) -> Option<(Vec<Node>, usize)> {
        let (mut items, mut tallest) = (Vec::new(), 0);
        while let Some((event, span)) = self.next()? {
            if matches!(event, Event::SequenceEnd) {
                break;
            }
            let (item, _, height) = self.node(event, span, depth + 1)?;
            tallest = tallest.max(height + 1);
            items.push(item);
        }
        Some((items, tallest))
    }

    fn map(&mut self, depth: usize) -> Option<(Vec<Entry>, usize)> {
        let (mut entries, mut tallest) = (Vec::<Entry>::new(), 0);
        let mut seen = BTreeMap::new();
        while let Some((event, span)) = self.next()? {
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let (key, _, _) = self.node(event, span, depth + 1)?;
            let (key, key_at) = match key {
                Node { at, value: Value::Scalar(text) } if text == MERGE_KEY => {
                    let hint = "write the keys out, or start the whole from another one with `base: NAME`";
                    self.error(at, Wrong::new("YAML's merge key is not part of the language", hint));
                    (None, at)
                }
                Node { at, value: Value::Scalar(text) } => (Some(text), at),
                Node { at, .. } => {
                    self.error(at, Wrong::new("a key that is not a word", "write `key: value`"));
                    (None, at)
                }
            };
            let outer = self.path.clone();
            self.path = join(&outer, key.as_deref().unwrap_or_default());
            let (event, span) = self.next()??;
            let (value, _, height) = self.node(event, span, depth + 1)?;
            tallest = tallest.max(height + 1);
            if let Some(key) = key {
                match seen.get(&key) {
                    Some(&first) => self.repeated(&key, key_at, first),
                    None => {
                        seen.insert(key.clone(), key_at);
                        entries.push(Entry { key, key_at, value });
                    }
                }
            }
            self.path = outer;
        }
        Some((entries, tallest))
    }

    fn repeated(&mut self, key: &str, at: At, first: At) {
        let line = self.report.source(first.source).position(first.start).0;
        let hint = format!("line {line} gives it first: keep one");
        self.error(at, Wrong::new(format!("`{key}` is given twice"), hint));
    }

    fn error(&mut self, at: At, wrong: Wrong) {
        self.report.error(at, &self.path, wrong);
    }

    fn spend(&mut self, nodes: usize, depth: usize, span: Span) -> Option<()> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES {
            let message = format!("more than {NODES} values once aliases are expanded");
            return self.refuse(span, message, "write the values out, or split the file");
        }
        if depth > DEPTH {
            return self.refuse(
                span,
                format!("nested more than {DEPTH} levels deep"),
                "nothing here needs that",
            );
        }
        Some(())
    }

    fn no_tag(&mut self, tag: Option<Cow<'t, Tag>>, span: Span) -> Option<()> {
        match tag {
            Some(_) => self.refuse(span, "a YAML tag", "remove the `!...`: keys say what a value is"),
            None => Some(()),
        }
    }

    /// Reports an error that ends the reading of this text.
    fn refuse<T>(&mut self, span: Span, message: impl Into<String>, hint: &str) -> Option<T> {
        let at = self.at(span);
        self.error(at, Wrong::new(message, hint));
        None
    }

    fn at(&self, span: Span) -> At {
        let start = self.offset + span.start.byte_offset().unwrap_or(0);
        let end = self.offset + span.end.byte_offset().unwrap_or(0);
        At { source: self.source, start, end: end.max(start) }
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Value {
    match (style, text.as_ref()) {
        (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Value::Null,
        _ => Value::Scalar(text.into_owned()),
    }
}
