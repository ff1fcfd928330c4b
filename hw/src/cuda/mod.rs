//! A CUDA device: which kernels carry out what, and how they are launched.
//!
//! `launch` plans launches and `products` those of matrix kernels; both are pure, so that the tests can hand the same
//! launches to the kernels built for the CPU.

pub mod launch;
pub mod products;
