//! CSV files of requests, told apart by the names of their columns.
//!
//! Lines are split at their commas here: no format puts commas into what is read, so that a line is all that is kept of a file
//! however it is broken, and an error has its column.

use super::lines::Lines;
use super::{Builder, Cut, RequestProblem, RequestTrace, Row};
use crate::error::{At, TraceError};
use chrono::{DateTime, NaiveDateTime};
use std::io::BufRead;

/// The columns of a format.
pub(super) struct Columns {
    /// The arrival: a name and how its cells count time.
    time: &'static [(&'static str, Clock)],
    prompt: &'static [&'static str],
    output: &'static [&'static str],
    priority: &'static [&'static str],
    /// Whether requests without output are there: those that failed.
    failures: bool,
    /// The header, as a hint.
    header: &'static str,
}

/// How a cell says when a request came in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clock {
    /// A date and a time of day, counted from the first one.
    Date,
    /// A number of so many nanoseconds each, counted from the trace's start.
    Units(u32),
}

const SECONDS: Clock = Clock::Units(1_000_000_000);
const MILLIS: Clock = Clock::Units(1_000_000);
const NANOS: Clock = Clock::Units(1);

/// Azure's traces of 2023 and 2024.
pub(super) static AZURE: Columns = Columns {
    time: &[("TIMESTAMP", Clock::Date)],
    prompt: &["ContextTokens"],
    output: &["GeneratedTokens"],
    priority: &[],
    failures: false,
    header: "an Azure trace begins with TIMESTAMP,ContextTokens,GeneratedTokens",
};

/// BurstGPT. Requests that failed have no response tokens; later releases have further columns.
pub(super) static BURSTGPT: Columns = Columns {
    time: &[("Timestamp", SECONDS)],
    prompt: &["Request tokens"],
    output: &["Response tokens"],
    priority: &[],
    failures: true,
    header: "a BurstGPT trace begins with Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
};

/// Lengths of ShareGPT conversations, as LLMServingSim has them.
pub(super) static SHAREGPT: Columns = Columns {
    time: &[("arrival_time_ns", NANOS)],
    prompt: &["input_toks"],
    output: &["output_toks"],
    priority: &[],
    failures: false,
    header: "lengths of ShareGPT begin with arrival_time_ns,input_toks,output_toks",
};

/// Anything else, and what this crate writes.
pub(super) static PLAIN: Columns = Columns {
    time: &[("arrival_s", SECONDS), ("arrival_ms", MILLIS), ("arrival_ns", NANOS)],
    prompt: &["prompt_tokens"],
    output: &["output_tokens"],
    priority: &["priority"],
    failures: false,
    header: "a plain request trace begins with arrival_s,prompt_tokens,output_tokens (or arrival_ms, arrival_ns); priority may follow",
};

/// Where the columns of a format are in a file.
struct Places {
    count: usize,
    time: (usize, Clock),
    prompt: usize,
    output: usize,
    priority: Option<usize>,
}

impl Columns {
    /// Whether a line is the header of such a file.
    pub(super) fn is_header(&self, line: &[u8]) -> bool {
        self.places(line).is_ok()
    }

    /// Reads a file.
    pub(super) fn read(&self, reader: impl BufRead, cut: &Cut) -> Result<RequestTrace, TraceError> {
        let mut lines = Lines::new(reader);
        let Some((number, header)) = lines.next()? else {
            return Err(RequestProblem::Empty { failed: 0 }.into());
        };
        let places =
            self.places(header).map_err(|problem| TraceError::at(At::Line(number, None), problem))?;
        let mut builder = Builder::new(cut);
        let mut origin = None;
        while let Some((number, text)) = lines.next()? {
            let line = Line { number, text };
            let cells = line.cells().count();
            if cells != places.count {
                return Err(line.wrong(RequestProblem::Cells { found: cells, expected: places.count }));
            }
            let row = Row {
                at: line.arrival(places.time, &mut origin)?,
                prompt_tokens: line.whole(places.prompt, "a whole number of tokens")?,
                output_tokens: line.whole(places.output, "a whole number of tokens")?,
                prefix: None,
                priority: places
                    .priority
                    .map(|place| line.whole(place, "a priority, 0 to 255"))
                    .transpose()?,
            };
            if self.failures && row.output_tokens == 0 {
                builder.fail();
            } else if builder.push(row).map_err(|problem| line.wrong(problem))?.is_break() {
                break;
            }
        }
        Ok(builder.finish()?)
    }

    fn places(&self, header: &[u8]) -> Result<Places, RequestProblem> {
        let header = Line { number: 1, text: header.strip_prefix(b"\xef\xbb\xbf").unwrap_or(header) };
        let find = |wanted: &str| header.cells().position(|(_, name)| name == wanted.as_bytes());
        let first = |names: &[&'static str]| names.iter().find_map(|name| find(name));
        let need = |names: &'static [&'static str]| {
            let missing = RequestProblem::MissingColumn { names: names.to_vec(), header: self.header };
            first(names).ok_or(missing)
        };
        let clocks = || self.time.iter().map(|&(name, clock)| Some((find(name)?, clock)));
        let names = self.time.iter().map(|(name, _)| *name).collect();
        Ok(Places {
            count: header.cells().count(),
            time: clocks()
                .flatten()
                .next()
                .ok_or(RequestProblem::MissingColumn { names, header: self.header })?,
            prompt: need(self.prompt)?,
            output: need(self.output)?,
            priority: first(self.priority),
        })
    }
}

/// A line and its number.
struct Line<'a> {
    number: u64,
    text: &'a [u8],
}

impl<'a> Line<'a> {
    /// The cells with their columns, counted from 1: without blanks, and without the quotes that some programs put around
    /// everything.
    fn cells(&self) -> impl Iterator<Item = (u64, &'a [u8])> + use<'a> {
        let mut next = 1;
        self.text.split(|&byte| byte == b',').map(move |raw| {
            let column = next;
            next += raw.len() as u64 + 1;
            let cell = raw.trim_ascii();
            let bare = cell.strip_prefix(b"\"").and_then(|cell| cell.strip_suffix(b"\""));
            (column, bare.unwrap_or(cell))
        })
    }

    fn wrong(&self, problem: RequestProblem) -> TraceError {
        TraceError::at(At::Line(self.number, None), problem)
    }

    /// A cell as text, and the error that it is something else.
    fn cell(&self, place: usize, expected: &'static str) -> (&'a str, impl Fn() -> TraceError + use<'a>) {
        let (column, bytes) = self.cells().nth(place).unwrap_or((1, b""));
        let number = self.number;
        let wrong = move || {
            let text = String::from_utf8_lossy(bytes).into_owned();
            TraceError::at(At::Line(number, Some(column)), RequestProblem::Cell { text, expected })
        };
        (std::str::from_utf8(bytes).unwrap_or_default(), wrong)
    }

    fn whole<T: std::str::FromStr>(&self, place: usize, expected: &'static str) -> Result<T, TraceError> {
        let (text, wrong) = self.cell(place, expected);
        text.parse().map_err(|_| wrong())
    }

    /// When the request came in, in nanoseconds from the trace's start.
    fn arrival(&self, (place, clock): (usize, Clock), origin: &mut Option<i64>) -> Result<i64, TraceError> {
        match clock {
            Clock::Date => {
                let (text, wrong) = self.cell(place, "a time such as 2023-11-16 18:15:46.6805900");
                let at = date(text).ok_or_else(wrong)?;
                at.checked_sub(*origin.get_or_insert(at)).ok_or_else(|| self.wrong(RequestProblem::TooLate))
            }
            Clock::Units(nanos) => {
                let (text, wrong) = self.cell(place, "a time: a number");
                let units: f64 = text.parse().ok().filter(|units: &f64| !units.is_nan()).ok_or_else(wrong)?;
                // Floating-point numbers do not hold every nanosecond.
                let whole = text.parse().ok().and_then(|units: u64| units.checked_mul(u64::from(nanos)));
                match whole.and_then(|whole| i64::try_from(whole).ok()) {
                    Some(exact) => Ok(exact),
                    None => nanoseconds(units * f64::from(nanos)).map_err(|problem| self.wrong(problem)),
                }
            }
        }
    }
}

/// Nanoseconds as a whole number.
pub(super) fn nanoseconds(time: f64) -> Result<i64, RequestProblem> {
    match time {
        _ if time < 0.0 => Err(RequestProblem::Negative),
        // The nearest number below the largest that is not beyond it.
        _ if time < i64::MAX as f64 => Ok(time.round() as i64),
        _ => Err(RequestProblem::TooLate),
    }
}

/// A date and a time of day, in nanoseconds since 1970; with an offset from UTC or without.
fn date(text: &str) -> Option<i64> {
    const LOCAL: &str = "%Y-%m-%d %H:%M:%S%.f";
    let local = NaiveDateTime::parse_from_str(text, LOCAL).map(|time| time.and_utc());
    let time =
        local.or_else(|_| DateTime::parse_from_str(text, &format!("{LOCAL}%:z")).map(|time| time.to_utc()));
    time.ok()?.timestamp_nanos_opt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_an_offset_or_none() {
        assert_eq!(date("1970-01-01 00:00:01.5"), Some(1_500_000_000));
        assert_eq!(date("2024-05-10 00:00:00.009930+00:00"), date("2024-05-10 02:00:00.009930+02:00"));
        assert_eq!(date("2023-11-16 18:15:46.6805900"), Some(1_700_158_546_680_590_000));
        assert_eq!((date("2023-11-16"), date("NaN"), date("9999-01-01 00:00:00")), (None, None, None));
    }
}
