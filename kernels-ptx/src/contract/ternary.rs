//! Argument blocks of the kernels for ternary linears.

use super::{
    Argument, ArgumentBlock, Constant, DevicePtr, DevicePtrMut, Field, KernelSpec, sealed,
};

kernels! {
    /// Rows of reals, normalised or as they are, become rows of INT8 values with a unit.
    ///
    /// Reference: `Activations::prepare` of the host's CPU, to the bit. Grid: a block a row.
    fn quantize[512](QuantizeArgs {
        /// `(rows, stride)`, of each row the first `cols`; 16-byte aligned.
        x: DevicePtr<f32>,
        /// `(cols)`: weight of the norm, 16-byte aligned; null: no norm.
        weight: DevicePtr<f32>,
        /// `(cols)`: bias of a layer norm, 16-byte aligned; null: an RMS norm.
        bias: DevicePtr<f32>,
        /// `(rows)`: `ABSENT` marks a row that pads the step, whose values, unit and sum become 0;
        /// null: no row does.
        positions: DevicePtr<u32>,
        /// `(col_tiles, row_blocks, 8, 128)`, 1024-byte aligned: value `(row, col)` stands in tile
        /// `col / 128`, block `row / 8`, line `row % 8`, and there in byte
        /// `16 · (col / 16 % 8 ^ row % 8) + col % 16`: as tensor cores like to find it in shared
        /// memory. Columns from `cols` on become 0; lines beyond `rows` are left alone.
        values: DevicePtrMut<i8>,
        /// `(8 · row_blocks)`: what value 1 is worth, to multiply by.
        row_units: DevicePtrMut<f32>,
        /// `(8 · row_blocks)`: the sum of a row's values.
        value_sums: DevicePtrMut<i32>,
        /// At least 1; the grid's blocks beyond it do nothing.
        rows: u32,
        /// Multiple of 4, at least 4, at most `COLS_MAX`.
        cols: u32,
        /// Reals from one row of `x` to the next: a multiple of 4.
        stride: u32,
        /// At least `rows / 8`, rounded up.
        row_blocks: u32,
        /// `cols / 128`, rounded up.
        col_tiles: u32,
        /// Added to the mean square.
        eps: f32,
    }) where {
        /// Widest row.
        COLS_MAX = 131072,
        /// The position that no row has.
        ABSENT = 4294967295,
    }

    /// A ternary linear over the rows of a step and what follows it, exact but for last roundings.
    ///
    /// `value = (Σ_c values[row, c] · trit(feature, c) · row_unit) · unit + bias`; `finish` says
    /// what becomes of it. Reference: `Linear::run` of the host's CPU, to the bit. Grid, clusters
    /// and shared memory: `launch::LinearShape::launch`, which chooses the kernel, too. The last
    /// number in the name is the rows of the step that a block multiplies together, one before it
    /// the features.
    fn linear_8, linear_16, linear_32, linear_64, linear_128, linear_64x64, linear_128x64,
        linear_192x64: 512, linear_64x128, linear_128x128, linear_192x128: 512,
        linear_256x128: 640 [384](LinearArgs {
        /// `(row_tiles, col_tiles, 128)` words, layout `mma16x128`, 16-byte aligned.
        codes: DevicePtr<u32>,
        /// `(16 · row_tiles)`: what trit 1 is worth, to multiply by.
        units: DevicePtr<f32>,
        /// `(16 · row_tiles)`; null: no bias.
        bias: DevicePtr<f32>,
        /// As `quantize` writes them, with the same `row_blocks` and `col_tiles`.
        values: DevicePtr<i8>,
        /// As `quantize` writes them.
        row_units: DevicePtr<f32>,
        /// As `quantize` writes them.
        value_sums: DevicePtr<i32>,
        /// `(rows, out_stride)`: of each row `out_offset..out_offset + features` is written.
        out: DevicePtrMut<f32>,
        /// `launch::linear_workspace_words`, 16-byte aligned. The first `FLAGS` words are 0
        /// before a launch and after it. Launches that may overlap do not share it.
        workspace: DevicePtrMut<u32>,
        /// Features of the output: at most `16 · row_tiles`, and half of that for `GATED`.
        features: u32,
        /// Row tiles of `codes`; even for `GATED`.
        row_tiles: u32,
        /// Column tiles of `codes`.
        col_tiles: u32,
        /// Rows of the step, at least 1.
        rows: u32,
        /// Blocks of eight rows that `values` has room for.
        row_blocks: u32,
        /// Reals from one row of `out` to the next.
        out_stride: u32,
        /// The first feature's place in a row of `out`.
        out_offset: u32,
        /// `STORE`, `ADD`, `ACTIVATE` or `GATED`.
        finish: u32,
        /// `SILU`, `RELU2` or `RELU`; read by `ACTIVATE` and `GATED`.
        activation: u32,
        /// `launch::LinearLaunch::tile`: the last number in the kernel's name; with another one it
        /// does nothing.
        tile: u32,
    }) where {
        /// Words of `workspace` that blocks signal each other with: two a block.
        FLAGS = 2048,
        /// `out = value`.
        STORE = 0,
        /// `out += value`.
        ADD = 1,
        /// `out = activation(value)`.
        ACTIVATE = 2,
        /// `out = activation(gate) · up`; row tile `2i` holds 16 rows of the gate, `2i + 1` those
        /// of up.
        GATED = 3,
        /// `x / (1 + exp(-x))`.
        SILU = 0,
        /// `max(x, 0)²`.
        RELU2 = 1,
        /// `max(x, 0)`.
        RELU = 2,
        /// Largest tile that is no slabs on capability 9.0. Two of its blocks fit a multiprocessor
        /// together, so that one fetches its codes while the one ahead of it ends.
        FEW = 16,
        /// Dynamic shared memory for capability 8.0.
        SHARED_SM_80 = 101376,
        /// Dynamic shared memory for capability 9.0, of tiles up to `FEW`.
        SHARED_FEW_SM_90 = 115712,
        /// Dynamic shared memory for capability 9.0, of tiles that are named by their features,
        /// too: as much as leaves some for `quantize`.
        SHARED_SLABS_SM_90 = 185344,
    }
}
