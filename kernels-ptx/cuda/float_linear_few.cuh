// Float linears for up to eight rows at memory speed: weights go from memory to registers once, in
// the order the tensor cores take them.
#pragma once
#include "float_linear.cuh"

namespace {

constexpr u32 WARPS = Args::THREADS / WARP;
// Chunks loaded side by side; twice that many are on their way.
constexpr u32 BATCH = 4;
static_assert(CHUNKS % BATCH == 0, "whole batches");

extern __shared__ float4 partials[];

// A warp's weights: batches of chunks, one ahead of the one that is multiplied.
template <typename W>
struct Reader {
    const u8 *low;   // of the lane's first column of feature g
    const u8 *high;  // of feature g + 8
    u32 col;         // the lane's next column
    u32 stride;

    __device__ __forceinline__ void load(Stored<W> (&batch)[BATCH]) {
#pragma unroll
        for (u32 i = 0; i < BATCH; ++i) {
            const bool in = col < stride;
#pragma unroll
            for (u32 j = 0; j < W::LOADS; ++j) {
                batch[i].low[j] = in && low != nullptr ? load_stream(low + 16 * j) : uint4{};
                batch[i].high[j] = in && high != nullptr ? load_stream(high + 16 * j) : uint4{};
            }
            low += low != nullptr ? CHUNK * WEIGHT_BYTES<W> : 0;
            high += high != nullptr ? CHUNK * WEIGHT_BYTES<W> : 0;
            col += CHUNK;
        }
    }
};

template <typename W>
__device__ __forceinline__ void float_linear_few(const Args &args) {
    const u32 lane = threadIdx.x % WARP;
    const u32 warp = threadIdx.x / WARP;
    const u32 g = lane / 4;
    const u32 q = lane % 4;
    const u32 tile_in_block = warp / args.split;
    const u32 part = warp % args.split;
    const u32 tile = blockIdx.x * (WARPS / args.split) + tile_in_block;
    const u32 stretches = (args.cols + Args::STRETCH - 1) / Args::STRETCH;
    const u32 begin = stretches * part / args.split;
    const u32 end = stretches * (part + 1) / args.split;

    launch_dependents();
    const u32 feature = tile * Args::TILE_FEATURES + g;
    const u32 first_col = begin * Args::STRETCH + 8 * q;
    const auto row_of = [&](u32 feature) -> const u8 * {
        const size_t at = static_cast<size_t>(feature) * args.stride + first_col;
        return feature < args.features ? args.weights + at * WEIGHT_BYTES<W> : nullptr;
    };
    Reader<W> reader = {row_of(feature), row_of(feature + 8), first_col, args.stride};
    const u32 last_col = min(end * Args::STRETCH, (args.cols + CHUNK - 1) / CHUNK * CHUNK);
    reader.stride = min(args.stride, last_col);

    Stored<W> ahead[BATCH];
    if (begin < end) {
        reader.load(ahead);
    }
    wait_for_dependencies();

    const u32 row = blockIdx.y * Args::BLOCK_ROWS + g;
    const bool row_in = row < args.rows;
    const u16 *terms =
        args.terms + static_cast<size_t>(row) * W::TERMS * args.terms_stride + first_col;
    u32 col = first_col;

    f32 total[4] = {};
    // Of a tile, what its first warp does not add itself: (stretch, lane).
    const u32 kept = stretches - stretches / args.split;
    float4 *mine = partials + static_cast<size_t>(tile_in_block) * kept * WARP;
    const u32 first_kept = stretches / args.split;
    for (u32 stretch = begin; stretch < end; ++stretch) {
        f32 acc[1][4] = {};
#pragma unroll
        for (u32 batch = 0; batch < CHUNKS / BATCH; ++batch) {
            Stored<W> now[BATCH];
#pragma unroll
            for (u32 i = 0; i < BATCH; ++i) {
                now[i] = ahead[i];
            }
            reader.load(ahead);
            uint4 rows[BATCH][1][W::TERMS];
#pragma unroll
            for (u32 i = 0; i < BATCH; ++i) {
#pragma unroll
                for (u32 term = 0; term < W::TERMS; ++term) {
                    const u16 *at = terms + term * args.terms_stride + i * CHUNK;
                    const bool in = row_in && col + i * CHUNK < args.terms_stride;
                    rows[i][0][term] = in ? *reinterpret_cast<const uint4 *>(at) : uint4{};
                }
            }
#pragma unroll
            for (u32 i = 0; i < BATCH; ++i) {
                Parts<W> weights;
                split<W>(now[i].low, weights.low);
                split<W>(now[i].high, weights.high);
                multiply_chunk<W, 1>(acc, weights, rows[i]);
            }
            terms += BATCH * CHUNK;
            col += BATCH * CHUNK;
        }
        if (part == 0) {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                total[i] += acc[0][i];
            }
        } else {
            mine[(stretch - first_kept) * WARP + lane] =
                make_float4(acc[0][0], acc[0][1], acc[0][2], acc[0][3]);
        }
    }
    if (args.split > 1) {
        __syncthreads();
        if (part != 0) {
            return;
        }
        for (u32 stretch = 0; stretch < kept; ++stretch) {
            const float4 acc = mine[stretch * WARP + lane];
            total[0] += acc.x;
            total[1] += acc.y;
            total[2] += acc.z;
            total[3] += acc.w;
        }
    }
    const u32 first_row = blockIdx.y * Args::BLOCK_ROWS + 2 * q;
    finish<W>(args, first_row, feature, total[0]);
    finish<W>(args, first_row + 1, feature, total[1]);
    finish<W>(args, first_row, feature + 8, total[2]);
    finish<W>(args, first_row + 1, feature + 8, total[3]);
}

}  // namespace
