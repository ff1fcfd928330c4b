//! Lines of a file, one at a time.

use crate::error::{At, Problem, TraceError};
use std::io::{BufRead, Read};

/// The longest line that is read: a Mooncake prompt of [`super::MOST_TOKENS`] tokens is shorter.
const LONGEST: u64 = 1 << 20;

/// The lines of a text that are not blank.
pub(super) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Lines<R> {
        Lines { reader, line: Vec::new(), number: 0 }
    }

    /// The next line with its number, counted from 1, without what ends it.
    pub(super) fn next(&mut self) -> Result<Option<(u64, &[u8])>, TraceError> {
        loop {
            self.line.clear();
            let read = self.reader.by_ref().take(LONGEST + 1).read_until(b'\n', &mut self.line);
            if read.map_err(Problem::Io)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.line.len() as u64 > LONGEST {
                let what = "bytes in a line";
                let problem = Problem::TooLarge { what, size: self.line.len() as u64, limit: LONGEST };
                return Err(TraceError::at(At::Line(self.number, None), problem));
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        Ok(Some((self.number, self.line.trim_ascii_end())))
    }
}
