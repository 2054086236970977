// What the ternary linears of one row share: a row as words of INT8 values, and their product with
// tiles of codes.
#pragma once
#include "decode.cuh"

namespace {

enum Finish { STORE, ADD, GATE };

constexpr u32 TILE_BYTES = 512;
constexpr u32 PAIR = 2;
constexpr f32 PEAK_MIN = 1e-5f;

// c += a (16 x 32, unsigned) by b (32 x 8, signed).
__device__ __forceinline__ void multiply(i32 (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ f32 greatest(float4 x) {
    return fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w)));
}

__device__ __forceinline__ f32 activate(u32 function, f32 x) {
    if (function == DecodeLinearArgs::SILU) {
        return __fdiv_rn(x, 1.0f + expf32(-x));
    }
    const f32 positive = fmaxf(x, 0.0f);
    return function == DecodeLinearArgs::RELU2 ? positive * positive : positive;
}

// Whether the least peak, PEAK_MIN times the rms, does not matter to a normed row: it does to rows of
// next to nothing only, as the rms is at most the greatest number and √eps, which is at most eps or 1.
// Other rows are quantised once more when their rms is known.
__device__ __forceinline__ bool is_plain(f32 peak, f32 largest, f32 eps) {
    return peak > 1.1f * PEAK_MIN * (largest + fmaxf(eps, 1.0f));
}

// The same by the greatest sum of squares of four numbers, of which the mean square is at most a
// fourth. Where the squares are beyond what can be told apart, no.
__device__ __forceinline__ bool is_plain_by_squares(f32 peak, f32 most, f32 eps) {
    return peak * peak > 1.3f * PEAK_MIN * PEAK_MIN * (most + fmaxf(eps, 1e-20f));
}

// Four values, a byte each; adds them to `sum`.
__device__ __forceinline__ u32 quantise(float4 x, f32 factor, i32 &sum) {
    // |x · factor| rounds to 127 at most. Adding 1.5 · 2^23 rounds half to even and leaves the
    // integer in the low bits.
    constexpr f32 ROUND = 12582912.0f;
    const u32 a = __float_as_uint(x.x * factor + ROUND);
    const u32 b = __float_as_uint(x.y * factor + ROUND);
    const u32 c = __float_as_uint(x.z * factor + ROUND);
    const u32 d = __float_as_uint(x.w * factor + ROUND);
    const u32 word = __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
    asm("dp4a.s32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(word), "r"(0x01010101));
    return word;
}

// c += a pair of tiles of codes by the 128 values of which this lane has `word`.
//
// A lane's word is that of columns 32 j + 16 h + 4 q .. + 4 with j = lane / 8, h = lane / 4 % 2,
// q = lane % 4: a word that this lane gives the tensor core for column lane / 4 of B. All other
// words of that column are zero, so each column of the product holds the sum of its own words'
// columns. The codes of j stay where they are, times 4^j; the tensor core takes them together with
// those below, as m_j = Σ_(i <= j) 4^i codes_i, and takes away m_(j - 1), which costs one mask less
// than separating them.
template <u32 CHAINS>
__device__ __forceinline__ void multiply_tiles(i32 (&c)[PAIR][2][4], const uint4 (&a)[PAIR],
                                               u32 word) {
    const u32 own = threadIdx.x % WARP / 4;
    const u32 minus = __vneg4(word);
#pragma unroll
    for (u32 j = 0; j < 4; ++j) {
        const u32 here = own / 2 == j ? word : own / 2 == j + 1 ? minus : 0;
        const u32 b[2] = {own % 2 == 0 ? here : 0, own % 2 == 0 ? 0 : here};
        const u32 mask = 0x01010101u * ((4u << (2 * j)) - 1);
#pragma unroll
        for (u32 t = 0; t < PAIR; ++t) {
            const u32 masked[4] = {a[t].x & mask, a[t].y & mask, a[t].z & mask, a[t].w & mask};
            multiply(c[t][CHAINS == 2 ? j % 2 : 0], masked, b);
        }
    }
}

// The sums over the four lanes of a row, of rows g and g + 8 of a pair of tiles: lane (g, q) =
// (lane / 4, lane % 4) gets row g + 8 (q % 2) of tile q / 2.
__device__ __forceinline__ i32 sum_quads(const i32 (&sums)[PAIR][2], u32 q) {
    i32 row[PAIR];
#pragma unroll
    for (u32 t = 0; t < PAIR; ++t) {
        const i32 own = q % 2 ? sums[t][1] : sums[t][0];
        row[t] = own + __shfl_xor_sync(ALL, q % 2 ? sums[t][0] : sums[t][1], 1);
    }
    const i32 own = q < 2 ? row[0] : row[1];
    return own + __shfl_xor_sync(ALL, q < 2 ? row[1] : row[0], 2);
}

// Sums of the rows of a pair of tiles, as `sum_quads` hands them out.
template <u32 CHAINS>
__device__ __forceinline__ i32 sum_tiles(const i32 (&c)[PAIR][2][4]) {
    const u32 q = threadIdx.x % 4;
    // Columns 2 q and 2 q + 1 of rows g and g + 8.
    i32 sums[PAIR][2];
#pragma unroll
    for (u32 t = 0; t < PAIR; ++t) {
#pragma unroll
        for (u32 k = 0; k < 2; ++k) {
            i32 both = c[t][0][2 * k] + c[t][0][2 * k + 1];
            if (CHAINS == 2) {
                both += c[t][1][2 * k] + c[t][1][2 * k + 1];
            }
            sums[t][k] = both >> (2 * q);
        }
    }
    return sum_quads(sums, q);
}

// The bits of 128 values, for products with codes as they are stored.
//
// A code's two bits b0 and b1 are worth 1 and 2, and a value v, in two's complement, is Σ_p 2^p v_p
// with the highest bit worth -2^7. So their product is Σ_p 2^p (b0 v_p + 2 b1 v_p): sixteen products
// of bits. The tensor core multiplies bits by bits, 256 of a row at a time, which is what a lane's
// four words of codes are: column p of eight has plane p, `first` where codes have b0, `second`
// where they have b1.
struct Planes {
    u32 first[2];
    u32 second[2];
};

// What a lane keeps of its own word, and how far it turns the other's, in the three exchanges of
// `planes_of`.
struct PlaneLane {
    u32 keep[3];
    u32 turn[3];

    __device__ __forceinline__ explicit PlaneLane(u32 lane) {
        constexpr u32 LOWER[3] = {0x0f0f0f0fu, 0x33333333u, 0x55555555u};
#pragma unroll
        for (u32 i = 0; i < 3; ++i) {
            const bool upper = lane & (16u >> i);
            keep[i] = upper ? ~LOWER[i] : LOWER[i];
            turn[i] = upper ? 32 - (4u >> i) : 4u >> i;
        }
    }
};

// Of the words of four values that the warp's lanes have; see `multiply_tiles` for whose they are.
//
// The bits of a word's number are (byte, plane), two and three of them; those of a lane's are (j, h,
// q), two, one and two. Exchanges swap the plane's with j and h. Lane (plane, q) then has bit
// (byte, j, h): those of even h where codes have b0, those of odd h where they have b1.
__device__ __forceinline__ Planes planes_of(u32 word, const PlaneLane &lane) {
#pragma unroll
    for (u32 i = 0; i < 3; ++i) {
        const u32 other = __shfl_xor_sync(ALL, word, 16 >> i);
        word = (word & lane.keep[i])
            | (__funnelshift_l(other, other, lane.turn[i]) & ~lane.keep[i]);
    }
    const u32 even = word & 0x55555555u, odd = word & 0xaaaaaaaau;
    return {{even, odd >> 1}, {even << 1, odd}};
}

// c += a (16 x 256) by b (256 x 8), of bits.
__device__ __forceinline__ void multiply_bits(i32 (&c)[4], uint4 a, const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b[0]), "r"(b[1]));
}

// c += a pair of tiles of codes by 128 values: the first eight columns, then the others.
__device__ __forceinline__ void multiply_planes(i32 (&c)[PAIR][2][4], const uint4 (&a)[PAIR],
                                                const Planes &planes) {
#pragma unroll
    for (u32 t = 0; t < PAIR; ++t) {
        multiply_bits(c[t][0], a[t], planes.first);
        multiply_bits(c[t][1], a[t], planes.second);
    }
}

// As `sum_tiles`, of what `multiply_planes` makes.
__device__ __forceinline__ i32 sum_planes(const i32 (&c)[PAIR][2][4], u32 lane) {
    const u32 q = lane % 4;
    // Of planes 2 q + 1: the last one's is less than nothing.
    const i32 upper = q == 3 ? -2 : 2;
    i32 sums[PAIR][2];
#pragma unroll
    for (u32 t = 0; t < PAIR; ++t) {
#pragma unroll
        for (u32 k = 0; k < 2; ++k) {
            // Columns 2 q and 2 q + 1 of rows g and g + 8.
            const i32 low = c[t][0][2 * k] + 2 * c[t][1][2 * k];
            const i32 high = c[t][0][2 * k + 1] + 2 * c[t][1][2 * k + 1];
            sums[t][k] = (low + upper * high) << (2 * q);
        }
    }
    return sum_quads(sums, q);
}

}  // namespace
