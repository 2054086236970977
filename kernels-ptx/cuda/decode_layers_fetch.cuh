// What the fetcher of decode_layers.cuh brings: weights, and what the next layer will want.
#pragma once
#include "decode_layers_shared.cuh"

namespace {

// Asks for this block's part of a layer's norms and units to come into the L2 cache.
template <u32 DIM>
__device__ __forceinline__ void fetch_ahead(const Layers &args, const Kept<DIM> &kept, u32 layer) {
    if (layer < args.count) {
        const u64 *of = kept.addresses + layer * Layers::WORDS;
#pragma unroll 1
        for (u32 which = 0; which < LINEARS; ++which) {
            const Share share = kept.shares[which];
            if (share.count > 0) {
                prefetch(reinterpret_cast<const f32 *>(of[4 + which]) + share.first * 32,
                         min(share.count * 32, kept.shapes.row_tiles[which] * 16 - share.first * 32)
                             * 4);
            }
            // In units of a line.
            const u32 lines = (kept.shapes.cols[which] + 31) / 32;
            const u32 each = (lines + gridDim.x - 1) / gridDim.x;
            const u32 first = blockIdx.x * each * 32;
            if (of[8 + which] != 0 && first < kept.shapes.cols[which]) {
                prefetch(reinterpret_cast<const f32 *>(of[8 + which]) + first,
                         min(each * 32, kept.shapes.cols[which] - first) * 4);
            }
        }
    }
}

// Has a linear's weights come to the slots, as they get empty.
template <u32 DIM>
__device__ __forceinline__ void fetch_weights(const Layers &args, Kept<DIM> &kept, u32 which,
                                              u32 layer, unsigned char *slots, Ring &ring) {
    const Share share = kept.shares[which];
    const u32 slot_tiles = kept.shapes.slot_tiles;
    const u32 col_tiles = (kept.shapes.cols[which] + 127) / 128;
    const u32 row_bytes = col_tiles * TILE_BYTES;
    const u8 *codes = reinterpret_cast<const u8 *>(kept.addresses[layer * Layers::WORDS + which]);
#pragma unroll 1
    for (u32 pair = share.first; pair < share.first + share.count; ++pair) {
        const u8 *from = codes + static_cast<size_t>(pair) * PAIR * row_bytes;
        // The last pair may be one tile row; the other is never stored.
        const u32 rows = min(PAIR, kept.shapes.row_tiles[which] - pair * PAIR);
#pragma unroll 1
        for (u32 tile = 0; tile < col_tiles; tile += slot_tiles) {
            if (threadIdx.x % WARP == 0) {
                const u32 bytes = min(slot_tiles, col_tiles - tile) * TILE_BYTES;
                const u32 to =
                    shared_address(slots + ring.slot * slot_tiles * PAIR * TILE_BYTES);
                const u32 full = shared_address(&kept.full[ring.slot]);
                barrier_wait(shared_address(&kept.empty[ring.slot]), ring.parity);
                // Not before the slot ahead is there. More under way would wait in memory's queues,
                // and what others look at behind them. (`parity` is that of `empty`, one on.)
                const bool wraps = ring.slot == 0;
                barrier_wait(shared_address(&kept.full[(wraps ? ring.slots : ring.slot) - 1]),
                             wraps ? ring.parity : ring.parity ^ 1);
                barrier_expect(full, rows * bytes);
                bulk_copy(to, from + tile * TILE_BYTES, bytes, full);
                if (rows == PAIR) {
                    bulk_copy(to + bytes, from + row_bytes + tile * TILE_BYTES, bytes, full);
                }
            }
            ring.advance();
        }
    }
    __syncwarp();
}

// The part of attention that this block has, the same in all layers. False: none.
template <u32 RANKS>
__device__ __forceinline__ bool part_of_block(const Layers &args, Part &part) {
    const u32 sets = args.kv_heads * ((args.heads / args.kv_heads + HEADS - 1) / HEADS);
    if (blockIdx.x >= sets * RANKS) {
        return false;
    }
    const Args shape = cache_of(args, 0);
    aim(shape, 0, blockIdx.x / RANKS, part);
    part.rank = blockIdx.x % RANKS;
    part.position = args.positions[0];
    spread<RANKS>(shape, UNIT, part);
    return part.rank < part.ranks;
}

// Asks for this block's share of a layer's keys and values to come into the L2 cache.
__device__ __forceinline__ void fetch_cache_ahead(const Layers &args, const Part &part,
                                                  u32 layer) {
    if (layer < args.count) {
        // A rank's share of the head's positions, in blocks of keys.
        const u32 blocks = part.position / BLOCK + 1;
        const u32 each = (blocks + part.ranks - 1) / part.ranks;
        const u32 first = min(blocks, part.rank * each);
        const u32 bytes = (min(blocks, first + each) - first) * BLOCK * part.dim * 2;
        if (bytes > 0) {
            const Args next = cache_of(args, layer);
            const size_t at = (part.start + static_cast<size_t>(first) * BLOCK * part.dim) * 2;
            prefetch(next.keys + at, bytes);
            prefetch(next.values + at, bytes);
        }
    }
}

}  // namespace
