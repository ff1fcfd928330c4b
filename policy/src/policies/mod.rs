//! The policies, one file each, and the structures that several are built on.

mod activation_maps;
pub mod belady;
mod bit_tree;
pub mod fine_moe;
pub mod hobbit;
pub mod hybri_moe;
pub mod lfru;
pub mod lfu;
mod lists;
mod look_ahead;
pub mod lru;
pub mod moe_infinity;
pub mod moe_infinity_released;
mod per_layer;
pub mod predictive;
pub mod pro_moe;
pub mod reactive;
pub mod sieve;
pub mod static_set;

pub use belady::Belady;
pub use lfru::Lfru;
pub use lfu::Lfu;
pub use lru::Lru;
pub use sieve::Sieve;
pub use static_set::Static;
