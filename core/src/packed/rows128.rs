//! The layout that the CPU kernels read.

use core::ops::Range;

use super::{
    Layout, LayoutError, PackedTernary, Place, elements, i2s::place_in_block, sealed::Sealed,
};

/// Rows padded to whole blocks of 128 columns, 32 bytes each: what [`Simd`](crate::Simd)
/// multiplies.
///
/// Column `j` of a block sits in byte `j % 32` at shift `6 − 2·(j / 32)`, the bit order of
/// [`I2s`](super::I2s), so where `cols % 128 == 0` the code bytes are equal to those of I2_S. Here
/// a row always begins a block: any shape fits, and every row can be multiplied alone.
/// `code = trit + 1`; padding holds the code of zero.
///
/// Four columns of one byte lie 32 apart, so one mask turns 32 bytes into 32 neighbouring codes, in
/// the order of the values they multiply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows128;

impl Rows128 {
    /// Columns of one block.
    pub const BLOCK_COLS: usize = 128;

    /// Bytes of one block.
    pub const BLOCK_BYTES: usize = 32;

    /// `cols` rounded up to whole blocks; how many values a kernel reads of a row of activations.
    ///
    /// Does not overflow for `cols ≤ COLS_MAX`, which every [`PackedTernary`] keeps.
    pub const fn padded_cols(cols: usize) -> usize {
        cols.next_multiple_of(Self::BLOCK_COLS)
    }

    /// Bytes of one row of `cols` columns.
    pub const fn row_bytes(cols: usize) -> usize {
        Self::padded_cols(cols) / 4
    }
}

impl Sealed for Rows128 {
    const EMPTY: u8 = 0b01_01_01_01;

    fn padded_cols(cols: usize) -> usize {
        Self::padded_cols(cols)
    }
}

impl Layout for Rows128 {
    const NAME: &'static str = "rows128";
    const ZERO_CODE: u8 = 1;

    fn bytes(rows: usize, cols: usize) -> Result<usize, LayoutError> {
        elements(rows, cols)?;
        rows.checked_mul(Self::row_bytes(cols)).ok_or(LayoutError::Overflow { rows, cols })
    }

    fn place(_rows: usize, cols: usize, row: usize, col: usize) -> Place {
        let row_blocks = cols.div_ceil(Self::BLOCK_COLS);
        place_in_block(row * row_blocks + col / Self::BLOCK_COLS, col % Self::BLOCK_COLS)
    }
}

impl<'a> PackedTernary<'a, Rows128> {
    /// The rows `rows` as a matrix `(rows.len(), cols)` of its own; how work is split over threads.
    ///
    /// # Panics
    ///
    /// When the range does not lie in `0..self.rows()`.
    pub fn row_range(self, rows: Range<usize>) -> PackedTernary<'a, Rows128> {
        assert!(
            rows.start <= rows.end && rows.end <= self.rows(),
            "rows {rows:?} of a matrix with {} rows",
            self.rows()
        );
        let row_bytes = Rows128::row_bytes(self.cols());
        let codes = &self.codes()[rows.start * row_bytes..rows.end * row_bytes];
        PackedTernary::cut(codes, rows.len(), self.cols())
    }

    /// The codes of one row: `⌈cols / 128⌉` blocks of 32 bytes.
    ///
    /// # Panics
    ///
    /// When `row` is not below `self.rows()`.
    #[inline]
    pub fn row_blocks(self, row: usize) -> &'a [[u8; Rows128::BLOCK_BYTES]] {
        assert!(row < self.rows(), "row {row} of a matrix with {} rows", self.rows());
        let row_bytes = Rows128::row_bytes(self.cols());
        self.codes()[row * row_bytes..][..row_bytes].as_chunks().0
    }
}
