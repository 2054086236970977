// What the thread blocks of a cluster say to each other. Below capability 9.0 there are no clusters:
// every block is alone.
#pragma once
#include "contract.cuh"

namespace {

__device__ __forceinline__ u32 cluster_blocks() {
    u32 blocks = 1;
#if __CUDA_ARCH__ >= 900
    asm("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(blocks));
#endif
    return blocks;
}

__device__ __forceinline__ u32 cluster_rank() {
    u32 rank = 0;
#if __CUDA_ARCH__ >= 900
    asm("mov.u32 %0, %%cluster_ctaid.x;" : "=r"(rank));
#endif
    return rank;
}

#if __CUDA_ARCH__ >= 900
// Where the block `rank` has what this one has at `pointer`, in shared memory.
__device__ __forceinline__ u32 in_rank(const void *pointer, u32 rank) {
    u32 address;
    asm("mapa.shared::cluster.u32 %0, %1, %2;"
        : "=r"(address)
        : "r"(static_cast<u32>(__cvta_generic_to_shared(pointer))), "r"(rank));
    return address;
}

__device__ __forceinline__ void store_remote(u32 address, f32 x) {
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(address), "f"(x) : "memory");
}

__device__ __forceinline__ void store_remote(u32 address, u32 x) {
    asm volatile("st.shared::cluster.u32 [%0], %1;" ::"r"(address), "r"(x) : "memory");
}

__device__ __forceinline__ void store_remote(u32 address, unsigned long long x) {
    asm volatile("st.shared::cluster.u64 [%0], %1;" ::"r"(address), "l"(x) : "memory");
}

__device__ __forceinline__ void store_remote(u32 address, double x) {
    asm volatile("st.shared::cluster.f64 [%0], %1;" ::"r"(address), "d"(x) : "memory");
}

// Returns what was there before.
__device__ __forceinline__ u32 add_remote(u32 address, u32 x) {
    u32 before;
    asm volatile("atom.relaxed.cluster.shared::cluster.add.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "r"(address), "r"(x)
                 : "memory");
    return before;
}
#endif

// What was written before it is seen by those of the cluster who have waited.
__device__ __forceinline__ void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}

__device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

}  // namespace
