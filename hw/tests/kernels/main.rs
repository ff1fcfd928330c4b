//! The CUDA kernels without a GPU: compiled with NVRTC where that is found, and executed on the CPU, launch by launch as
//! the device would, against the host's codec and products in float64.

mod codec;
mod cpu;
mod expert;
mod library;
mod matmul;
mod merge;
mod numbers;
mod nvrtc;
mod packed;
mod recurrent;
mod sources;
