// From logits to a token; contract.cuh says what it computes, host/src/sampler.rs is the definition.
//
// The blocks of a row look for its most likely token together. Only the first goes on from there.
//
// Nothing is sorted that nobody looks at: items are numbers of 64 bits whose order is that of the
// sampler (more likely first, of equals the smaller id), a histogram finds where the largest few
// begin, and those are sorted in shared memory, the next few only if the walk gets there.
#include "cluster.cuh"
#include "floats.cuh"

using Args = ChooseArgs;
using u64 = unsigned long long;

namespace {

constexpr u32 WARPS = Args::THREADS / WARP;
constexpr u32 DIGIT_BITS = 11;
constexpr u32 BINS = 1u << DIGIT_BITS;
static_assert(BINS == 2 * Args::THREADS, "a thread scans two bins");
static_assert(WARPS == WARP, "a warp scans the warps");

struct Shared {
    u32 bins[BINS];
    u64 sorted[Args::THREADS];
    f64 prefix[Args::THREADS];
    f64 sums[WARPS];
    u64 largest[WARPS];
    u32 counts[WARPS];
    u32 first;
    u32 bin;
    u32 above;
    u32 inside;
    // Of the blocks of the row, in the first of them.
    u64 best_of[Args::PARTS_MAX];
    u32 fault_of[Args::PARTS_MAX];
};

// The order of `f32::total_cmp`.
__device__ __forceinline__ u32 ordered(f32 x) {
    const u32 bits = __float_as_uint(x);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ f32 from_ordered(u32 key) {
    return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

__device__ __forceinline__ u64 item(u32 key, u32 token) {
    return static_cast<u64>(key) << 32 | ~token;
}

__device__ __forceinline__ u32 token_of(u64 item) {
    return ~static_cast<u32>(item);
}

// The smallest of one number a thread; `shared.first` may be used again after it.
__device__ __forceinline__ u32 block_min(u32 x, Shared &shared) {
    if (threadIdx.x == 0) {
        shared.first = Args::NONE;
    }
    __syncthreads();
    x = __reduce_min_sync(ALL, x);
    if (threadIdx.x % WARP == 0 && x != Args::NONE) {
        atomicMin(&shared.first, x);
    }
    __syncthreads();
    const u32 result = shared.first;
    __syncthreads();
    return result;
}

// Leaves in `shared.prefix` the sums of one number a thread up to and with its own.
__device__ __forceinline__ void block_scan(f64 x, Shared &shared) {
    const u32 lane = threadIdx.x % WARP;
    const u32 warp = threadIdx.x / WARP;
#pragma unroll
    for (u32 step = 1; step < WARP; step *= 2) {
        const f64 before = __shfl_up_sync(ALL, x, step);
        x += lane >= step ? before : 0.0;
    }
    if (lane == WARP - 1) {
        shared.sums[warp] = x;
    }
    __syncthreads();
    if (warp == 0) {
        f64 sum = shared.sums[lane];
#pragma unroll
        for (u32 step = 1; step < WARP; step *= 2) {
            const f64 before = __shfl_up_sync(ALL, sum, step);
            sum += lane >= step ? before : 0.0;
        }
        shared.sums[lane] = sum;
    }
    __syncthreads();
    shared.prefix[threadIdx.x] = warp == 0 ? x : shared.sums[warp - 1] + x;
    __syncthreads();
}

// Finds the bin in which the `rank`-th largest item lies (from 1), how many lie above that bin, and
// how many inside.
__device__ __forceinline__ void find_bin(u32 rank, Shared &shared) {
    const u32 lane = threadIdx.x % WARP;
    const u32 warp = threadIdx.x / WARP;
    const u32 high = BINS - 1 - 2 * threadIdx.x;
    const u32 counts[2] = {shared.bins[high], shared.bins[high - 1]};
    u32 sum = counts[0] + counts[1];
#pragma unroll
    for (u32 step = 1; step < WARP; step *= 2) {
        const u32 before = __shfl_up_sync(ALL, sum, step);
        sum += lane >= step ? before : 0;
    }
    if (lane == WARP - 1) {
        shared.counts[warp] = sum;
    }
    __syncthreads();
    u32 before = lane < warp ? shared.counts[lane] : 0;
    before = __reduce_add_sync(ALL, before);
    u32 above = before + sum - counts[0] - counts[1];
#pragma unroll
    for (u32 i = 0; i < 2; ++i) {
        if (above < rank && rank <= above + counts[i]) {
            shared.bin = high - i;
            shared.above = above;
            shared.inside = counts[i];
        }
        above += counts[i];
    }
    __syncthreads();
}

// The least item of the `rank` largest of those below `end`, where `item_of` gives an item for
// every token, or 0 for none. `exact`: of exactly that many; otherwise of at least one and at most
// that many. There are more than `rank`.
template <typename ItemOf>
__device__ __forceinline__ u64 threshold(const Args &args, u32 rank, u64 end, bool exact,
                                         Shared &shared, ItemOf item_of) {
    u64 prefix = 0;
    u32 known = 0;  // bits of the prefix
    bool found_above = false;
    while (true) {
        const u32 bits = min(DIGIT_BITS, 64 - known);
        const u32 shift = 64 - known - bits;
        for (u32 i = threadIdx.x; i < BINS; i += Args::THREADS) {
            shared.bins[i] = 0;
        }
        __syncthreads();
        for (u32 token = threadIdx.x; token < args.vocab; token += Args::THREADS) {
            const u64 x = item_of(token);
            const bool in = known == 0 || x >> (64 - known) == prefix;
            if (x != 0 && x < end && in) {
                atomicAdd(&shared.bins[static_cast<u32>(x >> shift) & ((1u << bits) - 1)], 1u);
            }
        }
        __syncthreads();
        find_bin(rank, shared);
        const u32 bin = shared.bin;
        const u32 above = shared.above;
        const u32 inside = shared.inside;
        __syncthreads();
        prefix = prefix << bits | bin;
        known += bits;
        found_above = found_above || above > 0;
        rank -= above;
        if (rank == inside) {
            return prefix << shift;
        }
        if (!exact && found_above) {
            return (prefix + 1) << shift;
        }
    }
}

// Sorts one item a thread, largest first.
__device__ __forceinline__ void sort(Shared &shared) {
    for (u32 size = 2; size <= Args::THREADS; size *= 2) {
        for (u32 step = size / 2; step > 0; step /= 2) {
            const u32 other = threadIdx.x ^ step;
            if (other > threadIdx.x) {
                const u64 a = shared.sorted[threadIdx.x];
                const u64 b = shared.sorted[other];
                const bool descending = (threadIdx.x & size) == 0;
                if ((a < b) == descending) {
                    shared.sorted[threadIdx.x] = b;
                    shared.sorted[other] = a;
                }
            }
            __syncthreads();
        }
    }
}

// A walk from the most likely candidate down, a sorted batch at a time.
struct Walk {
    u32 base;    // candidates before the batch
    u32 count;   // candidates of the batch
    f64 before;  // sum of their weights before the batch
    u64 end;     // items of the batch and after it are below

    template <typename ItemOf>
    __device__ __forceinline__ void load(const Args &args, u32 candidates, Shared &shared,
                                         ItemOf item_of) {
        const u32 left = candidates - base;
        u64 least = 1;
        if (left > Args::THREADS) {
            least = threshold(args, Args::THREADS, end, false, shared, item_of);
        }
        shared.sorted[threadIdx.x] = 0;
        if (threadIdx.x == 0) {
            shared.first = 0;
        }
        __syncthreads();
        for (u32 token = threadIdx.x; token < args.vocab; token += Args::THREADS) {
            const u64 x = item_of(token);
            if (x >= least && x < end) {
                shared.sorted[atomicAdd(&shared.first, 1u)] = x;
            }
        }
        __syncthreads();
        count = shared.first;
        __syncthreads();
        sort(shared);
        block_scan(weight(shared), shared);
    }

    // Of this thread's candidate.
    __device__ __forceinline__ f32 weight(const Shared &shared) const {
        return __uint_as_float(static_cast<u32>(shared.sorted[threadIdx.x] >> 32));
    }

    __device__ __forceinline__ f64 sum_before(const Shared &shared) const {
        return before + (threadIdx.x == 0 ? 0.0 : shared.prefix[threadIdx.x - 1]);
    }

    __device__ __forceinline__ f64 sum_with(const Shared &shared) const {
        return before + shared.prefix[threadIdx.x];
    }

    __device__ __forceinline__ void advance(const Shared &shared) {
        base += count;
        before += shared.prefix[Args::THREADS - 1];
        end = shared.sorted[count - 1];
    }
};

}  // namespace

// Grid: (rows · blocks of a row).
extern "C" __global__ void __launch_bounds__(Args::THREADS, 1) choose(Args args) {
    __shared__ Shared shared;
    launch_dependents();
    cluster_arrive();
    wait_for_dependencies();
    const u32 lane = threadIdx.x % WARP;
    const u32 warp = threadIdx.x / WARP;
    const u32 vocab = args.vocab;
    const u32 parts = cluster_blocks();
    const u32 part = cluster_rank();
    const u32 row = blockIdx.x / parts;
    const f32 *logits = args.logits + static_cast<size_t>(row) * vocab;
    const u32 words = (vocab + WARP - 1) / WARP;
    u32 *seen = args.seen == nullptr
        ? nullptr : args.seen + static_cast<size_t>(row) * words;

    const auto penalised = [&](u32 token, f32 logit) {
        if (seen != nullptr && (seen[token / WARP] >> token % WARP & 1) != 0) {
            const f32 penalty = args.repetition_penalty;
            return logit > 0.0f ? logit / penalty : logit * penalty;
        }
        return logit;
    };

    // The most likely token, and the first that is not finite.
    u64 best = 0;
    u32 fault = Args::NONE;
    const auto look = [&](u32 token, f32 logit) {
        const bool finite = (__float_as_uint(logit) & 0x7f800000u) != 0x7f800000u;
        fault = finite ? fault : min(fault, token);
        const u64 x = item(ordered(penalised(token, logit)), token);
        best = x > best ? x : best;
    };
    // Four at a time where the row is aligned for it.
    const u32 fours = reinterpret_cast<u64>(logits) % sizeof(float4) == 0 ? vocab / 4 : 0;
#pragma unroll 4
    for (u32 four = part * Args::THREADS + threadIdx.x; four < fours;
         four += parts * Args::THREADS) {
        const float4 x = reinterpret_cast<const float4 *>(logits)[four];
        look(4 * four, x.x);
        look(4 * four + 1, x.y);
        look(4 * four + 2, x.z);
        look(4 * four + 3, x.w);
    }
#pragma unroll 4
    for (u32 token = 4 * fours + part * Args::THREADS + threadIdx.x; token < vocab;
         token += parts * Args::THREADS) {
        look(token, logits[token]);
    }
#pragma unroll
    for (u32 step = 1; step < WARP; step *= 2) {
        const u64 other = __shfl_xor_sync(ALL, best, step);
        best = other > best ? other : best;
    }
    if (lane == 0) {
        shared.largest[warp] = best;
    }
    fault = block_min(fault, shared);
    best = shared.largest[lane];
#pragma unroll
    for (u32 step = 1; step < WARP; step *= 2) {
        const u64 other = __shfl_xor_sync(ALL, best, step);
        best = other > best ? other : best;
    }
#if __CUDA_ARCH__ >= 900
    // Every block of the row has started.
    cluster_wait();
    if (threadIdx.x == 0) {
        store_remote(in_rank(&shared.best_of[part], 0), best);
        store_remote(in_rank(&shared.fault_of[part], 0), fault);
    }
    cluster_arrive();
    cluster_wait();
    if (part != 0) {
        return;
    }
    for (u32 i = 0; i < parts; ++i) {
        best = shared.best_of[i] > best ? shared.best_of[i] : best;
        fault = min(fault, shared.fault_of[i]);
    }
#endif

    const auto answer = [&](u32 token) {
        args.chosen[row] = token;
        args.faults[row] = fault;
        if (seen != nullptr && fault == Args::NONE) {
            seen[token / WARP] |= 1u << token % WARP;
        }
        if (row == 0 && args.position != nullptr) {
            *args.position = args.next;
        }
        if (row == 0 && args.told != nullptr) {
            const u32 what = fault == Args::NONE ? token : Args::FAULT + fault;
            asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(
                             __cvta_generic_to_global(args.told)),
                         "l"(static_cast<u64>(args.serial) << 32 | what)
                         : "memory");
        }
    };
    if (fault != Args::NONE || args.temperature == 0.0f) {
        if (threadIdx.x == 0) {
            answer(fault == Args::NONE ? token_of(best) : 0);
        }
        return;
    }

    // The candidates: all, or the largest `top_k`.
    const bool cut = args.top_k != 0 && args.top_k < vocab;
    const u32 candidates = cut ? args.top_k : vocab;
    u64 least = 0;
    if (cut) {
        const auto item_of = [&](u32 token) {
            return item(ordered(penalised(token, logits[token])), token);
        };
        least = threshold(args, args.top_k, ~static_cast<u64>(0), true, shared, item_of);
    }

    // Their weights, and in the others' place a number below all weights.
    f32 *weights = args.weights + static_cast<size_t>(row) * vocab;
    const f32 largest = from_ordered(static_cast<u32>(best >> 32));
    f64 sum = 0.0;
#pragma unroll 4
    for (u32 token = threadIdx.x; token < vocab; token += Args::THREADS) {
        const f32 logit = penalised(token, logits[token]);
        const bool in = item(ordered(logit), token) >= least;
        const f32 weight = expf32((logit - largest) / args.temperature);
        weights[token] = in ? weight : -1.0f;
        sum += in ? weight : 0.0f;
    }
    __syncthreads();
    block_scan(sum, shared);
    const f64 total = shared.prefix[Args::THREADS - 1];
    __syncthreads();
    const auto item_of = [&](u32 token) {
        const f32 weight = weights[token];
        return weight < 0.0f ? 0 : item(__float_as_uint(weight), token);
    };

    Walk walk = {0, 0, 0.0, ~static_cast<u64>(0)};
    walk.load(args, candidates, shared, item_of);
    f64 kept = total;
    u32 count = candidates;
    if (args.top_p < 1.0f || args.min_p > 0.0f) {
        const f64 enough = static_cast<f64>(args.top_p) * total;
        while (true) {
            const bool in = threadIdx.x < walk.count;
            const bool stop = in && walk.base + threadIdx.x > 0
                && (walk.sum_before(shared) >= enough || walk.weight(shared) < args.min_p);
            const u32 place = block_min(stop ? threadIdx.x : Args::NONE, shared);
            if (place != Args::NONE) {
                count = walk.base + place;
                kept = walk.before + (place == 0 ? 0.0 : shared.prefix[place - 1]);
                break;
            }
            if (walk.base + walk.count == candidates) {
                kept = walk.before + shared.prefix[Args::THREADS - 1];
                break;
            }
            walk.advance(shared);
            __syncthreads();
            walk.load(args, candidates, shared, item_of);
        }
        if (walk.base > 0) {
            walk = {0, 0, 0.0, ~static_cast<u64>(0)};
            __syncthreads();
            walk.load(args, candidates, shared, item_of);
        }
    }

    const f64 target = args.uniform * kept;
    while (true) {
        const bool in = threadIdx.x < walk.count;
        const bool last = walk.base + threadIdx.x == count - 1;
        const bool hit = in && (last || walk.sum_with(shared) > target);
        const u32 place = block_min(hit ? threadIdx.x : Args::NONE, shared);
        if (place != Args::NONE) {
            if (threadIdx.x == 0) {
                answer(token_of(shared.sorted[place]));
            }
            return;
        }
        walk.advance(shared);
        __syncthreads();
        walk.load(args, candidates, shared, item_of);
    }
}
