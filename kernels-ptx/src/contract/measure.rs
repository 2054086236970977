//! The argument block of the kernel that measures the device.

use super::{
    Argument, ArgumentBlock, Constant, DevicePtr, DevicePtrMut, Field, KernelSpec, sealed,
};

kernels! {
    /// Reads memory as fast as the device can: the limit that decoding runs into.
    ///
    /// Threads whose sums differ from `zero` add them to `sums[0]`, so that no read can be left
    /// out; over zeroed memory nothing is written.
    ///
    /// Grid: `BLOCKS_PER_MULTIPROCESSOR` blocks for every multiprocessor; any number does.
    fn read_memory[512](ReadMemoryArgs {
        /// `(vectors, 4)` words, 16-byte aligned.
        words: DevicePtr<u32>,
        /// One number, added to modulo 2³².
        sums: DevicePtrMut<u32>,
        /// Vectors of 16 bytes, at least 1.
        vectors: u32,
        /// 0.
        zero: u32,
    }) where {
        /// Blocks that are resident on a multiprocessor together.
        BLOCKS_PER_MULTIPROCESSOR = 4,
    }
}
