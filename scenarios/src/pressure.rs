//! The key `pressure`: fast memory that others take during a run, and give back.

use crate::diagnostics::{Report, Wrong};
use crate::keys::Type::Quantity;
use crate::keys::{Key, Table};
use crate::reader::Field;
use crate::units::{SIZE, TIME, size, time};
use policy::{Bytes, Nanos};

/// From an instant on, others take so much of fast memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// When, from the beginning of the run.
    pub at: Nanos,
    /// What they take from then on, in all.
    pub take: Bytes,
}

/// The keys of one entry.
pub(crate) static PRESSURE: Table = Table {
    name: "pressure",
    about: "From an instant on, others take so much of fast memory: another job's, or activations of a burst",
    open: false,
    keys: &[
        Key::required(
            "at",
            Quantity(&TIME),
            "10 s",
            "When, from the beginning of the run; later than the entry before",
        ),
        Key::required(
            "take",
            Quantity(&SIZE),
            "4 GiB",
            "What they take from then on, in all; `0 B` gives all of it back",
        ),
    ],
};

/// Reads `pressure`: in order of time.
pub(crate) fn pressure(report: &mut Report, field: &Field<'_>) -> Option<Vec<Pressure>> {
    let mut entries: Vec<Pressure> = Vec::new();
    let mut whole = true;
    for item in field.items() {
        let Some(keys) = item.keys(report, &PRESSURE) else {
            whole = false;
            continue;
        };
        let (at, take) = (keys.required(report, "at", time), keys.required(report, "take", size));
        let (Some(at), Some(take)) = (at, take) else {
            whole = false;
            continue;
        };
        if entries.last().is_some_and(|before| before.at >= at) {
            item.error(report, Wrong::new("no later than the entry before", "entries in order of time"));
            whole = false;
        }
        entries.push(Pressure { at, take });
    }
    whole.then_some(entries)
}
