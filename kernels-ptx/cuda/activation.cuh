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

}  // namespace activation
