// What the kernels of attention of many rows do between their two products. Equal bits of the one
// with Hopper's matrix instruction and of the other hang on this being the same.
#pragma once
#include "floats.cuh"

namespace {

// 2^x within 2^-22 of itself.
__device__ __forceinline__ f32 exp2_near(f32 x) {
    f32 result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

// To nearest halves, ties to even.
__device__ __forceinline__ u32 to_halves(f32 low, f32 high) {
    u32 result;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    return result;
}

// Two singles as two halves each.
__device__ __forceinline__ void split(f32 a, f32 b, u32 &high, u32 &low) {
    high = to_halves(a, b);
    low = to_halves(a - from_f16(static_cast<u16>(high)),
                    b - from_f16(static_cast<u16>(high >> 16)));
}

// The power of two that puts `peak` below 2^14, and what undoes it.
__device__ __forceinline__ f32 scale_of(f32 peak, f32 &undo) {
    const i32 biased = static_cast<i32>(__float_as_uint(peak) >> 23);
    const i32 exponent = biased == 255 ? 0 : min(127 + 13 - biased, 126);
    undo = __int_as_float((127 - exponent) << 23);
    return __int_as_float((exponent + 127) << 23);
}

// The scores of a block of positions from `first_key`, in the order of the product's accumulators
// (`q`: the lane modulo four), become weights: times `undo`, without those beyond their row's position where there are any
// (`masked`), as powers of two of what lies between them and the greatest so far (`peaks`). `sums`
// and what is `mixed` so far fade as that grows. Each of two: the rows of this thread.
template <u32 KEY_TILES, u32 TILES>
__device__ __forceinline__ void weigh(f32 (&scores)[KEY_TILES][4], f32 (&mixed)[TILES][4],
                                      f32 (&peaks)[2], f32 (&sums)[2], const f32 (&undo)[2],
                                      const u32 (&row_positions)[2], u32 first_key, u32 q,
                                      bool masked) {
#pragma unroll
    for (u32 i = 0; i < 4 * KEY_TILES; ++i) {
        scores[i / 4][i % 4] *= undo[i % 4 / 2];
    }
    if (masked) {
#pragma unroll
        for (u32 i = 0; i < 4 * KEY_TILES; ++i) {
            const u32 position = first_key + i / 4 * 8 + 2 * q + i % 2;
            f32 &score = scores[i / 4][i % 4];
            score = position <= row_positions[i % 4 / 2] ? score : -__uint_as_float(0x7f800000u);
        }
    }
    // Both rows of a thread side by side: each is a chain of dependent operations.
    f32 largest[2] = {peaks[0], peaks[1]};
#pragma unroll
    for (u32 i = 0; i < 2 * KEY_TILES; ++i) {
        const u32 r = i % 2;
        largest[r] = fmaxf(largest[r], fmaxf(scores[i / 2][2 * r], scores[i / 2][2 * r + 1]));
    }
#pragma unroll
    for (u32 step = 1; step < 4; step *= 2) {
        const f32 others[2] = {__shfl_xor_sync(ALL, largest[0], step),
                               __shfl_xor_sync(ALL, largest[1], step)};
        largest[0] = fmaxf(largest[0], others[0]);
        largest[1] = fmaxf(largest[1], others[1]);
    }
    f32 fades[2];
    f32 added[2] = {};
#pragma unroll
    for (u32 r = 0; r < 2; ++r) {
        fades[r] = exp2_near(peaks[r] - largest[r]);
        peaks[r] = largest[r];
    }
#pragma unroll
    for (u32 tile = 0; tile < KEY_TILES; ++tile) {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            f32 &score = scores[tile][i];
            score = exp2_near(score - peaks[i / 2]);
            added[i / 2] += score;
        }
    }
    sums[0] = sums[0] * fades[0] + added[0];
    sums[1] = sums[1] * fades[1] + added[1];
    // Times one where no peak has grown.
    if (__any_sync(ALL, fades[0] != 1.0f || fades[1] != 1.0f)) {
#pragma unroll
        for (u32 tile = 0; tile < TILES; ++tile) {
            mixed[tile][0] *= fades[0];
            mixed[tile][1] *= fades[0];
            mixed[tile][2] *= fades[1];
            mixed[tile][3] *= fades[1];
        }
    }
}

}  // namespace
