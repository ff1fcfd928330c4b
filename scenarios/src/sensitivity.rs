//! How much a block's output changes in each format: a table with the source of every number.

use crate::diagnostics::{Report, Wrong};
use crate::reader::{Field, format};
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
    let mut fields = row.fields(report, "{ error: 1.5 %, upper: 1.9 %, source: where they come from }")?;
    let error = fields.required(report, "error", "1.5 %", fraction);
    let upper = fields.required(report, "upper", "1.9 %", fraction);
    let source = fields.required(report, "source", "where the numbers come from", |text| Ok(text.to_owned()));
    let bound = fields.get("upper");
    fields.finish(report);
    let read = FormatError { error: error?, upper: upper?, source: source? };
    if read.upper < read.error {
        bound?.error(report, Wrong::new("below `error`", "an upper bound is at least the error itself"));
        return None;
    }
    Some(read)
}
