// All layers of a step of one row; contract.cuh says what they compute. The grid is resident as a
// whole and takes part in every phase of every layer: linears by pairs of row tiles, attention by
// the parts that the clusters of decode_attend have.
//
// Nothing but the data says that a phase has ended. Every word that another thread block may be
// waiting for is `UNWRITTEN` until it is written, and who needs it looks until it is. A warp of each
// block fetches weights without regard to phases, slot after slot until all are full, so memory is
// read while blocks wait for each other.
//
// Layers take turns with SETS sets of rooms, from step to step without a break. A layer makes the set
// of the layer ahead `UNWRITTEN` again once it has read its row, for by then every block is done
// with that; the row itself is left to the layer behind. Whoever looks at a set has by then seen
// what was written behind the layer that cleared it: hence four sets, not two.
#pragma once
#include "decode_layers_attend.cuh"
#include "decode_layers_fetch.cuh"
#include "decode_layers_linear.cuh"

namespace {

template <u32 RANKS, u32 DIM>
__device__ __forceinline__ void decode_layers(const Layers &args) {
    extern __shared__ __align__(128) unsigned char shared[];
    __shared__ Kept<DIM> kept;
    const u32 lane = this_thread() % WARP, warp = this_thread() / WARP;
    const u32 slot_bytes =
        (max(args.hidden_cols, args.heads * args.head_dim) + 127) / 128 * PAIR * TILE_BYTES;
    unsigned char *slabs = shared + args.slots_of_weights * slot_bytes;
    i32 *sums = reinterpret_cast<i32 *>(slabs + WARPS * Slab::bytes_of(args.head_dim));

    if (threadIdx.x == 0) {
#pragma unroll 1
        for (u32 slot = 0; slot < args.slots_of_weights; ++slot) {
            barrier_init(shared_address(&kept.full[slot]), 1);
            barrier_init(shared_address(&kept.empty[slot]), MULTIPLIERS);
        }
        barriers_ready();
        kept.rooms.lay_out(args, RANKS);
        // At first `UNWRITTEN`, as all rooms are: set 0. The step ahead has ended in any case: its
        // token was chosen behind it.
        kept.first_set = __float_as_uint(load_fresh(args.rooms + Layers::SETS * kept.rooms.words))
            - UNWRITTEN;
        kept.shapes.measure(args);
        const Shapes &shapes = kept.shapes;
        // Blocks that get a pair less in one linear get it in another.
        const u32 mirrored = gridDim.x - 1 - blockIdx.x;
        kept.shares[QKV] = share_of(shapes.row_tiles[QKV], blockIdx.x);
        kept.shares[OUT] = share_of(shapes.row_tiles[OUT], mirrored);
        kept.shares[GATE_UP] = share_of(shapes.row_tiles[GATE_UP], blockIdx.x);
        kept.shares[DOWN] = share_of(shapes.row_tiles[DOWN], mirrored);
    }
#pragma unroll 1
    for (u32 at = threadIdx.x; at < args.count * Layers::WORDS; at += Layers::THREADS) {
        kept.addresses[at] = __ldg(reinterpret_cast<const u64 *>(args.layers) + at);
    }
    if (warp == KEEPER && lane < 2) {
        kept.peaks[lane] = make_uint2(0, 0);
    }
    __syncthreads();
    if (warp < MULTIPLIERS) {
        u32 pairs = 0;
#pragma unroll
        for (u32 which = 0; which < LINEARS; ++which) {
            pairs = max(pairs, kept.shares[which].count);
        }
        // Before the multipliers meet for the first time, behind which they add.
#pragma unroll 1
        for (u32 at = threadIdx.x; at < pairs * 32; at += AT_WORK) {
            sums[at] = 0;
        }
    }

    if (warp == FETCHER) {
        Ring ring{args.slots_of_weights};
        // Slots are empty at first.
        ring.parity = 1;
        bool attends = false;
#pragma unroll 1
        for (u32 layer = 0; layer < args.count; ++layer) {
            if (lane == 0) {
                fetch_ahead(args, kept, layer + 1);
            }
#pragma unroll 1
            for (u32 which = QKV; which < LINEARS; ++which) {
                fetch_weights(args, kept, which, layer, shared, ring);
                if (which == QKV && layer == 0) {
                    wait_for_dependencies();
                    Part part = {};
                    attends = part_of_block<RANKS>(args, part);
                    if (lane == 0) {
                        kept.fetched = part;
                    }
                    __syncwarp();
                }
                if (which == QKV && attends && lane == 0) {
                    fetch_cache_ahead(args, kept.fetched, layer + 1);
                }
            }
        }
        return;
    }

    const Rooms &rooms = kept.rooms;
    Ring ring{args.slots_of_weights};
    wait_for_dependencies();
    if (warp < WARPS) {
        Part part = {};
        const bool attends = part_of_block<RANKS>(args, part);
        if (threadIdx.x == 0) {
            kept.attends = attends;
            kept.part = part;
            kept.warps = attends ? warps_of(part, part.rank) : 0;
            kept.by_dim = reciprocal(args.head_dim);
            kept.slice = (part.heads * part.dim / 2 + RANKS - 1) / RANKS;
        }
        const u32 pairs = args.head_dim / 2;
        if (threadIdx.x < DIM / 2) {
            const bool turns = args.cos != nullptr && threadIdx.x < pairs;
            const size_t at = static_cast<size_t>(part.position) * pairs + threadIdx.x;
            kept.cosine[threadIdx.x] = turns ? __ldg(args.cos + at) : 1.0f;
            kept.sine[threadIdx.x] = turns ? __ldg(args.sin + at) : 0.0f;
        }
        clear_queries(kept.prepared);
    }
    if (warp != KEEPER) {
        // All of them ask whether the block attends.
        meet<ATTENDED>();
    }
    if (warp == KEEPER) {
        // Blocks that multiply in qkv know then that the layer ahead is done with; for what they
        // write in gate_up all others wait.
        const u32 blocks = min(gridDim.x, (min(kept.shapes.row_tiles[QKV],
                                               kept.shapes.row_tiles[GATE_UP]) + 1) / PAIR);
        u32 turn = 0;
#pragma unroll 1
        for (u32 layer = 0; layer < args.count; ++layer) {
#pragma unroll 1
            for (u32 which = 0; which < LINEARS; ++which) {
                if (kept.shares[which].count > 0) {
                    keep_row(args, kept.shapes.cols[which],
                             kept.addresses[layer * Layers::WORDS + 8 + which] != 0, kept, turn);
                }
                if (which == QKV && blockIdx.x < blocks) {
                    // Of the layer ahead the row is still needed, of the one before it no longer.
                    constexpr u32 AHEAD = Layers::SETS - 1;
                    clear(room_of(args, rooms, kept.first_set, layer + AHEAD), rooms.hidden, blocks);
                    clear(room_of(args, rooms, kept.first_set, layer + AHEAD - 1) + rooms.hidden,
                          args.hidden_cols, blocks);
                    // Ordered before what this block writes next: the fence, then a barrier.
                    __threadfence();
                }
            }
        }
        return;
    }

    // Keys and values of the first layer; of each other once the layer ahead is done with its own.
    if (warp < WARPS && kept.attends) {
        fetch_first_unit(cache_of(args, 0), kept.part, shared_address(slabs), warp);
    }
    // One code for the linears of narrow rows and one loop, so that a layer's instructions stay near
    // and little is kept while the block attends.
#pragma unroll 1
    for (u32 step = 0; step < args.count * LINEARS; ++step) {
        const u32 layer = step / LINEARS, which = step % LINEARS;
        if (which == OUT && kept.attends) {
            if (warp < WARPS) {
                attend_part<RANKS>(args, layer, kept, slabs);
                if (layer + 1 < args.count) {
                    // No warp looks any longer at what others had summed in their slabs.
                    meet<ATTEND>();
                    fetch_first_unit(cache_of(args, layer + 1), kept.part, shared_address(slabs),
                                     warp);
                }
            } else if (kept.part.ranks > 1) {
                mix_ranks<RANKS>(args, layer, kept);
            }
            // Whoever has nothing to do does not look at what is far from being there.
            meet<ATTENDED>();
        }
        f32 *room = room_of(args, rooms, kept.first_set, layer);
        const f32 *hidden = layer == 0
            ? args.hidden : room_of(args, rooms, kept.first_set, layer - 1) + rooms.hidden;
        if (which == DOWN) {
            multiply_row<WIDE>(args, DOWN, layer,
                               {ADD, room + rooms.gated, true, room + rooms.middle,
                                layer + 1 == args.count ? args.hidden : room + rooms.hidden,
                                args.hidden_cols},
                               kept, shared, sums, ring);
            continue;
        }
        Linear linear = {STORE, hidden, layer != 0, nullptr, room, rooms.mixed};
        if (which == OUT) {
            linear = {ADD, room + rooms.mixed, true, hidden, room + rooms.middle,
                      args.hidden_cols};
        } else if (which == GATE_UP) {
            linear = {GATE, room + rooms.middle, true, nullptr, room + rooms.gated, args.ffn};
        }
        multiply_row<1>(args, which, layer, linear, kept, shared, sums, ring);
    }
    // Every block that has something to do has looked at this.
    if (blockIdx.x == 0 && this_thread() == 0) {
        const u32 next = (kept.first_set + args.count) % Layers::SETS;
        store_fresh(args.rooms + Layers::SETS * rooms.words, __uint_as_float(next + UNWRITTEN));
    }
}

}  // namespace
