// Rotary positions, and keys and values into the cache; contract.cuh says what it computes,
// host/src/kv.rs where the cache keeps what. Equal to the CPU to the bit.
#include "floats.cuh"

using Args = RopeStoreArgs;

namespace {

constexpr u32 WARPS = Args::THREADS / WARP;
static_assert(Args::BLOCK_ROWS == WARP, "a lane stores one row's key");

struct Shared {
    u32 positions[Args::BLOCK_ROWS];
    u32 slots[Args::BLOCK_ROWS];
    // One more column: lanes read different rows.
    f32 keys[Args::BLOCK_ROWS][Args::HEAD_DIM_MAX + 1];
};

__device__ __forceinline__ void store(u8 *cache, u32 kv, size_t at, f32 x) {
    if (kv == Args::F16) {
        reinterpret_cast<u16 *>(cache)[at] = to_f16(x);
    } else {
        reinterpret_cast<f32 *>(cache)[at] = x;
    }
}

}  // namespace

// Grid: (rows / BLOCK_ROWS rounded up, heads + 2 kv_heads): query heads, key heads, value heads.
extern "C" __global__ void __launch_bounds__(Args::THREADS) rope_store(Args args) {
    __shared__ Shared shared;
    launch_dependents();
    wait_for_dependencies();
    const u32 first = blockIdx.x * Args::BLOCK_ROWS;
    const u32 count = min(args.rows - first, Args::BLOCK_ROWS);
    if (threadIdx.x < Args::BLOCK_ROWS) {
        const bool in = threadIdx.x < count;
        const u32 row = first + threadIdx.x;
        shared.positions[threadIdx.x] = in ? args.positions[row] : Args::NONE;
        shared.slots[threadIdx.x] = in ? args.slots[row] : 0;
    }
    __syncthreads();

    const u32 dim = args.head_dim;
    const u32 width = (args.heads + 2 * args.kv_heads) * dim;
    const bool is_query = blockIdx.y < args.heads;
    const bool is_key = !is_query && blockIdx.y < args.heads + args.kv_heads;
    f32 *qkv = args.qkv + static_cast<size_t>(first) * width + blockIdx.y * dim;
    const u32 kv_head = (blockIdx.y - args.heads) % args.kv_heads;
    const size_t head_elements = static_cast<size_t>(args.capacity) * dim;
    const auto head_start = [&](u32 row) {
        return (static_cast<size_t>(shared.slots[row]) * args.kv_heads + kv_head) * head_elements;
    };

    if (!is_query && !is_key) {
        for (u32 i = threadIdx.x; i < count * dim; i += Args::THREADS) {
            const u32 row = i / dim;
            const u32 element = i % dim;
            const u32 position = shared.positions[row];
            if (position != Args::NONE) {
                const size_t at = head_start(row) + static_cast<size_t>(position) * dim + element;
                store(args.values, args.kv, at, qkv[static_cast<size_t>(row) * width + element]);
            }
        }
        return;
    }

    const bool turned = args.cos != nullptr;
    if (is_query && !turned) {
        return;
    }
    const u32 pairs = dim / 2;
    for (u32 i = threadIdx.x; i < count * pairs; i += Args::THREADS) {
        const u32 row = i / pairs;
        const u32 pair = i % pairs;
        const u32 position = shared.positions[row];
        if (position == Args::NONE) {
            continue;
        }
        f32 *low_at = qkv + static_cast<size_t>(row) * width + pair;
        f32 low = *low_at;
        f32 high = low_at[pairs];
        if (turned) {
            const size_t at = static_cast<size_t>(position) * pairs + pair;
            const f32 cos = __ldg(args.cos + at);
            const f32 sin = __ldg(args.sin + at);
            const f32 turned_low = low * cos - high * sin;
            high = high * cos + low * sin;
            low = turned_low;
            *low_at = low;
            low_at[pairs] = high;
        }
        if (is_key) {
            shared.keys[row][pair] = low;
            shared.keys[row][pair + pairs] = high;
        }
    }
    if (is_query) {
        return;
    }
    __syncthreads();
    // Consecutive rows of a slot are neighbours in the cache.
    const u32 row = threadIdx.x % WARP;
    const u32 position = shared.positions[row];
    if (position == Args::NONE) {
        return;
    }
    const size_t start = head_start(row)
        + static_cast<size_t>(position / Args::KEY_BLOCK) * Args::KEY_BLOCK * dim
        + position % Args::KEY_BLOCK;
    for (u32 element = threadIdx.x / WARP; element < dim; element += WARPS) {
        store(args.keys, args.kv, start + element * Args::KEY_BLOCK, shared.keys[row][element]);
    }
}
