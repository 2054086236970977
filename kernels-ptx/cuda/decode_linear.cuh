// A ternary linear of one row; contract.cuh says what it computes. A thread block has its weights
// on the way to shared memory before the row is there; all its warps quantise the row, each for the
// columns that it then multiplies by all row tiles of the block. Sums of warps meet in shared
// memory. One more warp fetches the weights and finds the row's unit.
#pragma once
#include "decode.cuh"

using Args = DecodeLinearArgs;

namespace {

enum Finish { STORE, ADD, GATE };

constexpr u32 WARPS = Args::THREADS / WARP - 1;
constexpr u32 TILE_BYTES = 512;
constexpr u32 PAIR = 2;
constexpr f32 PEAK_MIN = 1e-5f;
// Bytes of one request to the L2 cache.
constexpr u64 AHEAD_BYTES = 16384;
// Named barriers: the sums of squares are there; the peak is.
constexpr u32 SQUARES = 1;
constexpr u32 PEAK = 2;
#ifndef CHAINS
#define CHAINS 1
#endif

// c += a (16 x 32, unsigned) by b (32 x 8, signed).
__device__ __forceinline__ void multiply(i32 (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <u32 BARRIER>
__device__ __forceinline__ void meet() {
    asm volatile("bar.sync %0, %1;" ::"n"(BARRIER), "n"(Args::THREADS) : "memory");
}

// As `meet`, without waiting for the others.
template <u32 BARRIER>
__device__ __forceinline__ void announce() {
    asm volatile("bar.arrive %0, %1;" ::"n"(BARRIER), "n"(Args::THREADS) : "memory");
}

__device__ __forceinline__ f32 greatest(float4 x) {
    return fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w)));
}

__device__ __forceinline__ f32 activate(u32 function, f32 x) {
    if (function == Args::SILU) {
        return __fdiv_rn(x, 1.0f + expf32(-x));
    }
    const f32 positive = fmaxf(x, 0.0f);
    return function == Args::RELU2 ? positive * positive : positive;
}

// Rows of at most `TILES` tiles of 128 columns.
template <u32 TILES, Finish FINISH>
__device__ __forceinline__ void decode_linear(const Args &args) {
    // Tiles of columns of a warp: warp, warp + WARPS, ...
    constexpr u32 N = (TILES + WARPS - 1) / WARPS;
    // Features of a pair of row tiles.
    constexpr u32 FEATURES = FINISH == GATE ? 16 : 32;
    extern __shared__ __align__(128) unsigned char shared[];
    __shared__ u64 full[Args::STAGES_MAX];
    __shared__ u64 empty[Args::STAGES_MAX];
    __shared__ f32 squares[WARPS * N];
    // Of each warp: greatest product of weight and number, greatest number.
    __shared__ float2 peaks[WARP];
    __shared__ f32 row_peak;
    __shared__ f32 row_unit;
    // Of the block's features: units of their weights, residual.
    __shared__ f32 held[FINISH == STORE ? 1 : 2][WARPS * WARP];

    const u32 lane = threadIdx.x % WARP;
    const u32 warp = threadIdx.x / WARP;
    const u32 first = blockIdx.x * args.block_pairs;
    const u32 count = min(args.block_pairs, (args.row_tiles + 1) / PAIR - first);
    const u32 features = min(count * FEATURES, args.features - first * FEATURES);
    const u32 tile_row_bytes = args.col_tiles * TILE_BYTES;
    const u32 stage_bytes = PAIR * tile_row_bytes;
    // (pairs of the block, WARPS, 32) sums of a warp's columns.
    i32 *partial = reinterpret_cast<i32 *>(shared + args.stages * stage_bytes);

    MARK(0);
    launch_dependents();
    if (warp == WARPS) {
        const auto fetch = [&](u32 pair, u32 stage) {
            // The last pair may be one tile row; the other is never stored.
            const u32 bytes = min(PAIR, args.row_tiles - (first + pair) * PAIR) * tile_row_bytes;
            const u32 barrier = shared_address(&full[stage]);
            barrier_expect(barrier, bytes);
            bulk_copy(shared_address(shared + stage * stage_bytes),
                      reinterpret_cast<const u8 *>(args.codes)
                          + static_cast<size_t>(first + pair) * stage_bytes,
                      bytes, barrier);
        };
        if (lane == 0) {
#pragma unroll 1
            for (u32 stage = 0; stage < args.stages; ++stage) {
                barrier_init(shared_address(&full[stage]), 1);
                barrier_init(shared_address(&empty[stage]), WARPS);
            }
            barriers_ready();
        }
        const u32 wanted = lane == 0 ? count : 0;
        u32 pair = 0;
#pragma unroll 1
        for (; pair < min(args.stages, wanted); ++pair) {
            fetch(pair, pair);
        }
        if (lane == 0) {
            // This block's slice of what comes later.
            const u64 bytes = static_cast<u64>(args.ahead_end - args.ahead);
            const u64 slice = (bytes / gridDim.x + 127) / 16 * 16;
            const u64 begin = min(bytes, slice * blockIdx.x), end = min(bytes, begin + slice);
#pragma unroll 1
            for (u64 at = begin; at < end; at += AHEAD_BYTES) {
                prefetch(args.ahead + at, static_cast<u32>(min(end - at, AHEAD_BYTES)));
            }
        }
        // Beyond WARPS there is nobody's peak.
        if (lane >= WARPS) {
            peaks[lane] = make_float2(0.0f, 0.0f);
        }
#pragma unroll 1
        for (u32 index = lane; index < min(features, WARPS * WARP); index += WARP) {
            const u32 at = FINISH == GATE ? (first + index / 16) * 32 + index % 16
                                          : first * FEATURES + index;
            held[0][index] = __ldg(args.units + at);
            if (FINISH == GATE) {
                held[1][index] = __ldg(args.units + at + 16);
            }
        }
        if (args.awaited == 0) {
            wait_for_dependencies();
        }
        if (FINISH == ADD) {
#pragma unroll 1
            for (u32 index = lane; index < min(features, WARPS * WARP); index += WARP) {
                f32 rest;
                do {
                    rest = load_fresh(args.residual + first * FEATURES + index);
                } while (args.awaited != 0 && !is_written(rest));
                held[1][index] = rest;
            }
        }
        __syncthreads();
        const float2 found = peaks[lane];
        const f32 peak = warp_peak(found.x);
        // What the warps do with a row of next to nothing (see there).
        const bool plain = args.norm == nullptr
            || peak > 1.1f * PEAK_MIN * (warp_peak(found.y) + fmaxf(args.eps, 1.0f));
        if (args.clear_words != 0) {
            // Ordered before what this block writes: the fence, then the block's last barrier.
            const uint4 mark = make_uint4(UNWRITTEN, UNWRITTEN, UNWRITTEN, UNWRITTEN);
#pragma unroll 1
            for (u32 at = (blockIdx.x * WARP + lane) * 4; at < args.clear_words;
                 at += gridDim.x * WARP * 4) {
                *reinterpret_cast<uint4 *>(args.clear + at) = mark;
            }
            __threadfence();
        }
        meet<SQUARES>();
        f32 inverse_rms = 1.0f;
        f32 least = PEAK_MIN;
        if (args.norm != nullptr) {
            // The upper levels of the tree: stretches of a lane, then lanes.
            constexpr u32 LEAVES = (WARPS * N + WARP - 1) / WARP;
            constexpr u32 WIDTH = LEAVES <= 1 ? 1 : LEAVES <= 2 ? 2 : 4;
            f32 leaf[WIDTH];
#pragma unroll
            for (u32 i = 0; i < WIDTH; ++i) {
                const u32 index = lane * WIDTH + i;
                leaf[i] = index < WARPS * N ? squares[index] : 0.0f;
            }
#pragma unroll
            for (u32 width = WIDTH / 2; width > 0; width /= 2) {
#pragma unroll
                for (u32 i = 0; i < width; ++i) {
                    leaf[i] = leaf[2 * i] + leaf[2 * i + 1];
                }
            }
            f32 sum = leaf[0];
#pragma unroll
            for (u32 distance = 1; distance < WARP; distance *= 2) {
                sum = sum + __shfl_xor_sync(ALL, sum, distance);
            }
            const f32 mean = __fdiv_rn(sum, static_cast<f32>(args.cols));
            inverse_rms = __fdiv_rn(1.0f, __fsqrt_rn(mean + args.eps));
            least = fmaxf(__fdiv_rn(PEAK_MIN, inverse_rms), 1.17549435e-38f);
        }
        if (lane == 0) {
            const f32 bounded = fmaxf(peak, least);
            row_peak = bounded;
            row_unit = __fdiv_rn(bounded, 127.0f) * inverse_rms;
        }
        if (!plain) {
            // The warps take the peak from here and come once more.
            meet<PEAK>();
            meet<SQUARES>();
        }
        u32 stage = 0, phase = 0;
#pragma unroll 1
        for (; pair < wanted; ++pair) {
            barrier_wait(shared_address(&empty[stage]), phase);
            fetch(pair, stage);
            if (++stage == args.stages) {
                stage = 0;
                phase ^= 1;
            }
        }
    } else {
        float4 x[N], weight[N];
#pragma unroll
        for (u32 i = 0; i < N; ++i) {
            const u32 col = (warp + i * WARPS) * 128 + lane * 4;
            weight[i] = make_float4(1.0f, 1.0f, 1.0f, 1.0f);
            x[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (args.norm != nullptr && col < args.cols) {
                weight[i] = __ldg(reinterpret_cast<const float4 *>(args.norm + col));
            }
        }
        MARK(1);
        if (args.awaited == 0) {
            wait_for_dependencies();
        }
        MARK(2);
        bool complete;
        do {
            complete = true;
#pragma unroll
            for (u32 i = 0; i < N; ++i) {
                const u32 col = (warp + i * WARPS) * 128 + lane * 4;
                if (col < args.cols) {
                    x[i] = load_fresh4(args.x + col);
                }
            }
#pragma unroll
            for (u32 i = 0; i < N; ++i) {
                complete = complete && is_written(x[i].x) && is_written(x[i].y)
                    && is_written(x[i].z) && is_written(x[i].w);
            }
        } while (args.awaited != 0 && !complete);
        MARK(3);
        f32 peak = 0.0f, large = 0.0f;
        f32 sum[N];
#pragma unroll
        for (u32 i = 0; i < N; ++i) {
            sum[i] = (x[i].x * x[i].x + x[i].y * x[i].y) + (x[i].z * x[i].z + x[i].w * x[i].w);
            large = fmaxf(large, greatest(x[i]));
            x[i] = make_float4(x[i].x * weight[i].x, x[i].y * weight[i].y, x[i].z * weight[i].z,
                               x[i].w * weight[i].w);
            peak = fmaxf(peak, greatest(x[i]));
        }
        peak = warp_peak(peak);
        large = warp_peak(large);
        if (lane == 0) {
            peaks[warp] = make_float2(peak, large);
        }
        __syncthreads();
        MARK(4);
        const float2 found = peaks[lane];
        peak = warp_peak(found.x);
        large = warp_peak(found.y);
        // The least peak, PEAK_MIN times the rms, matters to rows of next to nothing only: the rms
        // is at most the greatest number and √eps, which is at most eps or 1. Such a row is quantised
        // once more when its rms is known.
        bool plain = true;
        if (args.norm == nullptr) {
            peak = fmaxf(peak, PEAK_MIN);
        } else {
            plain = peak > 1.1f * PEAK_MIN * (large + fmaxf(args.eps, 1.0f));
        }
        i32 value_sum;
        u32 words[N];
#pragma unroll 1
        for (;;) {
            const f32 factor = __fdiv_rn(127.0f, peak);
            // |x · factor| rounds to 127 at most. Adding 1.5 · 2^23 rounds half to even and leaves
            // the integer in the low bits.
            constexpr f32 ROUND = 12582912.0f;
            value_sum = 0;
#pragma unroll
            for (u32 i = 0; i < N; ++i) {
                const u32 a = __float_as_uint(x[i].x * factor + ROUND);
                const u32 b = __float_as_uint(x[i].y * factor + ROUND);
                const u32 c = __float_as_uint(x[i].z * factor + ROUND);
                const u32 d = __float_as_uint(x[i].w * factor + ROUND);
                words[i] = __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040),
                                       0x5410);
                asm("dp4a.s32.s32 %0, %1, %2, %0;"
                    : "+r"(value_sum)
                    : "r"(words[i]), "r"(0x01010101));
            }
            value_sum = __reduce_add_sync(ALL, value_sum);
#pragma unroll
            for (u32 distance = 1; distance < WARP; distance *= 2) {
#pragma unroll
                for (u32 i = 0; i < N; ++i) {
                    sum[i] = sum[i] + __shfl_xor_sync(ALL, sum[i], distance);
                }
            }
            if (lane == 0) {
#pragma unroll
                for (u32 i = 0; i < N; ++i) {
                    squares[warp + i * WARPS] = sum[i];
                }
            }
            announce<SQUARES>();
            if (plain) {
                break;
            }
            meet<PEAK>();
            peak = row_peak;
            plain = true;
        }
        MARK(5);
        // A lane's word is that of columns 32 j + 16 h + 4 q .. + 4 with j = lane / 8, h = lane / 4
        // % 2, q = lane % 4: a word that this lane gives the tensor core for column lane / 4 of B.
        // All other words of that column are zero, so each column of the product holds the sum of
        // its own words' columns. The codes of j stay where they are, times 4^j; the tensor core
        // takes them together with those below, as m_j = Σ_(i <= j) 4^i codes_i, and takes away
        // m_(j - 1), which costs one mask less than separating them.
        const u32 own = lane / 4;
        const u32 q = lane % 4;
        const u8 *lane_codes = shared + lane * 16 + warp * TILE_BYTES;
        u32 stage = 0, phase = 0;
#pragma unroll 1
        for (u32 pair = 0; pair < count; ++pair) {
            barrier_wait(shared_address(&full[stage]), phase);
            const u8 *codes = lane_codes + stage * stage_bytes;
            i32 c[PAIR][2][4] = {};
#pragma unroll
            for (u32 i = 0; i < N; ++i) {
                if (warp + i * WARPS < args.col_tiles) {
                    uint4 a[PAIR];
#pragma unroll
                    for (u32 t = 0; t < PAIR; ++t) {
                        a[t] = *reinterpret_cast<const uint4 *>(codes + t * tile_row_bytes
                                                                + i * WARPS * TILE_BYTES);
                    }
                    const u32 minus = __vneg4(words[i]);
#pragma unroll
                    for (u32 j = 0; j < 4; ++j) {
                        const u32 word =
                            own / 2 == j ? words[i] : own / 2 == j + 1 ? minus : 0;
                        const u32 b[2] = {own % 2 == 0 ? word : 0, own % 2 == 0 ? 0 : word};
                        const u32 mask = 0x01010101u * ((4u << (2 * j)) - 1);
#pragma unroll
                        for (u32 t = 0; t < PAIR; ++t) {
                            const u32 masked[4] = {a[t].x & mask, a[t].y & mask, a[t].z & mask,
                                                   a[t].w & mask};
                            multiply(c[t][CHAINS == 2 ? j % 2 : 0], masked, b);
                        }
                    }
                }
            }
            if (args.stages < count) {
                __syncwarp();
                if (lane == 0) {
                    barrier_arrive(shared_address(&empty[stage]));
                }
            }
            if (++stage == args.stages) {
                stage = 0;
                phase ^= 1;
            }
            // Columns 2 q and 2 q + 1 of rows g and g + 8.
            i32 sums[PAIR][2];
#pragma unroll
            for (u32 t = 0; t < PAIR; ++t) {
#pragma unroll
                for (u32 k = 0; k < 2; ++k) {
                    i32 both = c[t][0][2 * k] + c[t][0][2 * k + 1];
                    if (CHAINS == 2) {
                        both += c[t][1][2 * k] + c[t][1][2 * k + 1];
                    }
                    sums[t][k] = both >> (2 * q);
                }
            }
#pragma unroll
            for (u32 distance = 1; distance < 4; distance *= 2) {
#pragma unroll
                for (u32 t = 0; t < PAIR; ++t) {
                    sums[t][0] += __shfl_xor_sync(ALL, sums[t][0], distance);
                    sums[t][1] += __shfl_xor_sync(ALL, sums[t][1], distance);
                }
            }
            // Lane (g, q) writes row g + 8 (q % 2) of tile q / 2.
            const i32 even = q < 2 ? sums[0][0] : sums[1][0];
            const i32 odd = q < 2 ? sums[0][1] : sums[1][1];
            partial[(pair * WARPS + warp) * 32 + q * 8 + own] = (q % 2 ? odd : even) - value_sum;
        }
    }
    MARK(6);
    __syncthreads();
    MARK(7);
    const f32 unit = row_unit;
#pragma unroll 1
    for (u32 index = threadIdx.x; index < features; index += Args::THREADS) {
        const u32 at =
            FINISH == GATE ? (first + index / 16) * 32 + index % 16 : first * FEATURES + index;
        // A block of more features than it holds asks for the rest now.
        const bool ahead = index < WARPS * WARP;
        const f32 weight_unit = ahead ? held[0][index] : __ldg(args.units + at);
        const i32 *sums = partial + index / FEATURES * WARPS * 32 + index % FEATURES;
        i32 sum = 0;
#pragma unroll
        for (u32 w = 0; w < WARPS; ++w) {
            sum += sums[w * 32];
        }
        f32 value = static_cast<f32>(sum) * unit * weight_unit;
        if (args.bias != nullptr) {
            value = value + __ldg(args.bias + at);
        }
        if (FINISH == GATE) {
            i32 up = 0;
#pragma unroll
            for (u32 w = 0; w < WARPS; ++w) {
                up += sums[w * 32 + 16];
            }
            f32 other = static_cast<f32>(up) * unit
                * (ahead ? held[1][index] : __ldg(args.units + at + 16));
            if (args.bias != nullptr) {
                other = other + __ldg(args.bias + at + 16);
            }
            value = activate(args.activation, value) * other;
        } else if (FINISH == ADD) {
            f32 rest = ahead ? held[1][index] : load_fresh(args.residual + at);
            while (args.awaited != 0 && !is_written(rest)) {
                rest = load_fresh(args.residual + at);
            }
            value = rest + value;
        }
        store_fresh(args.out + first * FEATURES + index, value);
    }
    MARK(8);
}

}  // namespace
