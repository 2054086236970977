// The functions inside a feed-forward block, with the bits of the CPU (`host/src/math.rs`).
#pragma once
#include "contract.cuh"

namespace activation {

// `e^x`: Cody and Waite's reduction and the polynomial of Cephes' `expf`. The build contracts no
// product and sum.
__device__ __forceinline__ f32 exp(f32 x) {
    constexpr f32 ROUND = 12582912.0f;
    const f32 clamped = fminf(fmaxf(x, -87.33654f), 88.72283f);
    const f32 rounded = clamped * 1.44269504088896340736f + ROUND;
    const f32 n = rounded - ROUND;
    const f32 r = clamped - n * (355.0f / 512.0f) - n * -2.1219444e-4f;
    f32 p = 1.9875691e-4f;
    p = p * r + 1.3981999e-3f;
    p = p * r + 8.333452e-3f;
    p = p * r + 4.1665796e-2f;
    p = p * r + 1.6666665e-1f;
    p = p * r + 0.5f;
    const f32 e = (p * r * r + r) + 1.0f;
    const i32 power = __float_as_int(rounded) - __float_as_int(ROUND);
    const i32 half = power >> 1;
    const f32 low = __int_as_float((half + 127) << 23);
    const f32 high = __int_as_float((power - half + 127) << 23);
    f32 result = e * low * high;
    result = x < -87.33654f ? 0.0f : result;
    result = x > 88.72283f ? __int_as_float(0x7f800000) : result;
    return isnan(x) ? x : result;
}

__device__ __forceinline__ f32 apply(u32 function, f32 x) {
    switch (function) {
        case LinearArgs::SILU:
            return __fdiv_rn(x, 1.0f + exp(-x));
        case LinearArgs::RELU2:
            return fmaxf(x, 0.0f) * fmaxf(x, 0.0f);
        default:
            return fmaxf(x, 0.0f);
    }
}

// Of four, the same bits. What `apply` does for numbers of the usual size is this, without its
// clamps and branches, so that four of them go side by side.
__device__ __forceinline__ void apply(u32 function, f32 (&x)[4]) {
    if (function != LinearArgs::SILU) {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            const f32 positive = fmaxf(x[i], 0.0f);
            x[i] = function == LinearArgs::RELU2 ? positive * positive : positive;
        }
        return;
    }
    constexpr f32 ROUND = 12582912.0f;
    // Below it the power of two is far from overflow, and the quotient from what is not normal.
    constexpr f32 LARGE = 40.0f;
    constexpr f32 SMALL = 1.0f / 1152921504606846976.0f;
    f32 quotient[4];
    bool usual = true;
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        const f32 y = -x[i];
        const f32 rounded = y * 1.44269504088896340736f + ROUND;
        const f32 n = rounded - ROUND;
        // The first product is exact.
        const f32 r = __fmaf_rn(n, -355.0f / 512.0f, y) - n * -2.1219444e-4f;
        f32 p = 1.9875691e-4f;
        p = p * r + 1.3981999e-3f;
        p = p * r + 8.333452e-3f;
        p = p * r + 4.1665796e-2f;
        p = p * r + 1.6666665e-1f;
        p = p * r + 0.5f;
        const f32 e = (p * r * r + r) + 1.0f;
        // Times two to the power of n, which stands in the last bits of `rounded`.
        const f32 d = 1.0f + __int_as_float(__float_as_int(e) + (__float_as_int(rounded) << 23));
        f32 inverse;
        asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(d));
        inverse = __fmaf_rn(inverse, __fmaf_rn(-d, inverse, 1.0f), inverse);
        f32 q = __fmul_rn(x[i], inverse);
        q = __fmaf_rn(inverse, __fmaf_rn(-d, q, x[i]), q);
        // The sign of a zero is lost on the way.
        quotient[i] = copysignf(q, x[i]);
        const f32 size = fabsf(x[i]);
        usual = usual && size < LARGE && (size >= SMALL || size == 0.0f);
    }
    if (!usual) {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            quotient[i] = apply(LinearArgs::SILU, x[i]);
        }
    }
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        x[i] = quotient[i];
    }
}

}  // namespace activation
