//! The CUDA driver as safe Rust sees it: found at run time, called through `cust`.
//!
//! ```text
//! Driver::open ─▶ Device ─▶ Context ─┬▶ Module::load ─▶ function::<Args>() ─▶ launch
//!                                    ├▶ Stream ─▶ capture ─▶ Graph ─▶ GraphExec
//!                                    ├▶ Event
//!                                    └▶ DeviceBuffer, PinnedBuffer
//! ```
//!
//! A program with this in it starts on every machine: `shim` defines the functions of `libcuda`,
//! and without a driver [`Driver::open`] answers [`CudaError::NoDriver`]. `cust` does what it can;
//! what it lacks (graphs, dependent launches, the compiler's log) goes through the same shim.
//!
//! Everything works on any thread, and keeps its [`Context`] alive. Unsafe are the functions that
//! make the device or the driver touch memory after they have returned.

mod codes;
mod device;
mod error;
mod graph;
mod guards;
mod memory;
mod module;
mod shim;
mod stream;

pub use codes::Code;
pub use device::{Context, Device, Driver, Memory, usable};
pub use error::{CudaError, DriverVersion};
pub use graph::{Graph, GraphExec};
pub use guards::Overrun;
pub(super) use guards::PAINT;
pub use memory::{DeviceBuffer, PinnedBuffer, PinnedUse};
pub use module::{Function, FunctionAttributes, Launch, Module};
pub use stream::{Event, Stream};

#[cfg(test)]
mod tests;
