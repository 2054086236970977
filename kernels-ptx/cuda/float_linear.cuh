// The product of float weights and rows split into 16-bit terms, on tensor cores; contract.cuh says
// what it computes. Shared by the kernels for few rows and for many, which give the same bits.
//
// Weights come in tiles (`tile_weights`): 16 features by a chunk of columns, in the order in which
// the lanes of a warp want them. Lane (g, q), g = lane / 4 and q = lane % 4, has neighbouring
// columns of features g and g + 8, and takes the same columns of row g of the terms. To the tensor
// cores, which see steps of 16 columns, the columns are merely in another order, the same for both.
#pragma once
#include "floats.cuh"

namespace {

using Args = FloatLinearArgs;

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

// How weights of a type are stored and multiplied: columns of a chunk, pieces of 16 bytes that a
// lane has of it, units of eight columns, terms of a row, parts of a weight.
struct F16 {
    static constexpr bool HALF = true;
    static constexpr u32 COLS = 32;
    static constexpr u32 PIECES = 2;
    static constexpr u32 TERMS = 2;
    static constexpr u32 PARTS = 1;
};
struct BF16 {
    static constexpr bool HALF = false;
    static constexpr u32 COLS = 32;
    static constexpr u32 PIECES = 2;
    static constexpr u32 TERMS = 3;
    static constexpr u32 PARTS = 1;
};
// A single is split into three parts as the rows are.
struct F32 {
    static constexpr bool HALF = false;
    static constexpr u32 COLS = 32;
    static constexpr u32 PIECES = 4;
    static constexpr u32 TERMS = 3;
    static constexpr u32 PARTS = 3;
};
// Halves hold any INT8.
struct I8 {
    static constexpr bool HALF = true;
    static constexpr u32 COLS = 64;
    static constexpr u32 PIECES = 2;
    static constexpr u32 TERMS = 2;
    static constexpr u32 PARTS = 1;
};

template <typename W>
constexpr u32 UNITS = W::COLS / 32;
template <typename W>
constexpr u32 CHUNKS = Args::STRETCH / W::COLS;
template <typename W>
constexpr u32 CHUNK_BYTES = W::PIECES * WARP * 16;

// A lane's pieces of a chunk: first those of feature g, then those of g + 8.
template <typename W>
struct Stored {
    uint4 pieces[W::PIECES];
};

// Eight weights of two features, in parts of four words of two weights.
template <typename W>
struct Parts {
    u32 low[W::PARTS][4];
    u32 high[W::PARTS][4];
};

// Two signed bytes, 0 and 1 or 2 and 3 of a word, as halves: 1024 + 128 + x has x + 128 in its
// lowest bits.
__device__ __forceinline__ u32 halves(u32 word, u32 selector) {
    u32 result;
    asm("sub.f16x2 %0, %1, %2;"
        : "=r"(result)
        : "r"(__byte_perm(word ^ 0x80808080u, 0x64646464u, selector)), "r"(0x64806480u));
    return result;
}

// The weights of one feature and one unit.
template <typename W>
__device__ __forceinline__ void split(const uint4 *pieces, u32 unit, u32 (&parts)[W::PARTS][4]) {
    if constexpr (W::COLS == 64) {
        const u32 first = unit == 0 ? pieces[0].x : pieces[0].z;
        const u32 second = unit == 0 ? pieces[0].y : pieces[0].w;
        parts[0][0] = halves(first, 0x4140);
        parts[0][1] = halves(first, 0x4342);
        parts[0][2] = halves(second, 0x4140);
        parts[0][3] = halves(second, 0x4342);
    } else if constexpr (W::PARTS == 1) {
        parts[0][0] = pieces[0].x;
        parts[0][1] = pieces[0].y;
        parts[0][2] = pieces[0].z;
        parts[0][3] = pieces[0].w;
    } else {
        f32 rest[8] = {
            __uint_as_float(pieces[0].x), __uint_as_float(pieces[0].y),
            __uint_as_float(pieces[0].z), __uint_as_float(pieces[0].w),
            __uint_as_float(pieces[1].x), __uint_as_float(pieces[1].y),
            __uint_as_float(pieces[1].z), __uint_as_float(pieces[1].w),
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

template <typename W>
__device__ __forceinline__ Parts<W> split_unit(const Stored<W> &stored, u32 unit) {
    Parts<W> parts;
    split<W>(stored.pieces, unit, parts.low);
    split<W>(stored.pieces + W::PIECES / 2, unit, parts.high);
    return parts;
}

__device__ __forceinline__ void copy_async(void *to, const void *from, bool in) {
    const u32 address = static_cast<u32>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
                 :: "r"(address), "l"(from), "r"(in ? 16 : 0) : "memory");
}

// acc += a unit's products, for M times 16 features and N times eight rows: columns in two steps,
// per step the parts and terms from the largest product down. This order is what the bits of a
// result hang on.
template <typename W, u32 M, u32 N>
__device__ __forceinline__ void multiply_unit(f32 (&acc)[M][N][4], const Parts<W> (&weights)[M],
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
template <typename W, typename Block>
__device__ __forceinline__ void finish(const Block &args, u32 row, u32 feature, f32 sum) {
    if (row >= args.rows || feature >= args.features) {
        return;
    }
    f32 value = W::HALF ? sum * args.scales[row] : sum;
    if (args.units != nullptr) {
        value *= __ldg(args.units + feature);
    }
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
