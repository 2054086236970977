//! From shapes to grids and buffer lengths: plain arithmetic, tested without a device.

mod decode;
mod floats;

pub use decode::{DecodeAttendShape, DecodeFinish, DecodeLinearShape, DeviceShape};
pub use floats::{AttendRowsShape, Device, FloatLinearShape, Launch, WeightType, rope_store_grid};

use crate::contract::{LinearArgs, QuantizeArgs, TernaryGemmArgs};
use crate::ptx::Target;

/// Thread blocks of a launch along x, y and z. The threads of a block are in the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Fastest.
    pub x: u32,
    /// At most [`Grid::Y_MAX`].
    pub y: u32,
    /// At most [`Grid::Y_MAX`].
    pub z: u32,
}

impl Grid {
    /// What every CUDA device allows along x.
    pub const X_MAX: u32 = 0x7fff_ffff;
    /// What every CUDA device allows along y and along z.
    pub const Y_MAX: u32 = 0xffff;
}

/// Shape of one call of `ternary_gemm`, known to keep what the kernel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TernaryGemmShape {
    rows: u32,
    cols: u32,
    batch: u32,
    stride: u32,
}

impl TernaryGemmShape {
    /// Rows of values in one call at most: those of a full grid.
    pub const BATCH_MAX: u32 = Grid::Y_MAX * TernaryGemmArgs::BLOCK_BATCH;

    /// `(rows, cols)` weights by `(batch, stride)` values, of which the first `cols` count.
    ///
    /// # Panics
    ///
    /// When the shape breaks what [`TernaryGemmArgs`] says about it, or `batch` is above
    /// [`Self::BATCH_MAX`].
    #[must_use]
    pub const fn new(rows: u32, cols: u32, batch: u32, stride: u32) -> Self {
        assert!(
            rows > 0 && rows.is_multiple_of(TernaryGemmArgs::TILE_ROWS),
            "rows are whole tiles, at least one"
        );
        assert!(
            cols > 0 && cols.is_multiple_of(TernaryGemmArgs::TILE_COLS),
            "columns are whole tiles, at least one"
        );
        assert!(cols <= TernaryGemmArgs::COLS_MAX, "sums fit 32 bits");
        assert!(batch > 0 && batch <= Self::BATCH_MAX, "the batch fits one grid");
        assert!(
            stride >= cols && stride.is_multiple_of(16),
            "each row of values starts at a multiple of 16 bytes, behind the one before"
        );
        Self { rows, cols, batch, stride }
    }

    /// The grid to launch.
    #[must_use]
    pub const fn grid(self) -> Grid {
        Grid {
            x: self.rows / TernaryGemmArgs::TILE_ROWS,
            y: self.batch.div_ceil(TernaryGemmArgs::BLOCK_BATCH),
            z: 1,
        }
    }

    /// Words in `codes`.
    #[must_use]
    pub const fn codes(self) -> u64 {
        self.rows as u64 * self.cols as u64 / 16
    }

    /// Values in `values` that the kernel may touch: the last row ends at `cols`.
    #[must_use]
    pub const fn values(self) -> u64 {
        (self.batch as u64 - 1) * self.stride as u64 + self.cols as u64
    }

    /// Sums in `sums`.
    #[must_use]
    pub const fn sums(self) -> u64 {
        self.rows as u64 * self.batch as u64
    }

    /// Output features.
    #[must_use]
    pub const fn rows(self) -> u32 {
        self.rows
    }

    /// Input features.
    #[must_use]
    pub const fn cols(self) -> u32 {
        self.cols
    }

    /// Rows of values.
    #[must_use]
    pub const fn batch(self) -> u32 {
        self.batch
    }

    /// Values from one row to the next.
    #[must_use]
    pub const fn stride(self) -> u32 {
        self.stride
    }
}

/// Bytes of the image of INT8 values that `quantize` writes and `linear` reads: `rows` rows of
/// `cols`.
#[must_use]
pub const fn values_bytes(rows: u32, cols: u32) -> u64 {
    row_blocks(rows) as u64 * cols.div_ceil(TILE_COLS) as u64 * 1024
}

/// Blocks of eight rows that hold `rows`.
#[must_use]
pub const fn row_blocks(rows: u32) -> u32 {
    rows.div_ceil(8)
}

/// Dynamic shared memory of `linear`, compiled for `target`, in bytes. More than 48 KiB has to be
/// asked for (`CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`).
#[must_use]
pub const fn linear_shared_bytes(target: Target) -> u32 {
    if target.exact { LinearArgs::SHARED_SM_90 } else { LinearArgs::SHARED_SM_80 }
}

/// Columns of a tile of codes and of values.
const TILE_COLS: u32 = 128;

/// Shape of one call of `linear`, known to keep what the kernel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearShape {
    row_tiles: u32,
    col_tiles: u32,
    rows: u32,
}

impl LinearShape {
    /// Thread blocks of a launch at most: each has two flags.
    pub const BLOCKS_MAX: u32 = LinearArgs::FLAGS / 2;

    /// `row_tiles` tiles of 16 weight rows (of gate and up together) with `cols` columns by `rows`
    /// rows of the step.
    ///
    /// # Panics
    ///
    /// When one of them is 0, `cols` is above what [`QuantizeArgs`] allows, or the units of work do
    /// not fit 32 bits.
    #[must_use]
    pub const fn new(row_tiles: u32, cols: u32, rows: u32) -> Self {
        assert!(row_tiles > 0 && cols > 0 && rows > 0, "there is something to multiply");
        assert!(cols <= QuantizeArgs::COLS_MAX, "a row fits the quantiser");
        let shape = Self { row_tiles, col_tiles: cols.div_ceil(TILE_COLS), rows };
        // Counted for the smallest tile of the kernel, whatever its target.
        let tiles = row_tiles.div_ceil(8) as u64 * rows.div_ceil(8) as u64;
        assert!(tiles * shape.col_tiles as u64 <= u32::MAX as u64, "units fit 32 bits");
        shape
    }

    /// [`LinearArgs::tile`]: rows of the step that a thread block multiplies together.
    #[must_use]
    pub const fn tile(self) -> u32 {
        match self.rows {
            ..=8 => 8,
            9..=16 => 16,
            17..=32 => 32,
            33..=64 => 64,
            _ => 128,
        }
    }

    /// Row tiles of codes that a thread block multiplies together.
    const fn tile_row_tiles(self) -> u32 {
        if self.tile() < 128 { 8 } else { 16 }
    }

    /// Pieces of work that are dealt out to the thread blocks.
    #[must_use]
    pub const fn units(self) -> u32 {
        self.row_tiles.div_ceil(self.tile_row_tiles())
            * self.rows.div_ceil(self.tile())
            * self.col_tiles
    }

    /// Thread blocks along x for a GPU of so many multiprocessors. Any smaller number works too,
    /// and no number changes a bit of the result.
    ///
    /// # Panics
    ///
    /// When there is no multiprocessor.
    #[must_use]
    pub const fn blocks(self, multiprocessors: u32) -> u32 {
        assert!(multiprocessors > 0, "a GPU has multiprocessors");
        let most =
            if multiprocessors < Self::BLOCKS_MAX { multiprocessors } else { Self::BLOCKS_MAX };
        if self.units() < most { self.units() } else { most }
    }

    /// Words of workspace for such a GPU. The first [`LinearArgs::FLAGS`] have to be 0 before the
    /// first launch.
    #[must_use]
    pub const fn workspace_words(self, multiprocessors: u32) -> u64 {
        let slot = self.tile_row_tiles() as u64 * 16 * self.tile() as u64;
        LinearArgs::FLAGS as u64 + self.blocks(multiprocessors) as u64 * slot
    }

    /// [`LinearArgs::row_tiles`].
    #[must_use]
    pub const fn row_tiles(self) -> u32 {
        self.row_tiles
    }

    /// [`LinearArgs::col_tiles`].
    #[must_use]
    pub const fn col_tiles(self) -> u32 {
        self.col_tiles
    }

    /// [`LinearArgs::rows`].
    #[must_use]
    pub const fn rows(self) -> u32 {
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_rows_and_batch() {
        for (rows, batch, expected) in [
            (16, 1, (1, 1)),
            (16, 4, (1, 1)),
            (32, 5, (2, 2)),
            (3200, 128, (200, 32)),
            (16, TernaryGemmShape::BATCH_MAX, (1, Grid::Y_MAX)),
        ] {
            let grid = TernaryGemmShape::new(rows, 32, batch, 32).grid();
            assert_eq!((grid.x, grid.y, grid.z), (expected.0, expected.1, 1), "{rows} x {batch}");
        }
    }

    #[test]
    fn largest_grid_fits_a_device() {
        let rows = u32::MAX / TernaryGemmArgs::TILE_ROWS * TernaryGemmArgs::TILE_ROWS;
        let shape = TernaryGemmShape::new(rows, 32, TernaryGemmShape::BATCH_MAX, 32);
        assert!(shape.grid().x <= Grid::X_MAX && shape.grid().y <= Grid::Y_MAX, "{shape:?}");
    }

    #[test]
    fn lengths_do_not_wrap() {
        let shape = TernaryGemmShape::new(1 << 20, 1 << 22, 1 << 17, 1 << 22);
        assert_eq!((shape.codes(), shape.sums()), (1 << 38, 1 << 37));
        assert_eq!(shape.values(), 1 << 39);
    }

    #[test]
    fn last_row_of_values_ends_at_cols() {
        assert_eq!(TernaryGemmShape::new(16, 32, 3, 48).values(), 2 * 48 + 32);
    }

    macro_rules! refused {
        ($($name:ident: $shape:expr, $reason:literal;)*) => {$(
            #[test]
            #[should_panic(expected = $reason)]
            fn $name() {
                let (rows, cols, batch, stride) = $shape;
                let _ = TernaryGemmShape::new(rows, cols, batch, stride);
            }
        )*};
    }

    refused! {
        no_rows_are_refused: (0, 32, 1, 32), "rows are whole tiles";
        ragged_rows_are_refused: (24, 32, 1, 32), "rows are whole tiles";
        no_cols_are_refused: (16, 0, 1, 32), "columns are whole tiles";
        ragged_cols_are_refused: (16, 48, 1, 48), "columns are whole tiles";
        sums_that_wrap_are_refused: (16, (1 << 22) + 32, 1, (1 << 22) + 32), "sums fit";
        no_batch_is_refused: (16, 32, 0, 32), "the batch fits";
        batch_beyond_the_grid_is_refused:
            (16, 32, TernaryGemmShape::BATCH_MAX + 1, 32), "the batch fits";
        overlapping_values_are_refused: (16, 64, 1, 32), "each row of values";
        unaligned_values_are_refused: (16, 32, 1, 40), "each row of values";
    }

    #[test]
    fn tiles_grow_with_the_rows() {
        for (rows, tile) in [
            (1, 8),
            (8, 8),
            (9, 16),
            (16, 16),
            (17, 32),
            (33, 64),
            (64, 64),
            (65, 128),
            (2048, 128),
        ] {
            assert_eq!(LinearShape::new(200, 3200, rows).tile(), tile, "{rows}");
        }
    }

    #[test]
    fn units_are_dealt_to_every_multiprocessor() {
        // 600 row tiles of codes are 75 tiles of 128 features, each with 25 tiles of columns.
        let few = LinearShape::new(600, 3200, 8);
        assert_eq!((few.units(), few.blocks(132)), (75 * 25, 132));
        // 2048 rows are 16 tiles of 128, 600 row tiles are 37.5 tiles of 256 features.
        let many = LinearShape::new(600, 3200, 2048);
        assert_eq!((many.units(), many.blocks(132)), (38 * 16 * 25, 132));
        let least = LinearShape::new(1, 4, 1);
        assert_eq!((least.units(), least.blocks(132), least.blocks(1)), (1, 1, 1));
        assert_eq!(many.blocks(u32::MAX), LinearShape::BLOCKS_MAX);
    }

    #[test]
    fn workspace_holds_flags_and_a_tile_for_each_block() {
        let words = |rows| LinearShape::new(600, 3200, rows).workspace_words(132);
        assert_eq!(words(8), 2048 + 132 * 128 * 8);
        assert_eq!(words(64), 2048 + 132 * 128 * 64);
        assert_eq!(words(2048), 2048 + 132 * 256 * 128);
    }

    #[test]
    fn values_are_padded_to_blocks_of_eight_rows_and_tiles_of_columns() {
        assert_eq!(values_bytes(1, 4), 1024);
        assert_eq!(values_bytes(9, 3200), 2 * 25 * 1024);
        assert_eq!(values_bytes(2048, 8640), 256 * 68 * 1024);
    }

    #[test]
    #[should_panic(expected = "units fit 32 bits")]
    fn work_beyond_32_bits_is_refused() {
        let _ = LinearShape::new(1 << 20, 1 << 17, 1 << 12);
    }

    #[test]
    #[should_panic(expected = "a row fits the quantiser")]
    fn wider_rows_than_the_quantiser_takes_are_refused() {
        let _ = LinearShape::new(1, (1 << 17) + 4, 1);
    }
}
