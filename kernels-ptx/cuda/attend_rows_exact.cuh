// Attention of many rows in the CPU's order of operations (host/src/backend/cpu/attend.rs), equal
// to the bit: for caches of singles, and for widths of a head that the tensor cores' kernel is not
// compiled for.
//
// A warp has eight rows, and takes as many of them together as its registers allow. While it
// scores, a lane is one of 32 positions; while it mixes, a lane is
// every 32nd element of a head.
#pragma once
#include "floats.cuh"

namespace {

using Args = AttendRowsExactArgs;

constexpr u32 WARPS = Args::THREADS / WARP;
constexpr u32 WARP_ROWS = Args::TILE_ROWS / WARPS;
static_assert(Args::KEY_BLOCK == WARP, "a lane is a position");

__device__ __forceinline__ f32 load(const f32 *x) {
    return *x;
}

__device__ __forceinline__ f32 load(const u16 *x) {
    return from_f16(*x);
}

// The queries of a tile, (element, row); behind them each warp's weights, (position, row).
extern __shared__ float4 shared[];

// What ROWS rows have at one place.
template <u32 ROWS>
struct Column {
    f32 x[ROWS];

    __device__ __forceinline__ explicit Column(const float4 *from) {
#pragma unroll
        for (u32 i = 0; i < ROWS / 4; ++i) {
            const float4 four = from[i];
            x[4 * i] = four.x;
            x[4 * i + 1] = four.y;
            x[4 * i + 2] = four.z;
            x[4 * i + 3] = four.w;
        }
    }
};

// The rows of the tile from `first_row` on, at most ROWS; heads of at most STRETCHES times 32.
template <typename T, u32 STRETCHES, u32 ROWS>
__device__ __forceinline__ void attend_together(const Args &args, u32 first_row, u32 count) {
    const u32 lane = threadIdx.x % WARP;
    const u32 warp = threadIdx.x / WARP;
    const u32 head = blockIdx.y;
    const u32 dim = args.head_dim;
    const u32 first = args.tiles[2 * blockIdx.x];
    // Positions that each row sees: its own is the last. Rows beyond the tile see what the last
    // one sees.
    const u32 rows = min(count - first_row, ROWS);
    const u32 seen = args.positions[first + first_row] + 1;
    const u32 seen_max = seen + rows - 1;

    const u32 kv_head = head / (args.heads / args.kv_heads);
    const size_t start = (static_cast<size_t>(args.slots[first]) * args.kv_heads + kv_head)
        * args.capacity * dim;
    const T *keys = reinterpret_cast<const T *>(args.keys) + start;
    const T *values = reinterpret_cast<const T *>(args.values) + start;
    const float4 *query = shared + first_row / 4;
    float4 *weights = shared + Args::TILE_ROWS / 4 * dim + warp * WARP * (WARP_ROWS / 4);

    const f32 factor = 1.0f / sqrtf(static_cast<f32>(dim));
    const f32 infinity = __uint_as_float(0x7f800000u);
    f32 peaks[ROWS];
    f32 sums[ROWS] = {};
    f32 mixed[ROWS][STRETCHES] = {};
#pragma unroll
    for (u32 r = 0; r < ROWS; ++r) {
        peaks[r] = -infinity;
    }
    for (u32 block = 0; block < seen_max; block += Args::KEY_BLOCK) {
        f32 scores[ROWS] = {};
        const T *key = keys + static_cast<size_t>(block) * dim + lane;
#pragma unroll 8
        for (u32 element = 0; element < dim; ++element) {
            const f32 k = load(key + element * Args::KEY_BLOCK);
            const Column<ROWS> q(query + element * (Args::TILE_ROWS / 4));
#pragma unroll
            for (u32 r = 0; r < ROWS; ++r) {
                scores[r] += q.x[r] * k;
            }
        }
        f32 fades[ROWS];
#pragma unroll
        for (u32 r = 0; r < ROWS; ++r) {
            const u32 row_seen = min(seen + r, seen_max);
            const f32 score = block + lane < row_seen ? scores[r] * factor : -infinity;
            f32 peak = score;
#pragma unroll
            for (u32 step = 1; step < WARP; step *= 2) {
                peak = fmaxf(peak, __shfl_xor_sync(ALL, peak, step));
            }
            peak = fmaxf(peaks[r], peak);
            fades[r] = expf32(peaks[r] - peak);
            peaks[r] = peak;
            scores[r] = expf32(score - peak);
            f32 sum = scores[r];
#pragma unroll
            for (u32 step = WARP / 2; step > 0; step /= 2) {
                sum += __shfl_xor_sync(ALL, sum, step);
            }
            // A block that this row does not see does not exist for the CPU; here it changes
            // nothing, since it fades by one and adds zeros.
            sums[r] = sums[r] * fades[r] + sum;
        }
        __syncwarp();
#pragma unroll
        for (u32 i = 0; i < ROWS; i += 4) {
            weights[lane * (ROWS / 4) + i / 4] =
                make_float4(scores[i], scores[i + 1], scores[i + 2], scores[i + 3]);
        }
        __syncwarp();
#pragma unroll
        for (u32 r = 0; r < ROWS; ++r) {
#pragma unroll
            for (u32 s = 0; s < STRETCHES; ++s) {
                mixed[r][s] *= fades[r];
            }
        }
        // Beyond what a row sees its weight is zero; beyond what all rows see nothing is stored.
        const u32 stored = min(seen_max - block, Args::KEY_BLOCK);
        const T *value = values + static_cast<size_t>(block) * dim + lane;
#pragma unroll 4
        for (u32 position = 0; position < stored; ++position) {
            const Column<ROWS> w(weights + position * (ROWS / 4));
#pragma unroll
            for (u32 s = 0; s < STRETCHES; ++s) {
                if (s * WARP + lane < dim) {
                    const f32 v = load(value + position * dim + s * WARP);
#pragma unroll
                    for (u32 r = 0; r < ROWS; ++r) {
                        mixed[r][s] += w.x[r] * v;
                    }
                }
            }
        }
    }
#pragma unroll
    for (u32 r = 0; r < ROWS; ++r) {
        if (r < rows) {
            const size_t row = first + first_row + r;
            f32 *out = args.mixed + (row * args.heads + head) * dim + lane;
#pragma unroll
            for (u32 s = 0; s < STRETCHES; ++s) {
                if (s * WARP + lane < dim) {
                    out[s * WARP] = mixed[r][s] / sums[r];
                }
            }
        }
    }
}

template <typename T>
__device__ __forceinline__ void attend_rows_exact(const Args &args) {
    const u32 dim = args.head_dim;
    const u32 first = args.tiles[2 * blockIdx.x];
    const u32 count = args.tiles[2 * blockIdx.x + 1];
    const size_t width = static_cast<size_t>(args.heads + 2 * args.kv_heads) * dim;
    f32 *queries = reinterpret_cast<f32 *>(shared);
    for (u32 i = threadIdx.x; i < Args::TILE_ROWS * dim; i += Args::THREADS) {
        const u32 row = i / dim;
        const u32 element = i % dim;
        const f32 *from = args.qkv + (first + row) * width + blockIdx.y * dim + element;
        queries[element * Args::TILE_ROWS + row] = row < count ? *from : 0.0f;
    }
    __syncthreads();
    const u32 first_row = threadIdx.x / WARP * WARP_ROWS;
    if (dim <= 4 * WARP) {
        if (first_row < count) {
            attend_together<T, 4, WARP_ROWS>(args, first_row, count);
        }
    } else {
        for (u32 half = 0; half < WARP_ROWS; half += WARP_ROWS / 2) {
            if (first_row + half < count) {
                attend_together<T, Args::HEAD_DIM_MAX / WARP, WARP_ROWS / 2>(
                    args, first_row + half, count);
            }
        }
    }
}

}  // namespace
