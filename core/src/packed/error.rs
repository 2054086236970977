//! What can be wrong with packed weights.

use core::fmt;

/// Shape, bytes and layout disagree, with the numbers that show it.
///
/// Small and `Copy`: it can cross any boundary without an allocator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// The layout has no form for a matrix of this shape.
    Ragged {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
        /// [`Layout::NAME`](crate::Layout::NAME) of the layout that refused.
        layout: &'static str,
        /// What the layout asks of a shape, as a clause: "`cols` must be a multiple of 16".
        rule: &'static str,
    },
    /// A buffer has another length than the shape needs.
    Length {
        /// Bytes that the shape needs in this layout; bits for the planes of a `TritPlanes`.
        expected: usize,
        /// Bytes (or bits) that the buffer has.
        got: usize,
    },
    /// The matrix does not fit the address space, or `cols` exceeds
    /// [`COLS_MAX`](crate::COLS_MAX).
    Overflow {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
    },
    /// Two bits that stand for no trit, or padding that is not the code of zero.
    Code {
        /// Row of the code.
        row: usize,
        /// Column of the code; at or beyond the matrix's `cols` it is padding.
        col: usize,
        /// The two bits, 0..=3.
        code: u8,
    },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ragged { rows, cols, layout, rule } => {
                write!(f, "a {rows} x {cols} matrix has no form in layout `{layout}`: {rule}")
            }
            Self::Length { expected, got } => {
                write!(f, "the buffer holds {got} where the shape needs exactly {expected}")
            }
            Self::Overflow { rows, cols } => {
                write!(f, "a {rows} x {cols} matrix is too large to address or to sum exactly")
            }
            Self::Code { row, col, code } => {
                write!(f, "code {code} at row {row}, column {col} is not a valid trit there")
            }
        }
    }
}

impl core::error::Error for LayoutError {}
