// The product of float weights and rows split into 16-bit terms, on tensor cores; contract.cuh says
// what it computes. Shared by the kernels for few rows and for many, which give the same bits.
//
// A tile is 16 features by 32 columns: lane (g, q) of a warp, g = lane / 4 and q = lane % 4, takes
// columns 8 q .. 8 q + 8 of features g and g + 8, and of row g of the terms: sixteen bytes as they
// lie in memory. To the tensor cores, which see two steps of 16 columns, the columns are merely in
// another order, the same for weights and rows.
#pragma once
#include "floats.cuh"

namespace {

using Args = FloatLinearArgs;

constexpr u32 CHUNK = 32;
constexpr u32 CHUNKS = Args::STRETCH / CHUNK;
static_assert(Args::STRETCH % CHUNK == 0, "whole chunks");

// acc += a · b for 16 features, 16 columns, 8 rows.
template <bool HALF>
__device__ __forceinline__ void multiply(f32 (&acc)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    if constexpr (HALF) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
            "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    } else {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
            "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
}

// How weights of a type are stored and multiplied.
struct F16 {
    static constexpr bool HALF = true;
    static constexpr u32 TERMS = 2;   // of a row
    static constexpr u32 LOADS = 1;   // of 16 bytes, for eight weights
    static constexpr u32 PARTS = 1;   // of a weight
};
struct BF16 {
    static constexpr bool HALF = false;
    static constexpr u32 TERMS = 3;
    static constexpr u32 LOADS = 1;
    static constexpr u32 PARTS = 1;
};
// A single is split into three parts as the rows are.
struct F32 {
    static constexpr bool HALF = false;
    static constexpr u32 TERMS = 3;
    static constexpr u32 LOADS = 2;
    static constexpr u32 PARTS = 3;
};

template <typename W>
constexpr u32 WEIGHT_BYTES = 2 * W::LOADS;

// Eight weights of two features, as loaded.
template <typename W>
struct Stored {
    uint4 low[W::LOADS];
    uint4 high[W::LOADS];
};

// The same, in parts, each as four words of two weights.
template <typename W>
struct Parts {
    u32 low[W::PARTS][4];
    u32 high[W::PARTS][4];
};

template <typename W>
__device__ __forceinline__ void split(const uint4 (&stored)[W::LOADS], u32 (&parts)[W::PARTS][4]) {
    if constexpr (W::PARTS == 1) {
        parts[0][0] = stored[0].x;
        parts[0][1] = stored[0].y;
        parts[0][2] = stored[0].z;
        parts[0][3] = stored[0].w;
    } else {
        f32 rest[8] = {
            __uint_as_float(stored[0].x), __uint_as_float(stored[0].y),
            __uint_as_float(stored[0].z), __uint_as_float(stored[0].w),
            __uint_as_float(stored[1].x), __uint_as_float(stored[1].y),
            __uint_as_float(stored[1].z), __uint_as_float(stored[1].w),
        };
#pragma unroll
        for (u32 part = 0; part < W::PARTS; ++part) {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                const u16 a = to_bf16(rest[2 * i]);
                const u16 b = to_bf16(rest[2 * i + 1]);
                rest[2 * i] -= from_bf16(a);
                rest[2 * i + 1] -= from_bf16(b);
                parts[part][i] = pack(a, b);
            }
        }
    }
}

// acc += the chunk's products, for M times 16 features and N times eight rows: columns in two steps,
// per step the parts and terms from the largest product down. This order is what the bits of a
// result hang on.
template <typename W, u32 M, u32 N>
__device__ __forceinline__ void multiply_chunk(f32 (&acc)[M][N][4], const Parts<W> (&weights)[M],
                                               const uint4 (&terms)[N][W::TERMS]) {
#pragma unroll
    for (u32 step = 0; step < 2; ++step) {
#pragma unroll
        for (u32 order = 0; order < W::TERMS; ++order) {
#pragma unroll
            for (u32 part = 0; part < W::PARTS && part <= order; ++part) {
#pragma unroll
                for (u32 m = 0; m < M; ++m) {
                    const u32 a[4] = {
                        weights[m].low[part][2 * step], weights[m].high[part][2 * step],
                        weights[m].low[part][2 * step + 1], weights[m].high[part][2 * step + 1],
                    };
#pragma unroll
                    for (u32 n = 0; n < N; ++n) {
                        const uint4 t = terms[n][order - part];
                        multiply<W::HALF>(acc[m][n], a, step == 0 ? t.x : t.z,
                                          step == 0 ? t.y : t.w);
                    }
                }
            }
        }
    }
}

__device__ __forceinline__ f32 activate(u32 activation, f32 x) {
    const f32 positive = fmaxf(x, 0.0f);
    return activation == Args::SILU ? x / (1.0f + expf32(-x))
        : activation == Args::RELU2 ? positive * positive
                                    : positive;
}

// Puts the sum of element (row, feature) where it belongs.
template <typename W>
__device__ __forceinline__ void finish(const Args &args, u32 row, u32 feature, f32 sum) {
    if (row >= args.rows || feature >= args.features) {
        return;
    }
    f32 value = W::HALF ? sum * args.scales[row] : sum;
    if (args.bias != nullptr) {
        value += __ldg(args.bias + feature);
    }
    f32 *out = args.out + static_cast<size_t>(row) * args.out_stride + args.offset + feature;
    switch (args.epilogue) {
        case Args::STORE: *out = value; break;
        case Args::ADD: *out += value; break;
        case Args::ACTIVATE: *out = activate(args.activation, value); break;
        default: *out = activate(args.activation, *out) * value;
    }
}

}  // namespace
