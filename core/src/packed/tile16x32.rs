//! The layout of microsoft/BitNet's GPU weights.

use super::{Layout, LayoutError, Place, elements, interleaved16::place_in_word, sealed::Sealed};

/// Tiles of 16 rows x 32 columns, 128 bytes each: microsoft/BitNet's GPU weights.
///
/// Tile `(i, j)` begins at byte `(i · cols/32 + j) · 128`. Inside, element `(r, c)` belongs to
/// `u32` number `(r/8)·16 + (c/16)·8 + r%8`, interleaved as in
/// [`Interleaved16`](super::Interleaved16). `code = trit + 2`; `rows` must be a multiple of 16 and
/// `cols` of 32.
///
/// Source: microsoft/BitNet 16da220, `gpu/pack_weight.py` and `gpu/bitnet_kernels`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile16x32;

impl Sealed for Tile16x32 {
    const EMPTY: u8 = 0b10_10_10_10;
}

impl Layout for Tile16x32 {
    const NAME: &'static str = "tile16x32";
    const ZERO_CODE: u8 = 2;

    fn bytes(rows: usize, cols: usize) -> Result<usize, LayoutError> {
        let elements = elements(rows, cols)?;
        if !rows.is_multiple_of(16) || !cols.is_multiple_of(32) {
            let rule = "`rows` must be a multiple of 16 and `cols` of 32";
            return Err(LayoutError::Ragged { rows, cols, layout: Self::NAME, rule });
        }
        Ok(elements / 4)
    }

    fn place(_rows: usize, cols: usize, row: usize, col: usize) -> Place {
        let tile = row / 16 * (cols / 32) + col / 32;
        let (r, c) = (row % 16, col % 32);
        place_in_word(tile * 32 + r / 8 * 16 + c / 16 * 8 + r % 8, c % 16)
    }
}
