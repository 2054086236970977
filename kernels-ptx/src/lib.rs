//! The GPU kernels of Tercet as data, and the contract for launching them.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod contract;
pub mod launch;
pub mod ptx;
