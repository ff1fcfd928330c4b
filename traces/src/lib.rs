//! Routing traces: which experts each token of each request selected, read from the formats people record, checked,
//! converted, generated, measured, and handed to the simulator and the hardware as a batch demands them. And request
//! traces: when requests came in, and how long they were.

pub mod batch;
pub mod batch_jsonl;
pub mod csv;
pub mod error;
pub mod expert_csv;
mod export;
pub mod fit;
pub mod gates;
pub mod generate;
mod grid;
pub mod hrt;
mod import;
pub mod info;
pub mod jsonl;
pub mod likeness;
mod merge;
mod npy;
pub mod npz;
pub mod oracle_general;
pub mod predictability;
mod reading;
pub mod requests;
pub mod responses;
pub mod reuse;
pub mod routing;
mod rows;
pub mod unfinished;

pub use batch::BatchSource;
pub use error::{At, Problem, TraceError};
pub use export::{write, write_hrt};
pub use fit::Fitted;
pub use generate::generate;
pub use import::{FORMATS, Format, Options, detect, open, open_demands, open_with, parse};
pub use info::{Info, info};
pub use likeness::{Likeness, likeness};
pub use routing::{GateOrigin, Gates, PADDING, RoutingTrace, Shape, TraceInfo};
