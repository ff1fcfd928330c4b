//! The decision core: what a block of a model is, where and in which format its copies may live, and the controller
//! that moves them. Pure: no clock, no I/O, no thread, no random state. Events come in, commands go out; the
//! simulator and the hardware drive the same code.

pub mod demand;
pub mod event;
pub mod format;
pub mod id;
pub mod machine;
pub mod model;
pub mod policies;
pub mod registry;
pub mod replay;
pub mod rule;
pub mod units;
pub mod verdict;

pub use demand::Demands;
pub use format::{Format, FormatId};
pub use id::{BlockId, LayerId, LinkId, MoveId, RequestId, TierId};
pub use machine::Machine;
pub use model::Model;
pub use units::{Bandwidth, Bytes, FlopRate, Nanos, Time};
