// Reads memory and nothing else; contract.cuh says what for.
#include "contract.cuh"

namespace {

using Args = ReadMemoryArgs;

// Loads of a thread that are on the way together.
constexpr u32 LOADS = 4;

}  // namespace

extern "C" __global__ void __launch_bounds__(Args::THREADS) read_memory(Args args) {
    const uint4 *from = reinterpret_cast<const uint4 *>(args.words);
    const u32 threads = gridDim.x * Args::THREADS;
    const u32 first = blockIdx.x * Args::THREADS + threadIdx.x;
    u32 sum = 0;
    u32 at = first;
    for (; at < args.vectors && args.vectors - at > (LOADS - 1) * threads; at += LOADS * threads) {
        uint4 v[LOADS];
#pragma unroll
        for (u32 i = 0; i < LOADS; ++i) {
            v[i] = __ldcs(from + at + static_cast<size_t>(i) * threads);
        }
#pragma unroll
        for (u32 i = 0; i < LOADS; ++i) {
            sum += v[i].x ^ v[i].y ^ v[i].z ^ v[i].w;
        }
    }
    // In steps that cannot wrap.
    while (at < args.vectors) {
        const uint4 v = __ldcs(from + at);
        sum += v.x ^ v.y ^ v.z ^ v.w;
        if (args.vectors - at <= threads) {
            break;
        }
        at += threads;
    }
    // Where the memory is zero nobody writes, which the compiler cannot know.
    if (sum != args.zero) {
        atomicAdd(args.sums, sum);
    }
}
