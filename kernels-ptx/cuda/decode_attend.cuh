// Attention of single rows; contract.cuh says what it computes. A cluster takes the query heads of
// one key head (at most HEADS_MAX) and one row. The positions are dealt out to its warps in units;
// a warp mixes its own, then thread blocks mix those of their warps, then each block of the cluster
// a slice of the elements from all blocks.
#pragma once
#include "cluster.cuh"
#include "decode.cuh"

using Args = DecodeAttendArgs;

namespace {

constexpr u32 WARPS = Args::THREADS / WARP;
constexpr u32 BLOCK = Args::KEY_BLOCK;
constexpr u32 HEADS = Args::HEADS_MAX;
// Peak of no score.
constexpr f32 NONE = -3.0e38f;
constexpr f32 LOG2_E = 1.44269504f;

__device__ __forceinline__ f32 exp2_fast(f32 x) {
    f32 y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Division by a number of 1 to 2048 of what is below 2048: one of the divisor, then products.
__device__ __forceinline__ u32 reciprocal(u32 divisor) {
    return (1u << 22) / divisor + 1;
}

__device__ __forceinline__ u32 quotient(u32 x, u32 reciprocal) {
    return static_cast<u32>(static_cast<unsigned long long>(x) * reciprocal >> 22);
}

// What a thread block knows of its part.
struct Part {
    u32 dim;
    u32 heads;
    u32 first_head;
    u32 kv_head;
    u32 row;
    u32 position;
    // Units of positions, thread blocks that have some, this one.
    u32 units;
    u32 ranks;
    u32 rank;
    // Where the slot's key head begins in the cache.
    size_t start;
    u32 lane;
    u32 warp;
};

// A thread block's results: per head the peak of the scores (to base 2) and the sum of their
// weights, by warp and by rank.
template <u32 CLUSTER, u32 DIM>
struct Merge {
    float2 by_warp[WARPS][HEADS];
    float2 by_rank[CLUSTER][HEADS];
    f32 received[HEADS * DIM + CLUSTER];
};

// Cosines and sines of a lane's pairs of elements, `lane + 32 k`, at the row's position.
template <u32 DIM>
struct Angles {
    f32 cosine[DIM / 2 / WARP];
    f32 sine[DIM / 2 / WARP];

    Angles() = default;

    __device__ __forceinline__ Angles(const Args &args, const Part &part) {
        const u32 pairs = part.dim / 2;
#pragma unroll
        for (u32 k = 0; k < DIM / 2 / WARP; ++k) {
            const u32 i = part.lane + k * WARP;
            cosine[k] = 1.0f;
            sine[k] = 0.0f;
            if (args.cos != nullptr && i < pairs) {
                const size_t at = static_cast<size_t>(part.position) * pairs + i;
                cosine[k] = __ldg(args.cos + at);
                sine[k] = __ldg(args.sin + at);
            }
        }
    }

    // Turns the lane's pair `k` of a head.
    __device__ __forceinline__ void turn(u32 k, f32 &low, f32 &high) const {
        const f32 turned = low * cosine[k] - high * sine[k];
        high = high * cosine[k] + low * sine[k];
        low = turned;
    }
};

// Calls `take(task, pair, low, high)` for every pair of elements of the queries, and of the new key
// (task `heads`) and value (`heads + 1`) where `fresh` asks for them: queries and key turned. A
// warp takes whole heads; `done(task)` follows those of one.
template <u32 DIM, typename Take, typename Done>
__device__ __forceinline__ void take_row(const Args &args, const Part &part,
                                         const Angles<DIM> &angles, bool fresh, Take &&take,
                                         Done &&done) {
    constexpr u32 EACH = DIM / 2 / WARP;
    const u32 pairs = part.dim / 2;
    const u32 query = args.heads * part.dim;
    const u32 kv = args.kv_heads * part.dim;
    const f32 *row = args.qkv + static_cast<size_t>(part.row) * (query + 2 * kv);
    const u32 tasks = part.heads + (fresh ? 2 : 0);
#pragma unroll 1
    for (u32 task = part.warp; task < tasks; task += WARPS) {
        const f32 *from = task < part.heads
            ? row + (part.first_head + task) * part.dim
            : row + query + (task > part.heads ? kv : 0) + part.kv_head * part.dim;
        f32 low[EACH], high[EACH];
        bool complete;
        do {
            complete = true;
#pragma unroll
            for (u32 k = 0; k < EACH; ++k) {
                const u32 i = part.lane + k * WARP;
                low[k] = high[k] = 0.0f;
                if (i < pairs) {
                    low[k] = load_fresh(from + i);
                    high[k] = load_fresh(from + i + pairs);
                }
            }
#pragma unroll
            for (u32 k = 0; k < EACH; ++k) {
                complete = complete && is_written(low[k]) && is_written(high[k]);
            }
        } while (args.awaited != 0 && !complete);
#pragma unroll
        for (u32 k = 0; k < EACH; ++k) {
            const u32 i = part.lane + k * WARP;
            if (args.cos != nullptr && task <= part.heads) {
                angles.turn(k, low[k], high[k]);
            }
            take(task, i, low[k], high[k]);
        }
        done(task);
    }
}

// What some parts of the positions make together, of one element: the peak, the sum of weights and
// that of weighted values. `peaks(i)` is a part's peak and sum, `values(i)` its weighted value.
struct Mixed {
    f32 top;
    f32 total;
    f32 value;
};

template <u32 PARTS, typename Peaks, typename Values>
__device__ __forceinline__ Mixed mix_parts(u32 count, Peaks &&peaks, Values &&values) {
    float2 of[PARTS];
    Mixed mixed = {NONE, 0.0f, 0.0f};
#pragma unroll
    for (u32 i = 0; i < PARTS; ++i) {
        of[i] = peaks(i);
        mixed.top = i < count ? fmaxf(mixed.top, of[i].x) : mixed.top;
    }
#pragma unroll
    for (u32 i = 0; i < PARTS; ++i) {
        if (i < count) {
            const f32 scale = exp2_fast(of[i].x - mixed.top);
            mixed.total = __fmaf_rn(scale, of[i].y, mixed.total);
            mixed.value = __fmaf_rn(scale, values(i), mixed.value);
        }
    }
    return mixed;
}

// Warps of rank `rank` that have a unit.
__device__ __forceinline__ u32 warps_of(const Part &part, u32 rank) {
    return min(WARPS, (part.units - rank + part.ranks - 1) / part.ranks);
}

// Mixes what the warps have: `outs(warp)` is a warp's (heads, dim) sums of weighted values in
// shared memory, its peaks and sums are in `merge.by_warp`. The rest of the cluster is at this
// place too.
template <u32 CLUSTER, u32 DIM, typename Outs>
__device__ __forceinline__ void finish(const Args &args, const Part &part,
                                       Merge<CLUSTER, DIM> &merge, Outs &&outs) {
    const u32 elements = part.heads * part.dim;
    const u32 slice = (elements + CLUSTER - 1) / CLUSTER;
    const u32 by_dim = reciprocal(part.dim), by_slice = reciprocal(slice);
    const u32 warps = warps_of(part, part.rank);
    f32 *mixed = args.mixed
        + (static_cast<size_t>(part.row) * args.heads + part.first_head) * part.dim;
    __syncthreads();
    if (part.ranks > 1) {
        // Every block of the cluster has started.
        cluster_wait();
    }
#pragma unroll 1
    for (u32 e = threadIdx.x; e < elements; e += Args::THREADS) {
        const u32 head = quotient(e, by_dim);
        const Mixed of = mix_parts<WARPS>(
            warps, [&](u32 w) { return merge.by_warp[w][head]; },
            [&](u32 w) { return outs(w)[e]; });
        if (part.ranks == 1) {
            store_fresh(mixed + e, __fdividef(of.value, of.total));
            continue;
        }
        const u32 to = quotient(e, by_slice);
        store_remote(in_rank(merge.received + part.rank * slice + (e - to * slice), to), of.value);
        if (e == head * part.dim) {
#pragma unroll 1
            for (u32 r = 0; r < CLUSTER; ++r) {
                const u32 address = in_rank(&merge.by_rank[part.rank][head], r);
                store_remote(address, of.top);
                store_remote(address + 4, of.total);
            }
        }
    }
    if (part.ranks == 1) {
        return;
    }
    cluster_arrive();
    cluster_wait();
#pragma unroll 1
    for (u32 s = threadIdx.x; s < slice; s += Args::THREADS) {
        const u32 e = part.rank * slice + s;
        if (e >= elements) {
            break;
        }
        const u32 head = quotient(e, by_dim);
        const Mixed of = mix_parts<CLUSTER>(
            CLUSTER, [&](u32 r) { return merge.by_rank[r][head]; },
            [&](u32 r) { return merge.received[r * slice + s]; });
        store_fresh(mixed + e, __fdividef(of.value, of.total));
    }
}

// The part of row `row` with one key head or, where its query heads are many, a set of them.
__device__ __forceinline__ void aim(const Args &args, u32 row, u32 set, Part &part) {
    const u32 group = args.heads / args.kv_heads;
    const u32 sets = (group + HEADS - 1) / HEADS;
    part.lane = threadIdx.x % WARP;
    part.warp = threadIdx.x / WARP;
    part.row = row;
    part.dim = args.head_dim;
    part.kv_head = set / sets;
    part.first_head = part.kv_head * group + set % sets * HEADS;
    part.heads = min(HEADS, (part.kv_head + 1) * group - part.first_head);
}

// Where the part's positions are, in units of `unit`, and how many ranks share them.
template <u32 CLUSTER>
__device__ __forceinline__ void spread(const Args &args, u32 unit, Part &part) {
    part.units = part.position / unit + 1;
    // A short row is not worth a cluster.
    part.ranks = part.units <= WARPS ? 1 : CLUSTER;
    part.start = (static_cast<size_t>(args.slots[part.row]) * args.kv_heads + part.kv_head)
        * args.capacity * part.dim;
}

// This block's part of the launch, with units of `unit` positions. False: nothing to do.
template <u32 CLUSTER>
__device__ __forceinline__ bool part_of(const Args &args, u32 unit, Part &part) {
    aim(args, blockIdx.z, blockIdx.y, part);
    part.rank = blockIdx.x;
    part.position = args.positions[part.row];
    if (part.position == Args::NONE) {
        if (args.awaited != 0 && part.rank == 0) {
            f32 *mixed = args.mixed
                + (static_cast<size_t>(part.row) * args.heads + part.first_head) * part.dim;
            wait_for_dependencies();
#pragma unroll 1
            for (u32 e = threadIdx.x; e < part.heads * part.dim; e += Args::THREADS) {
                store_fresh(mixed + e, 0.0f);
            }
        }
        return false;
    }
    spread<CLUSTER>(args, unit, part);
    return part.rank < part.ranks;
}

}  // namespace
