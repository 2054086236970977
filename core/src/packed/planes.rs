//! A ternary matrix as two bitmaps.

use bitvec::{order::Lsb0, slice::BitSlice};

use super::{Layout, LayoutError, PackedTernary, elements, pack};

/// A ternary matrix `(rows, cols)` as two bitmaps: which trits are not zero, and which of those are
/// negative.
///
/// Bit `row · cols + col`, lowest bit of a byte first, belongs to element `(row, col)`. It
/// depends on no layout: the form in which to exchange a matrix with code that knows none, to
/// count (`nonzero().count_ones()`), and to state what a layout means a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TritPlanes<'a> {
    nonzero: &'a BitSlice<u8, Lsb0>,
    negative: &'a BitSlice<u8, Lsb0>, // a subset of `nonzero`
    rows: usize,
    cols: usize,
}

impl<'a> TritPlanes<'a> {
    /// Views two bitmaps of `rows · cols` bits as a matrix.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Overflow`] as for any layout; [`LayoutError::Length`], in bits, when a bitmap
    /// is not `rows · cols` long; [`LayoutError::Code`] with code 2 for a negative zero.
    pub fn new(
        nonzero: &'a BitSlice<u8, Lsb0>,
        negative: &'a BitSlice<u8, Lsb0>,
        rows: usize,
        cols: usize,
    ) -> Result<Self, LayoutError> {
        let expected = elements(rows, cols)?;
        for got in [nonzero.len(), negative.len()] {
            if got != expected {
                return Err(LayoutError::Length { expected, got });
            }
        }
        match negative.iter_ones().find(|bit| !nonzero[*bit]) {
            Some(bit) => Err(LayoutError::Code { row: bit / cols, col: bit % cols, code: 2 }),
            None => Ok(Self { nonzero, negative, rows, cols }),
        }
    }

    /// Writes the planes of `weights` into two bitmaps of `rows · cols` bits and views them.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Length`], in bits, for a bitmap of another length; [`LayoutError::Code`] for
    /// an invalid code. The bitmaps are then untouched.
    pub fn unpack<L: Layout>(
        weights: PackedTernary<'_, L>,
        nonzero: &'a mut BitSlice<u8, Lsb0>,
        negative: &'a mut BitSlice<u8, Lsb0>,
    ) -> Result<Self, LayoutError> {
        let (rows, cols) = (weights.rows(), weights.cols());
        let expected = elements(rows, cols)?;
        for got in [nonzero.len(), negative.len()] {
            if got != expected {
                return Err(LayoutError::Length { expected, got });
            }
        }
        weights.check_codes()?;
        for bit in 0..expected {
            let code = weights.code(bit / cols, bit % cols);
            nonzero.set(bit, code != L::ZERO_CODE);
            negative.set(bit, code < L::ZERO_CODE);
        }
        Ok(Self { nonzero, negative, rows, cols })
    }

    /// Writes the matrix into `out` in layout `L`.
    ///
    /// # Errors
    ///
    /// Those of [`pack`].
    pub fn pack<L: Layout>(self, out: &mut [u8]) -> Result<(), LayoutError> {
        pack::<L>(self.rows, self.cols, |row, col| self.trit(row, col), out)
    }

    /// Rows: output features.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// Columns: input features.
    pub fn cols(self) -> usize {
        self.cols
    }

    /// One bit an element: the trit is −1 or 1.
    pub fn nonzero(self) -> &'a BitSlice<u8, Lsb0> {
        self.nonzero
    }

    /// One bit an element: the trit is −1. A subset of [`nonzero`](Self::nonzero).
    pub fn negative(self) -> &'a BitSlice<u8, Lsb0> {
        self.negative
    }

    /// The trit at `(row, col)`: `nonzero − 2·negative`.
    ///
    /// # Panics
    ///
    /// When `(row, col)` lies outside the matrix.
    pub fn trit(self, row: usize, col: usize) -> i8 {
        assert!(
            row < self.rows && col < self.cols,
            "element ({row}, {col}) of a {} x {} matrix",
            self.rows,
            self.cols
        );
        let bit = row * self.cols + col;
        i8::from(self.nonzero[bit]) - 2 * i8::from(self.negative[bit])
    }
}
