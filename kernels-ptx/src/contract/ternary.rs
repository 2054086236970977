//! Argument blocks of the kernels for ternary linears.

use super::{
    Argument, ArgumentBlock, Constant, DevicePtr, DevicePtrMut, Field, KernelSpec, sealed,
};

kernels! {
    /// `sums[row, b] = Σ_c values[b, c] · trit(row, c)`, exact in `i32`.
    ///
    /// Reference: `tercet_core::reference::gemm`. Grid: `launch::TernaryGemmShape::grid`.
    fn ternary_gemm[256](TernaryGemmArgs {
        /// `(rows / 16, cols / 32, 2, 2, 8)` words of sixteen codes, layout `tile16x32`,
        /// 16-byte aligned: rows 0..8 before 8..16, then columns 0..16 before 16..32, then the
        /// row. Column `k` of a word has bits `8 · (k % 4) + 2 · (k / 4)`; code = trit + 2.
        /// No trit has code 0; the kernel counts it as -2.
        codes: DevicePtr<u32>,
        /// `(batch, stride)`, of each row the first `cols`; 16-byte aligned. Any `i8`.
        values: DevicePtr<i8>,
        /// `(batch)`: `Σ_c values[b, c]`.
        value_sums: DevicePtr<i32>,
        /// `(rows, batch)`; every element is written.
        sums: DevicePtrMut<i32>,
        /// Multiple of `TILE_ROWS`, at least one tile.
        rows: u32,
        /// Multiple of `TILE_COLS`, at least one tile, at most `COLS_MAX`.
        cols: u32,
        /// At least 1.
        batch: u32,
        /// Values from one row of `values` to the next: a multiple of 16, at least `cols`.
        stride: u32,
    }) where {
        /// Rows of a tile of codes, and of the output of one thread block.
        TILE_ROWS = 16,
        /// Columns of a tile of codes.
        TILE_COLS = 32,
        /// Rows of `values` that one thread block multiplies.
        BLOCK_BATCH = 4,
        /// `128 · 3 · COLS_MAX` and what is subtracted from it fit an `i32`.
        COLS_MAX = 4194304,
    }
}
