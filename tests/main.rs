//! What the whole has to hold, seen from outside.

mod agreement;
mod closed_forms;
mod conformance;
mod determinism;
mod golden;
mod invariants;
mod small;
