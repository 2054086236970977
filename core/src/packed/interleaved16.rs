//! The layout of BitBLAS's compressed checkpoints, and the word it shares with `Tile16x32`.

use super::{Layout, LayoutError, Place, elements, sealed::Sealed};

/// Row-major words of sixteen codes, interleaved for one mask per four values: BitBLAS compressed.
///
/// Element `e = col % 16` of a little-endian `u32` sits at bits `8·(e % 4) + 2·(e / 4)`, so that
/// `(word >> 2i) & 0x03030303` is elements `4i..4i+4`, one a byte. `code = trit + 2`;
/// `cols` must be a multiple of 16.
///
/// Source: BitBLAS 0c51e34, `integration/BitNet/modeling_bitnet.py` and the LOP3 weight transform
/// of `bitblas/ops`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interleaved16;

impl Sealed for Interleaved16 {
    const EMPTY: u8 = 0b10_10_10_10;
}

impl Layout for Interleaved16 {
    const NAME: &'static str = "interleaved16";
    const ZERO_CODE: u8 = 2;

    fn bytes(rows: usize, cols: usize) -> Result<usize, LayoutError> {
        let elements = elements(rows, cols)?;
        if !cols.is_multiple_of(16) {
            let rule = "`cols` must be a multiple of 16";
            return Err(LayoutError::Ragged { rows, cols, layout: Self::NAME, rule });
        }
        Ok(elements / 4)
    }

    fn place(_rows: usize, cols: usize, row: usize, col: usize) -> Place {
        place_in_word((row * cols + col) / 16, col % 16)
    }
}

/// Place of element `element < 16` of the `word`-th interleaved `u32`.
pub(super) fn place_in_word(word: usize, element: usize) -> Place {
    Place { byte: 4 * word + element % 4, shift: 2 * (element / 4) as u32 }
}
