//! The discrete-event world: links, memory and compute in virtual time, driven by the same controller as real hardware.

mod arrivals;
pub mod bound;
pub mod checkpoint_figures;
pub mod compute;
mod conversations;
pub mod experiment;
pub mod fabric;
pub mod levers;
pub mod losses;
pub mod memory;
pub mod metric;
pub mod operators;
pub mod output;
pub mod page;
pub mod plan;
pub mod provenance;
pub mod queue;
pub mod report;
pub mod resolve;
pub mod series;
pub mod simulate;
pub mod stages;
pub mod statistics;
pub mod tenants;
pub mod timeline;
pub mod traffic;
pub mod tune;
pub mod workload;
pub mod world;

pub use output::{Output, OutputError};
pub use report::Summary;
pub use simulate::{Case, Keep, Outcome, RunFailure};
pub use world::{World, WorldError};
