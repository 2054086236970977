#![doc = include_str!("../README.md")]
#![no_std]
#![deny(unsafe_code)]

#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod packed;

pub mod activation;

pub mod reference;

pub mod simd;

pub mod stored;

#[cfg(test)]
mod tests;

pub use activation::{PEAK_MIN, RowUnit};
pub use packed::{
    Base3, COLS_MAX, I2s, Interleaved16, Layout, LayoutError, Mma16x128, PackedBase3,
    PackedTernary, Place, Quarters, Rows128, Tile16x32, TritPlanes, pack, repack,
};
pub use simd::Simd;
pub use stored::Stored;
