//! The real world: memories, links and compute of the machine this runs on, behind the same commands and events as
//! the simulator. Real bytes, real codecs, real matrix products, checksums on everything that is published.
//!
//! `codec` codes numbers, `content` says what a block holds, `arena` owns memory, `host` carries commands out, and
//! `lockstep` does so under a timeline that somebody else supplies. `unsafe` is in `region` only.

pub mod arena;
pub mod checksum;
pub mod codec;
pub mod content;
mod extents;
pub mod host;
pub mod lane;
pub mod lockstep;
pub mod refusal;
pub mod region;

#[cfg(target_endian = "big")]
compile_error!("formats are little-endian and copied as they are");
