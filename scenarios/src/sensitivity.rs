//! How much a block's output changes in each format: a table with the source of every number.

use crate::diagnostics::{Report, Wrong};
use crate::keys::Type::{Fraction, Map, Text};
use crate::keys::{Key, RowKey, Rows, Table};
use crate::reader::{Field, format, format_names, text};
use crate::units::fraction;
use policy::FormatId;
use std::collections::BTreeMap;

/// Relative output error by format.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sensitivity {
    /// The rows. A format without a row has unknown error and is not used below full precision.
    pub formats: BTreeMap<FormatId, FormatError>,
}

/// The error of one format.
#[derive(Clone, Debug, PartialEq)]
pub struct FormatError {
    /// Relative error at the branch output, root mean square.
    pub error: f64,
    /// Its upper confidence bound, which budgets are held against.
    pub upper: f64,
    /// Where the numbers come from.
    pub source: String,
}

/// The rows of a sensitivity table.
pub(crate) static SENSITIVITIES: Rows = Rows {
    about: "The error of one format",
    key: RowKey::Name(format_names),
    value: Map(&ERROR),
    merges: true,
};

static ERROR: Table = Table {
    name: "error",
    about: "The relative output error of one format",
    open: false,
    keys: &[
        Key::required("error", Fraction, "1.5 %", "Relative error at the branch output, root mean square"),
        Key::required(
            "upper",
            Fraction,
            "1.9 %",
            "Its upper confidence bound, which budgets are held against",
        ),
        Key::required("source", Text, "where the numbers come from", "Where the numbers come from"),
    ],
};

/// Reads a table; reports everything that is wrong with it.
pub(crate) fn sensitivity(report: &mut Report, field: &Field<'_>) -> Option<Sensitivity> {
    let fields =
        field.fields(report, "a catalogue name, a path, or formats, each with error, upper and source")?;
    let mut rows = Vec::new();
    for entry in fields.entries {
        let row = fields.field(entry);
        let id = format(&entry.key).map_err(|wrong| row.key_error(report, wrong)).ok();
        rows.push(read_row(report, &row).and_then(|read| Some((id?, read))));
    }
    rows.into_iter().collect::<Option<_>>().map(|formats| Sensitivity { formats })
}

fn read_row(report: &mut Report, row: &Field<'_>) -> Option<FormatError> {
    let keys = row.keys(report, &ERROR)?;
    let error = keys.required(report, "error", fraction);
    let upper = keys.required(report, "upper", fraction);
    let source = keys.required(report, "source", text);
    let read = FormatError { error: error?, upper: upper?, source: source? };
    if read.upper < read.error {
        let wrong = Wrong::new("below `error`", "an upper bound is at least the error itself");
        keys.get("upper")?.error(report, wrong);
        return None;
    }
    Some(read)
}
