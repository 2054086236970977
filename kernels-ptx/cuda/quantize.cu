// Norm and quantisation of rows, one block a row; contract.cuh says what it computes.
//
// Every float operation is the CPU's, in the CPU's order: the sums are a binary tree over the index
// (padded with zeros to a power of two). A lane holds four neighbours, a warp a stretch of 128, and
// the tree goes on over the stretches. So each level is an exchange between neighbours, and no lane
// order can change a bit.
#include "async.cuh"

namespace {

using Args = QuantizeArgs;

constexpr u32 ALL = 0xffffffffu;
constexpr u32 STRETCH = 128;
constexpr u32 WARPS = Args::THREADS / 32;
constexpr u32 INFINITY_BITS = 0x7f800000u;
constexpr f32 VALUE_MAX = 127.0f;
constexpr f32 PEAK_MIN = 1e-5f;
constexpr f32 MIN_POSITIVE = 1.17549435e-38f;
constexpr u32 STRETCHES_MAX = Args::COLS_MAX / STRETCH;
static_assert(STRETCHES_MAX <= 1024, "two levels of 32 below make the tree");
// Stretches of a warp in a row that is held at most.
constexpr u32 HELD_MAX = 5;
static_assert(WARPS <= 32, "a warp sees what each left");

struct Shared {
    f32 stretches[STRETCHES_MAX];
    f32 groups[32];
    u32 nearest[WARPS];
    i32 sums[WARPS];
};

__device__ __forceinline__ f32 warp_tree(f32 x) {
#pragma unroll
    for (u32 distance = 1; distance < 32; distance *= 2) {
        x = __fadd_rn(x, __shfl_xor_sync(ALL, x, distance));
    }
    return x;
}

__device__ __forceinline__ f32 sum4(f32 a, f32 b, f32 c, f32 d) {
    return __fadd_rn(__fadd_rn(a, b), __fadd_rn(c, d));
}

__device__ __forceinline__ f32 sum_of_squares(float4 x) {
    return sum4(__fmul_rn(x.x, x.x), __fmul_rn(x.y, x.y), __fmul_rn(x.z, x.z), __fmul_rn(x.w, x.w));
}

__device__ __forceinline__ float4 times(float4 a, float4 b) {
    return make_float4(__fmul_rn(a.x, b.x), __fmul_rn(a.y, b.y), __fmul_rn(a.z, b.z),
                       __fmul_rn(a.w, b.w));
}

__device__ __forceinline__ float4 minus(float4 a, f32 b) {
    return make_float4(__fsub_rn(a.x, b), __fsub_rn(a.y, b), __fsub_rn(a.z, b), __fsub_rn(a.w, b));
}

// Distance of |x| to infinity in steps of the bits: NaN wraps around and is farthest of all.
__device__ __forceinline__ u32 distance(f32 x) {
    return INFINITY_BITS - (__float_as_uint(x) & 0x7fffffffu);
}

__device__ __forceinline__ u32 nearest(u32 before, float4 x) {
    before = min(min(before, distance(x.x)), distance(x.y));
    return min(min(before, distance(x.z)), distance(x.w));
}

__device__ __forceinline__ i32 quantize_one(f32 x, f32 factor) {
    const f32 product = __fmul_rn(x, factor);
    const f32 clamped = fminf(fmaxf(product, -VALUE_MAX), VALUE_MAX);
    return isnan(product) ? 0 : __float2int_rn(clamped);
}

// The rest of the tree, over the sums of all stretches; every thread gets the result.
__device__ f32 finish_tree(Shared &shared, u32 stretches) {
    const u32 lane = threadIdx.x % 32;
    __syncthreads();
    const u32 groups = (stretches + 31) / 32;
    if (groups == 1) {
        return warp_tree(lane < stretches ? shared.stretches[lane] : 0.0f);
    }
    for (u32 group = threadIdx.x / 32; group < groups; group += WARPS) {
        const u32 stretch = group * 32 + lane;
        const f32 sum = warp_tree(stretch < stretches ? shared.stretches[stretch] : 0.0f);
        if (lane == 0) {
            shared.groups[group] = sum;
        }
    }
    __syncthreads();
    return warp_tree(lane < groups ? shared.groups[lane] : 0.0f);
}

// One row of at most COUNT · WARPS stretches, which stay in registers, with the weights of the
// norm; of any number for COUNT 0, which reads them again.
template <u32 COUNT>
struct Row {
    const Args &args;
    const f32 *x;
    u32 lane;
    u32 warp;
    float4 held[COUNT == 0 ? 1 : COUNT];
    float4 weights[COUNT == 0 ? 1 : COUNT];

    __device__ __forceinline__ u32 col(u32 stretch) const {
        return stretch * STRETCH + lane * 4;
    }

    __device__ __forceinline__ float4 load(const f32 *from, u32 stretch) const {
        if (col(stretch) < args.cols) {
            return *reinterpret_cast<const float4 *>(from + col(stretch));
        }
        return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }

    __device__ __forceinline__ void load_all(float4 *to, const f32 *from) const {
        if constexpr (COUNT > 0) {
#pragma unroll
            for (u32 i = 0; i < COUNT; ++i) {
                to[i] = load(from, warp + i * WARPS);
            }
        }
    }

    // Calls `use(stretch, numbers, weights)` for the stretches of this warp; what it returns are
    // the numbers of the next call, where they are held.
    template <typename Use>
    __device__ __forceinline__ void each(Use use) {
        if constexpr (COUNT == 0) {
            for (u32 stretch = warp; stretch < args.col_tiles; stretch += WARPS) {
                const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                use(stretch, load(x, stretch),
                    args.weight != nullptr ? load(args.weight, stretch) : zero);
            }
        } else {
#pragma unroll
            for (u32 i = 0; i < COUNT; ++i) {
                held[i] = use(warp + i * WARPS, held[i], weights[i]);
            }
        }
    }
};

__device__ void clear_row(const Args &args, u32 row) {
    i8 *line = args.values + static_cast<size_t>(row / 8) * 1024 + row % 8 * 128;
    for (u32 i = threadIdx.x; i < args.col_tiles * 32; i += Args::THREADS) {
        const size_t tile = static_cast<size_t>(i / 32) * args.row_blocks * 1024;
        reinterpret_cast<u32 *>(line + tile)[i % 32] = 0;
    }
    if (threadIdx.x == 0) {
        args.row_units[row] = 0.0f;
        args.value_sums[row] = 0;
    }
}

template <u32 COUNT>
__device__ void quantize_row(const Args &args, Shared &shared, u32 row) {
    const u32 lane = threadIdx.x % 32;
    const u32 warp = threadIdx.x / 32;
    const f32 *x = args.x + static_cast<size_t>(row) * args.stride;
    Row<COUNT> work{args, x, lane, warp, {}, {}};
    const bool has_norm = args.weight != nullptr;
    // A layer norm's bias would take too many registers.
    const bool is_layer_norm = COUNT < HELD_MAX && args.bias != nullptr;
    const u32 stretches = args.col_tiles;
    const f32 count = static_cast<f32>(args.cols);

    // The weights depend on no kernel before this one.
    if (has_norm) {
        work.load_all(work.weights, args.weight);
    }
    async::wait_for_producers();
    if (args.positions != nullptr && args.positions[row] == Args::ABSENT) {
        return clear_row(args, row);
    }
    work.load_all(work.held, x);
    auto keep = [&](u32 stretch, f32 sum) {
        if (lane == 0 && stretch < stretches) {
            shared.stretches[stretch] = sum;
        }
    };

    // What is quantised comes from `prepared`: of a row that is not held, each time anew.
    f32 mean = 0.0f;
    f32 inverse = 1.0f;
    auto prepared = [&](u32 stretch, float4 v, float4 weight) {
        if (!has_norm) {
            return v;
        }
        if (!is_layer_norm) {
            return times(v, weight);
        }
        v = minus(v, mean);
        v = make_float4(__fmul_rn(v.x, inverse), __fmul_rn(v.y, inverse), __fmul_rn(v.z, inverse),
                        __fmul_rn(v.w, inverse));
        v = times(v, weight);
        const float4 bias = work.load(args.bias, stretch);
        v = make_float4(__fadd_rn(v.x, bias.x), __fadd_rn(v.y, bias.y), __fadd_rn(v.z, bias.z),
                        __fadd_rn(v.w, bias.w));
        return work.col(stretch) < args.cols ? v : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    };

    if (is_layer_norm) {
        work.each([&](u32 stretch, float4 v, float4 weight) {
            keep(stretch, warp_tree(sum4(v.x, v.y, v.z, v.w)));
            return v;
        });
        mean = __fdiv_rn(finish_tree(shared, stretches), count);
        __syncthreads();
    }
    // Of an RMS norm the peak is met together with the tree.
    u32 least = INFINITY_BITS;
    auto gather = [&]() {
        least = __reduce_min_sync(ALL, least);
        if (lane == 0) {
            shared.nearest[warp] = least;
        }
    };
    if (has_norm) {
        work.each([&](u32 stretch, float4 v, float4 weight) {
            float4 centred = is_layer_norm ? minus(v, mean) : v;
            if (work.col(stretch) >= args.cols) {
                centred = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            }
            keep(stretch, warp_tree(sum_of_squares(centred)));
            if (is_layer_norm) {
                return v;
            }
            const float4 product = prepared(stretch, v, weight);
            least = nearest(least, product);
            return product;
        });
        if (!is_layer_norm) {
            gather();
        }
        const f32 mean_square = __fdiv_rn(finish_tree(shared, stretches), count);
        inverse = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean_square, args.eps)));
    }
    if (!has_norm || is_layer_norm) {
        work.each([&](u32 stretch, float4 v, float4 weight) {
            const float4 ready = prepared(stretch, v, weight);
            least = nearest(least, ready);
            return ready;
        });
    }

    if (!has_norm || is_layer_norm) {
        gather();
        __syncthreads();
    }
    least = __reduce_min_sync(ALL, shared.nearest[lane % WARPS]);
    // An RMS norm's factor is the same for the whole row: it is left out of the values and returns
    // in the unit, and the least peak is carried to its other side.
    const bool factor_is_left_out = has_norm && !is_layer_norm;
    f32 peak = __uint_as_float(INFINITY_BITS - least);
    if (factor_is_left_out) {
        // Of most rows the peak is far above the least one, as a product shows without a quotient.
        const bool is_far = __fmul_rn(peak, inverse) > 2.0f * PEAK_MIN;
        const f32 lower = is_far ? MIN_POSITIVE : __fdiv_rn(PEAK_MIN, inverse);
        peak = fmaxf(fmaxf(peak, lower), MIN_POSITIVE);
    } else {
        peak = fmaxf(peak, PEAK_MIN);
    }
    const f32 factor = __fdiv_rn(VALUE_MAX, peak);
    f32 unit = __fdiv_rn(peak, VALUE_MAX);
    if (factor_is_left_out) {
        unit = __fmul_rn(unit, inverse);
    }

    i32 sum = 0;
    i8 *line = args.values + static_cast<size_t>(row / 8) * 1024 + row % 8 * 128
        + ((lane / 4) ^ (row % 8)) * 16 + lane % 4 * 4;
    work.each([&](u32 stretch, float4 v, float4 weight) {
        if (stretch < stretches) {
            const float4 ready = COUNT == 0 ? prepared(stretch, v, weight) : v;
            const i32 a = quantize_one(ready.x, factor);
            const i32 b = quantize_one(ready.y, factor);
            const i32 c = quantize_one(ready.z, factor);
            const i32 d = quantize_one(ready.w, factor);
            sum += a + b + c + d;
            const u32 low = __byte_perm(a, b, 0x0040);
            const u32 high = __byte_perm(c, d, 0x0040);
            const u32 word = __byte_perm(low, high, 0x5410);
            const size_t tile = static_cast<size_t>(stretch) * args.row_blocks * 1024;
            *reinterpret_cast<u32 *>(line + tile) = word;
        }
        return v;
    });
    sum = __reduce_add_sync(ALL, sum);
    if (lane == 0) {
        shared.sums[warp] = sum;
    }
    __syncthreads();
    if (warp == 0) {
        sum = __reduce_add_sync(ALL, lane < WARPS ? shared.sums[lane] : 0);
    }
    if (threadIdx.x == 0) {
        args.row_units[row] = unit;
        args.value_sums[row] = sum;
    }
}

}  // namespace

// Grid: a block for each row. Two may have a multiprocessor, or one beside a linear on capability
// 9.0, which its registers are few enough for.
extern "C" __global__ void __launch_bounds__(576, 2) quantize(Args args) {
    __shared__ Shared shared;
    const u32 row = blockIdx.x;
    async::launch_dependents();
    if (row >= args.rows) {
        return;
    }
    if (args.col_tiles <= 2 * WARPS) {
        quantize_row<2>(args, shared, row);
    } else if (args.col_tiles <= HELD_MAX * WARPS && args.bias == nullptr) {
        quantize_row<HELD_MAX>(args, shared, row);
    } else {
        quantize_row<0>(args, shared, row);
    }
}
