// Attention of many rows on tensor cores, over a cache of halves; contract.cuh says what it
// computes.
//
// A block has a tile of rows of one slot and one query head; a warp has 16 of the rows. Keys and
// values come in blocks of positions, one on the way while another is used. Queries, and the
// weights of the softmax, are singles: each goes in as two halves, so that only the cache itself is
// rounded. A row of queries is first multiplied with the power of two that puts its peak below
// 2^14.
#pragma once
#include "attend_rows_weights.cuh"

namespace {

using Args = AttendRowsArgs;

constexpr u32 WARPS = Args::THREADS / WARP;
static_assert(WARPS * 16 == Args::TILE_ROWS, "a warp has 16 rows");

extern __shared__ uint4 shared[];

__device__ __forceinline__ u32 shared_address(const void *at) {
    return static_cast<u32>(__cvta_generic_to_shared(at));
}

template <u32 BYTES>
__device__ __forceinline__ void copy_async(u8 *to, const void *from, bool in) {
    if constexpr (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                     :: "r"(shared_address(to)), "l"(from), "r"(in ? 16 : 0) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;"
                     :: "r"(shared_address(to)), "l"(from), "r"(in ? BYTES : 0), "n"(BYTES)
                     : "memory");
    }
}

__device__ __forceinline__ void load_matrices(u32 (&m)[4], const u8 *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(shared_address(row)));
}

__device__ __forceinline__ void load_transposed(u32 (&m)[4], const u8 *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(shared_address(row)));
}

__device__ __forceinline__ void multiply(f32 (&acc)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Sizes for a head of DIM elements.
template <u32 DIM>
struct Sizes {
    // Positions of a block, blocks in shared memory.
    static constexpr u32 POSITIONS = DIM > 128 ? 32 : 64;
    static constexpr u32 STAGES = DIM > 128 ? 1 : 2;
    static constexpr bool QUERIES_IN_REGISTERS = DIM <= 128;
    // Elements as the products take them: in steps of 16 of the scores, in tiles of 8 of the mix.
    static constexpr u32 SCORE_DIM = (DIM + 15) / 16 * 16;
    static constexpr u32 STEPS = SCORE_DIM / 16;
    static constexpr u32 TILES = (DIM + 7) / 8;
    // Bytes of an odd number of 16-byte pieces: eight rows of a matrix lie in different banks.
    static constexpr u32 QUERY_ROW = 2 * SCORE_DIM + 16;
    static constexpr u32 VALUE_ROW = (TILES / 2 * 2 + 1) * 16;
    static constexpr u32 KEY_ROW = 2 * Args::KEY_BLOCK;
    static constexpr u32 KEYS = POSITIONS / Args::KEY_BLOCK * SCORE_DIM * KEY_ROW;
    static constexpr u32 VALUES = POSITIONS * VALUE_ROW;
    static constexpr u32 STAGE = KEYS + VALUES;
    static constexpr u32 QUERIES = 2 * Args::TILE_ROWS * QUERY_ROW;
    // Queries that stay in shared memory have a place of their own.
    static constexpr u32 FIRST_STAGE = QUERIES_IN_REGISTERS ? 0 : QUERIES;
    static constexpr u32 BYTES = FIRST_STAGE + STAGES * STAGE;
    static_assert(BYTES <= Args::SHARED_MAX, "what every device has");
    static_assert(VALUE_ROW / 16 % 2 == 1 && QUERY_ROW / 16 % 2 == 1, "odd");
    static_assert(VALUE_ROW >= 2 * DIM, "a row fits");
};

// Bytes of the row of keys `element` of a block of keys. Pieces of 16 bytes are exchanged so that
// eight neighbouring rows lie in different banks.
__device__ __forceinline__ u32 key_at(u32 element, u32 piece) {
    return element * 64 + (piece ^ (element >> 1 & 3)) * 16;
}

template <u32 DIM>
struct Tile {
    using S = Sizes<DIM>;
    const Args &args;
    const u16 *keys;
    const u16 *values;
    u32 stored;  // positions that hold something

    __device__ __forceinline__ u8 *stage(u32 block) const {
        return reinterpret_cast<u8 *>(shared) + S::FIRST_STAGE + block % S::STAGES * S::STAGE;
    }

    // What no copy writes: elements beyond the head.
    __device__ __forceinline__ void clear_padding() const {
        if constexpr (S::SCORE_DIM > DIM) {
            constexpr u32 WORDS = (S::SCORE_DIM - DIM) * S::KEY_ROW / 16;
            constexpr u32 BLOCKS = S::STAGES * (S::POSITIONS / Args::KEY_BLOCK);
            for (u32 i = threadIdx.x; i < BLOCKS * WORDS; i += Args::THREADS) {
                constexpr u32 PER_STAGE = S::POSITIONS / Args::KEY_BLOCK * WORDS;
                u8 *at = stage(i / PER_STAGE) + i % PER_STAGE / WORDS * S::SCORE_DIM * S::KEY_ROW
                    + DIM * S::KEY_ROW + i % WORDS * 16;
                *reinterpret_cast<uint4 *>(at) = uint4{};
            }
        }
        constexpr u32 PIECES = (S::VALUE_ROW - 2 * DIM) / 8;
        for (u32 i = threadIdx.x; i < S::STAGES * S::POSITIONS * PIECES; i += Args::THREADS) {
            u8 *at = stage(i / (S::POSITIONS * PIECES)) + S::KEYS
                + i / PIECES % S::POSITIONS * S::VALUE_ROW + 2 * DIM + i % PIECES * 8;
            *reinterpret_cast<uint2 *>(at) = uint2{};
        }
    }

    // The block of positions from `first`, `WHOLE`: all of them stored.
    template <bool WHOLE>
    __device__ __forceinline__ void copy_block(u8 *to, u32 first) const {
        const u32 lane = threadIdx.x % WARP;
        const u32 warp = threadIdx.x / WARP;
        const u16 *key = keys + static_cast<size_t>(first) * DIM + threadIdx.x * 8;
        const u32 element = threadIdx.x / 4;
        u8 *key_to = to + key_at(element, threadIdx.x % 4);
        constexpr u32 ELEMENTS = Args::THREADS / 4;
        static_assert(ELEMENTS % 8 == 0, "pieces are exchanged the same way");
#pragma unroll
        for (u32 block = 0; block < S::POSITIONS / Args::KEY_BLOCK; ++block) {
            const bool in = WHOLE || first + block * Args::KEY_BLOCK < stored;
#pragma unroll
            for (u32 i = 0; i < (DIM + ELEMENTS - 1) / ELEMENTS; ++i) {
                if (DIM % ELEMENTS == 0 || i * ELEMENTS + element < DIM) {
                    const u16 *from = key + (block * DIM + i * ELEMENTS) * Args::KEY_BLOCK;
                    copy_async<16>(key_to + (block * S::SCORE_DIM + i * ELEMENTS) * S::KEY_ROW,
                                   in ? from : keys, in);
                }
            }
        }
        constexpr u32 BYTES = DIM % 8 == 0 ? 16 : 8;
        constexpr u32 PIECES = 2 * DIM / BYTES;
        // Rows that a warp copies at once.
        constexpr u32 AT_ONCE = WARP / PIECES;
        constexpr u32 STEP = WARPS * AT_ONCE;
        static_assert(AT_ONCE > 0 && S::POSITIONS % STEP == 0, "rows go round");
        const u32 row = warp * AT_ONCE + lane / PIECES;
        const u32 byte = lane % PIECES * BYTES;
        const u16 *value = values + static_cast<size_t>(first + row) * DIM + byte / 2;
        u8 *value_to = to + S::KEYS + row * S::VALUE_ROW + byte;
        if (lane < AT_ONCE * PIECES) {
#pragma unroll
            for (u32 i = 0; i < S::POSITIONS / STEP; ++i) {
                // Zero where nothing is stored: its weight is zero, but zero by NaN is not.
                const bool in = WHOLE || first + row + i * STEP < stored;
                const u16 *from = value + i * STEP * DIM;
                copy_async<BYTES>(value_to + i * STEP * S::VALUE_ROW, in ? from : values, in);
            }
        }
    }

    __device__ __forceinline__ void fill(u32 block, u32 blocks) const {
        if (block < blocks) {
            u8 *to = stage(block);
            const u32 first = block * S::POSITIONS;
            if (first + S::POSITIONS <= stored) {
                copy_block<true>(to, first);
            } else {
                copy_block<false>(to, first);
            }
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    }

    __device__ __forceinline__ void run(u32 head, u32 first, u32 count) const {
        const u32 lane = threadIdx.x % WARP;
        const u32 warp = threadIdx.x / WARP;
        const u32 g = lane / 4;
        const u32 q = lane % 4;
        const size_t width = static_cast<size_t>(args.heads + 2 * args.kv_heads) * DIM;
        const u32 first_position = stored - count;
        const u32 blocks = (stored + S::POSITIONS - 1) / S::POSITIONS;

        // Queries as halves, and what undoes their powers of two.
        u8 *queries = reinterpret_cast<u8 *>(shared) + warp * 16 * S::QUERY_ROW;
        constexpr u32 LOW = Args::TILE_ROWS * S::QUERY_ROW;
        const u8 *query_row = queries + lane % 16 * S::QUERY_ROW + lane / 16 * 16;
        u32 kept[S::QUERIES_IN_REGISTERS ? 2 * S::STEPS : 1][4];
        f32 undo[2] = {1.0f, 1.0f};
        if constexpr (S::QUERIES_IN_REGISTERS) {
#pragma unroll
            for (u32 r = 0; r < 2; ++r) {
                const u32 row = warp * 16 + 8 * r + g;
                const f32 *from = args.qkv + (first + row) * width + head * DIM;
                float2 x[2 * S::STEPS];
                f32 peak = 0.0f;
#pragma unroll
                for (u32 i = 0; i < 2 * S::STEPS; ++i) {
                    const u32 element = 8 * i + 2 * q;
                    const bool in = row < count && element < DIM;
                    x[i] = in ? *reinterpret_cast<const float2 *>(from + element) : float2{};
                    peak = fmaxf(peak, fmaxf(fabsf(x[i].x), fabsf(x[i].y)));
                }
                peak = fmaxf(peak, __shfl_xor_sync(ALL, peak, 1));
                peak = fmaxf(peak, __shfl_xor_sync(ALL, peak, 2));
                const f32 scale = scale_of(peak, undo[r]);
#pragma unroll
                for (u32 i = 0; i < 2 * S::STEPS; ++i) {
                    split(x[i].x * scale, x[i].y * scale, kept[i / 2 * 2][i % 2 * 2 + r],
                          kept[i / 2 * 2 + 1][i % 2 * 2 + r]);
                }
            }
        } else {
            for (u32 r = 0; r < 16; ++r) {
                const u32 row = warp * 16 + r;
                const f32 *from = args.qkv + (first + row) * width + head * DIM;
                constexpr u32 PAIRS = (S::SCORE_DIM / 2 + WARP - 1) / WARP;
                float2 x[PAIRS];
                f32 peak = 0.0f;
#pragma unroll
                for (u32 i = 0; i < PAIRS; ++i) {
                    const u32 element = 2 * (i * WARP + lane);
                    const bool in = row < count && element < DIM;
                    x[i] = in ? *reinterpret_cast<const float2 *>(from + element) : float2{};
                    peak = fmaxf(peak, fmaxf(fabsf(x[i].x), fabsf(x[i].y)));
                }
#pragma unroll
                for (u32 step = 1; step < WARP; step *= 2) {
                    peak = fmaxf(peak, __shfl_xor_sync(ALL, peak, step));
                }
                f32 inverse;
                const f32 scale = scale_of(peak, inverse);
                undo[0] = r == g ? inverse : undo[0];
                undo[1] = r == g + 8 ? inverse : undo[1];
#pragma unroll
                for (u32 i = 0; i < PAIRS; ++i) {
                    const u32 element = 2 * (i * WARP + lane);
                    if (element < S::SCORE_DIM) {
                        u32 high;
                        u32 low;
                        split(x[i].x * scale, x[i].y * scale, high, low);
                        u8 *to = queries + r * S::QUERY_ROW + 2 * element;
                        *reinterpret_cast<u32 *>(to) = high;
                        *reinterpret_cast<u32 *>(to + LOW) = low;
                    }
                }
            }
            __syncwarp();
        }
        clear_padding();
#pragma unroll
        for (u32 i = 0; i < S::STAGES; ++i) {
            fill(i, blocks);
        }

        // Scores are powers of two in units of ln 2.
        const f32 unit = 1.44269504088896340736f / sqrtf(static_cast<f32>(DIM));
        undo[0] *= unit;
        undo[1] *= unit;
        const f32 infinity = __uint_as_float(0x7f800000u);
        const u32 row_positions[2] = {first_position + warp * 16 + g,
                                      first_position + warp * 16 + g + 8};
        // Beyond the tile's rows, a row sees what the last one sees.
        const u32 warp_last = min(first_position + warp * 16 + 15, stored - 1);
        const bool warp_in = warp * 16 < count;
        f32 peaks[2] = {-infinity, -infinity};
        f32 sums[2] = {};
        f32 mixed[S::TILES][4] = {};
        for (u32 block = 0; block < blocks; ++block) {
            asm volatile("cp.async.wait_group %0;" :: "n"(S::STAGES - 1) : "memory");
            __syncthreads();
            const u8 *now = stage(block);
            const u32 first_key = block * S::POSITIONS;
            if (warp_in && first_key <= warp_last) {
                constexpr u32 KEY_TILES = S::POSITIONS / 8;
                f32 scores[KEY_TILES][4] = {};
                // Of the four matrices of a load: which half of 16 elements, which of 16 positions.
                const u32 in_step = lane % 16;
                const u32 half = lane / 16;
#pragma unroll
                for (u32 step = 0; step < S::STEPS; ++step) {
                    u32 high[4];
                    u32 low[4];
                    if constexpr (!S::QUERIES_IN_REGISTERS) {
                        load_matrices(high, query_row + 32 * step);
                        load_matrices(low, query_row + 32 * step + LOW);
                    } else {
#pragma unroll
                        for (u32 i = 0; i < 4; ++i) {
                            high[i] = kept[2 * step][i];
                            low[i] = kept[2 * step + 1][i];
                        }
                    }
#pragma unroll
                    for (u32 pair = 0; pair < KEY_TILES / 2; ++pair) {
                        u32 b[4];
                        load_transposed(b, now + pair / 2 * S::SCORE_DIM * S::KEY_ROW
                                               + key_at(16 * step + in_step, pair % 2 * 2 + half));
                        multiply(scores[2 * pair], high, b[0], b[1]);
                        multiply(scores[2 * pair + 1], high, b[2], b[3]);
                        multiply(scores[2 * pair], low, b[0], b[1]);
                        multiply(scores[2 * pair + 1], low, b[2], b[3]);
                    }
                }

                weigh(scores, mixed, peaks, sums, undo, row_positions, first_key, q,
                      first_key + S::POSITIONS - 1 > first_position + warp * 16);
#pragma unroll
                for (u32 step = 0; step < KEY_TILES / 2; ++step) {
                    u32 high[4];
                    u32 low[4];
#pragma unroll
                    for (u32 i = 0; i < 4; ++i) {
                        const f32(&from)[4] = scores[2 * step + i / 2];
                        split(from[i % 2 * 2], from[i % 2 * 2 + 1], high[i], low[i]);
                    }
                    const u8 *value_row =
                        now + S::KEYS + (16 * step + in_step) * S::VALUE_ROW + 16 * half;
#pragma unroll
                    for (u32 pair = 0; pair < (S::TILES + 1) / 2; ++pair) {
                        u32 b[4];
                        // An odd tile at the end is loaded twice: there is nothing behind it.
                        const bool both = 2 * pair + 1 < S::TILES;
                        load_transposed(b, value_row + 32 * pair - (both ? 0 : 16 * half));
                        multiply(mixed[2 * pair], high, b[0], b[1]);
                        multiply(mixed[2 * pair], low, b[0], b[1]);
                        if (2 * pair + 1 < S::TILES) {
                            multiply(mixed[2 * pair + 1], high, b[2], b[3]);
                            multiply(mixed[2 * pair + 1], low, b[2], b[3]);
                        }
                    }
                }
            }
            __syncthreads();
            fill(block + S::STAGES, blocks);
        }

#pragma unroll
        for (u32 r = 0; r < 2; ++r) {
            f32 sum = sums[r];
            sum += __shfl_xor_sync(ALL, sum, 1);
            sum += __shfl_xor_sync(ALL, sum, 2);
            const u32 row = warp * 16 + 8 * r + g;
            if (row >= count) {
                continue;
            }
            const size_t out_row = first + row;
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
};

template <u32 DIM>
__device__ __forceinline__ void attend_rows(const Args &args) {
    // All heads of a tile, then the next: the host puts the longest tiles first.
    const u32 unit = blockIdx.y * gridDim.x + blockIdx.x;
    const u32 tile = unit / args.heads;
    const u32 head = unit % args.heads;
    const u32 first = args.tiles[2 * tile];
    const u32 count = args.tiles[2 * tile + 1];
    const u32 kv_head = head / (args.heads / args.kv_heads);
    const size_t start = (static_cast<size_t>(args.slots[first]) * args.kv_heads + kv_head)
        * args.capacity * DIM;
    const u32 stored = args.positions[first] + count;
    Tile<DIM>{args, args.keys + start, args.values + start, stored}.run(head, first, count);
}

}  // namespace
