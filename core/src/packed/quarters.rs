//! The layout of Hugging Face's packed `uint8` checkpoints.

use super::{Layout, LayoutError, Place, elements, sealed::Sealed};

/// Four rows a byte, a quarter of the matrix apart: Hugging Face's packed `uint8`.
///
/// With `P = ⌈rows / 4⌉`, byte `[r][c]` of a row-major `(P, cols)` array holds the codes of output
/// rows `r`, `r + P`, `r + 2P`, `r + 3P`, lowest bits first; `code = trit + 1`. Any shape fits.
///
/// Where `rows % 4 != 0` the last places belong to no row. They are ignored when reading and
/// written as code 0, not as the code of zero, because that is what transformers writes (it ORs
/// into zeros): files made here are then equal to its files byte for byte.
///
/// Source: transformers 5.23.0, `integrations/bitnet.py`, `pack_weights` and `unpack_weights`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quarters;

impl Sealed for Quarters {
    const EMPTY: u8 = 0;
}

impl Layout for Quarters {
    const NAME: &'static str = "quarters";
    const ZERO_CODE: u8 = 1;

    fn bytes(rows: usize, cols: usize) -> Result<usize, LayoutError> {
        elements(rows, cols)?;
        // No overflow: ⌈rows/4⌉ ≤ rows, and rows·cols has just been found to fit.
        Ok(rows.div_ceil(4) * cols)
    }

    fn place(rows: usize, cols: usize, row: usize, col: usize) -> Place {
        let quarter = rows.div_ceil(4);
        // row < rows ≤ 4·quarter, so the quotient is at most 3.
        Place { byte: row % quarter * cols + col, shift: 2 * (row / quarter) as u32 }
    }
}
