// Float linears for many rows: a block multiplies some tiles of features and a tile of rows, both
// brought to shared memory by asynchronous copies some chunks ahead.
#pragma once
#include "float_linear.cuh"

namespace {

extern __shared__ uint4 staged[];

// WARPS_M by WARPS_N warps, each with TILES_M tiles of 16 features by TILES_N tiles of eight rows.
template <typename W, u32 WARPS_M, u32 WARPS_N, u32 TILES_M, u32 TILES_N, u32 STAGE_CHUNKS,
          u32 SHARED_MAX>
struct Block {
    static constexpr u32 TILES = WARPS_M * TILES_M;
    static constexpr u32 FEATURES = TILES * Args::TILE_FEATURES;
    static constexpr u32 ROWS = WARPS_N * TILES_N * 8;
    // A stage is STAGE_CHUNKS chunks, each with its weights and its terms.
    static constexpr u32 ROW_BYTES = 2 * W::COLS;
    static constexpr u32 WEIGHTS = TILES * CHUNK_BYTES<W>;
    static constexpr u32 CHUNK = WEIGHTS + W::TERMS * ROWS * ROW_BYTES;
    static constexpr u32 STAGE = STAGE_CHUNKS * CHUNK;
    static constexpr u32 STAGES = SHARED_MAX / STAGE;
    static_assert(WARPS_M * WARPS_N * WARP == Args::THREADS, "every warp has a place");
    static_assert(STAGES >= 2, "one stage is filled while another is read");
    static_assert(CHUNKS<W> % STAGE_CHUNKS == 0, "a stretch is whole stages");

    const Args &args;
    u32 first_tile;
    u32 first_row;

    // Stages of the weights, then of the terms; what lies beyond a side becomes zero.
    __device__ __forceinline__ void fill_weights(u32 index) const {
        u8 *stage = reinterpret_cast<u8 *>(staged) + index % STAGES * STAGE;
        const u32 tiles = (args.features + Args::TILE_FEATURES - 1) / Args::TILE_FEATURES;
        const u32 chunks = (args.cols + W::COLS - 1) / W::COLS;
        const u32 first_chunk = index * STAGE_CHUNKS;
        // Chunks of a tile lie one behind the other.
        constexpr u32 PIECES = W::PIECES * WARP;
        constexpr u32 TILE_PIECES = STAGE_CHUNKS * PIECES;
#pragma unroll
        for (u32 i = threadIdx.x; i < TILES * TILE_PIECES; i += Args::THREADS) {
            const u32 tile = i / TILE_PIECES;
            const u32 piece = i % TILE_PIECES;
            const bool in = first_tile + tile < tiles && first_chunk + piece / PIECES < chunks;
            const size_t at =
                (static_cast<size_t>(first_tile + tile) * chunks + first_chunk) * PIECES + piece;
            copy_async(stage + piece / PIECES * CHUNK + (tile * PIECES + piece % PIECES) * 16,
                       args.weights + (in ? at * 16 : 0), in);
        }
    }

    __device__ __forceinline__ void fill_terms(u32 index) const {
        u8 *stage = reinterpret_cast<u8 *>(staged) + index % STAGES * STAGE;
        constexpr u32 ROW_PIECES = STAGE_CHUNKS * ROW_BYTES / 16;
#pragma unroll
        for (u32 i = threadIdx.x; i < W::TERMS * ROWS * ROW_PIECES; i += Args::THREADS) {
            const u32 line = i / ROW_PIECES;
            const u32 piece = i % ROW_PIECES;
            const u32 row = first_row + line % ROWS;
            const u32 term = line / ROWS;
            const u32 col = index * STAGE_CHUNKS * W::COLS + piece * 8;
            const bool in = row < args.rows && col < args.terms_stride;
            const size_t at =
                (static_cast<size_t>(row) * W::TERMS + term) * args.terms_stride + col;
            copy_async(stage + piece / (ROW_BYTES / 16) * CHUNK + WEIGHTS + line * ROW_BYTES
                           + piece % (ROW_BYTES / 16) * 16,
                       args.terms + (in ? at : 0), in);
        }
    }

    static __device__ __forceinline__ void commit() {
        asm volatile("cp.async.commit_group;" ::: "memory");
    }

    __device__ __forceinline__ void run() const {
        const u32 lane = threadIdx.x % WARP;
        const u32 warp = threadIdx.x / WARP;
        const u32 g = lane / 4;
        const u32 q = lane % 4;
        const u32 warp_tile = warp % WARPS_M * TILES_M;
        const u32 warp_row = warp / WARPS_M * TILES_N * 8;
        constexpr u32 STAGE_COLS = STAGE_CHUNKS * W::COLS;
        const u32 stages = (args.cols + STAGE_COLS - 1) / STAGE_COLS;

        // Weights are there before the kernel that splits the rows has ended.
        for (u32 index = 0; index < STAGES - 1 && index < stages; ++index) {
            fill_weights(index);
        }
        wait_for_dependencies();
        for (u32 index = 0; index < STAGES - 1; ++index) {
            if (index < stages) {
                fill_terms(index);
            }
            commit();
        }
        f32 total[TILES_M][TILES_N][4] = {};
        f32 acc[TILES_M][TILES_N][4] = {};
        for (u32 index = 0; index < stages; ++index) {
            asm volatile("cp.async.wait_group %0;" :: "n"(STAGES - 2) : "memory");
            __syncthreads();
            // Fills the stage that everybody has left behind.
            if (index + STAGES - 1 < stages) {
                fill_weights(index + STAGES - 1);
                fill_terms(index + STAGES - 1);
            }
            commit();
            const u8 *stage = reinterpret_cast<const u8 *>(staged) + index % STAGES * STAGE;
#pragma unroll
            for (u32 chunk = 0; chunk < STAGE_CHUNKS; ++chunk) {
                const u8 *from = stage + chunk * CHUNK;
                Stored<W> stored[TILES_M];
#pragma unroll
                for (u32 m = 0; m < TILES_M; ++m) {
#pragma unroll
                    for (u32 piece = 0; piece < W::PIECES; ++piece) {
                        stored[m].pieces[piece] = reinterpret_cast<const uint4 *>(
                            from)[((warp_tile + m) * W::PIECES + piece) * WARP + lane];
                    }
                }
#pragma unroll
                for (u32 unit = 0; unit < UNITS<W>; ++unit) {
                    uint4 terms[TILES_N][W::TERMS];
#pragma unroll
                    for (u32 n = 0; n < TILES_N; ++n) {
#pragma unroll
                        for (u32 term = 0; term < W::TERMS; ++term) {
                            const u32 row = term * ROWS + warp_row + 8 * n + g;
                            terms[n][term] = *reinterpret_cast<const uint4 *>(
                                from + WEIGHTS + row * ROW_BYTES + 16 * (q * UNITS<W> + unit));
                        }
                    }
                    Parts<W> parts[TILES_M];
#pragma unroll
                    for (u32 m = 0; m < TILES_M; ++m) {
                        parts[m] = split_unit<W>(stored[m], unit);
                    }
                    multiply_unit<W, TILES_M, TILES_N>(acc, parts, terms);
                }
            }
            if ((index + 1) % (CHUNKS<W> / STAGE_CHUNKS) == 0 || index + 1 == stages) {
#pragma unroll
                for (u32 m = 0; m < TILES_M; ++m) {
#pragma unroll
                    for (u32 n = 0; n < TILES_N; ++n) {
#pragma unroll
                        for (u32 i = 0; i < 4; ++i) {
                            total[m][n][i] += acc[m][n][i];
                            acc[m][n][i] = 0.0f;
                        }
                    }
                }
            }
        }
        // Through shared memory, so that a warp writes neighbouring features of one row.
        f32 *sums = reinterpret_cast<f32 *>(staged);
        constexpr u32 ROW = FEATURES + 4;
        static_assert(ROWS * ROW * sizeof(f32) <= STAGES * STAGE, "the sums fit the stages");
        asm volatile("cp.async.wait_all;" ::: "memory");
        __syncthreads();
#pragma unroll
        for (u32 m = 0; m < TILES_M; ++m) {
#pragma unroll
            for (u32 n = 0; n < TILES_N; ++n) {
                f32 *to = sums + (warp_row + 8 * n + 2 * q) * ROW + (warp_tile + m) * 16 + g;
                to[0] = total[m][n][0];
                to[ROW] = total[m][n][1];
                to[8] = total[m][n][2];
                to[ROW + 8] = total[m][n][3];
            }
        }
        __syncthreads();
        for (u32 i = threadIdx.x; i < ROWS * FEATURES; i += Args::THREADS) {
            const u32 row = i / FEATURES;
            const u32 feature = i % FEATURES;
            finish<W>(args, first_row + row, first_tile * Args::TILE_FEATURES + feature,
                      sums[row * ROW + feature]);
        }
    }
};

// Rows vary fastest along the grid, so that blocks on the same weights run at the same time.
template <typename B>
__device__ __forceinline__ void float_linear_many(const Args &args) {
    launch_dependents();
    const u32 row_blocks = (args.rows + B::ROWS - 1) / B::ROWS;
    B{args, blockIdx.x / row_blocks * B::TILES, blockIdx.x % row_blocks * B::ROWS}.run();
}

#if __CUDA_ARCH__ >= 900
constexpr u32 SHARED_NARROW = Args::SHARED_NARROW_SM_90;
constexpr u32 SHARED_WIDE = Args::SHARED_WIDE_SM_90;
#else
constexpr u32 SHARED_NARROW = Args::SHARED_NARROW_SM_80;
constexpr u32 SHARED_WIDE = Args::SHARED_WIDE_SM_80;
#endif

// For up to some dozens of rows, and for more of them.
template <typename W>
using Narrow = Block<W, 8, 1, 1, 4, 2, SHARED_NARROW>;
template <typename W>
using Wide = Block<W, 2, 4, 4, 4, W::TERMS == 2 && W::COLS == 32 ? 2 : 1, SHARED_WIDE>;
static_assert(Narrow<F16>::FEATURES == Args::MANY_FEATURES, "the grid");
static_assert(Wide<F16>::FEATURES == Args::MANY_FEATURES, "the grid");
static_assert(Narrow<F16>::ROWS == Args::NARROW_ROWS, "the grid");
static_assert(Wide<F16>::ROWS == Args::WIDE_ROWS, "the grid");

}  // namespace
