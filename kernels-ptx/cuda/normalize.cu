// Norms of rows in the CPU's order, and the split into 16-bit terms; contract.cuh says what it
// computes, host/src/backend/cpu/activations.rs and host/src/math.rs in which order.
//
// Sums are binary trees over the index: a lane adds 4 neighbours, shuffles add 32 lanes, so a warp
// makes the sum of an aligned stretch of 128, and two more levels of shuffles add the stretches.
#include "floats.cuh"

using Args = NormalizeArgs;

namespace {

constexpr u32 WARPS = Args::THREADS / WARP;
constexpr u32 STRETCH = 4 * WARP;
constexpr u32 STRETCHES_MAX = Args::COLS_MAX / STRETCH;
// Stretches of a warp that are loaded side by side.
constexpr u32 AHEAD = 2;
static_assert(STRETCHES_MAX <= WARP * WARP, "three levels of 32 reach the widest row");

struct Shared {
    f32 stretches[STRETCHES_MAX];
    f32 groups[WARP];
    f32 peaks[WARPS];
};

// Sum over 32 lanes, the same in all: neighbours first.
__device__ __forceinline__ f32 warp_sum(f32 x) {
#pragma unroll
    for (u32 step = 1; step < WARP; step *= 2) {
        x += __shfl_xor_sync(ALL, x, step);
    }
    return x;
}

__device__ __forceinline__ float4 zero() {
    return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

// The tree over `leaf(x[i])`, zero from `cols` on; the same in all threads.
template <typename Leaf>
__device__ __forceinline__ f32 tree(const f32 *x, u32 cols, Shared &shared, Leaf leaf) {
    const u32 lane = threadIdx.x % WARP;
    const u32 warp = threadIdx.x / WARP;
    const u32 stretches = (cols + STRETCH - 1) / STRETCH;
    for (u32 first = warp; first < stretches; first += AHEAD * WARPS) {
        float4 v[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; ++i) {
            const u32 at = (first + i * WARPS) * STRETCH + 4 * lane;
            v[i] = at < cols ? *reinterpret_cast<const float4 *>(x + at) : zero();
            const bool in = at < cols;
            v[i] = make_float4(in ? leaf(v[i].x) : 0.0f, in ? leaf(v[i].y) : 0.0f,
                               in ? leaf(v[i].z) : 0.0f, in ? leaf(v[i].w) : 0.0f);
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; ++i) {
            const f32 sum = warp_sum((v[i].x + v[i].y) + (v[i].z + v[i].w));
            const u32 stretch = first + i * WARPS;
            if (lane == 0 && stretch < stretches) {
                shared.stretches[stretch] = sum;
            }
        }
    }
    __syncthreads();
    const u32 groups = (stretches + WARP - 1) / WARP;
    for (u32 group = warp; group < groups; group += WARPS) {
        const u32 stretch = group * WARP + lane;
        const f32 sum = warp_sum(stretch < stretches ? shared.stretches[stretch] : 0.0f);
        if (lane == 0) {
            shared.groups[group] = sum;
        }
    }
    __syncthreads();
    const f32 sum = warp_sum(lane < groups ? shared.groups[lane] : 0.0f);
    // The next tree writes where this one was read.
    __syncthreads();
    return sum;
}

// What a norm does to an element.
struct Norm {
    const f32 *weight;
    const f32 *bias;
    f32 mean;
    f32 inverse;

    __device__ __forceinline__ float4 operator()(float4 x, u32 at) const {
        if (weight == nullptr) {
            return x;
        }
        const float4 w = __ldg(reinterpret_cast<const float4 *>(weight + at));
        if (bias == nullptr) {
            return make_float4(x.x * inverse * w.x, x.y * inverse * w.y, x.z * inverse * w.z,
                               x.w * inverse * w.w);
        }
        const float4 b = __ldg(reinterpret_cast<const float4 *>(bias + at));
        return make_float4((x.x - mean) * inverse * w.x + b.x, (x.y - mean) * inverse * w.y + b.y,
                           (x.z - mean) * inverse * w.z + b.z, (x.w - mean) * inverse * w.w + b.w);
    }
};

// The power of two that puts `peak` into 2^13 .. 2^14, or 1 for a row that is not finite. Kept so
// small that its inverse is a normal number.
__device__ __forceinline__ i32 exponent_for(f32 peak) {
    const i32 biased = static_cast<i32>(__float_as_uint(peak) >> 23);
    return biased == 255 ? 0 : min(127 + 13 - biased, 126);
}

__device__ __forceinline__ f32 power_of_two(i32 exponent) {
    return __int_as_float((exponent + 127) << 23);
}

// The next term of four rests, which lose it.
template <u32 FORM>
__device__ __forceinline__ uint2 take_term(f32 (&rest)[4]) {
    u16 term[4];
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        term[i] = FORM == FORM_F16 ? to_f16(rest[i]) : to_bf16(rest[i]);
        rest[i] -= FORM == FORM_F16 ? from_f16(term[i]) : from_bf16(term[i]);
    }
    return make_uint2(pack(term[0], term[1]), pack(term[2], term[3]));
}

// Calls `put(term, words)` with the terms of four elements.
template <u32 FORM, u32 TERMS, typename Put>
__device__ __forceinline__ void split(const Args &args, const f32 *x, Norm norm, f32 scale, u32 at,
                                      Put &&put) {
    float4 v = zero();
    if (at < args.cols) {
        v = norm(*reinterpret_cast<const float4 *>(x + at), at);
    }
    f32 rest[4] = {v.x * scale, v.y * scale, v.z * scale, v.w * scale};
#pragma unroll
    for (u32 term = 0; term < TERMS; ++term) {
        put(term, take_term<FORM>(rest));
    }
}

template <u32 FORM, u32 TERMS>
__device__ __forceinline__ void write_terms(const Args &args, const f32 *x, Norm norm, f32 scale) {
    const u32 tile = args.tile_cols;
    if (tile != 0) {
        const u32 cols = (args.cols + tile - 1) / tile * tile;
        for (u32 at = threadIdx.x * 4; at < cols; at += Args::THREADS * 4) {
            const u32 col = at % tile;
            // Four of a lane's columns, which it multiplies in one step.
            const u32 lane = col / (tile / 4);
            const u32 step = col / 4 % (tile / 16);
            const size_t block = static_cast<size_t>(at / tile) * args.row_blocks + blockIdx.x / 8;
            u16 *out = args.terms + block * (TERMS * 8 * tile) + step * 128 + blockIdx.x % 8 * 8
                + lane * 2;
            split<FORM, TERMS>(args, x, norm, scale, at, [&](u32 term, uint2 words) {
                u32 *to = reinterpret_cast<u32 *>(out + term * (8 * tile));
                to[0] = words.x;
                to[32] = words.y;
            });
        }
        return;
    }
    u16 *out = args.terms + static_cast<size_t>(blockIdx.x) * TERMS * args.terms_stride;
    for (u32 at = threadIdx.x * 4; at < args.terms_stride; at += Args::THREADS * 4) {
        split<FORM, TERMS>(args, x, norm, scale, at, [&](u32 term, uint2 words) {
            *reinterpret_cast<uint2 *>(out + term * args.terms_stride + at) = words;
        });
    }
}

}  // namespace

// Grid: (rows of the output).
extern "C" __global__ void __launch_bounds__(Args::THREADS) normalize(Args args) {
    __shared__ Shared shared;
    launch_dependents();
    wait_for_dependencies();
    const u32 row = args.asking == nullptr ? blockIdx.x : args.asking[blockIdx.x];
    if (row == Args::NONE) {
        return;
    }
    const f32 *x = args.x + static_cast<size_t>(row) * args.cols;
    const f32 count = static_cast<f32>(args.cols);

    Norm norm = {args.weight, args.bias, 0.0f, 1.0f};
    if (norm.weight != nullptr) {
        if (norm.bias != nullptr) {
            norm.mean = tree(x, args.cols, shared, [](f32 x) { return x; }) / count;
        }
        const f32 mean = norm.mean;
        const bool centred = norm.bias != nullptr;
        const f32 squares = tree(x, args.cols, shared, [=](f32 x) {
            const f32 d = centred ? x - mean : x;
            return d * d;
        });
        norm.inverse = 1.0f / sqrtf(squares / count + args.eps);
    }

    f32 peak = 0.0f;
    for (u32 at = threadIdx.x * 4; at < args.cols; at += Args::THREADS * 4) {
        const float4 v = norm(*reinterpret_cast<const float4 *>(x + at), at);
        if (args.normed != nullptr) {
            f32 *out = args.normed + static_cast<size_t>(blockIdx.x) * args.cols + at;
            *reinterpret_cast<float4 *>(out) = v;
        }
        peak = fmaxf(peak, fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))));
    }
    if (args.terms == nullptr) {
        return;
    }
    if (args.form == Args::BF16) {
        write_terms<FORM_BF16, 3>(args, x, norm, 1.0f);
        return;
    }
#pragma unroll
    for (u32 step = 1; step < WARP; step *= 2) {
        peak = fmaxf(peak, __shfl_xor_sync(ALL, peak, step));
    }
    if (threadIdx.x % WARP == 0) {
        shared.peaks[threadIdx.x / WARP] = peak;
    }
    __syncthreads();
#pragma unroll
    for (u32 warp = 0; warp < WARPS; ++warp) {
        peak = fmaxf(peak, shared.peaks[warp]);
    }
    const i32 exponent = exponent_for(peak);
    if (threadIdx.x == 0) {
        args.scales[blockIdx.x] = power_of_two(-exponent);
    }
    write_terms<FORM_F16, 2>(args, x, norm, power_of_two(exponent));
}
