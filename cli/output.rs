//! What goes to stdout: one table, one JSON document or one CSV file.

use crate::failure::Failure;
use clap::ValueEnum;
use serde::Serialize;
use std::io::{self, ErrorKind, Write};
use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Style};

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document, nothing else.
    Json,
}

/// How a result is printed that is a list of plain records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    /// For people.
    #[default]
    Table,
    /// One JSON document, nothing else.
    Json,
    /// A header and a line for each record.
    Csv,
}

/// Prints text as it is.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::failed(format!("cannot write to standard output: {error}")),
    })
}

/// Prints a value as one JSON document.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value).map_err(Failure::failed)?;
    text.push('\n');
    print(&text)
}

/// Prints records as CSV, with the names of their fields as the header.
pub(crate) fn print_csv<T: Serialize>(records: &[T]) -> Result<(), Failure> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    records.iter().try_for_each(|record| writer.serialize(record)).map_err(Failure::failed)?;
    let bytes = writer.into_inner().map_err(|error| Failure::failed(error.into_error()))?;
    print(&String::from_utf8(bytes).map_err(Failure::failed)?)
}

/// A table of words: everything to the left.
pub(crate) fn words<R>(header: R, rows: impl IntoIterator<Item = R>) -> String
where
    R: IntoIterator,
    R::Item: Into<String>,
{
    draw(header, rows, Alignment::left())
}

/// A table of numbers: the first column names the row, what follows is to the right.
pub(crate) fn numbers<R>(header: R, rows: impl IntoIterator<Item = R>) -> String
where
    R: IntoIterator,
    R::Item: Into<String>,
{
    draw(header, rows, Alignment::right())
}

fn draw<R>(header: R, rows: impl IntoIterator<Item = R>, cells: Alignment) -> String
where
    R: IntoIterator,
    R::Item: Into<String>,
{
    let mut builder = Builder::default();
    builder.push_record(header);
    rows.into_iter().for_each(|row| builder.push_record(row));
    let mut table = builder.build();
    table.with(Style::rounded()).modify(Columns::new(1..), cells);
    format!("{table}\n")
}
