//! Tests of the traces crate.

mod bad_input;
mod batch;
mod fitted;
mod generated;
mod importers;
mod measured;
mod real;
mod requests;
mod round_trip;
