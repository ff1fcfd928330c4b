//! The policies, one file each, and the two structures the rules are built on.

pub mod adap_moe;
pub mod belady;
mod bit_tree;
pub mod dyna_byte;
pub mod dyna_exq;
pub mod fiddler;
pub mod free_token;
mod full_precision;
pub mod hobbit;
mod knapsack;
pub mod ktransformers;
mod layer_caches;
pub mod lfru;
pub mod lfu;
mod lists;
mod look_ahead;
pub mod lru;
pub mod mixtral_offloading;
pub mod moe_infinity_released;
mod per_layer;
mod placement;
pub mod predictive;
pub mod reactive;
pub mod sieve;
pub mod static_joint;
pub mod static_set;
mod two_precisions;

pub use belady::Belady;
pub use lfru::Lfru;
pub use lfu::Lfu;
pub use lru::Lru;
pub use sieve::Sieve;
pub use static_set::Static;
