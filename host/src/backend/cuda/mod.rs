//! NVIDIA GPUs: the driver, found at run time, and the precompiled kernels on it.

pub mod driver;
pub mod kernels;
pub mod trials;
