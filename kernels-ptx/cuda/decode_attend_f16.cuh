// Attention of single rows over a cache of halves, on tensor cores: queries and weights are split
// into two halves each, one above the other in the rows of the fragment.
#pragma once
#include "decode_attend.cuh"

namespace {

// Positions of a unit: those that the tensor core sums over at once.
constexpr u32 UNIT = 16;
// Bytes from row to row of a unit's keys: an odd number of 16 bytes meets every bank.
constexpr u32 KEY_STRIDE = 48;
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

template <u32 CLUSTER, u32 DIM>
__device__ __forceinline__ void decode_attend(const Args &args) {
    constexpr u32 QUERY_STRIDE = DIM * 2 + 16;
    constexpr u32 STEPS = DIM / 16;
    extern __shared__ __align__(128) unsigned char shared[];
    __shared__ __align__(16) u16 queries[16][QUERY_STRIDE / 2];
    __shared__ f32 scales[HEADS];
    __shared__ u16 fresh[2][DIM];
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
    const u32 lane = part.lane, warp = part.warp, dim = part.dim, rank = part.rank;
    u16 *keys = reinterpret_cast<u16 *>(args.keys) + part.start;
    u16 *values = reinterpret_cast<u16 *>(args.values) + part.start;
    const u32 value_stride = ((dim * 2 + 15) / 16 | 1) * 16;
    const u32 slab_bytes = dim * KEY_STRIDE + UNIT * value_stride;
    u8 *slab = shared + warp * slab_bytes;
    const u32 slab_keys = shared_address(slab);
    const u32 slab_values = slab_keys + dim * KEY_STRIDE;
    const u32 last = part.units - 1;
    const u32 mine = rank + warp * part.ranks;
    const u32 stride = part.ranks * WARPS;

    const auto fetch = [&](u32 unit) {
        const u16 *from = keys + static_cast<size_t>(unit / 2) * BLOCK * dim + unit % 2 * UNIT;
#pragma unroll 1
        for (u32 at = lane; at < dim * 2; at += WARP) {
            copy<16>(slab_keys + at / 2 * KEY_STRIDE + at % 2 * 16,
                     from + at / 2 * BLOCK + at % 2 * 8, true);
        }
        // Behind the row's position stands anything; its weight is 0, so it had better be finite.
        const u32 valid = part.position + 1 - unit * UNIT;
        from = values + static_cast<size_t>(unit) * UNIT * dim;
        if (dim % 8 == 0) {
            const u32 chunks = dim / 8;
#pragma unroll 1
            for (u32 at = lane / 16; at < UNIT; at += 2) {
#pragma unroll 1
                for (u32 chunk = lane % 16; chunk < chunks; chunk += 16) {
                    copy<16>(slab_values + at * value_stride + chunk * 16,
                             from + at * dim + chunk * 8, at < valid);
                }
            }
        } else {
            const u32 chunks = dim / 4;
#pragma unroll 1
            for (u32 at = 0; at < UNIT; ++at) {
#pragma unroll 1
                for (u32 chunk = lane; chunk < chunks; chunk += WARP) {
                    copy<8>(slab_values + at * value_stride + chunk * 8,
                            from + at * dim + chunk * 4, at < valid);
                }
            }
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
    // Lane (g, q) has positions 2q and 2q + 1 (and 8 behind) of head g.
    const u32 g = lane / 4, q = lane % 4;
    f32 top = NONE, sum = 0.0f;
    f32 out[DIM / 8][4] = {};
    const u32 query = shared_address(&queries[lane % 16][lane / 16 * 8]);
    f32 factor = 0.0f;
    // One pass at least: all warps prepare the queries while the first keys are on the way.
    u32 unit = mine;
    do {
        if (unit < part.units) {
            fetch(unit);
        }
        if (unit == mine) {
            // Rows of no head, and columns behind the last.
#pragma unroll 1
            for (u32 at = threadIdx.x; at < 16 * QUERY_STRIDE / 4; at += Args::THREADS) {
                reinterpret_cast<u32 *>(queries)[at] = 0;
            }
            __syncthreads();
            const Angles<DIM> angles(args, part);
            MARK(1);
            if (args.awaited == 0) {
                wait_for_dependencies();
            }
            MARK(2);
            // A query is scaled by a power of two to put its peak to 2^9..2^10.
            f32 peak = 0.0f, held_low[DIM / 64], held_high[DIM / 64];
            const bool fresh_here = last % part.ranks == rank;
            take_row<DIM>(
                args, part, angles, fresh_here,
                [&](u32 task, u32 i, f32 low, f32 high) {
                    if (task >= part.heads) {
                        if (i < dim / 2) {
                            fresh[task - part.heads][i] = to_f16(low);
                            fresh[task - part.heads][i + dim / 2] = to_f16(high);
                        }
                        return;
                    }
                    peak = i < WARP ? 0.0f : peak;
                    peak = fmaxf(peak, fmaxf(fabsf(low), fabsf(high)));
#pragma unroll
                    for (u32 k = 0; k < DIM / 64; ++k) {
                        if (i / WARP == k) {
                            held_low[k] = low;
                            held_high[k] = high;
                        }
                    }
                },
                [&](u32 task) {
                    if (task >= part.heads) {
                        return;
                    }
                    const u32 exponent = max(__float_as_uint(warp_peak(peak)) >> 23, 10u);
                    const f32 scale = __uint_as_float((263 - exponent) << 23);
                    if (lane == 0) {
                        scales[task] = __uint_as_float((exponent - 9) << 23);
                    }
#pragma unroll
                    for (u32 k = 0; k < DIM / 64; ++k) {
                        const u32 i = lane + k * WARP;
                        if (i < dim / 2) {
                            u32 high, low;
                            split(held_low[k] * scale, held_high[k] * scale, high, low);
                            queries[task][i] = static_cast<u16>(high);
                            queries[task][i + dim / 2] = static_cast<u16>(high >> 16);
                            queries[task + 8][i] = static_cast<u16>(low);
                            queries[task + 8][i + dim / 2] = static_cast<u16>(low >> 16);
                        }
                    }
                });
            MARK(3);
            __syncthreads();
            MARK(4);
            factor = args.factor * LOG2_E * (g < part.heads ? scales[g] : 0.0f);
        }
        if (unit < part.units) {
            asm volatile("cp.async.wait_all;" ::: "memory");
            __syncwarp();
            if (unit == last) {
                // What the copy brought for the new position is older than the position.
                const u32 place = part.position % UNIT;
                u16 *to_keys = keys + static_cast<size_t>(unit / 2) * BLOCK * dim
                    + part.position % BLOCK;
                u16 *to_values = values + static_cast<size_t>(part.position) * dim;
#pragma unroll 1
                for (u32 i = lane; i < dim; i += WARP) {
                    const u16 key = fresh[0][i], value = fresh[1][i];
                    *reinterpret_cast<u16 *>(slab + i * KEY_STRIDE + place * 2) = key;
                    *reinterpret_cast<u16 *>(slab + dim * KEY_STRIDE + place * value_stride
                                             + i * 2) = value;
                    to_keys[i * BLOCK] = key;
                    to_values[i] = value;
                }
                __syncwarp();
            }
            f32 s[2][2][4] = {};
#pragma unroll
            for (u32 k = 0; k < STEPS; ++k) {
                if (k * 16 < dim) {
                    u32 a[4], b[4];
                    load_matrices(a, query + k * 32);
                    // Beyond the last element the query is zero.
                    const u32 element = min(k * 16 + lane % 16, dim - 1);
                    load_transposed(b, slab_keys + element * KEY_STRIDE + lane / 16 * 16);
                    multiply(s[0][k % 2], a, b[0], b[1]);
                    multiply(s[1][k % 2], a, b[2], b[3]);
                }
            }
            f32 score[4];
            const u32 left = part.position - unit * UNIT;
            f32 now = top;
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                const f32(&t)[2][4] = s[i / 2];
                const f32 product = ((t[0][i % 2] + t[1][i % 2])
                                     + (t[0][i % 2 + 2] + t[1][i % 2 + 2])) * factor;
                score[i] = i / 2 * 8 + 2 * q + i % 2 <= left ? product : NONE;
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
            u32 weights[4];
            split(score[0], score[1], weights[0], weights[1]);
            split(score[2], score[3], weights[2], weights[3]);
            if (unit != mine) {
#pragma unroll
                for (u32 n = 0; n < DIM / 8; ++n) {
#pragma unroll
                    for (u32 i = 0; i < 4; ++i) {
                        // Head g, high and low.
                        out[n][i] *= fade;
                    }
                }
            }
#pragma unroll
            for (u32 n = 0; n < DIM / 8; n += 2) {
                if (n * 8 < dim) {
                    u32 b[4];
                    const u32 chunk = n + lane / 16;
                    load_transposed(b, slab_values + lane % 16 * value_stride
                                           + min(chunk * 16, value_stride - 16));
                    multiply(out[n], weights, b[0], b[1]);
                    multiply(out[n + 1], weights, b[2], b[3]);
                }
            }
            __syncwarp();
        }
        unit += stride;
    } while (unit < part.units);
    if (mine < part.units) {
        sum += __shfl_xor_sync(ALL, sum, 1);
        sum += __shfl_xor_sync(ALL, sum, 2);
        // The slab is free for the sums.
        __syncwarp();
        f32 *outs = reinterpret_cast<f32 *>(slab) + g * dim;
        if (g < part.heads) {
#pragma unroll
            for (u32 n = 0; n < DIM / 8; ++n) {
                if (n * 8 + q * 2 < dim) {
                    *reinterpret_cast<float2 *>(outs + n * 8 + q * 2) =
                        make_float2(out[n][0] + out[n][2], out[n][1] + out[n][3]);
                }
            }
            if (q == 0) {
                merge.by_warp[warp][g] = make_float2(top, sum);
            }
        }
    }
    MARK(5);
    finish(args, part, merge,
           [&](u32 w) { return reinterpret_cast<const f32 *>(shared + w * slab_bytes); });
    MARK(6);
}

}  // namespace
