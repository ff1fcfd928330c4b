//! What is wrong with an input: every error at once, each where it was written.

use crate::source::{At, Source};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, normalize_untrusted_str};
use std::fmt;
use std::path::PathBuf;

/// Errors kept; a file with more than this has one cause, and the first lines show it.
const KEPT: usize = 100;

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, or `--set` for an override.
    pub file: String,
    /// The line, from 1; 0 where the file as a whole is meant.
    pub line: u32,
    /// The column in characters, from 1; 0 where the file as a whole is meant.
    pub column: u32,
    /// The YAML path (`memory.hbm`), empty at the top.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
    at: Option<At>,
}

/// Every error of an input, in the order of its text. Never empty.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    found: Vec<Diagnostic>,
    left_out: usize,
    sources: Vec<Source>,
}

impl Diagnostics {
    /// The errors, in the order of the text.
    pub fn all(&self) -> &[Diagnostic] {
        &self.found
    }

    /// The report a terminal shows, with colours or without.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut reports: Vec<String> = self.found.iter().map(|one| self.report(&renderer, one)).collect();
        if self.left_out > 0 {
            reports.push(format!("error: {} more errors left out", self.left_out));
        }
        reports.join("\n\n")
    }

    fn report(&self, renderer: &Renderer, one: &Diagnostic) -> String {
        let title = match one.path.as_str() {
            "" => one.message.clone(),
            path => format!("{path}: {}", one.message),
        };
        let shown = one.at.and_then(|at| self.sources.get(at.source)?.excerpt(at));
        let title = match shown {
            Some(_) => title,
            None if one.line > 0 => format!("{}:{}:{}: {title}", one.file, one.line, one.column),
            None => format!("{}: {title}", one.file),
        };
        let (title, file) = (normalize_untrusted_str(&title), normalize_untrusted_str(&one.file));
        let hint = one.hint.as_deref().map(normalize_untrusted_str);
        let mut group = Group::with_title(Level::ERROR.primary_title(&title));
        if let Some((line, part)) = shown {
            let mark = AnnotationKind::Primary.span(part);
            let snippet = Snippet::source(line).line_start(one.line as usize).path(&file);
            group = group.element(snippet.annotation(mark));
        }
        if let Some(hint) = &hint {
            group = group.element(Level::HELP.message(hint));
        }
        renderer.render(&[group])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// Why a value is refused: the message and the hint, before its place is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Wrong {
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Wrong {
        Wrong { message: message.into(), hint: Some(hint.into()) }
    }
}

/// Collects errors while an input is checked.
#[derive(Default)]
pub(crate) struct Report {
    found: Vec<Diagnostic>,
    left_out: usize,
    sources: Vec<Source>,
}

impl Report {
    /// Takes in a text, so that errors can point into it.
    pub(crate) fn add_source(&mut self, name: String, text: String, folder: PathBuf) -> usize {
        self.sources.push(Source { name, text, folder });
        self.sources.len() - 1
    }

    /// The text an id stands for.
    pub(crate) fn source(&self, id: usize) -> &Source {
        &self.sources[id]
    }

    /// An error at a place.
    pub(crate) fn error(&mut self, at: At, path: &str, wrong: Wrong) {
        let source = &self.sources[at.source];
        if self.found.len() == KEPT {
            self.left_out += 1;
            return;
        }
        let (line, column) = source.position(at.start);
        let file = source.name.clone();
        self.keep(Diagnostic {
            file,
            line,
            column,
            path: path.to_owned(),
            message: wrong.message,
            hint: wrong.hint,
            at: Some(at),
        });
    }

    /// An error of a file as a whole, or at a line and column of a text that could not be taken in.
    pub(crate) fn file_error(&mut self, file: &str, (line, column): (u32, u32), wrong: Wrong) {
        self.keep(Diagnostic {
            file: file.to_owned(),
            line,
            column,
            path: String::new(),
            message: wrong.message,
            hint: wrong.hint,
            at: None,
        });
    }

    fn keep(&mut self, one: Diagnostic) {
        if !self.found.contains(&one) {
            self.found.push(one);
        }
    }

    /// Whether nothing was wrong so far.
    pub(crate) fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// The value, if nothing was wrong.
    pub(crate) fn finish<T>(mut self, value: Option<T>) -> Result<T, Diagnostics> {
        match value {
            Some(value) if self.found.is_empty() => Ok(value),
            _ => {
                debug_assert!(!self.found.is_empty(), "a value is only missing where an error was reported");
                self.found.sort_by_key(|one| one.at);
                Err(Diagnostics { found: self.found, left_out: self.left_out, sources: self.sources })
            }
        }
    }
}

/// The closest of `known` to what was written, if it is close enough to be a slip of the keyboard.
pub(crate) fn suggest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64;
    if written.len() > LONGEST {
        return None;
    }
    let lower = written.to_lowercase();
    let length = lower.chars().count();
    let slips = |name: &str| (name.chars().count() / 3).max(1);
    known
        .into_iter()
        // A difference in length is a distance already, and cheap to see.
        .filter(|name| name.chars().count().abs_diff(length) <= slips(name))
        .map(|name| (strsim::osa_distance(&lower, &name.to_lowercase()), name))
        .filter(|&(distance, name)| distance <= slips(name))
        .min()
        .map(|(_, name)| name)
}

/// The hint for a name that is not one of `known`.
pub(crate) fn one_of<'a>(written: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match suggest(written, known.clone()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("one of: {}", known.into_iter().collect::<Vec<_>>().join(", ")),
    }
}
