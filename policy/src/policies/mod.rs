//! The policies, one file each, and the structures the rules are built on.

pub mod arc;
pub mod belady;
mod bit_tree;
pub mod fifo;
pub mod gdsf;
mod growing_queue;
pub mod in_cache_lfu;
pub mod least_stale;
pub mod lfru;
pub mod lfu;
pub mod lfu_decayed;
mod lists;
pub mod lru;
pub mod lru_layer;
pub mod predictive;
pub mod reactive;
pub mod s3_fifo;
pub mod script;
mod segments;
pub mod sieve;
pub mod static_set;
pub mod w_tiny_lfu;

pub use arc::Arc;
pub use belady::Belady;
pub use fifo::Fifo;
pub use gdsf::Gdsf;
pub use least_stale::LeastStale;
pub use lfru::Lfru;
pub use lfu::Lfu;
pub use lfu_decayed::LfuDecayed;
pub use lru::Lru;
pub use lru_layer::LruLayer;
pub use s3_fifo::S3Fifo;
pub use sieve::Sieve;
pub use static_set::Static;
pub use w_tiny_lfu::WTinyLfu;
