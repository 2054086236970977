// Float linears for up to eight rows at memory speed.
//
// The blocks of the grid stay, and every group of `split` warps has an equal share of the features,
// so that all of them end together. Weights come by asynchronous copies far ahead of their use, and
// before anything is known of the rows; a lane copies what it will read itself, so no warp waits
// for another.
#pragma once
#include "float_linear.cuh"

namespace {

constexpr u32 WARPS = Args::THREADS / WARP;
// Chunks copied and waited for together.
constexpr u32 BATCH = Args::BATCH_COLS / CHUNK;
static_assert(CHUNKS % BATCH == 0, "a stretch is whole batches");

// First what lanes have on the way, (warp, batch, chunk, 16 bytes, lane); behind it partial sums,
// (group, stretch, lane).
extern __shared__ uint4 on_the_way[];

__device__ __forceinline__ void copy_async(uint4 *to, const u8 *from, bool in) {
    const u32 address = static_cast<u32>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
                 :: "r"(address), "l"(from), "r"(in ? 16 : 0) : "memory");
}

// Whole batches of one tile after the other.
struct Place {
    u32 tile;   // from the first of the group
    u32 batch;  // from the first of the tile

    __device__ __forceinline__ void advance(u32 batches) {
        if (++batch == batches) {
            batch = 0;
            ++tile;
        }
    }
};

template <typename W>
__device__ __forceinline__ void float_linear_few(const Args &args) {
    constexpr u32 LOADS = 2 * W::LOADS;  // of 16 bytes, for a lane's part of a chunk
    constexpr u32 DEPTH = Args::LANE_BYTES / (BATCH * LOADS * 16);
    static_assert(DEPTH >= 2, "one batch is on the way while another is read");
    const u32 lane = threadIdx.x % WARP;
    const u32 warp = threadIdx.x / WARP;
    const u32 g = lane / 4;
    const u32 q = lane % 4;
    const u32 group = warp / args.split;
    const u32 part = warp % args.split;
    const u32 groups = WARPS / args.split * gridDim.x;
    const u32 index = blockIdx.x * (WARPS / args.split) + group;
    const u32 first_feature =
        static_cast<u32>(static_cast<unsigned long long>(args.features) * index / groups);
    const u32 end_feature =
        static_cast<u32>(static_cast<unsigned long long>(args.features) * (index + 1) / groups);
    // The same for all groups: they meet after every tile.
    const u32 share_max = (args.features + groups - 1) / groups;
    const u32 tiles = (share_max + Args::TILE_FEATURES - 1) / Args::TILE_FEATURES;
    const u32 stretches = (args.cols + Args::STRETCH - 1) / Args::STRETCH;
    const u32 begin = stretches * part / args.split;
    const u32 end = stretches * (part + 1) / args.split;
    const u32 end_col = min(end * Args::STRETCH, args.cols);
    const u32 begin_col = begin * Args::STRETCH;
    const u32 batches = (end_col - begin_col + Args::BATCH_COLS - 1) / Args::BATCH_COLS;
    const u32 lane_col = begin_col + 8 * q;
    const u32 limit = min(args.stride, end * Args::STRETCH);

    launch_dependents();
    uint4 *ring = on_the_way + warp * (Args::LANE_BYTES / 16 * WARP) + lane;
    Place next = {0, 0};
    u32 slot_filled = 0;
    const auto fill = [&] {
        if (next.tile < tiles && batches > 0) {
            const u32 feature = first_feature + next.tile * Args::TILE_FEATURES + g;
            const u32 col = lane_col + next.batch * Args::BATCH_COLS;
            const bool low_in = feature < end_feature;
            const bool high_in = feature + 8 < end_feature;
            const u8 *low = args.weights
                + (static_cast<size_t>(feature) * args.stride + col) * WEIGHT_BYTES<W>;
            const u8 *high = low + static_cast<size_t>(8) * args.stride * WEIGHT_BYTES<W>;
            uint4 *to = ring + slot_filled * (BATCH * LOADS * WARP);
#pragma unroll
            for (u32 i = 0; i < BATCH; ++i) {
                const bool in = col + i * CHUNK < limit;
#pragma unroll
                for (u32 j = 0; j < W::LOADS; ++j) {
                    const u32 at = i * CHUNK * WEIGHT_BYTES<W> + 16 * j;
                    const bool low_now = in && low_in;
                    const bool high_now = in && high_in;
                    copy_async(to + (i * LOADS + j) * WARP, low_now ? low + at : args.weights,
                               low_now);
                    copy_async(to + (i * LOADS + W::LOADS + j) * WARP,
                               high_now ? high + at : args.weights, high_now);
                }
            }
            next.advance(batches);
            slot_filled = slot_filled + 1 == DEPTH ? 0 : slot_filled + 1;
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
#pragma unroll
    for (u32 i = 0; i < DEPTH - 1; ++i) {
        fill();
    }
    wait_for_dependencies();

    const u32 row = blockIdx.y * Args::BLOCK_ROWS + g;
    const bool row_in = row < args.rows;
    const u16 *row_terms =
        args.terms + static_cast<size_t>(row) * W::TERMS * args.terms_stride + lane_col;
    // Of a tile, what its first warp does not add itself: (stretch, lane).
    const u32 first_kept = stretches / args.split;
    const u32 kept = stretches - first_kept;
    float4 *partials = reinterpret_cast<float4 *>(on_the_way + Args::LANE_BYTES / 16 * Args::THREADS)
        + static_cast<size_t>(group) * kept * WARP + lane;
    u32 slot = 0;
    for (u32 tile = 0; tile < tiles; ++tile) {
        f32 total[4] = {};
        f32 acc[1][1][4] = {};
        for (u32 batch = 0; batch < batches; ++batch) {
            const u32 col = batch * Args::BATCH_COLS;
            uint4 terms[BATCH][1][W::TERMS];
#pragma unroll
            for (u32 i = 0; i < BATCH; ++i) {
                const bool in = row_in && lane_col + col + i * CHUNK < args.terms_stride;
#pragma unroll
                for (u32 term = 0; term < W::TERMS; ++term) {
                    const u16 *at = row_terms + term * args.terms_stride + col + i * CHUNK;
                    terms[i][0][term] = in ? *reinterpret_cast<const uint4 *>(at) : uint4{};
                }
            }
            asm volatile("cp.async.wait_group %0;" :: "n"(DEPTH - 2) : "memory");
            const uint4 *from = ring + slot * (BATCH * LOADS * WARP);
            slot = slot + 1 == DEPTH ? 0 : slot + 1;
#pragma unroll
            for (u32 i = 0; i < BATCH; ++i) {
                Stored<W> stored;
#pragma unroll
                for (u32 j = 0; j < W::LOADS; ++j) {
                    stored.low[j] = from[(i * LOADS + j) * WARP];
                    stored.high[j] = from[(i * LOADS + W::LOADS + j) * WARP];
                }
                Parts<W> weights[1];
                split<W>(stored.low, weights[0].low);
                split<W>(stored.high, weights[0].high);
                multiply_chunk<W, 1, 1>(acc, weights, terms[i]);
            }
            // Into the slot read in the round before.
            fill();
            if ((batch + 1) % (CHUNKS / BATCH) == 0 || batch + 1 == batches) {
                if (part == 0) {
#pragma unroll
                    for (u32 i = 0; i < 4; ++i) {
                        total[i] += acc[0][0][i];
                    }
                } else {
                    const u32 stretch = begin + batch / (CHUNKS / BATCH);
                    partials[(stretch - first_kept) * WARP] =
                        make_float4(acc[0][0][0], acc[0][0][1], acc[0][0][2], acc[0][0][3]);
                }
#pragma unroll
                for (u32 i = 0; i < 4; ++i) {
                    acc[0][0][i] = 0.0f;
                }
            }
        }
        if (args.split > 1) {
            __syncthreads();
            for (u32 stretch = 0; part == 0 && stretch < kept; ++stretch) {
                const float4 sum = partials[stretch * WARP];
                total[0] += sum.x;
                total[1] += sum.y;
                total[2] += sum.z;
                total[3] += sum.w;
            }
            if (tile + 1 < tiles) {
                __syncthreads();
            }
        }
        const u32 feature = first_feature + tile * Args::TILE_FEATURES + g;
        const u32 out_row = blockIdx.y * Args::BLOCK_ROWS + 2 * q;
        if (part == 0 && feature < end_feature) {
            finish<W>(args, out_row, feature, total[0]);
            finish<W>(args, out_row + 1, feature, total[1]);
        }
        if (part == 0 && feature + 8 < end_feature) {
            finish<W>(args, out_row, feature + 8, total[2]);
            finish<W>(args, out_row + 1, feature + 8, total[3]);
        }
    }
}

}  // namespace
