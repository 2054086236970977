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
// Named barrier of the sums of squares.
constexpr u32 SQUARES = 1;

// c += a (16 x 32, unsigned) by b (32 x 8, signed).
__device__ __forceinline__ void multiply(i32 (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ f32 tree_step(f32 x, u32 distance) {
    return x + __shfl_xor_sync(ALL, x, distance);
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
    __shared__ __align__(16) f32 peaks[WARPS];
    __shared__ f32 least[WARPS];
    __shared__ f32 row_unit;
    // Of the block's features: units of their weights, residual.
    __shared__ f32 held[FINISH == STORE ? 1 : 2][WARPS * WARP];

    const u32 lane = threadIdx.x % WARP;
    const u32 warp = threadIdx.x / WARP;
    const bool helper = warp == WARPS;
    const u32 first = blockIdx.x * args.block_pairs;
    const u32 count = min(args.block_pairs, (args.row_tiles + 1) / PAIR - first);
    const u32 tile_row_bytes = args.col_tiles * TILE_BYTES;
    const u32 stage_bytes = PAIR * tile_row_bytes;
    // (pairs of the block, WARPS, 32) sums of a warp's columns.
    i32 *partial = reinterpret_cast<i32 *>(shared + args.stages * stage_bytes);

    MARK(0);
    launch_dependents();
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
    const auto norm_of = [&](u32 i) {
        const u32 col = (warp + i * WARPS) * 128 + lane * 4;
        return args.norm != nullptr && col < args.cols
            ? __ldg(reinterpret_cast<const float4 *>(args.norm + col))
            : make_float4(1.0f, 1.0f, 1.0f, 1.0f);
    };
    if (helper) {
        if (lane == 0) {
            for (u32 stage = 0; stage < args.stages; ++stage) {
                barrier_init(shared_address(&full[stage]), 1);
                barrier_init(shared_address(&empty[stage]), WARPS);
            }
            barriers_ready();
            for (u32 pair = 0; pair < min(args.stages, count); ++pair) {
                fetch(pair, pair);
            }
        }
    } else {
        f32 low = 3e38f;
#pragma unroll
        for (u32 i = 0; i < N; ++i) {
            const float4 weight = norm_of(i);
            low = fminf(low, fminf(fminf(fabsf(weight.x), fabsf(weight.y)),
                                   fminf(fabsf(weight.z), fabsf(weight.w))));
        }
        low = __uint_as_float(__reduce_min_sync(ALL, __float_as_uint(low)));
        if (lane == 0) {
            least[warp] = low;
        }
        const u32 feature = first * FEATURES + threadIdx.x;
        if (threadIdx.x < count * FEATURES && feature < args.features) {
            const u32 at = FINISH == GATE ? (first + threadIdx.x / 16) * 32 + threadIdx.x % 16
                                          : feature;
            held[0][threadIdx.x] = __ldg(args.units + at);
            if (FINISH == GATE) {
                held[1][threadIdx.x] = __ldg(args.units + at + 16);
            }
        }
    }
    __syncthreads();
    MARK(1);
    // Two passes, the first for nothing but to have the instructions at hand when the row comes.
    u32 passes;
    asm volatile("mov.u32 %0, 2;" : "=r"(passes));
#pragma unroll 1
    for (u32 pass = 1; pass <= passes; ++pass) {
        const bool real = pass == passes;
        const bool awaited = real && args.awaited != 0;
        // The least peak, PEAK_MIN times the rms, matters to rows of next to nothing only. The rms is at
        // most the greatest number and √eps, and that number at most peak / least weight: so a peak
        // above `slack · peak + margin` need not know the rms. (A least weight of 0 makes it infinite.)
        f32 low = least[0];
#pragma unroll
        for (u32 i = 1; i < WARPS; ++i) {
            low = fminf(low, least[i]);
        }
        const f32 slack = args.norm != nullptr ? 1.1f * PEAK_MIN / low : 0.0f;
        const f32 margin = args.norm != nullptr ? 1.1f * PEAK_MIN * sqrtf(args.eps) : -1.0f;
        float4 x[N], weight[N];
#pragma unroll
        for (u32 i = 0; i < N; ++i) {
            weight[i] = norm_of(i);
        }
        if (real && args.awaited == 0) {
            wait_for_dependencies();
        }
        f32 peak = 0.0f;
        if (helper) {
            if (FINISH == ADD) {
                const u32 features = min(args.features - first * FEATURES, count * FEATURES);
                for (u32 index = lane; index < min(features, WARPS * WARP); index += WARP) {
                    f32 rest;
                    do {
                        rest = load_fresh(args.residual + first * FEATURES + index);
                    } while (awaited && !is_written(rest));
                    held[1][index] = rest;
                }
            }
        } else {
            bool complete;
            do {
                complete = true;
#pragma unroll
                for (u32 i = 0; i < N; ++i) {
                    const u32 col = (warp + i * WARPS) * 128 + lane * 4;
                    x[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                    if (col < args.cols) {
                        x[i] = load_fresh4(args.x + col);
                    }
                }
#pragma unroll
                for (u32 i = 0; i < N; ++i) {
                    complete = complete && is_written(x[i].x) && is_written(x[i].y)
                        && is_written(x[i].z) && is_written(x[i].w);
                }
            } while (awaited && !complete);
            if (real) MARK(3);
#pragma unroll
            for (u32 i = 0; i < N; ++i) {
                const float4 product =
                    make_float4(x[i].x * weight[i].x, x[i].y * weight[i].y, x[i].z * weight[i].z,
                                x[i].w * weight[i].w);
                peak = fmaxf(peak, greatest(product));
            }
            peak = warp_peak(peak);
            if (lane == 0) {
                peaks[warp] = peak;
            }
        }
        __syncthreads();
        if (real) MARK(4);
        peak = peaks[lane % WARPS];
        peak = warp_peak(peak);
        if (helper && real && args.clear_words != 0) {
            // Ordered before what this block writes: the fence, then the block's last barrier.
            const uint4 mark = make_uint4(UNWRITTEN, UNWRITTEN, UNWRITTEN, UNWRITTEN);
            for (u32 at = (blockIdx.x * WARP + lane) * 4; at < args.clear_words;
                 at += gridDim.x * WARP * 4) {
                *reinterpret_cast<uint4 *>(args.clear + at) = mark;
            }
            __threadfence();
        }
        const bool plain = peak > slack * peak + margin;
        if (args.norm == nullptr) {
            peak = fmaxf(peak, PEAK_MIN);
        }
        f32 inverse_rms = 1.0f;
        // A row of next to nothing is quantised by its rms.
        const bool late = plain || args.norm == nullptr;
        i32 value_sum = 0;
        u32 words[N];
        const auto sum_squares = [&]() {
            if (args.norm == nullptr) {
                return;
            }
            f32 sum[N];
#pragma unroll
            for (u32 i = 0; i < N; ++i) {
                sum[i] = (x[i].x * x[i].x + x[i].y * x[i].y)
                    + (x[i].z * x[i].z + x[i].w * x[i].w);
            }
#pragma unroll
            for (u32 distance = 1; distance < WARP; distance *= 2) {
#pragma unroll
                for (u32 i = 0; i < N; ++i) {
                    sum[i] = tree_step(sum[i], distance);
                }
            }
            if (lane == 0) {
#pragma unroll
                for (u32 i = 0; i < N; ++i) {
                    squares[warp + i * WARPS] = sum[i];
                }
            }
        };
        const auto find_rms = [&]() {
            if (args.norm == nullptr) {
                return;
            }
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
                sum = tree_step(sum, distance);
            }
            const f32 mean = __fdiv_rn(sum, static_cast<f32>(args.cols));
            inverse_rms = __fdiv_rn(1.0f, __fsqrt_rn(mean + args.eps));
        };
        if (!late) {
            if (!helper) {
                sum_squares();
            }
            __syncthreads();
            find_rms();
            peak = fmaxf(fmaxf(peak, __fdiv_rn(PEAK_MIN, inverse_rms)), 1.17549435e-38f);
        }
        if (helper) {
            if (late) {
                asm volatile("bar.sync %0, %1;" ::"r"(SQUARES), "r"(Args::THREADS) : "memory");
                find_rms();
                // Never more than the peak, but for NaN in the row, whose unit becomes NaN.
                if (args.norm != nullptr) {
                    peak = fmaxf(peak, 1.17549435e-38f);
                }
            }
            if (lane == 0) {
                const f32 unit = __fdiv_rn(peak, 127.0f);
                row_unit = args.norm != nullptr ? unit * inverse_rms : unit;
                if (real) {
                    u32 stage = 0, phase = 0;
                    for (u32 pair = args.stages; pair < count; ++pair) {
                        barrier_wait(shared_address(&empty[stage]), phase);
                        fetch(pair, stage);
                        if (++stage == args.stages) {
                            stage = 0;
                            phase ^= 1;
                        }
                    }
                }
            }
        } else {
            const f32 factor = __fdiv_rn(127.0f, peak);
            // |x · factor| rounds to 127 at most. Adding 1.5 · 2^23 rounds half to even and leaves
            // the integer in the low bits.
            constexpr f32 ROUND = 12582912.0f;
#pragma unroll
            for (u32 i = 0; i < N; ++i) {
                const u32 a = __float_as_uint(x[i].x * weight[i].x * factor + ROUND);
                const u32 b = __float_as_uint(x[i].y * weight[i].y * factor + ROUND);
                const u32 c = __float_as_uint(x[i].z * weight[i].z * factor + ROUND);
                const u32 d = __float_as_uint(x[i].w * weight[i].w * factor + ROUND);
                words[i] = __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040),
                                       0x5410);
                asm("dp4a.s32.s32 %0, %1, %2, %0;"
                    : "+r"(value_sum)
                    : "r"(words[i]), "r"(0x01010101));
            }
            value_sum = __reduce_add_sync(ALL, value_sum);
            if (late) {
                sum_squares();
                asm volatile("bar.arrive %0, %1;" ::"r"(SQUARES), "r"(Args::THREADS) : "memory");
            }
            // A lane's word is that of columns 32 j + 16 h + 4 q .. + 4 with j = lane / 8, h = lane
            // / 4 % 2, q = lane % 4: a word that this lane gives the tensor core for column lane /
            // 4 of B. All other words of that column are zero, so each column of the product holds
            // the sum of its own words' columns. The codes of j stay where they are, times 4^j; the
            // tensor core takes them together with those below, as m_j = Σ_(i <= j) 4^i codes_i,
            // and takes away m_(j - 1), which costs one mask less than separating them.
            const u32 own = lane / 4;
            const u32 q = lane % 4;
            const auto column = [&](u32 i, u32 j, u32 (&b)[2]) {
                const u32 word = own / 2 == j ? words[i] : own / 2 == j + 1 ? __vneg4(words[i]) : 0;
                b[0] = own % 2 == 0 ? word : 0;
                b[1] = own % 2 == 0 ? 0 : word;
            };
            // Few words for several pairs: the fragments stay in registers.
            constexpr bool HOLD = N <= 2 && FINISH != ADD;
            u32 b[HOLD ? N : 1][4][2];
#pragma unroll
            for (u32 i = 0; HOLD && i < N; ++i) {
#pragma unroll
                for (u32 j = 0; j < 4; ++j) {
                    column(i, j, b[i][j]);
                }
            }
            if (real) MARK(5);
            const u8 *lane_codes = shared + lane * 16;
            u32 stage = 0, phase = 0;
            const u32 turns = real ? count : min(count, args.stages);
#pragma unroll 1
            for (u32 pair = 0; pair < turns; ++pair) {
                if (real) {
                    barrier_wait(shared_address(&full[stage]), phase);
                }
                const u8 *codes = lane_codes + stage * stage_bytes;
                i32 c[PAIR][4] = {};
#pragma unroll
                for (u32 i = 0; i < N; ++i) {
                    // Beyond the last tile the words are zero.
                    const u32 tile = min(warp + i * WARPS, args.col_tiles - 1);
                    uint4 a[PAIR];
#pragma unroll
                    for (u32 t = 0; t < PAIR; ++t) {
                        a[t] = *reinterpret_cast<const uint4 *>(codes + t * tile_row_bytes
                                                                + tile * TILE_BYTES);
                    }
#pragma unroll
                    for (u32 j = 0; j < 4; ++j) {
                        if (!HOLD) {
                            column(i, j, b[0][j]);
                        }
                        const u32 mask = 0x01010101u * ((4u << (2 * j)) - 1);
#pragma unroll
                        for (u32 t = 0; t < PAIR; ++t) {
                            const u32 masked[4] = {a[t].x & mask, a[t].y & mask, a[t].z & mask,
                                                   a[t].w & mask};
                            multiply(c[t], masked, b[HOLD ? i : 0][j]);
                        }
                    }
                }
                if (real && args.stages < count) {
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
                    sums[t][0] = (c[t][0] + c[t][1]) >> (2 * q);
                    sums[t][1] = (c[t][2] + c[t][3]) >> (2 * q);
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
                partial[(pair * WARPS + warp) * 32 + q * 8 + own] =
                    (q % 2 ? odd : even) - value_sum;
            }
        }
        if (real) MARK(6);
        __syncthreads();
        if (real) MARK(7);
        const f32 unit = row_unit;
        for (u32 index = threadIdx.x; index < count * FEATURES; index += Args::THREADS) {
            if (first * FEATURES + index >= args.features) {
                break;
            }
            const u32 at = FINISH == GATE ? (first + index / 16) * 32 + index % 16
                                          : first * FEATURES + index;
            const bool ahead = index < WARPS * WARP;
            f32 weight_unit = ahead ? held[0][index] : 0.0f;
            f32 other_unit = ahead && FINISH == GATE ? held[1][index] : 0.0f;
            f32 rest = ahead && FINISH == ADD ? held[1][index] : 0.0f;
            if (!ahead) {
                // A block of more features than threads.
                weight_unit = __ldg(args.units + at);
                if (FINISH == GATE) {
                    other_unit = __ldg(args.units + at + 16);
                }
                if (FINISH == ADD) {
                    do {
                        rest = load_fresh(args.residual + at);
                    } while (awaited && !is_written(rest));
                }
            }
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
                f32 other = static_cast<f32>(up) * unit * other_unit;
                if (args.bias != nullptr) {
                    other = other + __ldg(args.bias + at + 16);
                }
                value = activate(args.activation, value) * other;
            } else if (FINISH == ADD) {
                value = rest + value;
            }
            if (real) {
                store_fresh(args.out + first * FEATURES + index, value);
            }
        }
        if (real) MARK(8);
    }
}

}  // namespace
