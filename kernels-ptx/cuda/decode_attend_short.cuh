// Attention of a short row by a single warp, one unit of positions after another, and what a whole
// block needs of that: decode_attend_many.cuh.
#pragma once
#include "decode_attend_f16.cuh"

namespace {

// What is parked of a unit and a head of a short row for the second look at it: the weights of four
// lanes, then peak and sum.
constexpr u32 PARKED_BYTES = 4 * 16 + 8;

// Where dynamic shared memory has what, in bytes; launch::DecodeAttendShape counts the same.
struct Places {
    // Of a warp, one behind the other: a slab, which then has values, sums of weighted values and
    // what is parked; queries.
    u32 slab;
    u32 room;
    u32 query_row;
    u32 queries;
    // Of a block that does a row together, behind slabs and queries.
    u32 fresh;

    __device__ __forceinline__ Places(u32 dim, u32 heads) {
        slab = Slab::bytes_of(dim);
        const u32 second = slab - dim * KEY_STRIDE + heads * (dim * 4 + WARPS * PARKED_BYTES);
        room = max(slab, (second + 15) / 16 * 16);
        // Fragments have 16 columns; an odd number of 16 bytes meets every bank.
        query_row = ((dim + 15) / 16 * 2 | 1) * 16;
        queries = 2 * heads * query_row;
        fresh = (dim * 4 + 15) / 16 * 16;
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

// Elements `lane + 32 k` of a query, key or value and those `dim / 2` behind, as a lane has them.
template <u32 DIM>
struct Pairs {
    static constexpr u32 EACH = DIM / 64;
    f32 low[EACH];
    f32 high[EACH];

    __device__ __forceinline__ Pairs(const f32 *from, const Part &part) {
#pragma unroll
        for (u32 k = 0; k < EACH; ++k) {
            const u32 i = part.lane + k * WARP;
            low[k] = high[k] = 0.0f;
            if (i < part.dim / 2) {
                low[k] = from[i];
                high[k] = from[i + part.dim / 2];
            }
        }
    }

    __device__ __forceinline__ void turn(const Args &args, const Angles<DIM> &angles) {
        if (args.cos != nullptr) {
#pragma unroll
            for (u32 k = 0; k < EACH; ++k) {
                angles.turn(k, low[k], high[k]);
            }
        }
    }
};

// The same as halves.
template <u32 DIM>
struct Halves {
    u32 pairs[DIM / 64];

    __device__ __forceinline__ explicit Halves(const Pairs<DIM> &of) {
#pragma unroll
        for (u32 k = 0; k < DIM / 64; ++k) {
            pairs[k] = pack(to_f16(of.low[k]), to_f16(of.high[k]));
        }
    }

    // Calls `put(element, half)` for the lane's elements.
    template <typename Put>
    __device__ __forceinline__ void each(u32 dim, Put &&put) const {
#pragma unroll
        for (u32 k = 0; k < DIM / 64; ++k) {
            const u32 i = this_thread() % WARP + k * WARP;
            if (i < dim / 2) {
                put(i, static_cast<u16>(pairs[k]));
                put(i + dim / 2, static_cast<u16>(pairs[k] >> 16));
            }
        }
    }
};

// Halves in shared memory.
struct SharedHalves {
    const u16 *from;

    template <typename Put>
    __device__ __forceinline__ void each(u32 dim, Put &&put) const {
#pragma unroll 1
        for (u32 i = threadIdx.x % WARP; i < dim; i += WARP) {
            put(i, from[i]);
        }
    }
};

// The new position's value goes where the cache has it, and into the slab.
template <typename Fresh>
__device__ __forceinline__ void insert_value(const Fresh &fresh, const Slab &slab, u16 *values,
                                             u32 position) {
    u16 *cache = values + static_cast<size_t>(position) * slab.dim;
    fresh.each(slab.dim, [&](u32 i, u16 x) {
        *slab.value(position % UNIT, i) = x;
        cache[i] = x;
    });
    __syncwarp();
}

// The same of its key.
__device__ __forceinline__ void insert_key(SharedHalves fresh, const Slab &slab, u16 *keys,
                                           u32 position) {
    u16 *cache = keys + static_cast<size_t>(position / BLOCK) * BLOCK * slab.dim
        + position % BLOCK;
    fresh.each(slab.dim, [&](u32 i, u16 x) {
        *slab.key(position % UNIT, i) = x;
        cache[i * BLOCK] = x;
    });
    __syncwarp();
}

// Of a unit that begins with the row's own position: keys behind it are anything, here zero.
__device__ __forceinline__ void clear_keys(const Slab &slab) {
#pragma unroll 1
    for (u32 at = this_thread() % WARP; at < slab.dim * 2; at += WARP) {
        reinterpret_cast<uint4 *>(slab.bytes)[at] = make_uint4(0, 0, 0, 0);
    }
    __syncwarp();
}

// As `insert_key`, but the cache gets the whole unit's keys, most of which it has. Those of an
// element are 32 bytes: written at once, they take the L2 cache no longer than two bytes do, and it
// need not bring the others from memory.
template <u32 DIM>
__device__ __forceinline__ void insert_unit(const Halves<DIM> &fresh, const Slab &slab, u16 *keys,
                                            u32 position) {
    fresh.each(slab.dim, [&](u32 i, u16 x) { *slab.key(position % UNIT, i) = x; });
    __syncwarp();
    u16 *cache = keys + static_cast<size_t>(position / BLOCK) * BLOCK * slab.dim
        + position % BLOCK / UNIT * UNIT;
    const uint4 *chunks = reinterpret_cast<const uint4 *>(slab.bytes);
#pragma unroll 1
    for (u32 at = this_thread() % WARP; at < slab.dim * 2; at += WARP) {
        *reinterpret_cast<uint4 *>(cache + at / 2 * BLOCK + at % 2 * 8) =
            chunks[Slab::key_chunk(at / 2, at % 2) / 16];
    }
}

// A row of at most UNITS units with one key head, by one warp.
template <u32 UNITS, u32 DIM>
__device__ __forceinline__ void attend_short(const Args &args, const Part &part,
                                             const Places &places, unsigned char *shared) {
    const u32 lane = part.lane, dim = part.dim;
    const u32 g = lane / 4, q = lane % 4;
    u16 *keys = reinterpret_cast<u16 *>(args.keys) + part.start;
    u16 *values = reinterpret_cast<u16 *>(args.values) + part.start;
    unsigned char *room = shared + part.warp * (places.room + places.queries);
    unsigned char *queries = room + places.room;
    const Slab slab(room, dim);
    const u32 last = part.units - 1;

    if (part.position == 0) {
        clear_keys(slab);
    } else {
        slab.fetch_keys(keys, 0);
    }
    if (last == 0) {
        slab.fetch_values(values, 0, part.position);
    }
    pad_queries(queries, places, part.heads, dim);
    const Angles<DIM> angles(args, part);
    wait_for_dependencies();
    const u32 query_width = args.heads * dim, kv_width = args.kv_heads * dim;
    const f32 *row = args.qkv + static_cast<size_t>(part.row) * (query_width + 2 * kv_width);
    const f32 *from = row + part.first_head * dim;
    Pairs<DIM> next(from, part);
    Pairs<DIM> key(row + query_width + part.kv_head * dim, part);
    const Pairs<DIM> value(row + query_width + kv_width + part.kv_head * dim, part);
    key.turn(args, angles);
    const Halves<DIM> new_key(key), new_value(value);
    f32 undo = 0.0f;
#pragma unroll 1
    for (u32 head = 0; head < part.heads; ++head) {
        Pairs<DIM> query = next;
        if (head + 1 < part.heads) {
            from += dim;
            next = Pairs<DIM>(from, part);
        }
        query.turn(args, angles);
        u16 *to = reinterpret_cast<u16 *>(queries + head * places.query_row);
        const f32 scale = place_query<DIM>(query.low, query.high, dim, to,
                                           to + part.heads * (places.query_row / 2));
        undo = g == head ? scale : undo;
    }
    wait_for_copies();
    const u32 query = query_of(queries, places, part.heads);
    const f32 factor = args.factor * LOG2_E * undo;
    const auto output = [&]() {
        return args.mixed + (static_cast<size_t>(part.row) * args.heads + part.first_head + g) * dim
            + 2 * q;
    };
    u32 weights[4];
    if (UNITS == 1 || last == 0) {
        // What follows, of one unit: its scale is 1.
        insert_unit(new_key, slab, keys, part.position);
        insert_value(new_value, slab, values, part.position);
        f32 score[4];
        score_unit<DIM>(score, slab, query, factor, part.position);
        Running running;
        running.take(weights, score, part.position);
        const f32 total = running.total();
        f32 *mixed = output();
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
    // Parked at the end, in reach of both looks. Lanes of no head look at what the last one has,
    // and nobody looks at what they make of it.
    const auto head = [&]() { return min(this_thread() % WARP / 4, part.heads - 1); };
    const auto parked = [&](u32 unit) {
        unsigned char *from = room + places.room - WARPS * part.heads * PARKED_BYTES;
        return reinterpret_cast<uint4 *>(from) + (unit * part.heads + head()) * 4
            + this_thread() % 4;
    };
    const auto peaks = [&](u32 unit) {
        unsigned char *from = room + places.room - WARPS * part.heads * sizeof(float2);
        return reinterpret_cast<float2 *>(from) + unit * part.heads + head();
    };
    f32 top = NONE;
#pragma unroll 1
    for (u32 unit = 0; unit < part.units; ++unit) {
        if (unit > 0) {
            if (Slab::is_cached(unit, part.position)) {
                slab.fetch_keys(keys, unit, this_thread() % WARP);
            } else {
                clear_keys(slab);
            }
            wait_for_copies();
        }
        if (unit == last) {
            insert_unit(new_key, slab, keys, part.position);
        }
        const u32 left = part.position - unit * UNIT;
        f32 score[4];
        score_unit<DIM>(score, slab, query, factor, left, this_thread() % WARP);
        Running running;
        running.take(weights, score, left);
        const f32 sum = running.total();
        if (g < part.heads) {
            *parked(unit) = make_uint4(weights[0], weights[1], weights[2], weights[3]);
            if (q == 0) {
                *peaks(unit) = make_float2(running.top, sum);
            }
        }
        top = fmaxf(top, running.top);
        __syncwarp();
    }
    f32 total = 0.0f;
    f32 *mixed = output();
    // The keys are done with: values take their place, sums of weighted values theirs.
    f32 *sums = reinterpret_cast<f32 *>(room + places.slab - dim * KEY_STRIDE) + g * dim + 2 * q;
#pragma unroll 1
    for (u32 unit = 0; unit < part.units; ++unit) {
        const Slab second(room - dim * KEY_STRIDE, dim);
        second.fetch_values(values, unit, part.position, this_thread() % WARP);
        wait_for_copies();
        if (unit == last) {
            insert_value(new_value, second, values, part.position);
        }
        const uint4 back = *parked(unit);
        const float2 peak = *peaks(unit);
        weights[0] = back.x;
        weights[1] = back.y;
        weights[2] = back.z;
        weights[3] = back.w;
        const f32 scale = exp2_fast(peak.x - top);
        total = __fmaf_rn(scale, peak.y, total);
#pragma unroll 2
        for (u32 n = 0; n < dim / 8 + (dim % 8 != 0); n += 2) {
            float2 two[2];
            mix_unit(two, second, weights, n);
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

}  // namespace
