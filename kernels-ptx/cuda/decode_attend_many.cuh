// Attention of single rows where they are many: the bits of decode_attend_f16.cuh with clusters of
// RANKS, without clusters. What a thread block of a cluster does for a short row, a warp does here,
// one unit of positions after another, so that a block has eight key heads; a long row's ranks are
// done one after another by the whole block.
//
// The bits are the same because every number is made by the same functions in the same order: a
// unit's scores, weights and mix depend on the unit alone, units of a warp of the cluster follow
// each other, then warps, then ranks are mixed by `mix_parts`.
#pragma once
#include "decode_attend_f16.cuh"

namespace {

// What is parked of a unit and a head of a short row for the second look at it: the weights of four
// lanes, then peak and sum.
constexpr u32 PARKED_BYTES = 4 * 16 + 8;
// Warps of a rank up to which it may be begun in one round and ended in the next.
constexpr u32 STRADDLING = 5;

// Where dynamic shared memory has what, in bytes; launch::DecodeAttendShape counts the same.
struct Places {
    // Of a warp.
    u32 slab;
    u32 query_row;
    u32 queries;
    u32 fresh;
    u32 own;
    // Behind the slabs, queries and fresh halves of all warps.
    u32 rest;

    __device__ __forceinline__ Places(u32 dim, u32 heads) {
        slab = Slab::bytes_of(dim);
        // Fragments have 16 columns; an odd number of 16 bytes meets every bank.
        query_row = ((dim + 15) / 16 * 2 | 1) * 16;
        queries = 2 * heads * query_row;
        fresh = (dim * 4 + 15) / 16 * 16;
        // The row as it comes, then what is parked of its units.
        own = (max((heads + 2) * dim * 4, WARPS * heads * PARKED_BYTES) + 15) / 16 * 16;
        rest = WARPS * (slab + queries + fresh);
    }
};

// Where query rows of a warp are: high halves of all heads, then what that leaves. A lane's row of
// a fragment; those of no head repeat the last one's, and nobody looks at what becomes of them.
__device__ __forceinline__ u32 query_of(const unsigned char *queries, const Places &places,
                                        u32 heads) {
    const u32 lane = threadIdx.x % WARP;
    const u32 row = min(lane % 8, heads - 1) + (lane % 16 < 8 ? 0 : heads);
    return shared_address(queries) + row * places.query_row + lane / 16 * 16;
}

// Columns behind the last of a fragment are zero.
__device__ __forceinline__ void pad_queries(unsigned char *queries, const Places &places, u32 heads,
                                            u32 dim) {
    const u32 lane = threadIdx.x % WARP;
    if (lane < (16 - dim % 16) % 16) {
#pragma unroll 1
        for (u32 row = 0; row < 2 * heads; ++row) {
            reinterpret_cast<u16 *>(queries + row * places.query_row)[dim + lane] = 0;
        }
    }
}

// The new position's value goes where the cache has it, and into the slab.
__device__ __forceinline__ void insert_value(const u16 *fresh, const Slab &slab, u16 *values,
                                             u32 position) {
    u16 *cache = values + static_cast<size_t>(position) * slab.dim;
#pragma unroll 1
    for (u32 i = threadIdx.x % WARP; i < slab.dim; i += WARP) {
        const u16 x = fresh[i];
        *slab.value(position % UNIT, i) = x;
        cache[i] = x;
    }
    __syncwarp();
}

// The same of its key.
__device__ __forceinline__ void insert_key(const u16 *fresh, const Slab &slab, u16 *keys,
                                           u32 position) {
    u16 *cache = keys + static_cast<size_t>(position / BLOCK) * BLOCK * slab.dim
        + position % BLOCK;
#pragma unroll 1
    for (u32 i = threadIdx.x % WARP; i < slab.dim; i += WARP) {
        const u16 x = fresh[i];
        *slab.key(position % UNIT, i) = x;
        cache[i * BLOCK] = x;
    }
    __syncwarp();
}

// A row of at most WARPS units with one key head, by one warp.
template <u32 DIM>
__device__ __forceinline__ void attend_short(const Args &args, const Part &part,
                                             const Places &places, unsigned char *shared) {
    constexpr u32 EACH = DIM / 64;
    const u32 lane = part.lane, dim = part.dim, pairs = dim / 2;
    const u32 g = lane / 4, q = lane % 4;
    u16 *keys = reinterpret_cast<u16 *>(args.keys) + part.start;
    u16 *values = reinterpret_cast<u16 *>(args.values) + part.start;
    const Slab slab(shared + part.warp * places.slab, dim);
    unsigned char *queries = shared + WARPS * places.slab + part.warp * places.queries;
    u16 *fresh = reinterpret_cast<u16 *>(
        shared + WARPS * (places.slab + places.queries) + part.warp * places.fresh);
    unsigned char *own = shared + places.rest + part.warp * places.own;

    slab.fetch(keys, values, 0, part.position);
    pad_queries(queries, places, part.heads, dim);
    const Angles<DIM> angles(args, part);
    wait_for_dependencies();
    const u32 query_width = args.heads * dim, kv_width = args.kv_heads * dim;
    const f32 *row = args.qkv + static_cast<size_t>(part.row) * (query_width + 2 * kv_width);
    const f32 *new_key = row + query_width + part.kv_head * dim;
#pragma unroll 1
    for (u32 task = 0; task < part.heads + 2; ++task) {
        const f32 *from = task < part.heads ? row + (part.first_head + task) * dim
                                            : new_key + (task - part.heads) * kv_width;
#pragma unroll 1
        for (u32 i = lane; i < dim / 4; i += WARP) {
            copy<16>(shared_address(own) + (task * dim + i * 4) * 4, from + i * 4, true);
        }
    }
    commit_copies();
    wait_for_copies();
    f32 undo = 0.0f;
#pragma unroll 1
    for (u32 task = 0; task < part.heads + 2; ++task) {
        const f32 *from = reinterpret_cast<const f32 *>(own) + task * dim;
        f32 low[EACH], high[EACH];
#pragma unroll
        for (u32 k = 0; k < EACH; ++k) {
            const u32 i = lane + k * WARP;
            low[k] = high[k] = 0.0f;
            if (i < pairs) {
                low[k] = from[i];
                high[k] = from[i + pairs];
            }
            if (args.cos != nullptr && task <= part.heads) {
                angles.turn(k, low[k], high[k]);
            }
            if (task >= part.heads && i < pairs) {
                u16 *to = fresh + (task - part.heads) * dim;
                to[i] = to_f16(low[k]);
                to[i + pairs] = to_f16(high[k]);
            }
        }
        if (task < part.heads) {
            u16 *to = reinterpret_cast<u16 *>(queries + task * places.query_row);
            const f32 scale = place_query<DIM>(low, high, dim, to,
                                               to + part.heads * (places.query_row / 2));
            undo = g == task ? scale : undo;
        }
    }
    __syncwarp();
    const u32 query = query_of(queries, places, part.heads);
    const f32 factor = args.factor * LOG2_E * undo;
    const u32 last = part.units - 1;
    // Lanes of no head look at what the last one has, and nobody looks at what they make of it.
    uint4 *parked = reinterpret_cast<uint4 *>(own) + min(g, part.heads - 1) * 4 + q;
    float2 *peaks = reinterpret_cast<float2 *>(own + WARPS * part.heads * 4 * 16)
        + min(g, part.heads - 1);
    u32 weights[4];
    f32 top = NONE;
#pragma unroll 1
    for (u32 unit = 0; unit < part.units; ++unit) {
        if (unit > 0) {
            if (Slab::is_cached(unit, part.position)) {
                slab.fetch_keys(keys, unit);
            }
            wait_for_copies();
        }
        if (unit == last) {
            insert_key(fresh, slab, keys, part.position);
        }
        const u32 left = part.position - unit * UNIT;
        f32 score[4];
        score_unit<DIM>(score, slab, query, factor, left);
        Running running;
        running.take(weights, score, left);
        const f32 sum = running.total();
        if (g < part.heads) {
            parked[unit * part.heads * 4] =
                make_uint4(weights[0], weights[1], weights[2], weights[3]);
            if (q == 0) {
                peaks[unit * part.heads] = make_float2(running.top, sum);
            }
        }
        top = fmaxf(top, running.top);
        __syncwarp();
    }
    f32 *mixed = args.mixed
        + (static_cast<size_t>(part.row) * args.heads + part.first_head + g) * dim + 2 * q;
    if (part.units == 1) {
        // What follows, of one unit: its scale is 1, its weights are still here.
        insert_value(fresh + dim, slab, values, part.position);
        const f32 total = peaks[0].y;
#pragma unroll 2
        for (u32 n = 0; n < dim / 8 + (dim % 8 != 0); n += 2) {
            float2 two[2];
            mix_unit(two, slab, weights, n);
#pragma unroll
            for (u32 i = 0; i < 2; ++i) {
                const u32 at = (n + i) * 8;
                if (g < part.heads && at + 2 * q < dim) {
                    *reinterpret_cast<float2 *>(mixed + at) =
                        make_float2(__fdividef(two[i].x + 0.0f, total),
                                    __fdividef(two[i].y + 0.0f, total));
                }
            }
        }
        return;
    }
    f32 total = 0.0f;
    f32 *sums = reinterpret_cast<f32 *>(slab.bytes) + g * dim + 2 * q;
#pragma unroll 1
    for (u32 unit = 0; unit < part.units; ++unit) {
        if (unit > 0) {
            slab.fetch_values(values, unit, part.position);
            wait_for_copies();
        }
        if (unit == last) {
            insert_value(fresh + dim, slab, values, part.position);
        }
        const uint4 back = parked[unit * part.heads * 4];
        const float2 peak = peaks[unit * part.heads];
        weights[0] = back.x;
        weights[1] = back.y;
        weights[2] = back.z;
        weights[3] = back.w;
        const f32 scale = exp2_fast(peak.x - top);
        total = __fmaf_rn(scale, peak.y, total);
        // The keys are done with: sums of weighted values take their place.
#pragma unroll 2
        for (u32 n = 0; n < dim / 8 + (dim % 8 != 0); n += 2) {
            float2 two[2];
            mix_unit(two, slab, weights, n);
#pragma unroll
            for (u32 i = 0; i < 2; ++i) {
                const u32 at = (n + i) * 8;
                if (g < part.heads && at + 2 * q < dim) {
                    float2 *const kept = reinterpret_cast<float2 *>(sums + at);
                    const float2 before = unit == 0 ? make_float2(0.0f, 0.0f) : *kept;
                    // Plain as if a warp had made `value` and another mixed it.
                    const float2 value = faded(make_float2(0.0f, 0.0f), 0.0f, two[i]);
                    const float2 now = make_float2(__fmaf_rn(scale, value.x, before.x),
                                                   __fmaf_rn(scale, value.y, before.y));
                    if (unit < last) {
                        *kept = now;
                    } else {
                        *reinterpret_cast<float2 *>(mixed + at) =
                            make_float2(__fdividef(now.x, total), __fdividef(now.y, total));
                    }
                }
            }
        }
        __syncwarp();
    }
}

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
    __shared__ f32 undo[HEADS];
    constexpr u32 SLOTS = Deal<RANKS, WHOLE>::SLOTS;
    __shared__ float2 by_warp[SLOTS][HEADS];
    __shared__ float2 by_rank[RANKS][HEADS];
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
    // (SLOTS, elements) and (ranks, elements) sums of weighted values.
    f32 *outs = reinterpret_cast<f32 *>(queries + places.queries + places.fresh);
    f32 *of_ranks = outs + SLOTS * elements;
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
                insert_key(fresh, slab, keys, part.position);
                insert_value(fresh + dim, slab, values, part.position);
            }
            const u32 left = part.position - unit * UNIT;
            f32 score[4];
            score_unit<DIM>(score, slab, query, factor, left);
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
            if (q == 0) {
                by_warp[slot][g] = make_float2(running.top, sum);
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
                    warps, [&](u32 w) { return by_warp[slot_of(w)][head]; },
                    [&](u32 w) { return outs[slot_of(w) * elements + e]; });
                if (ranks == 1) {
                    mixed[e] = __fdividef(of.value, of.total);
                    continue;
                }
                of_ranks[rank * elements + e] = of.value;
                if (e == head * dim) {
                    by_rank[rank][head] = make_float2(of.top, of.total);
                }
            }
            ++rank;
        } while (WHOLE && rank < ranks && deal.first_of(rank + 1) <= after);
        __syncthreads();
    }
    if (ranks == 1) {
        return;
    }
#pragma unroll 1
    for (u32 e = threadIdx.x; e < elements; e += Args::THREADS) {
        const u32 head = quotient(e, by_dim);
        const Mixed of = mix_parts<RANKS>(
            RANKS, [&](u32 r) { return by_rank[r][head]; },
            [&](u32 r) { return of_ranks[r * elements + e]; });
        mixed[e] = __fdividef(of.value, of.total);
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
    part.position = args.positions[row];
    if (part.position == Args::NONE) {
        return;
    }
    const Places places(args.head_dim, min(HEADS, group));
    if (part.position / UNIT < (WHOLE ? 1 : WARPS)) {
        const u32 set = block * WARPS + threadIdx.x / WARP;
        if (set < sets) {
            aim(args, row, set, part);
            spread<RANKS>(args, UNIT, part);
            attend_short<DIM>(args, part, places, shared);
        }
        return;
    }
    const u32 each = WHOLE ? 1 : WARPS;
#pragma unroll 1
    for (u32 set = block * each; set < min((block + 1) * each, sets); ++set) {
        aim(args, row, set, part);
        spread<RANKS>(args, UNIT, part);
        attend_block<RANKS, DIM, WHOLE>(args, part, places, shared);
    }
}

}  // namespace
