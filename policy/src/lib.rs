//! The decision core: what a block of a model is, where and in which format its copies may live, and the controller
//! that moves them. Pure: no clock, no I/O, no thread, no random state. Events come in, commands go out; the
//! simulator and the hardware drive the same code.

mod bits;
pub mod checkpoints;
pub mod control;
pub mod demand;
pub mod event;
pub mod execute;
pub mod fit;
pub mod format;
mod forms;
pub mod guard;
pub mod id;
pub mod kernel;
mod layer_step;
pub mod ledger;
pub mod machine;
pub mod model;
pub mod observe;
pub mod orchestrator;
pub mod parallel;
pub mod path;
pub mod policies;
pub mod predict;
pub mod rate;
pub mod recipe;
pub mod record;
pub mod refused;
pub mod registry;
pub mod replay;
pub mod rule;
pub mod schedule;
pub mod score;
pub mod serving;
pub mod sizes;
pub mod sketch;
pub mod state;
pub mod state_format;
pub mod state_time;
pub mod tally;
pub mod times;
pub mod units;
pub mod verdict;
pub mod veto;

pub use control::{Context, Policy};
pub use demand::Demands;
pub use format::{Format, FormatId};
pub use forms::MAX_FORMS;
pub use id::{BlockId, LayerId, LinkId, MoveId, RequestId, TierId};
pub use machine::Machine;
pub use model::Model;
pub use orchestrator::{Orchestrator, Watch, run, watch};
pub use path::{LinkSet, Path, Paths};
pub use rate::Rate;
pub use sketch::Sketch;
pub use units::{Bandwidth, Bytes, FlopRate, Nanos, Time};
