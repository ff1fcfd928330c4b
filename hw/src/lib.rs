//! The real world: memories, links and compute of the machine this runs on, behind the same commands and events as
//! the simulator. Real bytes, real codecs, real matrix products, checksums on everything that is published.
//!
//! `codec` codes numbers, `content` says what a block holds, `weights` reads it from a model's files, `arena` owns memory,
//! `engine` says what a kind of device has to do, `host` and `cuda` do it, `device` keeps what is promised of every device,
//! and `lockstep` puts a device under a timeline that somebody else supplies. `recurrent` computes the layers that keep a
//! state in place of a cache. `unsafe` is in `region`, which lends the
//! bytes of slots, in `store`, which asks the system for memory and transfers, and in `cuda`, which asks the driver.

pub mod arena;
pub mod branch;
pub mod calibrate;
pub mod cargo;
pub mod checksum;
pub mod codec;
pub mod compute;
pub mod content;
pub mod cuda;
pub mod device;
pub mod drift;
pub mod engine;
mod extents;
pub mod faults;
pub mod host;
mod lane;
pub mod live;
pub mod lockstep;
pub mod merge;
pub mod open;
pub mod recurrent;
pub mod refusal;
pub mod region;
pub mod store;
pub mod times;
mod verify;
pub mod weights;

#[cfg(target_endian = "big")]
compile_error!("formats are little-endian and copied as they are");
