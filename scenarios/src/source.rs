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
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        let column = before[line_start..].chars().count() + 1;
        (count(line), count(column))
    }

    /// The line that an offset is on.
    pub(crate) fn line(&self, offset: usize) -> &str {
        let offset = self.boundary(offset);
        let start = self.text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        self.text[start..].lines().next().unwrap_or_default()
    }

    /// The first tab that indents the line of `offset` or a later one.
    pub(crate) fn leading_tab(&self, offset: usize) -> Option<usize> {
        let offset = self.boundary(offset);
        let mut start = self.text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
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

    /// The part of `start..end` that lies on the first line, on character boundaries: what a snippet underlines.
    pub(crate) fn underlined(&self, at: At) -> std::ops::Range<usize> {
        let start = self.boundary(at.start);
        let rest = &self.text[start..];
        let line = rest.find(['\n', '\r']).unwrap_or(rest.len());
        start..self.boundary(at.end).clamp(start, start + line)
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
