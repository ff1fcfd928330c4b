//! Tests of the traces crate.

mod real;
