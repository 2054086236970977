// Attention of single rows over a cache of halves, on tensor cores: queries and weights are split
// into two halves each, one above the other in the rows of the fragment.
#pragma once
#include "decode_attend.cuh"

namespace {

// Positions of a unit: those that the tensor core sums over at once.
constexpr u32 UNIT = 16;
// Bytes from element to element of a unit's keys. Four elements on, the two halves of 16 bytes are
// exchanged, so that eight elements meet every bank.
constexpr u32 KEY_STRIDE = UNIT * 2;
// Weights are scaled by this power of two, so that the lower half is not lost.
constexpr f32 WEIGHT_BITS = 10.0f;

__device__ __forceinline__ void multiply(f32 (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void load_matrices(u32 (&r)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

__device__ __forceinline__ void load_transposed(u32 (&r)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

// 16 or 8 bytes, or as many zeros.
template <u32 BYTES>
__device__ __forceinline__ void copy(u32 to, const void *from, bool real) {
    const u32 bytes = real ? BYTES : 0;
    if (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                     "r"(bytes)
                     : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(from),
                     "r"(bytes)
                     : "memory");
    }
}

// (high, low) halves of two numbers.
__device__ __forceinline__ void split(f32 x, f32 y, u32 &high, u32 &low) {
    const u16 a = to_f16(x), b = to_f16(y);
    high = pack(a, b);
    low = pack(to_f16(x - from_f16(a)), to_f16(y - from_f16(b)));
}

__device__ __forceinline__ void commit_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

__device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncwarp();
}

// A unit's keys and values in shared memory.
struct Slab {
    unsigned char *bytes;
    u32 dim;
    u32 value_stride;
    u32 keys;
    u32 values;

    // From position to position: an odd number of 16 bytes meets every bank.
    __device__ __forceinline__ static u32 stride_of(u32 dim) {
        return ((dim * 2 + 15) / 16 | 1) * 16;
    }

    __device__ __forceinline__ static u32 bytes_of(u32 dim) {
        return dim * KEY_STRIDE + UNIT * stride_of(dim);
    }

    __device__ __forceinline__ Slab(unsigned char *bytes, u32 dim)
        : bytes(bytes),
          dim(dim),
          value_stride(stride_of(dim)),
          keys(shared_address(bytes)),
          values(keys + dim * KEY_STRIDE) {}

    // Where eight positions' keys of an element are: the first eight or, with `half` 1, the others.
    __device__ __forceinline__ static u32 key_chunk(u32 element, u32 half) {
        return element * KEY_STRIDE + (half ^ (element / 4 % 2)) * 16;
    }

    // Whether a unit has positions older than the row's own, which is yet to come.
    __device__ __forceinline__ static bool is_cached(u32 unit, u32 position) {
        return unit * UNIT < position;
    }

    // Has the warp ask for a unit's keys and values.
    __device__ __forceinline__ void fetch(const u16 *key_cache, const u16 *value_cache, u32 unit,
                                          u32 position) const {
        if (is_cached(unit, position)) {
            fetch_keys(key_cache, unit);
        }
        fetch_values(value_cache, unit, position);
    }

    // Has the warp ask for the keys of positions `unit * UNIT` on. Of positions behind the row's
    // own they are anything, and so are the scores that are left out.
    __device__ __forceinline__ void fetch_keys(const u16 *cache, u32 unit,
                                               u32 lane = threadIdx.x % WARP) const {
        const u16 *from = cache + static_cast<size_t>(unit / 2) * BLOCK * dim + unit % 2 * UNIT;
#pragma unroll 1
        for (u32 at = lane; at < dim * 2; at += WARP) {
            copy<16>(keys + key_chunk(at / 2, at % 2), from + at / 2 * BLOCK + at % 2 * 8, true);
        }
        commit_copies();
    }

    // The same of the values. From the row's own position on stands anything in the cache; its
    // weight is 0, so it had better be finite.
    __device__ __forceinline__ void fetch_values(const u16 *cache, u32 unit, u32 position,
                                                 u32 lane = threadIdx.x % WARP) const {
        const u16 *from = cache + static_cast<size_t>(unit) * UNIT * dim;
        const u32 valid = position - unit * UNIT;
        if (!is_cached(unit, position)) {
            uint4 *to = reinterpret_cast<uint4 *>(bytes + dim * KEY_STRIDE);
#pragma unroll 1
            for (u32 at = lane; at < UNIT * value_stride / 16; at += WARP) {
                to[at] = make_uint4(0, 0, 0, 0);
            }
            return;
        }
        if (dim % 8 == 0) {
            // Sixteen lanes a position, which has at most so many chunks, or twice.
#pragma unroll 1
            for (u32 chunk = lane % 16; chunk < dim / 8; chunk += 16) {
                const u16 *chunk_from = from + lane / 16 * dim + chunk * 8;
                u32 to = values + lane / 16 * value_stride + chunk * 16;
#pragma unroll 1
                for (u32 at = lane / 16; at < UNIT; at += 2) {
                    copy<16>(to, chunk_from, at < valid);
                    chunk_from += 2 * dim;
                    to += 2 * value_stride;
                }
            }
        } else {
            // Chunks of 8 bytes, one behind the other.
            const u32 chunks = dim / 4;
            const u32 rows = WARP / chunks, rest = WARP - rows * chunks;
            u32 at = lane / chunks, chunk = lane - at * chunks;
            from += lane * 4;
#pragma unroll 1
            while (at < UNIT) {
                copy<8>(values + at * value_stride + chunk * 8, from, at < valid);
                from += WARP * 4;
                at += rows;
                chunk += rest;
                if (chunk >= chunks) {
                    chunk -= chunks;
                    ++at;
                }
            }
        }
        commit_copies();
    }

    // Where an element of the key and of the value of the unit's position `place` stands.
    __device__ __forceinline__ u16 *key(u32 place, u32 element) const {
        return reinterpret_cast<u16 *>(bytes + key_chunk(element, place / 8)) + place % 8;
    }

    __device__ __forceinline__ u16 *value(u32 place, u32 element) const {
        return reinterpret_cast<u16 *>(bytes + dim * KEY_STRIDE + place * value_stride
                                       + element * 2);
    }
};

// Writes a query as halves: scaled by a power of two that puts its peak to 2^9..2^10, then `high`
// and what that leaves in `low`. Returns what undoes the scale. A lane has the pairs of elements
// `lane + 32 k`.
template <u32 DIM>
__device__ __forceinline__ f32 place_query(const f32 (&low)[DIM / 64], const f32 (&high)[DIM / 64],
                                           u32 dim, u16 *to_high, u16 *to_low) {
    const u32 lane = threadIdx.x % WARP;
    f32 peak = 0.0f;
#pragma unroll
    for (u32 k = 0; k < DIM / 64; ++k) {
        peak = fmaxf(peak, fmaxf(fabsf(low[k]), fabsf(high[k])));
    }
    const u32 exponent = max(__float_as_uint(warp_peak(peak)) >> 23, 10u);
    const f32 scale = __uint_as_float((263 - exponent) << 23);
#pragma unroll
    for (u32 k = 0; k < DIM / 64; ++k) {
        const u32 i = lane + k * WARP;
        if (i < dim / 2) {
            u32 upper, lower;
            split(low[k] * scale, high[k] * scale, upper, lower);
            to_high[i] = static_cast<u16>(upper);
            to_high[i + dim / 2] = static_cast<u16>(upper >> 16);
            to_low[i] = static_cast<u16>(lower);
            to_low[i + dim / 2] = static_cast<u16>(lower >> 16);
        }
    }
    return __uint_as_float((exponent - 9) << 23);
}

// Scores of a unit, to base 2, NONE for positions behind `left`: lane (g, q) = (lane / 4, lane % 4)
// has positions 2q, 2q + 1 and the two 8 behind them of head g. `query`: this lane's row of a
// fragment of queries.
template <u32 DIM>
__device__ __forceinline__ void score_unit(f32 (&score)[4], const Slab &slab, u32 query, f32 factor,
                                           u32 left, u32 lane = threadIdx.x % WARP) {
    const u32 q = lane % 4;
    f32 s[2][2][4] = {};
#pragma unroll
    for (u32 k = 0; k < DIM / 16; ++k) {
        if (k * 16 < slab.dim) {
            u32 a[4], b[4];
            load_matrices(a, query + k * 32);
            // Beyond the last element the query is zero.
            const u32 element = min(k * 16 + lane % 16, slab.dim - 1);
            load_transposed(b, slab.keys + Slab::key_chunk(element, lane / 16));
            multiply(s[0][k % 2], a, b[0], b[1]);
            multiply(s[1][k % 2], a, b[2], b[3]);
        }
    }
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        const f32(&t)[2][4] = s[i / 2];
        const f32 product = ((t[0][i % 2] + t[1][i % 2])
                             + (t[0][i % 2 + 2] + t[1][i % 2 + 2])) * factor;
        score[i] = i / 2 * 8 + 2 * q + i % 2 <= left ? product : NONE;
    }
}

// The running peak and sum of weights of a head, over the units so far; the sum is a lane's own.
struct Running {
    f32 top = NONE;
    f32 sum = 0.0f;

    // Takes a unit in: its scores become weights, as a fragment of high and low halves. Returns
    // what the sums so far are worth from here on.
    __device__ __forceinline__ f32 take(u32 (&weights)[4], f32 (&score)[4], u32 left) {
        const u32 q = threadIdx.x % 4;
        f32 now = top;
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            now = fmaxf(now, score[i]);
        }
        now = fmaxf(now, __shfl_xor_sync(ALL, now, 1));
        now = fmaxf(now, __shfl_xor_sync(ALL, now, 2));
        const f32 fade = exp2_fast(top - now);
        top = now;
        sum *= fade;
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            score[i] = i / 2 * 8 + 2 * q + i % 2 <= left
                ? exp2_fast(score[i] - now + WEIGHT_BITS) : 0.0f;
            sum += score[i];
        }
        split(score[0], score[1], weights[0], weights[1]);
        split(score[2], score[3], weights[2], weights[3]);
        return fade;
    }

    // The sum of all lanes of the head.
    __device__ __forceinline__ f32 total() const {
        f32 all = sum;
        all += __shfl_xor_sync(ALL, all, 1);
        all += __shfl_xor_sync(ALL, all, 2);
        return all;
    }
};

// Values of a unit, weighted: lane (g, q) gets elements `8 n + 2q` and the next of head g, and
// those 8 behind them.
__device__ __forceinline__ void mix_unit(float2 (&two)[2], const Slab &slab,
                                         const u32 (&weights)[4], u32 n) {
    const u32 lane = threadIdx.x % WARP;
    u32 b[4];
    load_transposed(b, slab.values + lane % 16 * slab.value_stride
                           + min((n + lane / 16) * 16, slab.value_stride - 16));
#pragma unroll
    for (u32 i = 0; i < 2; ++i) {
        f32 c[4] = {};
        multiply(c, weights, b[2 * i], b[2 * i + 1]);
        // High and low.
        two[i] = make_float2(c[0] + c[2], c[1] + c[3]);
    }
}

// What is so far, times `fade`, and more.
__device__ __forceinline__ float2 faded(float2 sum, f32 fade, float2 more) {
    return make_float2(__fmaf_rn(sum.x, fade, more.x), __fmaf_rn(sum.y, fade, more.y));
}

// What a thread block keeps of its row in shared memory.
template <u32 DIM>
struct Prepared {
    static constexpr u32 QUERY_STRIDE = DIM * 2 + 16;
    __align__(16) u16 queries[16][QUERY_STRIDE / 2];
    f32 scales[HEADS];
    u16 fresh[2][DIM];
};

// Query rows of no head, and columns behind the last, are zero and stay that.
template <u32 DIM>
__device__ __forceinline__ void clear_queries(Prepared<DIM> &prepared) {
#pragma unroll 1
    for (u32 at = threadIdx.x; at < 16 * Prepared<DIM>::QUERY_STRIDE / 4; at += Args::THREADS) {
        reinterpret_cast<u32 *>(prepared.queries)[at] = 0;
    }
}

// Has this warp ask for the first unit of warp `warp`.
__device__ __forceinline__ void fetch_first(const Args &args, const Part &part, u32 warp,
                                            unsigned char *slabs) {
    const u32 unit = part.rank + warp * part.ranks;
    if (unit < part.units) {
        const Slab slab(slabs + warp * Slab::bytes_of(part.dim), part.dim);
        slab.fetch(reinterpret_cast<const u16 *>(args.keys) + part.start,
                   reinterpret_cast<const u16 *>(args.values) + part.start, unit, part.position);
    }
}

// The units of a part: leaves the sums of weighted values of each warp in its slab, (heads, dim),
// and their peaks and sums of weights in `by_warp`. `slabs` has one for each of WARPS warps, whose
// first units are under way. `meet` is a barrier among them; `get_angles` gives those of the
// position, when the row may be read; `await_first` returns when the first units are there. The
// queries have been cleared once.
template <u32 DIM, typename Meet, typename GetAngles, typename AwaitFirst>
__device__ __forceinline__ void attend_units(const Args &args, const Part &part,
                                             unsigned char *slabs, Prepared<DIM> &prepared,
                                             float2 (&by_warp)[WARPS][HEADS], Meet &&meet,
                                             GetAngles &&get_angles,
                                             AwaitFirst &&await_first) {
    const u32 lane = part.lane, warp = part.warp, dim = part.dim, rank = part.rank;
    u16 *keys = reinterpret_cast<u16 *>(args.keys) + part.start;
    u16 *values = reinterpret_cast<u16 *>(args.values) + part.start;
    const Slab slab(slabs + warp * Slab::bytes_of(dim), dim);
    const u32 last = part.units - 1;
    const u32 mine = rank + warp * part.ranks;
    const u32 stride = part.ranks * WARPS;

    // Lane (g, q) has positions 2q and 2q + 1 (and 8 behind) of head g.
    const u32 g = lane / 4, q = lane % 4;
    Running running;
    float2 out[DIM / 8] = {};
    const u32 query = shared_address(&prepared.queries[lane % 16][lane / 16 * 8]);
    f32 factor = 0.0f;
    // One pass at least: all warps prepare the queries.
    u32 unit = mine;
    do {
        if (unit != mine && unit < part.units) {
            slab.fetch(keys, values, unit, part.position);
        }
        if (unit == mine) {
            const Angles<DIM> angles = get_angles();
            f32 held_low[DIM / 64], held_high[DIM / 64];
            const bool fresh_here = last % part.ranks == rank;
            take_row<DIM>(
                args, part, angles, fresh_here,
                [&](u32 task, u32 i, f32 low, f32 high) {
                    if (task >= part.heads) {
                        if (i < dim / 2) {
                            prepared.fresh[task - part.heads][i] = to_f16(low);
                            prepared.fresh[task - part.heads][i + dim / 2] = to_f16(high);
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
                        const f32 scale = place_query<DIM>(held_low, held_high, dim,
                                                           prepared.queries[task],
                                                           prepared.queries[task + 8]);
                        if (lane == 0) {
                            prepared.scales[task] = scale;
                        }
                    }
                });
            MARK(3);
            meet();
            MARK(4);
            factor = args.factor * LOG2_E * (g < part.heads ? prepared.scales[g] : 0.0f);
        }
        if (unit < part.units) {
            if (unit == mine) {
                await_first();
            } else {
                wait_for_copies();
            }
            if (unit == last) {
                // What the copy brought for the new position is older than the position.
                const u32 place = part.position % UNIT;
                u16 *to_keys = keys + static_cast<size_t>(unit / 2) * BLOCK * dim
                    + part.position % BLOCK;
                u16 *to_values = values + static_cast<size_t>(part.position) * dim;
#pragma unroll 1
                for (u32 i = lane; i < dim; i += WARP) {
                    const u16 key = prepared.fresh[0][i], value = prepared.fresh[1][i];
                    *slab.key(place, i) = key;
                    *slab.value(place, i) = value;
                    to_keys[i * BLOCK] = key;
                    to_values[i] = value;
                }
                __syncwarp();
            }
            const u32 left = part.position - unit * UNIT;
            f32 score[4];
            score_unit<DIM>(score, slab, query, factor, left);
            u32 weights[4];
            const f32 fade = running.take(weights, score, left);
#pragma unroll
            for (u32 n = 0; n < DIM / 8; n += 2) {
                if (n * 8 < dim) {
                    float2 two[2];
                    mix_unit(two, slab, weights, n);
#pragma unroll
                    for (u32 i = 0; i < 2; ++i) {
                        out[n + i] = faded(out[n + i], fade, two[i]);
                    }
                }
            }
            __syncwarp();
        }
        unit += stride;
    } while (unit < part.units);
    if (mine < part.units) {
        const f32 sum = running.total();
        // The slab is free for the sums.
        __syncwarp();
        f32 *outs = reinterpret_cast<f32 *>(slab.bytes) + g * dim;
        if (g < part.heads) {
#pragma unroll
            for (u32 n = 0; n < DIM / 8; ++n) {
                if (n * 8 + q * 2 < dim) {
                    *reinterpret_cast<float2 *>(outs + n * 8 + q * 2) = out[n];
                }
            }
            if (q == 0) {
                by_warp[warp][g] = make_float2(running.top, sum);
            }
        }
    }
}

template <u32 CLUSTER, u32 DIM>
__device__ __forceinline__ void decode_attend(const Args &args) {
    extern __shared__ __align__(128) unsigned char shared[];
    __shared__ Prepared<DIM> prepared;
    __shared__ Merge<CLUSTER, DIM> merge;

    Part part;
    MARK(0);
    launch_dependents();
    if (!part_of<CLUSTER>(args, UNIT, part)) {
        return;
    }
    if (part.ranks > 1) {
        cluster_arrive();
    }
    fetch_first(args, part, part.warp, shared);
    clear_queries(prepared);
    __syncthreads();
    attend_units<DIM>(
        args, part, shared, prepared, merge.by_warp, [] { __syncthreads(); },
        [&] {
            const Angles<DIM> angles(args, part);
            MARK(1);
            if (args.awaited == 0) {
                wait_for_dependencies();
            }
            MARK(2);
            return angles;
        },
        [] { wait_for_copies(); });
    MARK(5);
    const u32 slab_bytes = Slab::bytes_of(part.dim);
    finish(args, part, merge,
           [&](u32 w) { return reinterpret_cast<const f32 *>(shared + w * slab_bytes); });
    MARK(6);
}

}  // namespace
