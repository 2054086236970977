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
using u8 = unsigned char;
using u16 = unsigned short;
using i32 = int;
using u32 = unsigned int;
using f32 = float;
using f64 = double;
static_assert(sizeof(i8) == 1 && sizeof(u8) == 1 && sizeof(u16) == 2, "numbers");
static_assert(sizeof(i32) == 4 && sizeof(u32) == 4, "numbers");
static_assert(sizeof(f32) == 4 && sizeof(f64) == 8, "numbers");
static_assert(sizeof(void *) == 8, "pointers");

constexpr u32 CONTRACT_VERSION = 1;

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

// A ternary linear over the rows of a step and what follows it, exact but for last roundings.
//
// `value = (Σ_c values[row, c] · trit(feature, c) · row_unit) · unit + bias`; `finish` says
// what becomes of it. Reference: `Linear::run` of the host's CPU, to the bit. Grid, clusters
// and shared memory: `launch::LinearShape::launch`, which chooses the kernel, too. The last
// number in the name is the rows of the step that a block multiplies together, one before it
// the features.
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
    // Largest tile that is no slabs on capability 9.0. Two of its blocks fit a multiprocessor
    // together, so that one fetches its codes while the one ahead of it ends.
    static constexpr u32 FEW = 16;
    // Dynamic shared memory for capability 8.0.
    static constexpr u32 SHARED_SM_80 = 101376;
    // Dynamic shared memory for capability 9.0, of tiles up to `FEW`.
    static constexpr u32 SHARED_FEW_SM_90 = 115712;
    // Dynamic shared memory for capability 9.0, of tiles that are named by their features,
    // too: as much as leaves some for `quantize`.
    static constexpr u32 SHARED_SLABS_SM_90 = 185344;

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
    // `launch::LinearLaunch::tile`: the last number in the kernel's name; with another one it
    // does nothing.
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
extern "C" __global__ void linear_64x64(LinearArgs args);
extern "C" __global__ void linear_128x64(LinearArgs args);
extern "C" __global__ void linear_192x64(LinearArgs args);
extern "C" __global__ void linear_64x128(LinearArgs args);
extern "C" __global__ void linear_128x128(LinearArgs args);
extern "C" __global__ void linear_192x128(LinearArgs args);
extern "C" __global__ void linear_256x128(LinearArgs args);

// `hidden[r, :] = table[tokens[r], :]`, plus `learned[positions[r] + learned_offset, :]` where
// there is such a table. Equal to the CPU to the bit.
//
// Grid: one block per row. A row whose position is `NONE` becomes zero.
struct EmbedArgs {
    static constexpr u32 THREADS = 256;
    // Position of a row that is none.
    static constexpr u32 NONE = 4294967295;
    // Half precision.
    static constexpr u32 F16 = 0;
    // The upper half of a single.
    static constexpr u32 BF16 = 1;
    // Single precision.
    static constexpr u32 F32 = 2;

    // `(vocab, cols)` of form `table_form`, 16-byte aligned; where `tiled` is not 0, the tiles
    // that `tile_weights` makes of it.
    const u8 *table;
    // `(positions, cols)` of form `learned_form`, 16-byte aligned; or null.
    const u8 *learned;
    // `(rows)`, below the vocabulary.
    const u32 *tokens;
    // `(rows)`; `NONE` marks a row that only fills up the batch.
    const u32 *positions;
    // `(rows, cols)`; every element is written.
    f32 *hidden;
    // Multiple of 4.
    u32 cols;
    // `F16`, `BF16` or `F32`.
    u32 table_form;
    // `F16`, `BF16` or `F32`.
    u32 learned_form;
    // Rows at the top of `learned` that stand for no position.
    u32 learned_offset;
    // Whether `table` is tiles.
    u32 tiled;
    // Zero.
    u32 reserved;
};
static_assert(sizeof(EmbedArgs) == 64, "EmbedArgs");
static_assert(alignof(EmbedArgs) == 8, "EmbedArgs");
static_assert(offsetof(EmbedArgs, table) == 0, "table");
static_assert(offsetof(EmbedArgs, learned) == 8, "learned");
static_assert(offsetof(EmbedArgs, tokens) == 16, "tokens");
static_assert(offsetof(EmbedArgs, positions) == 24, "positions");
static_assert(offsetof(EmbedArgs, hidden) == 32, "hidden");
static_assert(offsetof(EmbedArgs, cols) == 40, "cols");
static_assert(offsetof(EmbedArgs, table_form) == 44, "table_form");
static_assert(offsetof(EmbedArgs, learned_form) == 48, "learned_form");
static_assert(offsetof(EmbedArgs, learned_offset) == 52, "learned_offset");
static_assert(offsetof(EmbedArgs, tiled) == 56, "tiled");
static_assert(offsetof(EmbedArgs, reserved) == 60, "reserved");
extern "C" __global__ void embed(EmbedArgs args);

// Rows normalised as the CPU does, to the bit, and split into the 16-bit terms that float
// linears multiply.
//
// Row `r` of the output is row `asking[r]` of `x`; where that is `NONE`, nothing is written.
// RMS norm: `(x · inverse_rms) · weight`; layer norm (with `bias`): `((x - mean) ·
// inverse_deviation) · weight + bias`; no norm without `weight`. Form `F16`: `x · 2^k = hi +
// lo`, where the power of two puts the row's peak below `2^14`; form `BF16`: `x = hi + mid +
// lo`. Terms are rounded to nearest even, each the rest of the ones before.
//
// Grid: one block per row of the output.
struct NormalizeArgs {
    static constexpr u32 THREADS = 1024;
    // Entry of `asking` that asks for nothing.
    static constexpr u32 NONE = 4294967295;
    // Two terms of half precision, scaled.
    static constexpr u32 F16 = 0;
    // Three terms, each the upper half of a single.
    static constexpr u32 BF16 = 1;
    // Widest row.
    static constexpr u32 COLS_MAX = 131072;

    // `(_, cols)`, 16-byte aligned.
    const f32 *x;
    // `(cols)`, 16-byte aligned; or null for no norm.
    const f32 *weight;
    // `(cols)`, 16-byte aligned; or null for an RMS norm.
    const f32 *bias;
    // `(rows)`; or null for each row in its place.
    const u32 *asking;
    // `(rows, cols)`, 16-byte aligned; or null.
    f32 *normed;
    // `(rows, 2 or 3, terms_stride)`, 16-byte aligned; or null. Zero from `cols` on. With
    // `tile_cols` the same numbers as tiles `(cols / tile_cols, row_blocks, 2 or 3, units,
    // 2, 2, 8, 4, 2)`: columns, blocks of eight rows, term, 32 columns of a tile of 64; then
    // of the eight rows one by one what four lanes multiply at a time, each two neighbouring
    // columns of the eight (sixteen of 64) that it has.
    u16 *terms;
    // `(rows)`: `2^-k` of form `F16`; or null.
    f32 *scales;
    // Multiple of 4, at most `COLS_MAX`.
    u32 cols;
    // Multiple of 64, at least `cols`.
    u32 terms_stride;
    // `F16` or `BF16`.
    u32 form;
    // Added to the mean square.
    f32 eps;
    // 32 or 64, with `I8` weights: columns of a tile; or 0 for terms row by row.
    u32 tile_cols;
    // Rows of the output in eights, rounded up; of tiles.
    u32 row_blocks;
};
static_assert(sizeof(NormalizeArgs) == 80, "NormalizeArgs");
static_assert(alignof(NormalizeArgs) == 8, "NormalizeArgs");
static_assert(offsetof(NormalizeArgs, x) == 0, "x");
static_assert(offsetof(NormalizeArgs, weight) == 8, "weight");
static_assert(offsetof(NormalizeArgs, bias) == 16, "bias");
static_assert(offsetof(NormalizeArgs, asking) == 24, "asking");
static_assert(offsetof(NormalizeArgs, normed) == 32, "normed");
static_assert(offsetof(NormalizeArgs, terms) == 40, "terms");
static_assert(offsetof(NormalizeArgs, scales) == 48, "scales");
static_assert(offsetof(NormalizeArgs, cols) == 56, "cols");
static_assert(offsetof(NormalizeArgs, terms_stride) == 60, "terms_stride");
static_assert(offsetof(NormalizeArgs, form) == 64, "form");
static_assert(offsetof(NormalizeArgs, eps) == 68, "eps");
static_assert(offsetof(NormalizeArgs, tile_cols) == 72, "tile_cols");
static_assert(offsetof(NormalizeArgs, row_blocks) == 76, "row_blocks");
extern "C" __global__ void normalize(NormalizeArgs args);

// Brings weights into the order in which float linears read them: tiles of 16 features by a
// chunk of 32 columns (64 of `I8`), chunk fastest, zero beyond the sides.
//
// A tile is pieces of 16 bytes, `(2, 1 (2 for F32), 32)`: feature `g` or `g + 8`, then the
// first or second half of a lane's columns, then lane `4 g + q`, which has columns `8 q..8 q +
// 8` (`16 q..16 q + 16` of `I8`).
//
// Grid: one block per 16 features. Runs of rows may be brought over one after the other.
struct TileWeightsArgs {
    static constexpr u32 THREADS = 256;
    // Numbers of 16 bits.
    static constexpr u32 BITS16 = 0;
    // Singles.
    static constexpr u32 F32 = 2;
    // Signed bytes.
    static constexpr u32 I8 = 3;

    // `(features, cols)`, row-major, 4-byte aligned.
    const u8 *rows;
    // `(features / 16, cols / chunk)` tiles, both rounded up; 16-byte aligned.
    u8 *tiles;
    // At least 1.
    u32 features;
    // Multiple of 4.
    u32 cols;
    // `BITS16`, `F32` or `I8`.
    u32 form;
    // Zero.
    u32 reserved;
};
static_assert(sizeof(TileWeightsArgs) == 32, "TileWeightsArgs");
static_assert(alignof(TileWeightsArgs) == 8, "TileWeightsArgs");
static_assert(offsetof(TileWeightsArgs, rows) == 0, "rows");
static_assert(offsetof(TileWeightsArgs, tiles) == 8, "tiles");
static_assert(offsetof(TileWeightsArgs, features) == 16, "features");
static_assert(offsetof(TileWeightsArgs, cols) == 20, "cols");
static_assert(offsetof(TileWeightsArgs, form) == 24, "form");
static_assert(offsetof(TileWeightsArgs, reserved) == 28, "reserved");
extern "C" __global__ void tile_weights(TileWeightsArgs args);

// `value[b, f] = Σ_c weights[f, c] · rows[b, c] (+ bias[f])`, combined with `out` by
// `epilogue`; near single precision.
//
// The sum of an element: stretches of `STRETCH` columns, each a chain of tensor core products
// in one order, added up from the left. So a row's bits depend neither on the rows beside it
// nor on the split, and are the same from the entries for few rows, for some (`narrow`) and
// for many (`wide`).
//
// Launch: `launch::FloatLinearShape`.
struct FloatLinearArgs {
    static constexpr u32 THREADS = 256;
    // Features of a tile.
    static constexpr u32 TILE_FEATURES = 16;
    // Rows of a block of the grid of the entries for few rows.
    static constexpr u32 BLOCK_ROWS = 8;
    // Features of a block of the other entries.
    static constexpr u32 MANY_FEATURES = 128;
    // Rows of a block of the `narrow` entries.
    static constexpr u32 NARROW_ROWS = 32;
    // Rows of a block of the `wide` entries.
    static constexpr u32 WIDE_ROWS = 128;
    // Most shared memory of a block of the `narrow` entries, in bytes, in PTX for 8.0.
    static constexpr u32 SHARED_NARROW_SM_80 = 98304;
    // As above, for 9.0.
    static constexpr u32 SHARED_NARROW_SM_90 = 114688;
    // Most shared memory of a block of the `wide` entries, in bytes, in PTX for 8.0.
    static constexpr u32 SHARED_WIDE_SM_80 = 98304;
    // As above, for 9.0.
    static constexpr u32 SHARED_WIDE_SM_90 = 229376;
    // Columns of a stretch of the sum.
    static constexpr u32 STRETCH = 256;
    // Columns that a lane of the entries for few rows asks for at a time.
    static constexpr u32 BATCH_COLS = 64;
    // Bytes of shared memory that such a lane has for weights on the way.
    static constexpr u32 LANE_BYTES = 320;
    // The same where two tiles are taken together.
    static constexpr u32 PAIR_LANE_BYTES = 256;
    // Features from which the `i8` entry for few rows takes two tiles together.
    static constexpr u32 PAIR_FEATURES = 16384;
    // `out = value`.
    static constexpr u32 STORE = 0;
    // `out += value`.
    static constexpr u32 ADD = 1;
    // `out = activation(value)`.
    static constexpr u32 ACTIVATE = 2;
    // `out = activation(out) · value`.
    static constexpr u32 GATE = 3;
    // `x / (1 + exp(-x))`.
    static constexpr u32 SILU = 0;
    // `max(x, 0)²`.
    static constexpr u32 RELU2 = 1;
    // `max(x, 0)`.
    static constexpr u32 RELU = 2;

    // What `tile_weights` makes of `(features, cols)` numbers of the entry's type.
    const u8 *weights;
    // `(rows, 2 or 3, terms_stride)`, from `normalize`: form `F16` for `f16` and `i8` weights,
    // `BF16` for `bf16` and `f32`. 16-byte aligned.
    const u16 *terms;
    // `(rows)`, from `normalize`; read for `f16` and `i8` weights only.
    const f32 *scales;
    // `(features)`: what weight 1 is worth, the factor of the sum; or null.
    const f32 *units;
    // `(features)`; or null.
    const f32 *bias;
    // Element `(b, f)` stands at `b · out_stride + offset + f`.
    f32 *out;
    // At least 1.
    u32 features;
    // At least 1.
    u32 cols;
    // At least 1.
    u32 rows;
    // Numbers from one term to the next: a multiple of 64, at least `cols`.
    u32 terms_stride;
    // Elements from one row of `out` to the next.
    u32 out_stride;
    // First feature's place in a row of `out`.
    u32 offset;
    // `STORE`, `ADD`, `ACTIVATE` or `GATE`.
    u32 epilogue;
    // `SILU`, `RELU2` or `RELU`, of `ACTIVATE` and `GATE`.
    u32 activation;
};
static_assert(sizeof(FloatLinearArgs) == 80, "FloatLinearArgs");
static_assert(alignof(FloatLinearArgs) == 8, "FloatLinearArgs");
static_assert(offsetof(FloatLinearArgs, weights) == 0, "weights");
static_assert(offsetof(FloatLinearArgs, terms) == 8, "terms");
static_assert(offsetof(FloatLinearArgs, scales) == 16, "scales");
static_assert(offsetof(FloatLinearArgs, units) == 24, "units");
static_assert(offsetof(FloatLinearArgs, bias) == 32, "bias");
static_assert(offsetof(FloatLinearArgs, out) == 40, "out");
static_assert(offsetof(FloatLinearArgs, features) == 48, "features");
static_assert(offsetof(FloatLinearArgs, cols) == 52, "cols");
static_assert(offsetof(FloatLinearArgs, rows) == 56, "rows");
static_assert(offsetof(FloatLinearArgs, terms_stride) == 60, "terms_stride");
static_assert(offsetof(FloatLinearArgs, out_stride) == 64, "out_stride");
static_assert(offsetof(FloatLinearArgs, offset) == 68, "offset");
static_assert(offsetof(FloatLinearArgs, epilogue) == 72, "epilogue");
static_assert(offsetof(FloatLinearArgs, activation) == 76, "activation");
extern "C" __global__ void float_linear_f16(FloatLinearArgs args);
extern "C" __global__ void float_linear_bf16(FloatLinearArgs args);
extern "C" __global__ void float_linear_f32(FloatLinearArgs args);
extern "C" __global__ void float_linear_i8(FloatLinearArgs args);
extern "C" __global__ void float_linear_narrow_f16(FloatLinearArgs args);
extern "C" __global__ void float_linear_narrow_bf16(FloatLinearArgs args);
extern "C" __global__ void float_linear_narrow_f32(FloatLinearArgs args);
extern "C" __global__ void float_linear_narrow_i8(FloatLinearArgs args);
extern "C" __global__ void float_linear_wide_f16(FloatLinearArgs args);
extern "C" __global__ void float_linear_wide_bf16(FloatLinearArgs args);
extern "C" __global__ void float_linear_wide_i8(FloatLinearArgs args);

// As `float_linear`, for many rows, on Hopper's matrix instruction; the bits are those of
// [`FloatLinearArgs`]' entries.
//
// Launch: `launch::FloatLinearShape::hopper`.
struct FloatLinearHopperArgs {
    static constexpr u32 THREADS = 384;
    // Features of a block at a time.
    static constexpr u32 FEATURES = 128;
    // Rows of a block at a time.
    static constexpr u32 ROWS = 128;
    // Shared memory of a block, in bytes.
    static constexpr u32 SHARED_BYTES = 229376;

    // As in [`FloatLinearArgs`].
    const u8 *weights;
    // Tiles of `launch::FloatLinearShape::tile_cols` columns, from `normalize`.
    const u16 *terms;
    // As in [`FloatLinearArgs`].
    const f32 *scales;
    // As in [`FloatLinearArgs`].
    const f32 *units;
    // As in [`FloatLinearArgs`].
    const f32 *bias;
    // As in [`FloatLinearArgs`].
    f32 *out;
    // At least 1.
    u32 features;
    // At least 1.
    u32 cols;
    // At least 1.
    u32 rows;
    // Elements from one row of `out` to the next.
    u32 out_stride;
    // First feature's place in a row of `out`.
    u32 offset;
    // As in [`FloatLinearArgs`].
    u32 epilogue;
    // As in [`FloatLinearArgs`].
    u32 activation;
    // Zero.
    u32 reserved;
};
static_assert(sizeof(FloatLinearHopperArgs) == 80, "FloatLinearHopperArgs");
static_assert(alignof(FloatLinearHopperArgs) == 8, "FloatLinearHopperArgs");
static_assert(offsetof(FloatLinearHopperArgs, weights) == 0, "weights");
static_assert(offsetof(FloatLinearHopperArgs, terms) == 8, "terms");
static_assert(offsetof(FloatLinearHopperArgs, scales) == 16, "scales");
static_assert(offsetof(FloatLinearHopperArgs, units) == 24, "units");
static_assert(offsetof(FloatLinearHopperArgs, bias) == 32, "bias");
static_assert(offsetof(FloatLinearHopperArgs, out) == 40, "out");
static_assert(offsetof(FloatLinearHopperArgs, features) == 48, "features");
static_assert(offsetof(FloatLinearHopperArgs, cols) == 52, "cols");
static_assert(offsetof(FloatLinearHopperArgs, rows) == 56, "rows");
static_assert(offsetof(FloatLinearHopperArgs, out_stride) == 60, "out_stride");
static_assert(offsetof(FloatLinearHopperArgs, offset) == 64, "offset");
static_assert(offsetof(FloatLinearHopperArgs, epilogue) == 68, "epilogue");
static_assert(offsetof(FloatLinearHopperArgs, activation) == 72, "activation");
static_assert(offsetof(FloatLinearHopperArgs, reserved) == 76, "reserved");
extern "C" __global__ void float_linear_hopper_f16(FloatLinearHopperArgs args);
extern "C" __global__ void float_linear_hopper_bf16(FloatLinearHopperArgs args);
extern "C" __global__ void float_linear_hopper_i8(FloatLinearHopperArgs args);

// Turns queries and keys by their rows' positions and stores keys and values in the cache.
// Equal to the CPU to the bit.
//
// Element `i` of a head turns with element `i + head_dim / 2`. Keys stand in the cache as
// `(slot, kv_head, position / 32, head_dim, position % 32)`, values as `(slot, kv_head,
// position, head_dim)`; halves are rounded to nearest even.
//
// Grid: `launch::rope_store_grid`.
struct RopeStoreArgs {
    static constexpr u32 THREADS = 256;
    // Position of a row that is none.
    static constexpr u32 NONE = 4294967295;
    // Rows of a thread block.
    static constexpr u32 BLOCK_ROWS = 32;
    // Positions of a block of keys.
    static constexpr u32 KEY_BLOCK = 32;
    // Widest head.
    static constexpr u32 HEAD_DIM_MAX = 256;
    // Half precision.
    static constexpr u32 F16 = 0;
    // Single precision.
    static constexpr u32 F32 = 1;

    // `(rows, query + 2 kv)`: queries, keys, values; queries and keys are turned in place.
    f32 *qkv;
    // `(rows)`; `NONE` marks a row that only fills up the batch.
    const u32 *positions;
    // `(rows)`
    const u32 *slots;
    // `(positions, head_dim / 2)`; or null where positions are not rotary.
    const f32 *cos;
    // As `cos`.
    const f32 *sin;
    // Keys of the layer.
    u8 *keys;
    // Values of the layer.
    u8 *values;
    // At least 1.
    u32 rows;
    // Query heads.
    u32 heads;
    // Key and value heads.
    u32 kv_heads;
    // Even, at most `HEAD_DIM_MAX`.
    u32 head_dim;
    // Positions of a slot, a multiple of `KEY_BLOCK`.
    u32 capacity;
    // `F16` or `F32`: numbers of the cache.
    u32 kv;
};
static_assert(sizeof(RopeStoreArgs) == 80, "RopeStoreArgs");
static_assert(alignof(RopeStoreArgs) == 8, "RopeStoreArgs");
static_assert(offsetof(RopeStoreArgs, qkv) == 0, "qkv");
static_assert(offsetof(RopeStoreArgs, positions) == 8, "positions");
static_assert(offsetof(RopeStoreArgs, slots) == 16, "slots");
static_assert(offsetof(RopeStoreArgs, cos) == 24, "cos");
static_assert(offsetof(RopeStoreArgs, sin) == 32, "sin");
static_assert(offsetof(RopeStoreArgs, keys) == 40, "keys");
static_assert(offsetof(RopeStoreArgs, values) == 48, "values");
static_assert(offsetof(RopeStoreArgs, rows) == 56, "rows");
static_assert(offsetof(RopeStoreArgs, heads) == 60, "heads");
static_assert(offsetof(RopeStoreArgs, kv_heads) == 64, "kv_heads");
static_assert(offsetof(RopeStoreArgs, head_dim) == 68, "head_dim");
static_assert(offsetof(RopeStoreArgs, capacity) == 72, "capacity");
static_assert(offsetof(RopeStoreArgs, kv) == 76, "kv");
extern "C" __global__ void rope_store(RopeStoreArgs args);

// `mixed[b, h] = Σ_t softmax_t(q[b, h] · k[t] / √head_dim) v[t]` over the positions up to the
// row's own, in the CPU's order of operations and equal to it to the bit; `f16` and `f32` are
// the numbers of the cache.
//
// A row's bits do not depend on the tiles.
//
// Launch: `launch::AttendRowsShape`.
struct AttendRowsExactArgs {
    static constexpr u32 THREADS = 256;
    // Most rows of a tile.
    static constexpr u32 TILE_ROWS = 64;
    // Positions of a block of keys.
    static constexpr u32 KEY_BLOCK = 32;
    // Widest head.
    static constexpr u32 HEAD_DIM_MAX = 256;

    // `(rows, query + 2 kv)` after `rope_store`.
    const f32 *qkv;
    // Keys of the layer.
    const u8 *keys;
    // Values of the layer.
    const u8 *values;
    // `(rows)`
    const u32 *positions;
    // `(rows)`
    const u32 *slots;
    // `(tiles, 2)`: first row, and number of rows from 1 to `TILE_ROWS`: of one slot, at
    // consecutive positions.
    const u32 *tiles;
    // `(rows, query)`; the rows of the tiles are written.
    f32 *mixed;
    // Query heads: a multiple of `kv_heads`.
    u32 heads;
    // Key and value heads.
    u32 kv_heads;
    // At most `HEAD_DIM_MAX`.
    u32 head_dim;
    // Positions of a slot, a multiple of `KEY_BLOCK`.
    u32 capacity;
};
static_assert(sizeof(AttendRowsExactArgs) == 72, "AttendRowsExactArgs");
static_assert(alignof(AttendRowsExactArgs) == 8, "AttendRowsExactArgs");
static_assert(offsetof(AttendRowsExactArgs, qkv) == 0, "qkv");
static_assert(offsetof(AttendRowsExactArgs, keys) == 8, "keys");
static_assert(offsetof(AttendRowsExactArgs, values) == 16, "values");
static_assert(offsetof(AttendRowsExactArgs, positions) == 24, "positions");
static_assert(offsetof(AttendRowsExactArgs, slots) == 32, "slots");
static_assert(offsetof(AttendRowsExactArgs, tiles) == 40, "tiles");
static_assert(offsetof(AttendRowsExactArgs, mixed) == 48, "mixed");
static_assert(offsetof(AttendRowsExactArgs, heads) == 56, "heads");
static_assert(offsetof(AttendRowsExactArgs, kv_heads) == 60, "kv_heads");
static_assert(offsetof(AttendRowsExactArgs, head_dim) == 64, "head_dim");
static_assert(offsetof(AttendRowsExactArgs, capacity) == 68, "capacity");
extern "C" __global__ void attend_rows_exact_f16(AttendRowsExactArgs args);
extern "C" __global__ void attend_rows_exact_f32(AttendRowsExactArgs args);

// As `attend_rows_exact`, on tensor cores, for a cache of halves and the head width in the
// entry's name; near single precision.
//
// Keys are taken in blocks of 64 positions counted from the start of the slot, and a block
// beyond a row's position leaves its bits alone: they do not depend on the tiles, and so
// neither on the chunks of a prefill.
//
// Launch: `launch::AttendRowsShape`.
struct AttendRowsArgs {
    static constexpr u32 THREADS = 128;
    // Most rows of a tile.
    static constexpr u32 TILE_ROWS = 64;
    // Positions of a block of keys.
    static constexpr u32 KEY_BLOCK = 32;
    // Most bytes of shared memory: what every device has.
    static constexpr u32 SHARED_MAX = 101376;

    // `(rows, query + 2 kv)` after `rope_store`.
    const f32 *qkv;
    // Keys of the layer, 16-byte aligned.
    const u16 *keys;
    // Values of the layer, 16-byte aligned.
    const u16 *values;
    // `(rows)`
    const u32 *positions;
    // `(rows)`
    const u32 *slots;
    // `(tiles, 2)`: first row, and number of rows from 1 to `TILE_ROWS`: of one slot, at
    // consecutive positions.
    const u32 *tiles;
    // `(rows, query)`; the rows of the tiles are written.
    f32 *mixed;
    // Query heads: a multiple of `kv_heads`.
    u32 heads;
    // Key and value heads.
    u32 kv_heads;
    // That in the entry's name.
    u32 head_dim;
    // Positions of a slot, a multiple of `KEY_BLOCK`.
    u32 capacity;
};
static_assert(sizeof(AttendRowsArgs) == 72, "AttendRowsArgs");
static_assert(alignof(AttendRowsArgs) == 8, "AttendRowsArgs");
static_assert(offsetof(AttendRowsArgs, qkv) == 0, "qkv");
static_assert(offsetof(AttendRowsArgs, keys) == 8, "keys");
static_assert(offsetof(AttendRowsArgs, values) == 16, "values");
static_assert(offsetof(AttendRowsArgs, positions) == 24, "positions");
static_assert(offsetof(AttendRowsArgs, slots) == 32, "slots");
static_assert(offsetof(AttendRowsArgs, tiles) == 40, "tiles");
static_assert(offsetof(AttendRowsArgs, mixed) == 48, "mixed");
static_assert(offsetof(AttendRowsArgs, heads) == 56, "heads");
static_assert(offsetof(AttendRowsArgs, kv_heads) == 60, "kv_heads");
static_assert(offsetof(AttendRowsArgs, head_dim) == 64, "head_dim");
static_assert(offsetof(AttendRowsArgs, capacity) == 68, "capacity");
extern "C" __global__ void attend_rows_f16_64(AttendRowsArgs args);
extern "C" __global__ void attend_rows_f16_96(AttendRowsArgs args);
extern "C" __global__ void attend_rows_f16_100(AttendRowsArgs args);
extern "C" __global__ void attend_rows_f16_128(AttendRowsArgs args);
extern "C" __global__ void attend_rows_f16_256(AttendRowsArgs args);

// As `attend_rows_f16`, on Hopper's matrix instruction; the bits are those of
// [`AttendRowsArgs`]' entries.
//
// Launch: `launch::AttendRowsShape::launch_hopper`.
struct AttendRowsHopperArgs {
    static constexpr u32 THREADS = 384;
    // Most rows of a tile.
    static constexpr u32 TILE_ROWS = 128;
    // Positions that are in shared memory together.
    static constexpr u32 POSITIONS = 64;
    // As many times: some used, others on the way.
    static constexpr u32 STAGES = 4;
    // Bytes of shared memory, from a multiple of as many.
    static constexpr u32 ALIGNMENT = 1024;

    // As in [`AttendRowsArgs`].
    const f32 *qkv;
    // As in [`AttendRowsArgs`].
    const u16 *keys;
    // As in [`AttendRowsArgs`].
    const u16 *values;
    // As in [`AttendRowsArgs`].
    const u32 *positions;
    // As in [`AttendRowsArgs`].
    const u32 *slots;
    // As in [`AttendRowsArgs`], with up to this block's `TILE_ROWS`.
    const u32 *tiles;
    // As in [`AttendRowsArgs`].
    f32 *mixed;
    // As in [`AttendRowsArgs`].
    u32 heads;
    // As in [`AttendRowsArgs`].
    u32 kv_heads;
    // As in [`AttendRowsArgs`].
    u32 head_dim;
    // As in [`AttendRowsArgs`].
    u32 capacity;
};
static_assert(sizeof(AttendRowsHopperArgs) == 72, "AttendRowsHopperArgs");
static_assert(alignof(AttendRowsHopperArgs) == 8, "AttendRowsHopperArgs");
static_assert(offsetof(AttendRowsHopperArgs, qkv) == 0, "qkv");
static_assert(offsetof(AttendRowsHopperArgs, keys) == 8, "keys");
static_assert(offsetof(AttendRowsHopperArgs, values) == 16, "values");
static_assert(offsetof(AttendRowsHopperArgs, positions) == 24, "positions");
static_assert(offsetof(AttendRowsHopperArgs, slots) == 32, "slots");
static_assert(offsetof(AttendRowsHopperArgs, tiles) == 40, "tiles");
static_assert(offsetof(AttendRowsHopperArgs, mixed) == 48, "mixed");
static_assert(offsetof(AttendRowsHopperArgs, heads) == 56, "heads");
static_assert(offsetof(AttendRowsHopperArgs, kv_heads) == 60, "kv_heads");
static_assert(offsetof(AttendRowsHopperArgs, head_dim) == 64, "head_dim");
static_assert(offsetof(AttendRowsHopperArgs, capacity) == 68, "capacity");
extern "C" __global__ void attend_rows_hopper_f16_64(AttendRowsHopperArgs args);
extern "C" __global__ void attend_rows_hopper_f16_96(AttendRowsHopperArgs args);
extern "C" __global__ void attend_rows_hopper_f16_100(AttendRowsHopperArgs args);
extern "C" __global__ void attend_rows_hopper_f16_128(AttendRowsHopperArgs args);

// The next token of each row of logits: `host/src/sampler.rs`, with the random number given.
//
// Equal to it but for sums of weights, which are added up in another order, in double
// precision: a number within 1e-12 of the border between two tokens may fall to the other.
//
// Grid: a block per row, or (capability 9.0) a cluster of up to `PARTS_MAX` blocks, which look
// at the row together.
struct ChooseArgs {
    static constexpr u32 THREADS = 1024;
    // No token.
    static constexpr u32 NONE = 4294967295;
    // Marks a token that was not chosen.
    static constexpr u32 FAULT = 2147483648;
    // Most blocks of a row: what every device with clusters can have of them.
    static constexpr u32 PARTS_MAX = 8;

    // `(rows, vocab)`, 16-byte aligned.
    const f32 *logits;
    // `(rows, vocab / 32 rounded up)`: a bit for every token of the context, from the lowest;
    // the token chosen is added. Or null for no penalty.
    u32 *seen;
    // In `0..1`, for every row; read where `temperature` is not 0.
    f64 uniform;
    // `(rows, vocab)` to work in; where `temperature` is not 0.
    f32 *weights;
    // `(rows)`: the token; 0 where a logit is not finite.
    u32 *chosen;
    // `(rows)`: the first token whose logit is not finite, or `NONE`.
    u32 *faults;
    // Where the host looks for the answer of the first row, in memory of its own, 8-byte
    // aligned: the token, or `FAULT` plus the first whose logit is not finite; and `serial`.
    // The two words change at once. Or null.
    u32 *told;
    // Where the position of a step behind this is written: `next`. Or null.
    u32 *position;
    // See `told`.
    u32 serial;
    // See `position`.
    u32 next;
    // At least 1.
    u32 vocab;
    // Keeps the `k` most likely tokens; 0 is off.
    u32 top_k;
    // Divides the logits; 0 takes the largest one.
    f32 temperature;
    // Divides (multiplies, where negative) the logits of tokens in `seen`.
    f32 repetition_penalty;
    // Keeps the most likely tokens that together reach probability `p`; 1 is off.
    f32 top_p;
    // Keeps tokens at least `p` times as likely as the most likely one; 0 is off.
    f32 min_p;
};
static_assert(sizeof(ChooseArgs) == 96, "ChooseArgs");
static_assert(alignof(ChooseArgs) == 8, "ChooseArgs");
static_assert(offsetof(ChooseArgs, logits) == 0, "logits");
static_assert(offsetof(ChooseArgs, seen) == 8, "seen");
static_assert(offsetof(ChooseArgs, uniform) == 16, "uniform");
static_assert(offsetof(ChooseArgs, weights) == 24, "weights");
static_assert(offsetof(ChooseArgs, chosen) == 32, "chosen");
static_assert(offsetof(ChooseArgs, faults) == 40, "faults");
static_assert(offsetof(ChooseArgs, told) == 48, "told");
static_assert(offsetof(ChooseArgs, position) == 56, "position");
static_assert(offsetof(ChooseArgs, serial) == 64, "serial");
static_assert(offsetof(ChooseArgs, next) == 68, "next");
static_assert(offsetof(ChooseArgs, vocab) == 72, "vocab");
static_assert(offsetof(ChooseArgs, top_k) == 76, "top_k");
static_assert(offsetof(ChooseArgs, temperature) == 80, "temperature");
static_assert(offsetof(ChooseArgs, repetition_penalty) == 84, "repetition_penalty");
static_assert(offsetof(ChooseArgs, top_p) == 88, "top_p");
static_assert(offsetof(ChooseArgs, min_p) == 92, "min_p");
extern "C" __global__ void choose(ChooseArgs args);

// A ternary linear of one row, from the norm before it to what follows it: exact up to the
// last roundings and equal to the CPU to the bit.
//
// `value[f] = (Σ_c values[c] · trit(f, c) · row_unit) · units[f] + bias[f]`, where values and
// row unit are those of the normed row. `decode_qkv` stores it, `decode_out` adds it to what
// is in `out`, `decode_gate_up` stores `activation(gate) · up`. The number in an entry's name
// is the widest row in units of 1024 columns.
//
// Grid, entry, shared memory and the scalars of a launch: `launch::DecodeLinearShape`.
struct DecodeLinearArgs {
    static constexpr u32 THREADS = 544;
    // Most pairs of row tiles in shared memory.
    static constexpr u32 STAGES_MAX = 16;
    // `x / (1 + exp(-x))`.
    static constexpr u32 SILU = 0;
    // `max(x, 0)²`.
    static constexpr u32 RELU2 = 1;
    // `max(x, 0)`.
    static constexpr u32 RELU = 2;

    // `(cols)`, 16-byte aligned.
    const f32 *x;
    // `(cols)`: weight of an RMS norm, 16-byte aligned; null: no norm.
    const f32 *norm;
    // `(row_tiles, col_tiles, 128)` words, layout `mma16x128`, 16-byte aligned. For
    // `decode_gate_up` row tile `2i` holds 16 rows of the gate, `2i + 1` those of up.
    const u32 *codes;
    // `(16 · row_tiles)`: what trit 1 is worth, to multiply by.
    const f32 *units;
    // `(16 · row_tiles)`; null: no bias.
    const f32 *bias;
    // `(features)`; every element is written.
    f32 *out;
    // Row tiles of `codes`; even for `decode_gate_up`.
    u32 row_tiles;
    // Column tiles of `codes`: `cols / 128`, rounded up.
    u32 col_tiles;
    // Multiple of 4, at most 1024 times the number in the entry's name.
    u32 cols;
    // Features of the output.
    u32 features;
    // Pairs of row tiles that a thread block multiplies.
    u32 block_pairs;
    // Pairs of row tiles that shared memory holds at a time; at most `STAGES_MAX`.
    u32 stages;
    // `SILU`, `RELU2` or `RELU`; read by `decode_gate_up`.
    u32 activation;
    // Added to the mean square.
    f32 eps;
};
static_assert(sizeof(DecodeLinearArgs) == 80, "DecodeLinearArgs");
static_assert(alignof(DecodeLinearArgs) == 8, "DecodeLinearArgs");
static_assert(offsetof(DecodeLinearArgs, x) == 0, "x");
static_assert(offsetof(DecodeLinearArgs, norm) == 8, "norm");
static_assert(offsetof(DecodeLinearArgs, codes) == 16, "codes");
static_assert(offsetof(DecodeLinearArgs, units) == 24, "units");
static_assert(offsetof(DecodeLinearArgs, bias) == 32, "bias");
static_assert(offsetof(DecodeLinearArgs, out) == 40, "out");
static_assert(offsetof(DecodeLinearArgs, row_tiles) == 48, "row_tiles");
static_assert(offsetof(DecodeLinearArgs, col_tiles) == 52, "col_tiles");
static_assert(offsetof(DecodeLinearArgs, cols) == 56, "cols");
static_assert(offsetof(DecodeLinearArgs, features) == 60, "features");
static_assert(offsetof(DecodeLinearArgs, block_pairs) == 64, "block_pairs");
static_assert(offsetof(DecodeLinearArgs, stages) == 68, "stages");
static_assert(offsetof(DecodeLinearArgs, activation) == 72, "activation");
static_assert(offsetof(DecodeLinearArgs, eps) == 76, "eps");
extern "C" __global__ void decode_qkv_4(DecodeLinearArgs args);
extern "C" __global__ void decode_out_4(DecodeLinearArgs args);
extern "C" __global__ void decode_out_9(DecodeLinearArgs args);
extern "C" __global__ void decode_out_14(DecodeLinearArgs args);
extern "C" __global__ void decode_gate_up_4(DecodeLinearArgs args);

// Attention of rows that each stand alone in their slot: turns queries and key, stores key and
// value, and mixes the values of all positions up to the row's own. Keys and values in the
// cache are equal to the CPU's to the bit; the mix is near single precision.
//
// Element `i` of a head turns with element `i + head_dim / 2`. Keys stand in the cache as
// `(slot, kv_head, position / 32, head_dim, position % 32)`, values as `(slot, kv_head,
// position, head_dim)`; halves are rounded to nearest even. How a row is split depends on its
// position alone, so its bits do not depend on the rows beside it.
//
// The entry's name gives the numbers of the cache, the widest head and the thread blocks of a
// cluster. `decode_attend_many` has no clusters, but the bits of the kernel that has those of
// its name; it is for many rows, and `awaited` has to be 0. Keys behind a row's own
// position may be lost, up to the next multiple of 16.
//
// The row is awaited in one of two ways. `awaited` 0: until the kernels ahead in the stream
// have ended. `awaited` 1: until no word of it is `UNWRITTEN`, while its producer may still
// run. No kernel writes `UNWRITTEN`, so a row that consisted of it before the producer started
// is complete once none is left.
//
// Grid, entry and shared memory: `launch::DecodeAttendShape`.
struct DecodeAttendArgs {
    static constexpr u32 THREADS = 256;
    // Position of a row that is none.
    static constexpr u32 NONE = 4294967295;
    // Positions of a block of keys.
    static constexpr u32 KEY_BLOCK = 32;
    // Query heads of one key head that a cluster takes.
    static constexpr u32 HEADS_MAX = 8;
    // What a word that is awaited holds until it is written: a NaN that no kernel writes.
    static constexpr u32 UNWRITTEN = 4294967295;

    // `(rows, query + 2 kv)`: queries, keys, values.
    const f32 *qkv;
    // Keys of the layer, 16-byte aligned.
    u8 *keys;
    // Values of the layer, 16-byte aligned.
    u8 *values;
    // `(positions, head_dim / 2)`; or null where positions are not rotary.
    const f32 *cos;
    // As `cos`.
    const f32 *sin;
    // `(rows)`; `NONE` marks a row that only fills up the batch. Not written by the kernels
    // between the start of the step and this one.
    const u32 *positions;
    // `(rows)`, as `positions`; no two rows have the same.
    const u32 *slots;
    // `(rows, query)`; a row that is none is left alone, or zero where `awaited` is 1.
    f32 *mixed;
    // Query heads: a multiple of `kv_heads`.
    u32 heads;
    // Key and value heads.
    u32 kv_heads;
    // Multiple of 4, at most the entry's.
    u32 head_dim;
    // Positions of a slot, a multiple of `KEY_BLOCK`.
    u32 capacity;
    // 0 or 1.
    u32 awaited;
    // What a score is multiplied by: `1 / √head_dim`.
    f32 factor;
};
static_assert(sizeof(DecodeAttendArgs) == 88, "DecodeAttendArgs");
static_assert(alignof(DecodeAttendArgs) == 8, "DecodeAttendArgs");
static_assert(offsetof(DecodeAttendArgs, qkv) == 0, "qkv");
static_assert(offsetof(DecodeAttendArgs, keys) == 8, "keys");
static_assert(offsetof(DecodeAttendArgs, values) == 16, "values");
static_assert(offsetof(DecodeAttendArgs, cos) == 24, "cos");
static_assert(offsetof(DecodeAttendArgs, sin) == 32, "sin");
static_assert(offsetof(DecodeAttendArgs, positions) == 40, "positions");
static_assert(offsetof(DecodeAttendArgs, slots) == 48, "slots");
static_assert(offsetof(DecodeAttendArgs, mixed) == 56, "mixed");
static_assert(offsetof(DecodeAttendArgs, heads) == 64, "heads");
static_assert(offsetof(DecodeAttendArgs, kv_heads) == 68, "kv_heads");
static_assert(offsetof(DecodeAttendArgs, head_dim) == 72, "head_dim");
static_assert(offsetof(DecodeAttendArgs, capacity) == 76, "capacity");
static_assert(offsetof(DecodeAttendArgs, awaited) == 80, "awaited");
static_assert(offsetof(DecodeAttendArgs, factor) == 84, "factor");
extern "C" __global__ void decode_attend_f16_128_c4(DecodeAttendArgs args);
extern "C" __global__ void decode_attend_f16_128_c8(DecodeAttendArgs args);
extern "C" __global__ void decode_attend_f16_256_c8(DecodeAttendArgs args);
extern "C" __global__ void decode_attend_f32_256_c8(DecodeAttendArgs args);
extern "C" __global__ void decode_attend_many_f16_128_c4(DecodeAttendArgs args);
extern "C" __global__ void decode_attend_many_f16_128_c8(DecodeAttendArgs args);

// All layers of a step of one row: what `decode_qkv`, `decode_attend`, `decode_out`,
// `decode_gate_up` and `decode_out` once more do for each, and the same bits.
//
// The blocks wait for each other, so the launch has to be a cooperative one. The entry's name
// gives the numbers of the cache, the widest head and the ranks that attention of a long row
// is split into: those of the `decode_attend` that does the same.
//
// The grid has at least a thread block for each part of attention: sets of at most
// `DecodeAttendArgs::HEADS_MAX` query heads of a key head, times ranks.
//
// Grid, entry, shared memory, rooms and the scalars of a launch: `launch::DecodeLayersShape`.
struct DecodeLayersArgs {
    static constexpr u32 THREADS = 512;
    // Addresses of a layer.
    static constexpr u32 WORDS = 12;
    // Sets of rooms.
    static constexpr u32 SETS = 4;
    // Slots of weights.
    static constexpr u32 SLOTS_MAX = 16;
    // Most features of a linear that a thread block makes.
    static constexpr u32 FEATURES_MAX = 448;
    // Most layers.
    static constexpr u32 COUNT_MAX = 64;
    // Widest row of the model, and of all query heads.
    static constexpr u32 HIDDEN_MAX = 3584;
    // Slots of a pair of row tiles of the feed-forward block at most.
    static constexpr u32 FFN_SLOTS = 3;
    // What a room holds until it is written.
    static constexpr u32 UNWRITTEN = 4294967295;

    // `(count, WORDS)` addresses of 8 bytes, for each layer: codes, units and norms of qkv,
    // attention out, gate and up, down. Codes and units as in [`DecodeLinearArgs`], norms as
    // there, null for none. 8-byte aligned.
    const u8 *layers;
    // `(hidden_cols)`: the row, before and after; 16-byte aligned.
    f32 *hidden;
    // `(SETS, words)` and four words: `launch::DecodeLayersShape::rooms_words` in all; 16-byte
    // aligned. Before the first launch all `UNWRITTEN`; between launches left as they are.
    f32 *rooms;
    // Keys of the first layer, as in [`DecodeAttendArgs`].
    u8 *keys;
    // Values of the first layer.
    u8 *values;
    // As in [`DecodeAttendArgs`].
    const f32 *cos;
    // As `cos`.
    const f32 *sin;
    // The row's position, below `capacity`.
    const u32 *positions;
    // The row's slot.
    const u32 *slots;
    // Layers, `2..=COUNT_MAX`.
    u32 count;
    // Width of the model: a multiple of 4, at most `HIDDEN_MAX`.
    u32 hidden_cols;
    // Query heads: a multiple of `kv_heads`; `heads · head_dim` is at most `HIDDEN_MAX`.
    u32 heads;
    // Key and value heads.
    u32 kv_heads;
    // Multiple of 4, at most the entry's.
    u32 head_dim;
    // Width of the feed-forward block: a multiple of 4, at most `FFN_SLOTS` slots of columns.
    u32 ffn;
    // Positions of a slot, a multiple of `DecodeAttendArgs::KEY_BLOCK`.
    u32 capacity;
    // From layer to layer of keys and of values, in units of 16 bytes.
    u32 layer_stride;
    // Slots that weights pass through, `1..=SLOTS_MAX`: pairs of row tiles with as many
    // tiles of columns as `hidden_cols` and `heads · head_dim` have at most.
    u32 slots_of_weights;
    // `SILU`, `RELU2` or `RELU`, as in [`DecodeLinearArgs`].
    u32 activation;
    // Added to the mean square.
    f32 eps;
    // What a score is multiplied by: `1 / √head_dim`.
    f32 factor;
};
static_assert(sizeof(DecodeLayersArgs) == 120, "DecodeLayersArgs");
static_assert(alignof(DecodeLayersArgs) == 8, "DecodeLayersArgs");
static_assert(offsetof(DecodeLayersArgs, layers) == 0, "layers");
static_assert(offsetof(DecodeLayersArgs, hidden) == 8, "hidden");
static_assert(offsetof(DecodeLayersArgs, rooms) == 16, "rooms");
static_assert(offsetof(DecodeLayersArgs, keys) == 24, "keys");
static_assert(offsetof(DecodeLayersArgs, values) == 32, "values");
static_assert(offsetof(DecodeLayersArgs, cos) == 40, "cos");
static_assert(offsetof(DecodeLayersArgs, sin) == 48, "sin");
static_assert(offsetof(DecodeLayersArgs, positions) == 56, "positions");
static_assert(offsetof(DecodeLayersArgs, slots) == 64, "slots");
static_assert(offsetof(DecodeLayersArgs, count) == 72, "count");
static_assert(offsetof(DecodeLayersArgs, hidden_cols) == 76, "hidden_cols");
static_assert(offsetof(DecodeLayersArgs, heads) == 80, "heads");
static_assert(offsetof(DecodeLayersArgs, kv_heads) == 84, "kv_heads");
static_assert(offsetof(DecodeLayersArgs, head_dim) == 88, "head_dim");
static_assert(offsetof(DecodeLayersArgs, ffn) == 92, "ffn");
static_assert(offsetof(DecodeLayersArgs, capacity) == 96, "capacity");
static_assert(offsetof(DecodeLayersArgs, layer_stride) == 100, "layer_stride");
static_assert(offsetof(DecodeLayersArgs, slots_of_weights) == 104, "slots_of_weights");
static_assert(offsetof(DecodeLayersArgs, activation) == 108, "activation");
static_assert(offsetof(DecodeLayersArgs, eps) == 112, "eps");
static_assert(offsetof(DecodeLayersArgs, factor) == 116, "factor");
extern "C" __global__ void decode_layers_f16_128_c4(DecodeLayersArgs args);
extern "C" __global__ void decode_layers_f16_128_c8(DecodeLayersArgs args);

// Reads memory as fast as the device can: the limit that decoding runs into.
//
// Threads whose sums differ from `zero` add them to `sums[0]`, so that no read can be left
// out; over zeroed memory nothing is written.
//
// Grid: `BLOCKS_PER_MULTIPROCESSOR` blocks for every multiprocessor; any number does.
struct ReadMemoryArgs {
    static constexpr u32 THREADS = 512;
    // Blocks that are resident on a multiprocessor together.
    static constexpr u32 BLOCKS_PER_MULTIPROCESSOR = 4;

    // `(vectors, 4)` words, 16-byte aligned.
    const u32 *words;
    // One number, added to modulo 2³².
    u32 *sums;
    // Vectors of 16 bytes, at least 1.
    u32 vectors;
    // 0.
    u32 zero;
};
static_assert(sizeof(ReadMemoryArgs) == 24, "ReadMemoryArgs");
static_assert(alignof(ReadMemoryArgs) == 8, "ReadMemoryArgs");
static_assert(offsetof(ReadMemoryArgs, words) == 0, "words");
static_assert(offsetof(ReadMemoryArgs, sums) == 8, "sums");
static_assert(offsetof(ReadMemoryArgs, vectors) == 16, "vectors");
static_assert(offsetof(ReadMemoryArgs, zero) == 20, "zero");
extern "C" __global__ void read_memory(ReadMemoryArgs args);
