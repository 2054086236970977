// Float linears for up to eight rows at memory speed.
//
// Blocks stay and walk over the tiles; the warps of a block share the columns of a tile. Weights
// are copied in the order in which they lie in memory, far ahead of their use, and before anything
// is known of the rows. A lane copies what it will read itself, so no warp waits for another but at
// the end of a tile, where the sums of its stretches are added up. Of INT8 two tiles are taken
// together, where there are enough: their products need not wait for each other, and share the
// terms.
#pragma once
#include "float_linear.cuh"

namespace {

constexpr u32 WARPS = Args::THREADS / WARP;

// Weights on the way, (warp, slot, chunk of the slot, tile, piece, lane); sums, (2, stretch, tile,
// lane); and the terms, (chunk, unit, term, row, q), where there is room for them.
extern __shared__ uint4 shared[];

__device__ __forceinline__ u32 shared_bytes() {
    u32 bytes;
    asm("mov.u32 %0, %%dynamic_smem_size;" : "=r"(bytes));
    return bytes;
}

template <typename W, u32 M>
__device__ __forceinline__ void multiply_tiles(const Args &args) {
    // Chunks that are copied, and waited for, together.
    constexpr u32 BATCH = M == 1 ? Args::BATCH_COLS / W::COLS : 1;
    constexpr u32 SLOT = BATCH * M * W::PIECES * WARP;
    constexpr u32 LANE_BYTES = M == 1 ? Args::LANE_BYTES : Args::PAIR_LANE_BYTES;
    constexpr u32 DEPTH = LANE_BYTES / 16 * WARP / SLOT;
    static_assert(DEPTH >= 2, "one batch is on the way while another is read");
    static_assert(CHUNKS<W> % BATCH == 0, "a stretch is whole batches");
    const u32 lane = threadIdx.x % WARP;
    const u32 warp = threadIdx.x / WARP;
    const u32 g = lane / 4;
    const u32 q = lane % 4;
    const u32 tiles = (args.features + Args::TILE_FEATURES - 1) / Args::TILE_FEATURES;
    const u32 chunks = (args.cols + W::COLS - 1) / W::COLS;
    const u32 stretches = (args.cols + Args::STRETCH - 1) / Args::STRETCH;
    const u32 first_stretch = stretches * warp / WARPS;
    const u32 first_chunk = first_stretch * CHUNKS<W>;
    const u32 end_chunk = min(stretches * (warp + 1) / WARPS * CHUNKS<W>, chunks);
    const u32 batches = (end_chunk - min(first_chunk, end_chunk) + BATCH - 1) / BATCH;

    launch_dependents();
    uint4 *ring = shared + warp * (DEPTH * SLOT) + lane;
    const uint4 *weights = reinterpret_cast<const uint4 *>(args.weights) + lane;
    u32 next_tile = blockIdx.x * M;
    u32 next_batch = 0;
    u32 next_slot = 0;
    const auto fill = [&] {
        if (next_tile < tiles && batches > 0) {
            const u32 chunk = first_chunk + next_batch * BATCH;
            uint4 *to = ring + next_slot * SLOT;
#pragma unroll
            for (u32 m = 0; m < M; ++m) {
                const uint4 *from = weights
                    + (static_cast<size_t>(next_tile + m) * chunks + chunk) * (W::PIECES * WARP);
#pragma unroll
                for (u32 i = 0; i < BATCH; ++i) {
                    const bool in = chunk + i < end_chunk && next_tile + m < tiles;
#pragma unroll
                    for (u32 piece = 0; piece < W::PIECES; ++piece) {
                        const u32 at = (i * W::PIECES + piece) * WARP;
                        copy_async(to + m * W::PIECES * WARP + i * (M * W::PIECES * WARP)
                                       + piece * WARP,
                                   in ? from + at : weights, in);
                    }
                }
            }
            if (++next_batch == batches) {
                next_batch = 0;
                next_tile += gridDim.x * M;
            }
            next_slot = next_slot + 1 == DEPTH ? 0 : next_slot + 1;
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
#pragma unroll
    for (u32 i = 0; i < DEPTH - 1; ++i) {
        fill();
    }
    wait_for_dependencies();

    const u32 block_row = blockIdx.y * Args::BLOCK_ROWS;
    const u32 rows = min(args.rows - block_row, Args::BLOCK_ROWS);
    const bool row_in = g < rows;
    const u16 *row_terms = args.terms
        + static_cast<size_t>(block_row + (row_in ? g : 0)) * W::TERMS * args.terms_stride
        + q * (8 * UNITS<W>);
    float4 *sums = reinterpret_cast<float4 *>(shared + WARPS * DEPTH * SLOT);
    uint4 *kept = reinterpret_cast<uint4 *>(sums + 2 * stretches * M * WARP) + g * 4 + q;
    const u32 kept_bytes = chunks * UNITS<W> * W::TERMS * rows * 64;
    const bool keeps =
        WARPS * DEPTH * SLOT * 16 + 2 * stretches * M * WARP * 16 + kept_bytes <= shared_bytes();
    if (keeps) {
        for (u32 chunk = first_chunk; row_in && chunk < end_chunk; ++chunk) {
#pragma unroll
            for (u32 unit = 0; unit < UNITS<W>; ++unit) {
#pragma unroll
                for (u32 term = 0; term < W::TERMS; ++term) {
                    const u32 at = (chunk * UNITS<W> + unit) * W::TERMS + term;
                    copy_async(kept + at * rows * 4,
                               row_terms + term * args.terms_stride + chunk * W::COLS + 8 * unit,
                               true);
                }
            }
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
        asm volatile("cp.async.wait_group 0;" ::: "memory");
    }

    u32 slot = 0;
    u32 round = 0;
    for (u32 tile = blockIdx.x * M; tile < tiles; tile += gridDim.x * M, ++round) {
        float4 *tile_sums = sums + round % 2 * stretches * M * WARP + lane;
        f32 acc[M][1][4] = {};
        for (u32 batch = 0; batch < batches; ++batch) {
            const u32 chunk = first_chunk + batch * BATCH;
            uint4 terms[BATCH][UNITS<W>][1][W::TERMS];
#pragma unroll
            for (u32 i = 0; i < BATCH; ++i) {
                const bool in = row_in && chunk + i < end_chunk;
#pragma unroll
                for (u32 unit = 0; unit < UNITS<W>; ++unit) {
#pragma unroll
                    for (u32 term = 0; term < W::TERMS; ++term) {
                        const u32 at = ((chunk + i) * UNITS<W> + unit) * W::TERMS + term;
                        const uint4 *from = keeps
                            ? kept + at * rows * 4
                            : reinterpret_cast<const uint4 *>(
                                  row_terms + term * args.terms_stride + (chunk + i) * W::COLS
                                  + 8 * unit);
                        terms[i][unit][0][term] = in ? *from : uint4{};
                    }
                }
            }
            asm volatile("cp.async.wait_group %0;" :: "n"(DEPTH - 2) : "memory");
            const uint4 *from = ring + slot * SLOT;
            slot = slot + 1 == DEPTH ? 0 : slot + 1;
#pragma unroll
            for (u32 i = 0; i < BATCH; ++i) {
                Stored<W> stored[M];
#pragma unroll
                for (u32 m = 0; m < M; ++m) {
#pragma unroll
                    for (u32 piece = 0; piece < W::PIECES; ++piece) {
                        stored[m].pieces[piece] = from[((i * M + m) * W::PIECES + piece) * WARP];
                    }
                }
#pragma unroll
                for (u32 unit = 0; unit < UNITS<W>; ++unit) {
                    Parts<W> parts[M];
#pragma unroll
                    for (u32 m = 0; m < M; ++m) {
                        parts[m] = split_unit<W>(stored[m], unit);
                    }
                    multiply_unit<W, M, 1>(acc, parts, terms[i][unit]);
                }
            }
            // Into the slot that was read in the round before.
            fill();
            if ((batch + 1) % (CHUNKS<W> / BATCH) == 0 || batch + 1 == batches) {
                const u32 stretch = first_stretch + batch / (CHUNKS<W> / BATCH);
#pragma unroll
                for (u32 m = 0; m < M; ++m) {
                    f32(&sum)[4] = acc[m][0];
                    tile_sums[(stretch * M + m) * WARP] =
                        make_float4(sum[0], sum[1], sum[2], sum[3]);
#pragma unroll
                    for (u32 i = 0; i < 4; ++i) {
                        sum[i] = 0.0f;
                    }
                }
            }
        }
        // One warp a tile adds up and goes on; what it read is written again only after the next
        // barrier.
        __syncthreads();
        const u32 turn = (warp + WARPS - round * M % WARPS) % WARPS;
        if (turn >= M) {
            continue;
        }
        f32 total[4] = {};
#pragma unroll 4
        for (u32 stretch = 0; stretch < stretches; ++stretch) {
            const float4 sum = tile_sums[(stretch * M + turn) * WARP];
            total[0] += sum.x;
            total[1] += sum.y;
            total[2] += sum.z;
            total[3] += sum.w;
        }
        const u32 feature = (tile + turn) * Args::TILE_FEATURES + g;
        const u32 row = block_row + 2 * q;
        finish<W>(args, row, feature, total[0]);
        finish<W>(args, row + 1, feature, total[1]);
        finish<W>(args, row, feature + 8, total[2]);
        finish<W>(args, row + 1, feature + 8, total[3]);
    }
}

template <typename W>
__device__ __forceinline__ void float_linear_few(const Args &args) {
    // Bytes come faster than the products of one tile end.
    if constexpr (W::COLS == 64) {
        if (args.features >= Args::PAIR_FEATURES) {
            multiply_tiles<W, 2>(args);
            return;
        }
    }
    multiply_tiles<W, 1>(args);
}

}  // namespace
