//! The policies, one file each, and the two structures the rules are built on.

pub mod belady;
mod bit_tree;
mod fixed_set;
pub mod hobbit;
pub mod lfru;
pub mod lfu;
mod lists;
mod look_ahead;
pub mod lru;
pub mod moe_infinity_released;
mod per_layer;
pub mod predictive;
pub mod reactive;
pub mod sieve;
pub mod static_joint;
pub mod static_set;

pub use belady::Belady;
pub use lfru::Lfru;
pub use lfu::Lfu;
pub use lru::Lru;
pub use sieve::Sieve;
pub use static_set::Static;
