//! The layout that the GPU kernels read.

use super::{Layout, LayoutError, PackedTernary, Place, Rows128, elements, sealed::Sealed};

/// Tiles of 16 rows x 128 columns, 512 bytes each, in the order of tensor core fragments: what the
/// GPU kernels multiply.
///
/// Rows are padded to 16 and columns to 128. Tile `(i, j)` begins at byte
/// `(i · ⌈cols/128⌉ + j) · 512`. In a tile, lane `t = 4·g + q` of a warp owns the 16 bytes from
/// `16·t`: four little-endian words, one for each register of an A fragment. Byte `b` of word `w`
/// holds, at shift `2·s`, the code of row `g + 8·(w & 1)`, column `32·s + 16·(w >> 1) + 4·q + b`.
/// So `word >> 2·s & 0x03030303` is register `w` of `mma.m16n8k32` for columns `32·s..32·s + 32`.
/// `code = trit + 1`; padding holds the code of zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mma16x128;

impl Mma16x128 {
    /// Rows of one tile.
    pub const TILE_ROWS: usize = 16;

    /// Columns of one tile.
    pub const TILE_COLS: usize = 128;

    /// Bytes of one tile.
    pub const TILE_BYTES: usize = 512;

    /// Bytes of one row of tiles, which hold 16 rows of `cols` columns.
    ///
    /// Does not overflow for `cols ≤ COLS_MAX`, which every [`PackedTernary`] keeps.
    pub const fn row_tile_bytes(cols: usize) -> usize {
        cols.div_ceil(Self::TILE_COLS) * Self::TILE_BYTES
    }

    /// Writes the rows of `from` as rows `first..` of the matrix of `from.cols()` columns in `out`.
    ///
    /// `out` is whole rows of tiles; its other rows stay as they are. So several matrices, or parts
    /// of them, become one. Bytes are moved, codes are not looked at: one that is no trit stays
    /// none.
    ///
    /// # Panics
    ///
    /// When `out` is not whole rows of tiles or ends before the last row.
    pub fn place_rows(from: PackedTernary<'_, Rows128>, first: usize, out: &mut [u8]) {
        let row_tile_bytes = Self::row_tile_bytes(from.cols());
        if row_tile_bytes == 0 {
            return;
        }
        assert!(
            out.len().is_multiple_of(row_tile_bytes)
                && out.len() / row_tile_bytes * Self::TILE_ROWS
                    >= first.saturating_add(from.rows()),
            "rows {first}.. and {} more do not fit {} bytes of tiles",
            from.rows(),
            out.len()
        );
        for index in 0..from.rows() {
            let row = first + index;
            let row_tile = &mut out[row / Self::TILE_ROWS * row_tile_bytes..][..row_tile_bytes];
            let tiles = row_tile.as_chunks_mut::<{ Self::TILE_BYTES }>().0;
            for (tile, block) in tiles.iter_mut().zip(from.row_blocks(index)) {
                place_block(block, row % Self::TILE_ROWS, tile);
            }
        }
    }
}

/// Writes 128 columns of one row into their tile.
///
/// Byte `i` of a block of `Rows128` holds columns `i, 32 + i, 64 + i, 96 + i` from the highest bits
/// down; here the same four are in one byte from the lowest bits up.
#[inline(always)]
fn place_block(
    block: &[u8; Rows128::BLOCK_BYTES],
    row: usize,
    tile: &mut [u8; Mma16x128::TILE_BYTES],
) {
    let lanes = &mut tile.as_chunks_mut::<16>().0[row % 8 * 4..][..4];
    let halves = block.as_chunks::<16>().0;
    for (q, lane) in lanes.iter_mut().enumerate() {
        let registers = lane.as_chunks_mut::<4>().0;
        for (half, bytes) in halves.iter().enumerate() {
            let word = u32::from_le_bytes(bytes.as_chunks().0[q]);
            let swapped = (word & 0x0303_0303) << 6
                | (word & 0x0c0c_0c0c) << 2
                | word >> 2 & 0x0c0c_0c0c
                | word >> 6 & 0x0303_0303;
            registers[row / 8 + 2 * half] = swapped.to_le_bytes();
        }
    }
}

impl Sealed for Mma16x128 {
    const EMPTY: u8 = 0b01_01_01_01;

    fn padded_cols(cols: usize) -> usize {
        cols.next_multiple_of(Self::TILE_COLS)
    }
}

impl Layout for Mma16x128 {
    const NAME: &'static str = "mma16x128";
    const ZERO_CODE: u8 = 1;

    fn bytes(rows: usize, cols: usize) -> Result<usize, LayoutError> {
        elements(rows, cols)?;
        rows.div_ceil(Self::TILE_ROWS)
            .checked_mul(Self::row_tile_bytes(cols))
            .ok_or(LayoutError::Overflow { rows, cols })
    }

    fn place(_rows: usize, cols: usize, row: usize, col: usize) -> Place {
        let tile = row / Self::TILE_ROWS * cols.div_ceil(Self::TILE_COLS) + col / Self::TILE_COLS;
        let (r, c) = (row % Self::TILE_ROWS, col % 32);
        let (lane, word) = (r % 8 * 4 + c % 16 / 4, r / 8 + c / 16 * 2);
        let shift = 2 * (col % Self::TILE_COLS / 32) as u32;
        Place { byte: tile * Self::TILE_BYTES + lane * 16 + word * 4 + c % 4, shift }
    }
}
