// Attention of many rows with Hopper's matrix instruction; contract.cuh says what it computes. The
// bits are those of attend_rows.cuh: the same products, added up in the same order.
//
// A block has a tile of rows of one slot and one query head. One warpgroup brings keys and values
// in blocks of positions; the two others multiply, each with 64 of the rows: while one has its turn
// on the matrix unit, the other makes weights of its scores.
#pragma once
#include "attend_rows_weights.cuh"
#include "wgmma_halves.cuh"

#if HOPPER
namespace {

using Args = AttendRowsHopperArgs;

// What ordinary stores and copies left in shared memory is there for the matrix unit.
__device__ __forceinline__ void fence_proxy() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

template <u32 BYTES>
__device__ __forceinline__ void copy_async(u32 to, const u8 *from, u32 bytes) {
    if constexpr (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                     :: "r"(to), "l"(from), "r"(bytes) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;"
                     :: "r"(to), "l"(from), "r"(bytes) : "memory");
    }
}

// Sizes for a head of DIM elements.
template <u32 DIM>
struct Sizes {
    static constexpr u32 POSITIONS = Args::POSITIONS;
    static constexpr u32 STAGES = Args::STAGES;
    // Blocks whose copies are on their way.
    static constexpr u32 ON_THE_WAY = 2;
    static constexpr u32 SCORE_DIM = (DIM + 15) / 16 * 16;
    static constexpr u32 STEPS = SCORE_DIM / 16;
    static constexpr u32 TILES = (DIM + 7) / 8;
    // A block of keys: rows of 64 bytes, swizzled; values: rows of 128 bytes, up to 64 elements,
    // swizzled, then the rest of the rows.
    static constexpr u32 KEY_BLOCK = SCORE_DIM * 64;
    static constexpr u32 KEYS = 2 * KEY_BLOCK;
    static constexpr u32 VALUE_PART = POSITIONS * 128;
    static constexpr u32 STAGE = KEYS + (DIM + 63) / 64 * VALUE_PART;
    static constexpr u32 BYTES = STAGES * STAGE + Args::ALIGNMENT;
    static_assert(KEY_BLOCK % Args::ALIGNMENT == 0, "swizzles count from multiples");
};

constexpr u32 GROUP = 128;
constexpr u32 CONSUMERS = Args::THREADS / GROUP - 1;
static_assert(CONSUMERS == 2 && CONSUMERS * 64 == Args::TILE_ROWS, "64 rows a warpgroup");

// Keys for the instruction, swizzled by 64 bytes: eight elements of 32 positions lie together, the
// next eight behind them, the next 32 positions a block of keys further.
template <u32 DIM>
__device__ __forceinline__ unsigned long long describe_keys(u32 at) {
    constexpr unsigned long long PART = Sizes<DIM>::KEY_BLOCK >> 4 << 16;
    constexpr unsigned long long EIGHT = 512ull >> 4 << 32;
    return 2ull << 62 | EIGHT | PART | (at & 0x3ffff) >> 4;
}

// Values, swizzled by 128 bytes: eight positions of 64 elements lie together, the next eight behind
// them, the next 64 elements a part further.
template <u32 DIM>
__device__ __forceinline__ unsigned long long describe_values(u32 at) {
    constexpr unsigned long long PART = Sizes<DIM>::VALUE_PART >> 4 << 16;
    constexpr unsigned long long EIGHT = 1024ull >> 4 << 32;
    return 1ull << 62 | EIGHT | PART | (at & 0x3ffff) >> 4;
}

// Brings one block of positions, `WHOLE`: all of them stored.
template <u32 DIM, bool WHOLE>
__device__ __forceinline__ void fill(u32 to, const u16 *keys, const u16 *values, u32 present) {
    using S = Sizes<DIM>;
    const u32 thread = threadIdx.x % GROUP;
    const u32 lane = thread % WARP;
    const u32 warp = thread / WARP;
    const u8 *key = reinterpret_cast<const u8 *>(keys) + thread * 16;
    const u32 element = thread / 4;
    const u32 key_to = to + element * 64 + (thread % 4 ^ (element >> 1 & 3)) * 16;
#pragma unroll
    for (u32 block = 0; block < 2; ++block) {
        const bool in = WHOLE || block * 32 < present;
#pragma unroll
        for (u32 i = 0; i < (DIM + 31) / 32; ++i) {
            if (DIM % 32 == 0 || i * 32 + element < DIM) {
                const u8 *from = key + block * DIM * 64 + i * 2048;
                copy_async<16>(key_to + block * S::KEY_BLOCK + i * 2048,
                               in ? from : reinterpret_cast<const u8 *>(keys), in ? 16 : 0);
            }
        }
    }
    constexpr u32 BYTES = DIM % 8 == 0 ? 16 : 8;
    constexpr u32 PIECES = 2 * DIM / BYTES;
    constexpr u32 AT_ONCE = WARP / PIECES;
    constexpr u32 STEP = 4 * AT_ONCE;
    static_assert(AT_ONCE > 0 && S::POSITIONS % STEP == 0, "rows of a warp");
    const u32 row = warp * AT_ONCE + lane / PIECES;
    const u32 byte = lane % PIECES * BYTES;
    const u8 *value = reinterpret_cast<const u8 *>(values) + row * (2 * DIM) + byte;
    const u32 value_to = to + S::KEYS + byte / 128 * S::VALUE_PART + row * 128 + byte % 16;
    const u32 chunk = byte % 128 / 16;
    if (lane < AT_ONCE * PIECES) {
#pragma unroll
        for (u32 i = 0; i < S::POSITIONS / STEP; ++i) {
            // Zero where nothing is stored: its weight is zero, but zero by NaN is not.
            const bool in = WHOLE || row + i * STEP < present;
            const u8 *from = value + i * STEP * 2 * DIM;
            const u32 swizzled = (chunk ^ (row + i * STEP) % 8) * 16;
            copy_async<BYTES>(value_to + i * STEP * 128 + swizzled,
                              in ? from : reinterpret_cast<const u8 *>(values), in ? BYTES : 0);
        }
    }
}

extern __shared__ uint4 shared[];

template <u32 DIM>
__device__ __forceinline__ void produce(u32 stages, u32 full, u32 empty, const u16 *keys,
                                        const u16 *values, u32 stored, u32 blocks) {
    using S = Sizes<DIM>;
    const u32 lane = threadIdx.x % WARP;
    for (u32 block = 0; block < blocks + S::ON_THE_WAY; ++block) {
        // What has come is passed on before there is room for more, lest the two that multiply wait
        // for each other.
        if (block >= S::ON_THE_WAY) {
            asm volatile("cp.async.wait_group %0;" :: "n"(S::ON_THE_WAY - 1) : "memory");
            fence_proxy();
            __syncwarp();
            if (lane == 0) {
                async::barrier_arrive(full + 8 * ((block - S::ON_THE_WAY) % S::STAGES));
            }
        }
        if (block < blocks) {
            const u32 stage = block % S::STAGES;
            if (block >= S::STAGES) {
                async::barrier_wait(empty + 8 * stage, (block / S::STAGES - 1) & 1);
            }
            const u32 first = block * S::POSITIONS;
            const size_t at = static_cast<size_t>(first) * DIM;
            const u32 to = stages + stage * S::STAGE;
            if (first + S::POSITIONS <= stored) {
                fill<DIM, true>(to, keys + at, values + at, S::POSITIONS);
            } else {
                fill<DIM, false>(to, keys + at, values + at, stored - first);
            }
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    }
}

template <u32 DIM>
__device__ __forceinline__ void consume(const Args &args, u32 stages, u32 full, u32 empty, u32 head,
                                        u32 first, u32 count, u32 stored, u32 blocks) {
    using S = Sizes<DIM>;
    constexpr u32 KEY_TILES = S::POSITIONS / 8;
    const u32 lane = threadIdx.x % WARP;
    const u32 g = lane / 4;
    const u32 q = lane % 4;
    const u32 group = __shfl_sync(ALL, threadIdx.x / GROUP - 1, 0);
    const u32 first_row = group * 64 + threadIdx.x % GROUP / WARP * 16;
    const u32 rows[2] = {first_row + g, first_row + g + 8};
    const size_t width = static_cast<size_t>(args.heads + 2 * args.kv_heads) * DIM;

    // Queries as halves, and what undoes their powers of two.
    u32 high[S::STEPS][4];
    u32 low[S::STEPS][4];
    f32 undo[2];
    // Scores are powers of two in units of ln 2.
    const f32 unit = 1.44269504088896340736f / sqrtf(static_cast<f32>(DIM));
#pragma unroll
    for (u32 r = 0; r < 2; ++r) {
        const f32 *from = args.qkv + (first + rows[r]) * width + head * DIM;
        float2 x[2 * S::STEPS];
        f32 peak = 0.0f;
#pragma unroll
        for (u32 i = 0; i < 2 * S::STEPS; ++i) {
            const u32 element = 8 * i + 2 * q;
            const bool in = rows[r] < count && element < DIM;
            x[i] = in ? *reinterpret_cast<const float2 *>(from + element) : float2{};
            peak = fmaxf(peak, fmaxf(fabsf(x[i].x), fabsf(x[i].y)));
        }
        peak = fmaxf(peak, __shfl_xor_sync(ALL, peak, 1));
        peak = fmaxf(peak, __shfl_xor_sync(ALL, peak, 2));
        const f32 scale = scale_of(peak, undo[r]);
        undo[r] *= unit;
#pragma unroll
        for (u32 i = 0; i < 2 * S::STEPS; ++i) {
            split(x[i].x * scale, x[i].y * scale, high[i / 2][i % 2 * 2 + r],
                  low[i / 2][i % 2 * 2 + r]);
        }
    }

    const f32 infinity = __uint_as_float(0x7f800000u);
    const u32 first_position = stored - count;
    const u32 row_positions[2] = {first_position + rows[0], first_position + rows[1]};
    // Beyond the tile's rows, a row sees what the last one sees.
    const u32 mine = min(first_position + group * 64 + 63, stored - 1) / S::POSITIONS + 1;
    const u32 warp_first = first_position + first_row;
    f32 peaks[2] = {-infinity, -infinity};
    f32 sums[2] = {};
    f32 mixed[S::TILES][4] = {};
    f32 scores[KEY_TILES][4] = {};

    auto score = [&](u32 block) {
        const unsigned long long keys = describe_keys<DIM>(stages + block % S::STAGES * S::STAGE);
#pragma unroll
        for (u32 step = 0; step < S::STEPS; ++step) {
            wgmma::multiply<64>(scores, high[step], keys + step * 64, step > 0);
            wgmma::multiply<64>(scores, low[step], keys + step * 64, true);
        }
    };

    u32 weights_high[KEY_TILES / 2][4];
    u32 weights_low[KEY_TILES / 2][4];
    // The scores of a block become weights.
    auto make_weights = [&](u32 block) {
        wgmma::wait<0>();
        wgmma::settle<KEY_TILES>(scores);
        wgmma::settle<S::TILES>(mixed);
        // The values of the block before have been read.
        if (block > 0 && lane == 0) {
            async::barrier_arrive(empty + 8 * ((block - 1) % S::STAGES));
        }
        const u32 first_key = block * S::POSITIONS;
        weigh(scores, mixed, peaks, sums, undo, row_positions, first_key, q,
                first_key + S::POSITIONS - 1 > warp_first);
#pragma unroll
        for (u32 step = 0; step < KEY_TILES / 2; ++step) {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                const f32(&from)[4] = scores[2 * step + i / 2];
                split(from[i % 2 * 2], from[i % 2 * 2 + 1], weights_high[step][i],
                      weights_low[step][i]);
            }
        }
    };
    auto mix = [&](u32 block) {
        const unsigned long long values =
            describe_values<DIM>(stages + block % S::STAGES * S::STAGE + S::KEYS);
#pragma unroll
        for (u32 step = 0; step < KEY_TILES / 2; ++step) {
            wgmma::multiply<8 * S::TILES>(mixed, weights_high[step], values + step * 128, true);
            wgmma::multiply<8 * S::TILES>(mixed, weights_low[step], values + step * 128, true);
        }
        wgmma::commit();
    };
    const bool alone = count <= 64;
    auto take_turn = [&] {
        if (!alone) {
            async::meet(1 + group, 2 * GROUP);
        }
    };
    auto give_turn = [&] {
        if (!alone) {
            async::announce(2 - group, 2 * GROUP);
        }
    };

    if (alone && group == 1) {
        for (u32 block = 0; block < blocks; ++block) {
            async::barrier_wait(full + 8 * (block % S::STAGES), block / S::STAGES & 1);
            if (lane == 0) {
                async::barrier_arrive(empty + 8 * (block % S::STAGES));
            }
        }
        return;
    }
    if (group == 1) {
        give_turn();
    }
    async::barrier_wait(full, 0);
    wgmma::settle<KEY_TILES>(scores);
    wgmma::settle<S::TILES>(mixed);
    wgmma::fence();
    score(0);
    wgmma::commit();
    for (u32 block = 0; block + 1 < mine; ++block) {
        make_weights(block);
        const u32 next = block + 1;
        async::barrier_wait(full + 8 * (next % S::STAGES), next / S::STAGES & 1);
        take_turn();
        wgmma::fence();
        mix(block);
        score(next);
        wgmma::commit();
        give_turn();
    }
    make_weights(mine - 1);
    take_turn();
    wgmma::fence();
    mix(mine - 1);
    if (group == 0 || mine < blocks) {
        give_turn();
    }
    wgmma::wait<0>();
    wgmma::settle<S::TILES>(mixed);
    for (u32 block = mine; block < blocks; ++block) {
        take_turn();
        if (group == 0 || block + 1 < blocks) {
            give_turn();
        }
    }

#pragma unroll
    for (u32 r = 0; r < 2; ++r) {
        f32 sum = sums[r];
        sum += __shfl_xor_sync(ALL, sum, 1);
        sum += __shfl_xor_sync(ALL, sum, 2);
        if (rows[r] >= count) {
            continue;
        }
        const size_t out_row = first + rows[r];
        f32 *out = args.mixed + (out_row * args.heads + head) * DIM;
#pragma unroll
        for (u32 tile = 0; tile < S::TILES; ++tile) {
            const u32 element = 8 * tile + 2 * q;
            if (element < DIM) {
                *reinterpret_cast<float2 *>(out + element) =
                    make_float2(mixed[tile][2 * r] / sum, mixed[tile][2 * r + 1] / sum);
            }
        }
    }
}

template <u32 DIM>
__device__ __forceinline__ void attend_rows(const Args &args) {
    using S = Sizes<DIM>;
    __shared__ unsigned long long barriers[2 * S::STAGES];
    launch_dependents();
    const u32 full = async::shared_address(barriers);
    const u32 empty = full + 8 * S::STAGES;
    const u32 stages = (async::shared_address(shared) + 1023) / 1024 * 1024;
    if (threadIdx.x < S::STAGES) {
        async::barrier_init(full + 8 * threadIdx.x, GROUP / WARP);
        async::barrier_init(empty + 8 * threadIdx.x, CONSUMERS * GROUP / WARP);
    }
    if constexpr (S::SCORE_DIM > DIM) {
        // What no copy writes: elements beyond the head.
        constexpr u32 PIECES = (S::SCORE_DIM - DIM) * 4;
        u8 *base = reinterpret_cast<u8 *>(shared) + (stages - async::shared_address(shared));
        for (u32 i = threadIdx.x; i < 2 * S::STAGES * PIECES; i += Args::THREADS) {
            u8 *at = base + i / PIECES / 2 * S::STAGE + i / PIECES % 2 * S::KEY_BLOCK + DIM * 64
                + i % PIECES * 16;
            *reinterpret_cast<uint4 *>(at) = uint4{};
        }
    }
    fence_proxy();
    wait_for_dependencies();
    const u32 tile = blockIdx.x / args.heads;
    const u32 head = blockIdx.x % args.heads;
    const u32 first = args.tiles[2 * tile];
    const u32 count = args.tiles[2 * tile + 1];
    const u32 kv_head = head / (args.heads / args.kv_heads);
    const size_t start = (static_cast<size_t>(args.slots[first]) * args.kv_heads + kv_head)
        * args.capacity * DIM;
    const u32 stored = args.positions[first] + count;
    const u32 blocks = (stored + S::POSITIONS - 1) / S::POSITIONS;
    __syncthreads();
    if (threadIdx.x < GROUP) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        produce<DIM>(stages, full, empty, args.keys + start, args.values + start, stored, blocks);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        consume<DIM>(args, stages, full, empty, head, first, count, stored, blocks);
    }
}

}  // namespace
#endif
