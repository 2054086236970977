// A ternary linear of one row; contract.cuh says what it computes. A thread block has its weights
// on the way to shared memory before the row is there; all its warps quantise the row, each for the
// columns that it then multiplies by all row tiles of the block. Sums of warps meet in shared
// memory. One more warp fetches the weights and finds the row's unit.
#pragma once
#include "decode_row.cuh"

using Args = DecodeLinearArgs;

namespace {

constexpr u32 WARPS = Args::THREADS / WARP - 1;
// Named barriers: the sums of squares are there; the peak is.
constexpr u32 SQUARES = 1;
constexpr u32 PEAK = 2;
#ifndef CHAINS
#define CHAINS 1
#endif

template <u32 BARRIER>
__device__ __forceinline__ void meet() {
    asm volatile("bar.sync %0, %1;" ::"n"(BARRIER), "n"(Args::THREADS) : "memory");
}

// As `meet`, without waiting for the others.
template <u32 BARRIER>
__device__ __forceinline__ void announce() {
    asm volatile("bar.arrive %0, %1;" ::"n"(BARRIER), "n"(Args::THREADS) : "memory");
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
        wait_for_dependencies();
        if (FINISH == ADD) {
#pragma unroll 1
            for (u32 index = lane; index < min(features, WARPS * WARP); index += WARP) {
                held[1][index] = args.out[first * FEATURES + index];
            }
        }
        __syncthreads();
        const float2 found = peaks[lane];
        const f32 peak = warp_peak(found.x);
        // What the warps do with a row of next to nothing (see there).
        const bool plain =
            args.norm == nullptr || is_plain(peak, warp_peak(found.y), args.eps);
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
        wait_for_dependencies();
        MARK(2);
#pragma unroll
        for (u32 i = 0; i < N; ++i) {
            const u32 col = (warp + i * WARPS) * 128 + lane * 4;
            if (col < args.cols) {
                x[i] = *reinterpret_cast<const float4 *>(args.x + col);
            }
        }
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
        bool plain = true;
        if (args.norm == nullptr) {
            peak = fmaxf(peak, PEAK_MIN);
        } else {
            plain = is_plain(peak, large, args.eps);
        }
        i32 value_sum;
        u32 words[N];
#pragma unroll 1
        for (;;) {
            const f32 factor = __fdiv_rn(127.0f, peak);
            value_sum = 0;
#pragma unroll
            for (u32 i = 0; i < N; ++i) {
                words[i] = quantise(x[i], factor, value_sum);
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
                    multiply_tiles<CHAINS>(c, a, words[i]);
                }
            }
            // Lane (g, q) has the sum of row g + 8 (q % 2) of tile q / 2.
            partial[(pair * WARPS + warp) * 32 + lane % 4 * 8 + lane / 4] =
                sum_tiles<CHAINS>(c) - value_sum;
            // Behind a store that takes all codes of the stage: the copy that overwrites them has to
            // find their loads done.
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
            value = (ahead ? held[1][index] : args.out[at]) + value;
        }
        args.out[first * FEATURES + index] = value;
    }
    MARK(8);
}

}  // namespace
