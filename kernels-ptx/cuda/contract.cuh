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
static_assert(sizeof(i8) == 1 && sizeof(i32) == 4 && sizeof(u32) == 4, "numbers");
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
