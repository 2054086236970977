// Attention of single rows over a cache of singles: a lane has a position for the scores, then
// elements for the mix.
#pragma once
#include "decode_attend.cuh"

namespace {

constexpr u32 UNIT = BLOCK;

template <u32 CLUSTER, u32 DIM>
__device__ __forceinline__ void decode_attend(const Args &args) {
    extern __shared__ __align__(128) unsigned char shared[];
    __shared__ f32 queries[HEADS][DIM];
    __shared__ f32 fresh[2][DIM];
    __shared__ f32 weights[WARPS][HEADS][UNIT];
    __shared__ Merge<CLUSTER, DIM> merge;

    Part part;
    launch_dependents();
    if (!part_of<CLUSTER>(args, UNIT, part)) {
        return;
    }
    if (part.ranks > 1) {
        cluster_arrive();
    }
    const u32 lane = part.lane, warp = part.warp, dim = part.dim;
    f32 *keys = reinterpret_cast<f32 *>(args.keys) + part.start;
    f32 *values = reinterpret_cast<f32 *>(args.values) + part.start;
#pragma unroll 1
    for (u32 at = threadIdx.x; at < HEADS * DIM; at += Args::THREADS) {
        queries[at / DIM][at % DIM] = 0.0f;
    }
    const Angles<DIM> angles(args, part);
    __syncthreads();
    if (args.awaited == 0) {
        wait_for_dependencies();
    }
    const u32 last = part.units - 1;
    take_row<DIM>(
        args, part, angles, last % part.ranks == part.rank,
        [&](u32 task, u32 i, f32 low, f32 high) {
            f32 *to = task < part.heads ? queries[task] : fresh[task - part.heads];
            if (i < dim / 2) {
                to[i] = low;
                to[i + dim / 2] = high;
            }
        },
        [](u32) {});
    __syncthreads();

    f32 top[HEADS], sum[HEADS], out[HEADS][DIM / WARP];
#pragma unroll
    for (u32 g = 0; g < HEADS; ++g) {
        top[g] = NONE;
        sum[g] = 0.0f;
#pragma unroll
        for (u32 k = 0; k < DIM / WARP; ++k) {
            out[g][k] = 0.0f;
        }
    }
    const u32 mine = part.rank + warp * part.ranks;
    const u32 stride = part.ranks * WARPS;
#pragma unroll 1
    for (u32 unit = mine; unit < part.units; unit += stride) {
        f32 *block = keys + static_cast<size_t>(unit) * UNIT * dim;
        f32 *mix = values + static_cast<size_t>(unit) * UNIT * dim;
        if (unit == last) {
            const u32 place = part.position % UNIT;
#pragma unroll 1
            for (u32 i = lane; i < dim; i += WARP) {
                block[i * UNIT + place] = fresh[0][i];
                mix[place * dim + i] = fresh[1][i];
            }
            __syncwarp();
        }
        const u32 count = min(UNIT, part.position + 1 - unit * UNIT);
        f32 s[HEADS] = {};
#pragma unroll 4
        for (u32 e = 0; e < dim; ++e) {
            const f32 key = block[e * UNIT + lane];
#pragma unroll
            for (u32 g = 0; g < HEADS; ++g) {
                s[g] = __fmaf_rn(queries[g][e], key, s[g]);
            }
        }
        __syncwarp();
#pragma unroll
        for (u32 g = 0; g < HEADS; ++g) {
            const f32 score = lane < count ? s[g] * (args.factor * LOG2_E) : NONE;
            f32 now = fmaxf(top[g], score);
#pragma unroll
            for (u32 distance = 1; distance < WARP; distance *= 2) {
                now = fmaxf(now, __shfl_xor_sync(ALL, now, distance));
            }
            const f32 fade = exp2_fast(top[g] - now);
            const f32 weight = lane < count ? exp2_fast(score - now) : 0.0f;
            top[g] = now;
            sum[g] = sum[g] * fade + weight;
            weights[warp][g][lane] = weight;
#pragma unroll
            for (u32 k = 0; k < DIM / WARP; ++k) {
                out[g][k] *= fade;
            }
        }
        __syncwarp();
#pragma unroll 1
        for (u32 t = 0; t < count; ++t) {
            f32 value[DIM / WARP];
#pragma unroll
            for (u32 k = 0; k < DIM / WARP; ++k) {
                const u32 d = lane + k * WARP;
                value[k] = d < dim ? mix[t * dim + d] : 0.0f;
            }
#pragma unroll
            for (u32 g = 0; g < HEADS; ++g) {
                const f32 weight = weights[warp][g][t];
#pragma unroll
                for (u32 k = 0; k < DIM / WARP; ++k) {
                    out[g][k] = __fmaf_rn(weight, value[k], out[g][k]);
                }
            }
        }
    }
    f32 *outs = reinterpret_cast<f32 *>(shared) + warp * part.heads * dim;
    if (mine < part.units) {
#pragma unroll
        for (u32 g = 0; g < HEADS; ++g) {
            if (g < part.heads) {
#pragma unroll
                for (u32 distance = 1; distance < WARP; distance *= 2) {
                    sum[g] += __shfl_xor_sync(ALL, sum[g], distance);
                }
                if (lane == 0) {
                    merge.by_warp[warp][g] = make_float2(top[g], sum[g]);
                }
#pragma unroll
                for (u32 k = 0; k < DIM / WARP; ++k) {
                    const u32 d = lane + k * WARP;
                    if (d < dim) {
                        outs[g * dim + d] = out[g][k];
                    }
                }
            }
        }
    }
    finish(args, part, merge, [&](u32 w) {
        return reinterpret_cast<const f32 *>(shared) + w * part.heads * dim;
    });
}

}  // namespace
