//! From shapes to grids and buffer lengths: plain arithmetic, tested without a device.

mod floats;

pub use floats::{AttendRowsShape, Device, FloatLinearShape, Launch, WeightType, rope_store_grid};

use crate::contract::TernaryGemmArgs;

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
}
