//! The texts that were read, and places in them.

use std::path::PathBuf;

/// A text that was read: a file, a catalogue entry, or the value of `--set`.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// What messages call it.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: String,
    /// Relative paths written in it start here.
    pub(crate) folder: PathBuf,
}

/// A place: bytes `start..end` of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) source: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Source {
    /// The line and the column, both from 1, of a byte offset; columns count characters.
    pub(crate) fn position(&self, offset: usize) -> (u32, u32) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let mut bytes = before.bytes().peekable();
        let mut breaks = 0;
        while let Some(byte) = bytes.next() {
            if byte == b'\n' || byte == b'\r' && bytes.peek() != Some(&b'\n') {
                breaks += 1;
            }
        }
        (count(breaks + 1), count(before[self.line_start(before.len())..].chars().count() + 1))
    }

    /// Where the line of an offset, on a character boundary, starts.
    fn line_start(&self, offset: usize) -> usize {
        self.text[..offset].rfind(['\n', '\r']).map_or(0, |before| before + 1)
    }

    /// The line that an offset is on.
    pub(crate) fn line(&self, offset: usize) -> &str {
        let rest = &self.text[self.line_start(self.boundary(offset))..];
        &rest[..rest.find(['\n', '\r']).unwrap_or(rest.len())]
    }

    /// The line of a place, and the part of it to underline, on character boundaries: what a snippet shows. A line that
    /// no terminal shows whole has none.
    pub(crate) fn excerpt(&self, at: At) -> Option<(&str, std::ops::Range<usize>)> {
        const LONGEST: usize = 2000;
        let (start, line) = (self.boundary(at.start), self.line(at.start));
        let first = self.line_start(start);
        let within = |offset: usize| self.boundary(offset).clamp(start, first + line.len()) - first;
        (line.len() <= LONGEST).then(|| (line, within(at.start)..within(at.end)))
    }

    /// The first tab that indents the line of `offset` or a later one.
    pub(crate) fn leading_tab(&self, offset: usize) -> Option<usize> {
        let offset = self.boundary(offset);
        let mut start = self.line_start(offset);
        for line in self.text[start..].split_inclusive('\n') {
            let indent = &line[..line.len() - line.trim_start_matches([' ', '\t']).len()];
            if let Some(tab) = indent.find('\t') {
                return Some(start + tab);
            }
            start += line.len();
        }
        None
    }

    /// The file's name without folder and endings: what a model is called that has no other name.
    pub(crate) fn stem(&self) -> String {
        let file = self.name.rsplit(['/', '\\']).next().unwrap_or_default();
        let stem =
            [".json", ".yaml", ".yml"].iter().find_map(|ending| file.strip_suffix(ending)).unwrap_or(file);
        stem.strip_suffix(".config").unwrap_or(stem).to_owned()
    }

    fn boundary(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
