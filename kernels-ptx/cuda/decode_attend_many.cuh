// Attention of single rows where they are many: the bits of decode_attend_f16.cuh with clusters of
// RANKS, without clusters. What a thread block of a cluster does for a short row, a warp does here,
// one unit of positions after another, so that a block has eight key heads; a long row's ranks are
// done one after another by the whole block.
//
// The bits are the same because every number is made by the same functions in the same order: a
// unit's scores, weights and mix depend on the unit alone, units of a warp of the cluster follow
// each other, then warps, then ranks are mixed by `mix_parts`.
#pragma once
#include "decode_attend_short.cuh"

namespace {

// Warps of a rank up to which it may be begun in one round and ended in the next.
constexpr u32 STRADDLING = 5;

// The warps of the cluster, rank after rank, as they are dealt out to those of a block: some at a
// time, one to each of its warps. Those of no unit are left out where ranks are few enough to
// straddle two rounds; otherwise a round is a rank.
template <u32 RANKS, bool WHOLE>
struct Deal {
    // Places of what a warp of the cluster leaves until its rank is complete.
    static constexpr u32 SLOTS = WHOLE ? WARPS + STRADDLING - 1 : WARPS;

    u32 ranks;
    u32 units;
    // Warps of a rank, at least; the first few have one more.
    u32 low;
    u32 more;
    u32 count;

    __device__ __forceinline__ explicit Deal(const Part &part)
        : ranks(WHOLE ? part.ranks : RANKS), units(part.units), low(WARPS), more(0), count(WARPS) {
        if (WHOLE) {
            low = warps_of(part, 0);
            if (low > STRADDLING) {
                count = low;
            } else {
                low = units / ranks;
                more = units % ranks;
            }
        }
    }

    __device__ __forceinline__ u32 first_of(u32 rank) const {
        return rank * low + min(rank, more);
    }

    // The first unit of the warp `at`, or one that is none.
    __device__ __forceinline__ u32 unit_of(u32 at) const {
        const u32 wide = more * (low + 1);
        const u32 rank = at < wide ? at / (low + 1) : more + (at - wide) / max(low, 1u);
        return rank < ranks ? rank + (at - first_of(rank)) * ranks : units;
    }
};

// A row with one key head, by the whole block: rank after rank. With `WHOLE` it may be a short one.
template <u32 RANKS, u32 DIM, bool WHOLE>
__device__ __forceinline__ void attend_block(const Args &args, Part part, const Places &places,
                                             unsigned char *shared) {
    constexpr u32 SLOTS = Deal<RANKS, WHOLE>::SLOTS;
    const u32 lane = part.lane, warp = part.warp, dim = part.dim;
    const Deal<RANKS, WHOLE> deal(part);
    const u32 ranks = deal.ranks;
    const u32 g = lane / 4, q = lane % 4;
    u16 *keys = reinterpret_cast<u16 *>(args.keys) + part.start;
    u16 *values = reinterpret_cast<u16 *>(args.values) + part.start;
    const Slab slab(shared + warp * places.slab, dim);
    unsigned char *queries = shared + WARPS * places.slab;
    u16 *fresh = reinterpret_cast<u16 *>(queries + places.queries);
    const u32 elements = part.heads * dim, by_dim = reciprocal(dim);
    // (SLOTS, elements) and (KEPT, elements) sums of weighted values, (heads, SLOTS) and (heads,
    // PEAKS) peaks of scores and sums of weights, (heads) scales of queries.
    constexpr u32 KEPT = WHOLE ? RANKS : RANKS - 2, PEAKS = WHOLE ? RANKS : RANKS - 1;
    f32 *outs = reinterpret_cast<f32 *>(queries + places.queries + places.fresh);
    f32 *of_ranks = outs + SLOTS * elements;
    float2 *by_warp = reinterpret_cast<float2 *>(of_ranks + KEPT * elements);
    float2 *by_rank = by_warp + SLOTS * part.heads;
    f32 *undo = reinterpret_cast<f32 *>(by_rank + PEAKS * part.heads);
    const u32 last = part.units - 1, stride = ranks * WARPS;
    u32 begin = warp < deal.count ? deal.unit_of(warp) : part.units;
    const auto fetch = [&](u32 unit) {
        if (unit < part.units) {
            slab.fetch(keys, values, unit, part.position);
        }
    };

    // Whoever was here before is done with shared memory.
    __syncthreads();
    fetch(begin);
    if (warp == 0) {
        pad_queries(queries, places, part.heads, dim);
    }
    const Angles<DIM> angles(args, part);
    wait_for_dependencies();
    f32 held_low[DIM / 64], held_high[DIM / 64];
    take_row<DIM>(
        args, part, angles, true,
        [&](u32 task, u32 i, f32 low, f32 high) {
            if (task >= part.heads) {
                if (i < dim / 2) {
                    fresh[(task - part.heads) * dim + i] = to_f16(low);
                    fresh[(task - part.heads) * dim + i + dim / 2] = to_f16(high);
                }
                return;
            }
#pragma unroll
            for (u32 k = 0; k < DIM / 64; ++k) {
                if (i / WARP == k) {
                    held_low[k] = low;
                    held_high[k] = high;
                }
            }
        },
        [&](u32 task) {
            if (task < part.heads) {
                u16 *to = reinterpret_cast<u16 *>(queries + task * places.query_row);
                const f32 scale = place_query<DIM>(held_low, held_high, dim, to,
                                                   to + part.heads * (places.query_row / 2));
                if (lane == 0) {
                    undo[task] = scale;
                }
            }
        });
    __syncthreads();
    const u32 query = query_of(queries, places, part.heads);
    const f32 factor = args.factor * LOG2_E * (g < part.heads ? undo[g] : 0.0f);
    f32 *const mixed = args.mixed
        + (static_cast<size_t>(part.row) * args.heads + part.first_head) * dim;
    // Where a rank's sum is until all are there: the first one's in the output, if not all are
    // kept.
    const auto value_of = [&](u32 rank, u32 e) {
        return WHOLE ? of_ranks + rank * elements + e
            : rank == 0 ? mixed + e : of_ranks + (rank - 1) * elements + e;
    };
    const auto peak_of = [&](u32 rank, u32 head) { return by_rank + head * PEAKS + rank; };
    u32 rank = 0;
#pragma unroll 1
    for (u32 round = 0; rank < ranks; round += deal.count) {
        const u32 after = round + deal.count;
        const u32 next = !WHOLE ? (rank + 1 < RANKS ? begin + 1 : part.units)
            : warp < deal.count ? deal.unit_of(after + warp) : part.units;
        const u32 slot = WHOLE ? (round + warp) % SLOTS : warp;
        Running running;
#pragma unroll 1
        for (u32 unit = begin; unit < part.units; unit += stride) {
            wait_for_copies();
            if (unit == last) {
                insert_key(SharedHalves{fresh}, slab, keys, part.position);
                insert_value(SharedHalves{fresh + dim}, slab, values, part.position);
            }
            const u32 left = part.position - unit * UNIT;
            f32 score[4];
            // Where four blocks share a multiprocessor's registers, what follows from the lane is
            // cheaper computed anew for each unit than kept.
            score_unit<DIM>(score, slab, query, factor, left,
                            WHOLE ? lane : this_thread() % WARP);
            u32 weights[4];
            const f32 fade = running.take(weights, score, left);
            f32 *sums = outs + slot * elements + g * dim + 2 * q;
#pragma unroll 2
            for (u32 n = 0; n < dim / 8 + (dim % 8 != 0); n += 2) {
                float2 two[2];
                mix_unit(two, slab, weights, n);
#pragma unroll
                for (u32 i = 0; i < 2; ++i) {
                    const u32 at = (n + i) * 8;
                    if (g < part.heads && at + 2 * q < dim) {
                        float2 *const kept = reinterpret_cast<float2 *>(sums + at);
                        const float2 zero = make_float2(0.0f, 0.0f);
                        *kept = faded(unit == begin ? zero : *kept, fade, two[i]);
                    }
                }
            }
            __syncwarp();
            // The next of this rank, or the first of the next one.
            fetch(unit + stride < part.units ? unit + stride : next);
        }
        if (begin < part.units) {
            const f32 sum = running.total();
            if (q == 0 && g < part.heads) {
                by_warp[g * SLOTS + slot] = make_float2(running.top, sum);
            }
        }
        begin = next;
        __syncthreads();
        // Mixes ranks that are complete.
#pragma unroll 1
        do {
            const u32 warps = warps_of(part, rank);
            const u32 from = WHOLE ? deal.first_of(rank) % SLOTS : 0;
            const auto slot_of = [&](u32 w) {
                return from + w < SLOTS ? from + w : from + w - SLOTS;
            };
#pragma unroll 1
            for (u32 e = threadIdx.x; e < elements; e += Args::THREADS) {
                const u32 head = quotient(e, by_dim);
                const Mixed of = mix_parts<WARPS>(
                    warps, [&](u32 w) { return by_warp[head * SLOTS + slot_of(w)]; },
                    [&](u32 w) { return outs[slot_of(w) * elements + e]; });
                if (ranks == 1) {
                    mixed[e] = __fdividef(of.value, of.total);
                    continue;
                }
                if (!WHOLE && rank == RANKS - 1) {
                    // The others' are there, and this one's need not be put down.
                    const Mixed all = mix_parts<RANKS>(
                        RANKS,
                        [&](u32 r) {
                            return r < RANKS - 1 ? *peak_of(r, head)
                                                 : make_float2(of.top, of.total);
                        },
                        [&](u32 r) { return r < RANKS - 1 ? *value_of(r, e) : of.value; });
                    mixed[e] = __fdividef(all.value, all.total);
                    continue;
                }
                *value_of(rank, e) = of.value;
                if (e == head * dim) {
                    *peak_of(rank, head) = make_float2(of.top, of.total);
                }
            }
            ++rank;
        } while (WHOLE && rank < ranks && deal.first_of(rank + 1) <= after);
        __syncthreads();
    }
    if constexpr (WHOLE) {
        const u32 end = ranks == 1 ? 0 : elements;
#pragma unroll 1
        for (u32 e = threadIdx.x; e < end; e += Args::THREADS) {
            const u32 head = quotient(e, by_dim);
            const Mixed of = mix_parts<RANKS>(
                RANKS, [&](u32 r) { return *peak_of(r, head); },
                [&](u32 r) { return *value_of(r, e); });
            mixed[e] = __fdividef(of.value, of.total);
        }
    }
}

// Grid: with `WHOLE`, where sets of heads are few, (rows, sets); otherwise (sets / WARPS rounded up,
// rows). A short row, with `WHOLE` only the shortest, has a warp for each set; with `WHOLE` these
// are in the blocks that begin first.
template <u32 RANKS, u32 DIM, bool WHOLE>
__device__ __forceinline__ void decode_attend_many(const Args &args) {
    extern __shared__ __align__(128) unsigned char shared[];
    const u32 group = args.heads / args.kv_heads;
    const u32 sets = args.kv_heads * ((group + HEADS - 1) / HEADS);
    const u32 row = WHOLE ? blockIdx.x : blockIdx.y;
    const u32 block = WHOLE ? blockIdx.y : blockIdx.x;
    Part part;
    launch_dependents();
    const u32 position = args.positions[row];
    if (position == Args::NONE) {
        return;
    }
    const Places places(args.head_dim, min(HEADS, group));
    constexpr u32 SHORT = WHOLE ? 1 : WARPS;
    if (position / UNIT < SHORT) {
        const u32 set = block * WARPS + threadIdx.x / WARP;
        if (set < sets) {
            aim(args, row, set, part);
            part.position = position;
            spread<RANKS>(args, UNIT, part);
            attend_short<SHORT, DIM>(args, part, places, shared);
        }
        return;
    }
    const u32 each = WHOLE ? 1 : WARPS;
#pragma unroll 1
    for (u32 set = block * each; set < min((block + 1) * each, sets); ++set) {
        aim(args, row, set, part);
        part.position = WHOLE ? position : anew(position);
        spread<RANKS>(args, UNIT, part);
        attend_block<RANKS, DIM, WHOLE>(args, part, places, shared);
    }
}

}  // namespace
