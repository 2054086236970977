// From logits to a token; contract.cuh says what it computes, host/src/sampler.rs is the definition.
//
// The blocks of a row look at its tokens together, each at its own. What they find goes to the first
// of them, which sorts and decides; the others hear what it decided, and go the same way.
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
    f64 sum_of[Args::PARTS_MAX];
    // What the first has decided, in each.
    u64 decided;
};

// This thread block among those of the row.
struct Place {
    u32 parts;
    u32 part;

    __device__ __forceinline__ bool is_first() const {
        return part == 0;
    }

    // Tokens of this thread: `first()`, and then every `step()`-th.
    __device__ __forceinline__ u32 first() const {
        return part * Args::THREADS + threadIdx.x;
    }

    __device__ __forceinline__ u32 step() const {
        return parts * Args::THREADS;
    }

    // What each block has written in the shared memory of others before is there afterwards.
    __device__ __forceinline__ void meet() const {
        if (parts > 1) {
            __syncwarp();
            cluster_arrive();
            cluster_wait();
        } else {
            __syncthreads();
        }
    }

    // The first block's `x`, in all.
    __device__ __forceinline__ u64 decided(u64 x, Shared &shared) const {
#if __CUDA_ARCH__ >= 900
        if (parts > 1) {
            // All have seen what was decided before.
            meet();
            if (part == 0 && threadIdx.x < parts) {
                store_remote(in_rank(&shared.decided, threadIdx.x), x);
            }
            meet();
            return shared.decided;
        }
#endif
        return x;
    }
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

// Adds the bins of the other blocks of the row to those of the first.
__device__ __forceinline__ void gather_bins(const Place &place, Shared &shared) {
#if __CUDA_ARCH__ >= 900
    if (place.parts > 1) {
        place.meet();
        for (u32 i = threadIdx.x; place.part != 0 && i < BINS; i += Args::THREADS) {
            if (shared.bins[i] != 0) {
                add_remote(in_rank(&shared.bins[i], 0), shared.bins[i]);
            }
        }
    }
#endif
    place.meet();
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
__device__ __forceinline__ u64 threshold(const Args &args, const Place &place, u32 rank, u64 end,
                                         bool exact, Shared &shared, ItemOf item_of) {
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
#pragma unroll 4
        for (u32 token = place.first(); token < args.vocab; token += place.step()) {
            const u64 x = item_of(token);
            const bool in = known == 0 || x >> (64 - known) == prefix;
            if (x != 0 && x < end && in) {
                atomicAdd(&shared.bins[static_cast<u32>(x >> shift) & ((1u << bits) - 1)], 1u);
            }
        }
        gather_bins(place, shared);
        if (place.is_first()) {
            find_bin(rank, shared);
        }
        // Eleven bits, and two counts of at most 2^24 tokens.
        const u64 found = static_cast<u64>(shared.bin) << 50
            | static_cast<u64>(shared.above) << 25 | shared.inside;
        const u64 agreed = place.decided(found, shared);
        const u32 bin = static_cast<u32>(agreed >> 50);
        const u32 above = static_cast<u32>(agreed >> 25) & ((1u << 25) - 1);
        const u32 inside = static_cast<u32>(agreed) & ((1u << 25) - 1);
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

// A walk from the most likely candidate down, a sorted batch at a time. `base`, `count` and `end`
// are known to all blocks of the row, the rest to the first.
struct Walk {
    u32 base;    // candidates before the batch
    u32 count;   // candidates of the batch
    f64 before;  // sum of their weights before the batch
    u64 end;     // items of the batch and after it are below

    template <typename ItemOf>
    __device__ __forceinline__ void load(const Args &args, const Place &place, u32 candidates,
                                         Shared &shared, ItemOf item_of) {
        const u32 left = candidates - base;
        u64 least = 1;
        if (left > Args::THREADS) {
            least = threshold(args, place, Args::THREADS, end, false, shared, item_of);
        }
        shared.sorted[threadIdx.x] = 0;
        if (threadIdx.x == 0) {
            shared.first = 0;
        }
        place.meet();
#pragma unroll 4
        for (u32 token = place.first(); token < args.vocab; token += place.step()) {
            const u64 x = item_of(token);
            if (x >= least && x < end) {
                append(place, x, shared);
            }
        }
        place.meet();
        count = static_cast<u32>(place.decided(shared.first, shared));
        __syncthreads();
        if (place.is_first()) {
            sort(shared);
            block_scan(weight(shared), shared);
        }
    }

    // To the batch, in no order.
    __device__ __forceinline__ static void append(const Place &place, u64 x, Shared &shared) {
#if __CUDA_ARCH__ >= 900
        if (place.parts > 1) {
            const u32 at = add_remote(in_rank(&shared.first, 0), 1u);
            store_remote(in_rank(&shared.sorted[at], 0), x);
            return;
        }
#endif
        shared.sorted[atomicAdd(&shared.first, 1u)] = x;
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

    __device__ __forceinline__ void advance(const Place &place, Shared &shared) {
        base += count;
        before += shared.prefix[Args::THREADS - 1];
        end = place.decided(shared.sorted[count - 1], shared);
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
    const Place place = {cluster_blocks(), cluster_rank()};
    const u32 row = blockIdx.x / place.parts;
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
    for (u32 four = place.first(); four < fours; four += place.step()) {
        const float4 x = reinterpret_cast<const float4 *>(logits)[four];
        look(4 * four, x.x);
        look(4 * four + 1, x.y);
        look(4 * four + 2, x.z);
        look(4 * four + 3, x.w);
    }
#pragma unroll 4
    for (u32 token = 4 * fours + place.first(); token < vocab; token += place.step()) {
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
    if (threadIdx.x < place.parts) {
        store_remote(in_rank(&shared.best_of[place.part], threadIdx.x), best);
        store_remote(in_rank(&shared.fault_of[place.part], threadIdx.x), fault);
    }
    place.meet();
    for (u32 i = 0; i < place.parts; ++i) {
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
        if (place.is_first() && threadIdx.x == 0) {
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
        least = threshold(args, place, args.top_k, ~static_cast<u64>(0), true, shared, item_of);
    }

    // Their weights, and in the others' place a number below all weights. Only the thread that
    // writes one reads it.
    f32 *weights = args.weights + static_cast<size_t>(row) * vocab;
    const f32 largest = from_ordered(static_cast<u32>(best >> 32));
    f64 sum = 0.0;
#pragma unroll 4
    for (u32 token = place.first(); token < vocab; token += place.step()) {
        const f32 logit = penalised(token, logits[token]);
        const bool in = item(ordered(logit), token) >= least;
        const f32 weight = expf32((logit - largest) / args.temperature);
        weights[token] = in ? weight : -1.0f;
        sum += in ? weight : 0.0f;
    }
    __syncthreads();
    block_scan(sum, shared);
    f64 total = shared.prefix[Args::THREADS - 1];
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x == 0) {
        store_remote(in_rank(&shared.sum_of[place.part], 0), total);
    }
    place.meet();
    // Of the first block alone.
    total = 0.0;
    for (u32 i = 0; place.is_first() && i < place.parts; ++i) {
        total += shared.sum_of[i];
    }
#endif
    __syncthreads();
    const auto item_of = [&](u32 token) {
        const f32 weight = weights[token];
        return weight < 0.0f ? 0 : item(__float_as_uint(weight), token);
    };

    Walk walk = {0, 0, 0.0, ~static_cast<u64>(0)};
    walk.load(args, place, candidates, shared, item_of);
    f64 kept = total;
    u32 count = candidates;
    if (args.top_p < 1.0f || args.min_p > 0.0f) {
        const f64 enough = static_cast<f64>(args.top_p) * total;
        while (true) {
            const bool in = threadIdx.x < walk.count;
            const bool stop = in && walk.base + threadIdx.x > 0
                && (walk.sum_before(shared) >= enough || walk.weight(shared) < args.min_p);
            const u32 stops = static_cast<u32>(
                place.decided(block_min(stop ? threadIdx.x : Args::NONE, shared), shared));
            if (stops != Args::NONE) {
                count = walk.base + stops;
                kept = walk.before + (stops == 0 ? 0.0 : shared.prefix[stops - 1]);
                break;
            }
            if (walk.base + walk.count == candidates) {
                kept = walk.before + shared.prefix[Args::THREADS - 1];
                break;
            }
            walk.advance(place, shared);
            __syncthreads();
            walk.load(args, place, candidates, shared, item_of);
        }
        if (walk.base > 0) {
            walk = {0, 0, 0.0, ~static_cast<u64>(0)};
            __syncthreads();
            walk.load(args, place, candidates, shared, item_of);
        }
    }

    const f64 target = args.uniform * kept;
    while (true) {
        const bool in = threadIdx.x < walk.count;
        const bool last = walk.base + threadIdx.x == count - 1;
        const bool hit = in && (last || walk.sum_with(shared) > target);
        const u32 hits = static_cast<u32>(
            place.decided(block_min(hit ? threadIdx.x : Args::NONE, shared), shared));
        if (hits != Args::NONE) {
            if (place.is_first() && threadIdx.x == 0) {
                answer(token_of(shared.sorted[hits]));
            }
            return;
        }
        walk.advance(place, shared);
        __syncthreads();
        walk.load(args, place, candidates, shared, item_of);
    }
}
