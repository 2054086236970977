// Generated from src/contract.rs: change that, then run
// `UPDATE=1 cargo test -p tercet-kernels-ptx`.
#pragma once

// NVRTC has no standard headers, but what they would use.
#ifdef __CUDACC_RTC__
#define offsetof(type, field) __INTADDR__(&static_cast<type *>(nullptr)->field)
#else
#include <cstddef>
#endif

using i8 = signed char;
using i32 = int;
using u32 = unsigned int;
using f32 = float;
static_assert(sizeof(i8) == 1 && sizeof(i32) == 4 && sizeof(u32) == 4, "numbers");
static_assert(sizeof(f32) == 4, "numbers");
static_assert(sizeof(void *) == 8, "pointers");

constexpr u32 CONTRACT_VERSION = 1;

// `sums[row, b] = Σ_c values[b, c] · trit(row, c)`, exact in `i32`.
//
// Reference: `tercet_core::reference::gemm`. Grid: `launch::TernaryGemmShape::grid`.
struct TernaryGemmArgs {
    static constexpr u32 THREADS = 256;
    // Rows of a tile of codes, and of the output of one thread block.
    static constexpr u32 TILE_ROWS = 16;
    // Columns of a tile of codes.
    static constexpr u32 TILE_COLS = 32;
    // Rows of `values` that one thread block multiplies.
    static constexpr u32 BLOCK_BATCH = 4;
    // `128 · 3 · COLS_MAX` and what is subtracted from it fit an `i32`.
    static constexpr u32 COLS_MAX = 4194304;

    // `(rows / 16, cols / 32, 2, 2, 8)` words of sixteen codes, layout `tile16x32`,
    // 16-byte aligned: rows 0..8 before 8..16, then columns 0..16 before 16..32, then the
    // row. Column `k` of a word has bits `8 · (k % 4) + 2 · (k / 4)`; code = trit + 2.
    // No trit has code 0; the kernel counts it as -2.
    const u32 *codes;
    // `(batch, stride)`, of each row the first `cols`; 16-byte aligned. Any `i8`.
    const i8 *values;
    // `(batch)`: `Σ_c values[b, c]`.
    const i32 *value_sums;
    // `(rows, batch)`; every element is written.
    i32 *sums;
    // Multiple of `TILE_ROWS`, at least one tile.
    u32 rows;
    // Multiple of `TILE_COLS`, at least one tile, at most `COLS_MAX`.
    u32 cols;
    // At least 1.
    u32 batch;
    // Values from one row of `values` to the next: a multiple of 16, at least `cols`.
    u32 stride;
};
static_assert(sizeof(TernaryGemmArgs) == 48, "TernaryGemmArgs");
static_assert(alignof(TernaryGemmArgs) == 8, "TernaryGemmArgs");
static_assert(offsetof(TernaryGemmArgs, codes) == 0, "codes");
static_assert(offsetof(TernaryGemmArgs, values) == 8, "values");
static_assert(offsetof(TernaryGemmArgs, value_sums) == 16, "value_sums");
static_assert(offsetof(TernaryGemmArgs, sums) == 24, "sums");
static_assert(offsetof(TernaryGemmArgs, rows) == 32, "rows");
static_assert(offsetof(TernaryGemmArgs, cols) == 36, "cols");
static_assert(offsetof(TernaryGemmArgs, batch) == 40, "batch");
static_assert(offsetof(TernaryGemmArgs, stride) == 44, "stride");
extern "C" __global__ void ternary_gemm(TernaryGemmArgs args);

// Rows of reals, normalised or as they are, become rows of INT8 values with a unit.
//
// Reference: `Activations::prepare` of the host's CPU, to the bit. Grid: a block a row.
struct QuantizeArgs {
    static constexpr u32 THREADS = 512;
    // Widest row.
    static constexpr u32 COLS_MAX = 131072;
    // The position that no row has.
    static constexpr u32 ABSENT = 4294967295;

    // `(rows, stride)`, of each row the first `cols`; 16-byte aligned.
    const f32 *x;
    // `(cols)`: weight of the norm, 16-byte aligned; null: no norm.
    const f32 *weight;
    // `(cols)`: bias of a layer norm, 16-byte aligned; null: an RMS norm.
    const f32 *bias;
    // `(rows)`: `ABSENT` marks a row that pads the step, whose values, unit and sum become 0;
    // null: no row does.
    const u32 *positions;
    // `(col_tiles, row_blocks, 8, 128)`, 1024-byte aligned: value `(row, col)` stands in tile
    // `col / 128`, block `row / 8`, line `row % 8`, and there in byte
    // `16 · (col / 16 % 8 ^ row % 8) + col % 16`: as tensor cores like to find it in shared
    // memory. Columns from `cols` on become 0; lines beyond `rows` are left alone.
    i8 *values;
    // `(8 · row_blocks)`: what value 1 is worth, to multiply by.
    f32 *row_units;
    // `(8 · row_blocks)`: the sum of a row's values.
    i32 *value_sums;
    // At least 1; the grid's blocks beyond it do nothing.
    u32 rows;
    // Multiple of 4, at least 4, at most `COLS_MAX`.
    u32 cols;
    // Reals from one row of `x` to the next: a multiple of 4.
    u32 stride;
    // At least `rows / 8`, rounded up.
    u32 row_blocks;
    // `cols / 128`, rounded up.
    u32 col_tiles;
    // Added to the mean square.
    f32 eps;
};
static_assert(sizeof(QuantizeArgs) == 80, "QuantizeArgs");
static_assert(alignof(QuantizeArgs) == 8, "QuantizeArgs");
static_assert(offsetof(QuantizeArgs, x) == 0, "x");
static_assert(offsetof(QuantizeArgs, weight) == 8, "weight");
static_assert(offsetof(QuantizeArgs, bias) == 16, "bias");
static_assert(offsetof(QuantizeArgs, positions) == 24, "positions");
static_assert(offsetof(QuantizeArgs, values) == 32, "values");
static_assert(offsetof(QuantizeArgs, row_units) == 40, "row_units");
static_assert(offsetof(QuantizeArgs, value_sums) == 48, "value_sums");
static_assert(offsetof(QuantizeArgs, rows) == 56, "rows");
static_assert(offsetof(QuantizeArgs, cols) == 60, "cols");
static_assert(offsetof(QuantizeArgs, stride) == 64, "stride");
static_assert(offsetof(QuantizeArgs, row_blocks) == 68, "row_blocks");
static_assert(offsetof(QuantizeArgs, col_tiles) == 72, "col_tiles");
static_assert(offsetof(QuantizeArgs, eps) == 76, "eps");
extern "C" __global__ void quantize(QuantizeArgs args);

// A ternary linear over the rows of a step and what follows it, exact up to its last roundings.
//
// `value = (Σ_c values[row, c] · trit(feature, c) · row_unit) · unit + bias`; `finish` says
// what becomes of it. Reference: `Linear::run` of the host's CPU, to the bit. Grid:
// `launch::LinearShape::blocks`; shared memory: `launch::linear_shared_bytes`.
// The number in the name is the rows of the step that a block multiplies together:
// `launch::LinearShape::entry` chooses.
struct LinearArgs {
    static constexpr u32 THREADS = 384;
    // Words of `workspace` that blocks signal each other with: two a block.
    static constexpr u32 FLAGS = 2048;
    // `out = value`.
    static constexpr u32 STORE = 0;
    // `out += value`.
    static constexpr u32 ADD = 1;
    // `out = activation(value)`.
    static constexpr u32 ACTIVATE = 2;
    // `out = activation(gate) · up`; row tile `2i` holds 16 rows of the gate, `2i + 1` those
    // of up.
    static constexpr u32 GATED = 3;
    // `x / (1 + exp(-x))`.
    static constexpr u32 SILU = 0;
    // `max(x, 0)²`.
    static constexpr u32 RELU2 = 1;
    // `max(x, 0)`.
    static constexpr u32 RELU = 2;
    // Largest tile of which two blocks fit a multiprocessor of capability 9.0 together, so
    // that one fetches its codes while the one ahead of it ends.
    static constexpr u32 FEW = 16;
    // Dynamic shared memory for capability 8.0.
    static constexpr u32 SHARED_SM_80 = 101376;
    // Dynamic shared memory for capability 9.0, of tiles up to `FEW`.
    static constexpr u32 SHARED_FEW_SM_90 = 115712;
    // Dynamic shared memory for capability 9.0, of larger tiles.
    static constexpr u32 SHARED_SM_90 = 232448;

    // `(row_tiles, col_tiles, 128)` words, layout `mma16x128`, 16-byte aligned.
    const u32 *codes;
    // `(16 · row_tiles)`: what trit 1 is worth, to multiply by.
    const f32 *units;
    // `(16 · row_tiles)`; null: no bias.
    const f32 *bias;
    // As `quantize` writes them, with the same `row_blocks` and `col_tiles`.
    const i8 *values;
    // As `quantize` writes them.
    const f32 *row_units;
    // As `quantize` writes them.
    const i32 *value_sums;
    // `(rows, out_stride)`: of each row `out_offset..out_offset + features` is written.
    f32 *out;
    // `launch::linear_workspace_words`, 16-byte aligned. The first `FLAGS` words are 0
    // before a launch and after it. Launches that may overlap do not share it.
    u32 *workspace;
    // Features of the output: at most `16 · row_tiles`, and half of that for `GATED`.
    u32 features;
    // Row tiles of `codes`; even for `GATED`.
    u32 row_tiles;
    // Column tiles of `codes`.
    u32 col_tiles;
    // Rows of the step, at least 1.
    u32 rows;
    // Blocks of eight rows that `values` has room for.
    u32 row_blocks;
    // Reals from one row of `out` to the next.
    u32 out_stride;
    // The first feature's place in a row of `out`.
    u32 out_offset;
    // `STORE`, `ADD`, `ACTIVATE` or `GATED`.
    u32 finish;
    // `SILU`, `RELU2` or `RELU`; read by `ACTIVATE` and `GATED`.
    u32 activation;
    // `launch::LinearShape::tile`: the number in the kernel's name. Another kernel does nothing.
    u32 tile;
};
static_assert(sizeof(LinearArgs) == 104, "LinearArgs");
static_assert(alignof(LinearArgs) == 8, "LinearArgs");
static_assert(offsetof(LinearArgs, codes) == 0, "codes");
static_assert(offsetof(LinearArgs, units) == 8, "units");
static_assert(offsetof(LinearArgs, bias) == 16, "bias");
static_assert(offsetof(LinearArgs, values) == 24, "values");
static_assert(offsetof(LinearArgs, row_units) == 32, "row_units");
static_assert(offsetof(LinearArgs, value_sums) == 40, "value_sums");
static_assert(offsetof(LinearArgs, out) == 48, "out");
static_assert(offsetof(LinearArgs, workspace) == 56, "workspace");
static_assert(offsetof(LinearArgs, features) == 64, "features");
static_assert(offsetof(LinearArgs, row_tiles) == 68, "row_tiles");
static_assert(offsetof(LinearArgs, col_tiles) == 72, "col_tiles");
static_assert(offsetof(LinearArgs, rows) == 76, "rows");
static_assert(offsetof(LinearArgs, row_blocks) == 80, "row_blocks");
static_assert(offsetof(LinearArgs, out_stride) == 84, "out_stride");
static_assert(offsetof(LinearArgs, out_offset) == 88, "out_offset");
static_assert(offsetof(LinearArgs, finish) == 92, "finish");
static_assert(offsetof(LinearArgs, activation) == 96, "activation");
static_assert(offsetof(LinearArgs, tile) == 100, "tile");
extern "C" __global__ void linear_8(LinearArgs args);
extern "C" __global__ void linear_16(LinearArgs args);
extern "C" __global__ void linear_32(LinearArgs args);
extern "C" __global__ void linear_64(LinearArgs args);
extern "C" __global__ void linear_128(LinearArgs args);
