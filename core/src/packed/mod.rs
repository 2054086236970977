//! Ternary matrices as two-bit codes: six layouts, one meaning.
//!
//! A layout is a type that says where the code of `(row, col)` lies; a [`PackedTernary`] is
//! borrowed bytes whose length has been checked against a shape. Everything else here is defined
//! through [`Layout::place`]; faster ways are tested equal to it.

mod base3;
mod error;
mod i2s;
mod interleaved16;
mod matrix;
mod mma16x128;
mod pack;
mod planes;
mod quarters;
mod rows128;
mod tile16x32;

use core::fmt::Debug;

pub use base3::{Base3, PackedBase3};
pub use error::LayoutError;
pub use i2s::I2s;
pub use interleaved16::Interleaved16;
pub use matrix::PackedTernary;
pub use mma16x128::Mma16x128;
#[cfg(test)]
pub(crate) use pack::repack_each;
pub use pack::{pack, repack};
pub use planes::TritPlanes;
pub use quarters::Quarters;
pub use rows128::Rows128;
pub use tile16x32::Tile16x32;

/// Most columns of a matrix: 2²².
///
/// A sum over one row is then exact in `i32` for every byte that can stand in the buffers, valid or
/// not: `|Σ value·code| ≤ 2²² · 128 · 3 < 2³¹`. The widest matrix of a released ternary model has
/// 27 648 columns.
pub const COLS_MAX: usize = 1 << 22;

/// Where one code lies: `codes[byte] >> shift & 3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index of the byte.
    pub byte: usize,
    /// Lowest bit of the code in that byte: 0, 2, 4 or 6.
    pub shift: u32,
}

/// A way to lay the codes of a `(rows, cols)` ternary matrix out in bytes.
///
/// Sealed: the arithmetic trusts that distinct elements have distinct places inside
/// [`bytes`](Self::bytes), which only the layouts of this crate promise (and test).
pub trait Layout: Copy + Debug + 'static + sealed::Sealed {
    /// Stable name, written into files. Never changes its meaning.
    const NAME: &'static str;

    /// The code that stands for trit 0; in general `trit = code − ZERO_CODE`.
    const ZERO_CODE: u8;

    /// Exact length in bytes of a `(rows, cols)` matrix. Zero rows or columns are allowed.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Ragged`] when the layout has no form for the shape, [`LayoutError::Overflow`]
    /// when the length exceeds `usize` or `cols` exceeds [`COLS_MAX`].
    fn bytes(rows: usize, cols: usize) -> Result<usize, LayoutError>;

    /// Place of element `(row, col)` of a `(rows, cols)` matrix.
    ///
    /// Meaningful for `row < rows`, `col < cols` and shapes that [`bytes`](Self::bytes) accepts;
    /// [`PackedTernary::code`] is the checked way in. [`Rows128`] and [`Mma16x128`] also
    /// answer for their padding.
    fn place(rows: usize, cols: usize, row: usize, col: usize) -> Place;
}

mod sealed {
    /// What only this crate asks of a layout; keeps the set of layouts closed.
    pub trait Sealed {
        /// What stands in a code byte before any trit is written, and hence in padding.
        const EMPTY: u8;

        /// Bytes behind the codes that hold no codes.
        const TAIL: usize = 0;

        /// Columns that have a place, padding included. The padding must hold the code of zero.
        fn padded_cols(cols: usize) -> usize {
            cols
        }
    }
}

/// `rows * cols`, or [`LayoutError::Overflow`]; every layout begins with this check.
fn elements(rows: usize, cols: usize) -> Result<usize, LayoutError> {
    match rows.checked_mul(cols) {
        Some(elements) if cols <= COLS_MAX => Ok(elements),
        _ => Err(LayoutError::Overflow { rows, cols }),
    }
}
