// What the kernels that decode one row share: the order between kernels, copies into shared memory,
// rows that are awaited word by word.
#pragma once
#include "floats.cuh"

namespace {

using u64 = unsigned long long;

// Where a test bench records clocks.
#ifndef MARK
#define MARK(at)
#endif

constexpr u32 UNWRITTEN = DecodeAttendArgs::UNWRITTEN;

// The thread's index, asked for anew: what follows from it is cheaper to compute in every phase than
// to keep in a register through all of them.
__device__ __forceinline__ u32 this_thread() {
    u32 index;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
    return index;
}

// The same number, of which nothing is known that would be kept in a register rather than computed.
__device__ __forceinline__ u32 anew(u32 x) {
    u32 same;
    asm volatile("mov.u32 %0, %1;" : "=r"(same) : "r"(x));
    return same;
}

__device__ __forceinline__ u32 shared_address(const void *pointer) {
    return static_cast<u32>(__cvta_generic_to_shared(pointer));
}

// A number that another kernel may be writing at this moment, or has written.
__device__ __forceinline__ f32 load_fresh(const f32 *from) {
    f32 x;
    asm volatile("ld.relaxed.gpu.global.f32 %0, [%1];" : "=f"(x) : "l"(from) : "memory");
    return x;
}

// Four, where `wanted` is not 0.
__device__ __forceinline__ void load_fresh4(float4 &x, const f32 *from, u32 wanted) {
    asm volatile(
        "{ .reg .pred p;\n"
        "setp.ne.u32 p, %5, 0;\n"
        "@p ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4]; }"
        : "+f"(x.x), "+f"(x.y), "+f"(x.z), "+f"(x.w)
        : "l"(from), "r"(wanted)
        : "memory");
}

// A number that another kernel may be waiting for.
__device__ __forceinline__ void store_fresh(f32 *to, f32 x) {
    asm volatile("st.relaxed.gpu.global.f32 [%0], %1;" ::"l"(to), "f"(x) : "memory");
}

__device__ __forceinline__ float2 load_fresh2(const f32 *from) {
    float2 x;
    asm volatile("ld.relaxed.gpu.global.v2.f32 {%0, %1}, [%2];"
                 : "=f"(x.x), "=f"(x.y)
                 : "l"(from)
                 : "memory");
    return x;
}

__device__ __forceinline__ void store_fresh2(f32 *to, float2 x) {
    asm volatile("st.relaxed.gpu.global.v2.f32 [%0], {%1, %2};" ::"l"(to), "f"(x.x), "f"(x.y)
                 : "memory");
}

__device__ __forceinline__ bool is_written(f32 x) {
    return __float_as_uint(x) != UNWRITTEN;
}

// The greatest of the warp's `x`, none negative, none NaN: their bits are in the same order.
__device__ __forceinline__ f32 warp_peak(f32 x) {
    return __uint_as_float(__reduce_max_sync(ALL, __float_as_uint(x)));
}

__device__ __forceinline__ void barrier_init(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals)
                 : "memory");
}

// One arrival, and `bytes` of bulk copies to come.
__device__ __forceinline__ void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier),
                 "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void barrier_wait(u32 barrier, u32 parity) {
    u32 done;
    do {
        asm volatile(
            "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
            "selp.u32 %0, 1, 0, p; }"
            : "=r"(done)
            : "r"(barrier), "r"(parity)
            : "memory");
    } while (done == 0);
}

// What makes fresh barriers known to the copy engine.
__device__ __forceinline__ void barriers_ready() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// `bytes`, a multiple of 16, from global to shared memory, both 16-byte aligned.
__device__ __forceinline__ void bulk_copy(u32 to, const void *from, u32 bytes, u32 barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
        "[%3];" ::"r"(to),
        "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(barrier)
        : "memory");
}

// Asks for `bytes`, a multiple of 16, to come into the L2 cache.
__device__ __forceinline__ void prefetch(const void *from, u32 bytes) {
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(
                     __cvta_generic_to_global(from)),
                 "r"(bytes)
                 : "memory");
}

}  // namespace
