// The exact product of ternary weights and INT8 values; contract.cuh says what it computes.
//
// A thread block makes the sums of one tile row (16 rows) and up to BLOCK_BATCH rows of values.
// Its warps walk the columns side by side: a lane loads 16 bytes of codes, so a warp loads four
// tiles in one go, 512 consecutive bytes. Codes are multiplied as they are stored:
//
//     Σ v·trit = Σ v·(code - 2) = Σ v·code - 2·Σ v
//
// and the last term comes with the values. Integer sums have no order, so the result does not
// depend on how the columns were dealt out.
#include "contract.cuh"

namespace {

using Args = TernaryGemmArgs;

constexpr u32 WARP = 32;
constexpr u32 WARPS = Args::THREADS / WARP;
constexpr u32 TILE_LOADS = Args::TILE_ROWS * Args::TILE_COLS / 4 / sizeof(uint4);
constexpr u32 WARP_TILES = WARP / TILE_LOADS;
constexpr u32 BLOCK_TILES = WARPS * WARP_TILES;
constexpr u32 LOAD_ROWS = 4;
constexpr u32 BLOCK_SUMS = Args::TILE_ROWS * Args::BLOCK_BATCH;

static_assert(Args::THREADS % WARP == 0, "whole warps");
static_assert(TILE_LOADS == 8, "the lane arithmetic below is that of eight loads a tile");
static_assert(BLOCK_SUMS <= Args::THREADS, "one thread writes one sum");
static_assert(3ll * 128 * Args::COLS_MAX <= 0x7fffffff, "sums of codes fit 32 bits");

// Four unsigned codes by four signed values. (NVRTC 12.0 declares __dp4a without defining it.)
__device__ __forceinline__ i32 dp4a(u32 codes, i32 values, i32 sum) {
    i32 result;
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(codes), "r"(values), "r"(sum));
    return result;
}

// Sixteen codes of one row by the sixteen values of the same columns: bits 2i of the four bytes
// are the codes of columns 4i .. 4i + 3.
__device__ __forceinline__ i32 dot(u32 word, int4 values, i32 sum) {
    sum = dp4a(word & 0x03030303u, values.x, sum);
    sum = dp4a((word >> 2) & 0x03030303u, values.y, sum);
    sum = dp4a((word >> 4) & 0x03030303u, values.z, sum);
    return dp4a((word >> 6) & 0x03030303u, values.w, sum);
}

}  // namespace

// Grid: (rows / TILE_ROWS, ceil(batch / BLOCK_BATCH)). The caller keeps what contract.cuh asks of
// alignments and shapes; nothing outside those shapes is read or written, and the blocks of a grid
// larger than that do nothing.
extern "C" __global__ void __launch_bounds__(Args::THREADS) ternary_gemm(Args args) {
    const u32 lane = threadIdx.x % WARP;
    const u32 warp = threadIdx.x / WARP;
    const u32 tiles = args.cols / Args::TILE_COLS;
    const u32 first = blockIdx.y * Args::BLOCK_BATCH;
    if (blockIdx.x >= args.rows / Args::TILE_ROWS || first >= args.batch) {
        return;
    }
    const u32 count = min(args.batch - first, Args::BLOCK_BATCH);

    // A load holds four rows of sixteen columns. Its number within the tile has, from the top,
    // which half of the rows, which half of the columns, which half of the eight rows.
    const u32 load = lane % TILE_LOADS;
    const u32 row = (load >> 2) * 8 + (load & 1) * LOAD_ROWS;
    const u32 col = ((load >> 1) & 1) * 16;

    const u32 begin = warp * WARP_TILES + lane / TILE_LOADS;
    const uint4 *codes = reinterpret_cast<const uint4 *>(args.codes)
        + static_cast<size_t>(blockIdx.x) * tiles * TILE_LOADS + begin * TILE_LOADS + load;
    const i8 *values = args.values + static_cast<size_t>(first) * args.stride
        + begin * Args::TILE_COLS + col;

    i32 sums[Args::BLOCK_BATCH][LOAD_ROWS] = {};
    for (u32 tile = begin; tile < tiles; tile += BLOCK_TILES) {
        const uint4 words = __ldg(codes);
#pragma unroll
        for (u32 b = 0; b < Args::BLOCK_BATCH; ++b) {
            if (b < count) {
                const i8 *row_values = values + static_cast<size_t>(b) * args.stride;
                const int4 v = __ldg(reinterpret_cast<const int4 *>(row_values));
                sums[b][0] = dot(words.x, v, sums[b][0]);
                sums[b][1] = dot(words.y, v, sums[b][1]);
                sums[b][2] = dot(words.z, v, sums[b][2]);
                sums[b][3] = dot(words.w, v, sums[b][3]);
            }
        }
        codes += BLOCK_TILES * TILE_LOADS;
        values += BLOCK_TILES * Args::TILE_COLS;
    }

    // Lanes that differ in bit 1 (half of the columns) or bits 3 and 4 (tile) hold the same rows.
    __shared__ i32 partial[WARPS][Args::TILE_ROWS][Args::BLOCK_BATCH];
#pragma unroll
    for (u32 b = 0; b < Args::BLOCK_BATCH; ++b) {
#pragma unroll
        for (u32 r = 0; r < LOAD_ROWS; ++r) {
            i32 sum = sums[b][r];
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            sum += __shfl_xor_sync(0xffffffffu, sum, 8);
            sum += __shfl_xor_sync(0xffffffffu, sum, 16);
            if ((lane & (2 | 8 | 16)) == 0) {
                partial[warp][row + r][b] = sum;
            }
        }
    }
    __syncthreads();

    const u32 b = threadIdx.x % Args::BLOCK_BATCH;
    const u32 r = threadIdx.x / Args::BLOCK_BATCH;
    if (r < Args::TILE_ROWS && b < count) {
        i32 sum = -2 * __ldg(args.value_sums + first + b);
#pragma unroll
        for (u32 w = 0; w < WARPS; ++w) {
            sum += partial[w][r][b];
        }
        const size_t out = static_cast<size_t>(blockIdx.x) * Args::TILE_ROWS + r;
        args.sums[out * args.batch + first + b] = sum;
    }
}
