// What the kernels that compute with floats share. Every operation here is an IEEE operation in the
// order written (the recipe forbids contraction); host/src/math.rs is the definition of `expf32`.
#pragma once
#include "contract.cuh"

namespace {

constexpr u32 WARP = 32;
constexpr u32 ALL = 0xffffffffu;

// Kinds of stored numbers, as embed and normalize name them.
constexpr u32 FORM_F16 = 0;
constexpr u32 FORM_BF16 = 1;
static_assert(EmbedArgs::F16 == FORM_F16 && NormalizeArgs::F16 == FORM_F16, "one numbering");
static_assert(EmbedArgs::BF16 == FORM_BF16 && NormalizeArgs::BF16 == FORM_BF16, "one numbering");

// Lets the next kernel of the stream start, where it was launched to do so.
__device__ __forceinline__ void launch_dependents() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Waits for the kernel before; until then only what no kernel writes may be read, and nothing be
// written. Does nothing in a kernel launched the ordinary way.
__device__ __forceinline__ void wait_for_dependencies() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ f32 from_f16(u16 x) {
    f32 result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(x));
    return result;
}

__device__ __forceinline__ f32 from_bf16(u16 x) {
    return __uint_as_float(static_cast<u32>(x) << 16);
}

// To nearest, ties to even.
__device__ __forceinline__ u16 to_f16(f32 x) {
    u16 result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result) : "f"(x));
    return result;
}

__device__ __forceinline__ u16 to_bf16(f32 x) {
    u16 result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result) : "f"(x));
    return result;
}

__device__ __forceinline__ u32 pack(u16 low, u16 high) {
    return static_cast<u32>(low) | static_cast<u32>(high) << 16;
}

// Sixteen bytes that are read once: past the first cache.
__device__ __forceinline__ uint4 load_stream(const void *from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
}

// `math::exp`, the same operations.
__device__ __forceinline__ f32 expf32(f32 x) {
    constexpr f32 ROUND = 12582912.0f;
    constexpr f32 LN2_HIGH = 355.0f / 512.0f;
    constexpr f32 LN2_LOW = -2.1219444e-4f;
    const f32 clamped = fminf(fmaxf(x, -87.33654f), 88.72283f);
    const f32 rounded = clamped * 1.44269504088896340736f + ROUND;
    const f32 n = rounded - ROUND;
    const f32 r = clamped - n * LN2_HIGH - n * LN2_LOW;
    f32 p = 1.9875691e-4f;
    p = p * r + 1.3981999e-3f;
    p = p * r + 8.333452e-3f;
    p = p * r + 4.1665796e-2f;
    p = p * r + 1.6666665e-1f;
    p = p * r + 0.5f;
    const f32 e = (p * r * r + r) + 1.0f;
    const i32 whole = static_cast<i32>(__float_as_uint(rounded) - __float_as_uint(ROUND));
    const i32 half = whole >> 1;
    const f32 first = __int_as_float((half + 127) << 23);
    const f32 second = __int_as_float((whole - half + 127) << 23);
    f32 result = e * first * second;
    result = x < -87.33654f ? 0.0f : result;
    result = x > 88.72283f ? __uint_as_float(0x7f800000u) : result;
    return x != x ? x : result;
}

// Four numbers of form `form` (2: singles) from element `at`, a multiple of 4, of a table.
__device__ __forceinline__ float4 load_four(const u8 *table, u32 form, size_t at) {
    if (form > FORM_BF16) {
        return __ldg(reinterpret_cast<const float4 *>(table) + at / 4);
    }
    const uint2 words = __ldg(reinterpret_cast<const uint2 *>(table) + at / 4);
    const u16 x[4] = {static_cast<u16>(words.x), static_cast<u16>(words.x >> 16),
                      static_cast<u16>(words.y), static_cast<u16>(words.y >> 16)};
    return form == FORM_F16
        ? make_float4(from_f16(x[0]), from_f16(x[1]), from_f16(x[2]), from_f16(x[3]))
        : make_float4(from_bf16(x[0]), from_bf16(x[1]), from_bf16(x[2]), from_bf16(x[3]));
}

}  // namespace
