// All layers of a step of one row; contract.cuh says what they compute. The grid is resident as a
// whole and takes part in every phase of every layer: linears by pairs of row tiles, attention by
// the parts that the clusters of decode_attend have.
//
// Nothing but the data says that a phase has ended. Every word that another thread block may be
// waiting for is `UNWRITTEN` until it is written, and who needs it looks until it is. A warp of each
// block fetches weights without regard to phases, as far ahead as there are slots, so memory is read
// while blocks wait for each other.
//
// Layers take turns with SETS sets of rooms, from step to step without a break. A layer makes the set
// of the layer ahead `UNWRITTEN` again once it has read its row, for by then every block is done
// with that; the row itself is left to the layer behind. Whoever looks at a set has by then seen
// what was written behind the layer that cleared it: hence four sets, not two.
#pragma once
#include "decode_attend_f16.cuh"
#include "decode_row.cuh"

namespace {

using Layers = DecodeLayersArgs;

// Warps that multiply; then one that fetches weights, and one that keeps what a phase needs besides.
// Sixteen in all, so that each thread may have 128 registers.
constexpr u32 MULTIPLIERS = 14;
constexpr u32 FETCHER = MULTIPLIERS;
// Warps whose first keys and values the fetcher brings; the others of a longer row do it themselves,
// since weights must not wait for long.
constexpr u32 BROUGHT = 4;
constexpr u32 KEEPER = MULTIPLIERS + 1;
static_assert(Layers::THREADS == (MULTIPLIERS + 2) * WARP, "every warp has a place");
constexpr u32 AT_WORK = MULTIPLIERS * WARP;

// A slot holds a pair of row tiles with as many tiles of columns as a row of the model has. A warp
// takes every MULTIPLIERS-th of them, at most EACH.
constexpr u32 EACH = 2;
static_assert(EACH * MULTIPLIERS * 128 == Layers::HIDDEN_MAX, "launch::DecodeLayersShape");
// Slots of a pair of row tiles of the feed-forward block.
constexpr u32 WIDE = Layers::FFN_SLOTS;
constexpr u32 TILES_MAX = WIDE * EACH * MULTIPLIERS;
// From lane to lane of the sums of squares: an odd number meets every bank.
constexpr u32 SQUARES_STRIDE = TILES_MAX + 1;
static_assert(TILES_MAX <= 4 * WARP && TILES_MAX % 2 == 0, "the keeper sums four tiles a lane");

// Named barriers of the multipliers and the keeper: peaks and squares are there; sums; the peak of a
// row of next to nothing. And one of the warps that attend.
constexpr u32 PEAKS = 1;
constexpr u32 SUMS = 2;
constexpr u32 PEAK = 3;
constexpr u32 ATTEND = 4;

// Looks at words that others write before something must be wrong: some seconds.
constexpr u32 PATIENCE = 1u << 23;

template <u32 BARRIER>
__device__ __forceinline__ void meet() {
    asm volatile("bar.sync %0, %1;" ::"n"(BARRIER),
                 "n"(BARRIER == ATTEND ? Args::THREADS : AT_WORK + WARP)
                 : "memory");
}

// The thread's index, asked for anew: what follows from it is cheaper to compute in every phase than
// to keep in a register through all of them.
__device__ __forceinline__ u32 this_thread() {
    u32 index;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
    return index;
}

__device__ __forceinline__ void look_again(u32 &looks) {
    if (++looks == PATIENCE) {
        __trap();
    }
}

__device__ __forceinline__ bool are_written(float4 x) {
    return is_written(x.x) && is_written(x.y) && is_written(x.z) && is_written(x.w);
}

// The linears of a layer, in their order.
enum Which { QKV, OUT, GATE_UP, DOWN, LINEARS };

// Pairs of row tiles of a block.
struct Share {
    u32 first;
    u32 count;
};

__device__ __forceinline__ Share share_of(u32 row_tiles, u32 block) {
    const u32 pairs = (row_tiles + 1) / PAIR;
    const u32 each = pairs / gridDim.x, more = pairs % gridDim.x;
    return {block * each + min(block, more), each + (block < more ? 1 : 0)};
}

// Shapes of the linears.
struct Shapes {
    u32 row_tiles[LINEARS];
    u32 cols[LINEARS];
    // Tiles of columns of a slot.
    u32 slot_tiles;

    __device__ __forceinline__ void measure(const Layers &args) {
        const u32 query = args.heads * args.head_dim;
        row_tiles[QKV] = (query + 2 * args.kv_heads * args.head_dim + 15) / 16;
        row_tiles[OUT] = row_tiles[DOWN] = (args.hidden_cols + 15) / 16;
        row_tiles[GATE_UP] = (args.ffn + 15) / 16 * 2;
        cols[QKV] = cols[GATE_UP] = args.hidden_cols;
        cols[OUT] = query;
        cols[DOWN] = args.ffn;
        slot_tiles = (max(args.hidden_cols, query) + 127) / 128;
    }
};

// Where a set of rooms has what.
struct Rooms {
    u32 mixed;
    u32 parts;
    u32 peaks;
    u32 middle;
    u32 gated;
    u32 hidden;
    u32 words;
    // From part to part of attention.
    u32 part;

    __device__ __forceinline__ void lay_out(const Layers &args, u32 ranks_of_set) {
        const u32 query = args.heads * args.head_dim;
        const u32 group = args.heads / args.kv_heads;
        const u32 ranks = args.kv_heads * ((group + HEADS - 1) / HEADS) * ranks_of_set;
        part = min(group, HEADS) * args.head_dim;
        mixed = query + 2 * args.kv_heads * args.head_dim;
        parts = mixed + query;
        peaks = parts + ranks * part;
        middle = peaks + ranks * HEADS * 2;
        gated = middle + args.hidden_cols;
        hidden = gated + args.ffn;
        words = hidden + args.hidden_cols;
    }
};

// What a block keeps in shared memory besides slots, slabs and sums.
template <u32 DIM>
struct Kept {
    u64 addresses[Layers::COUNT_MAX * Layers::WORDS];
    u64 full[Layers::SLOTS_MAX];
    u64 empty[Layers::SLOTS_MAX];
    Share shares[LINEARS];
    Shapes shapes;
    Rooms rooms;
    // The set of the step's first layer.
    u32 first_set;
    // What the fetcher brings of the layer's keys and values is there; is no longer needed.
    u64 cache_full;
    u64 cache_empty;
    // Of lanes, of tiles of columns.
    f32 squares[WARP * SQUARES_STRIDE];
    __align__(16) f32 tiles[4 * WARP];
    // Of each multiplier.
    __align__(16) u32 words[MULTIPLIERS][EACH * WARP];
    // Of each multiplier: greatest product of weight and number, greatest number.
    float2 peaks[WARP];
    f32 row_peak;
    f32 row_unit;
    // Attention: this block's part, if it has one, and the position's angles.
    bool attends;
    Part part;
    // The same, for the warp that fetches.
    Part fetched;
    f32 cosine[DIM / 2];
    f32 sine[DIM / 2];
    Prepared<DIM> prepared;
    float2 by_warp[WARPS][HEADS];
};

// What a linear of this layer reads and writes.
struct Linear {
    Finish finish;
    const f32 *x;
    // Whether it may be yet to come.
    bool awaited;
    const f32 *residual;
    f32 *out;
    u32 features;
};

// Which slot comes next, and how often slots have been gone through.
struct Ring {
    u32 slots;
    u32 slot = 0;
    u32 parity = 0;

    __device__ __forceinline__ void advance() {
        if (++slot == slots) {
            slot = 0;
            parity ^= 1;
        }
    }
};

// What the multipliers do of a linear of SLOTS slots a pair, if the block has a share of it; `sums`
// is (pairs of the share, MULTIPLIERS, 32).
template <u32 SLOTS, u32 DIM>
__device__ __forceinline__ void multiply_row(const Layers &args, u32 which, u32 layer,
                                             const Linear &of, Kept<DIM> &kept,
                                             const unsigned char *slots, i32 *sums, Ring &ring) {
    const Share share = kept.shares[which];
    if (share.count == 0) {
        return;
    }
    const u32 cols = kept.shapes.cols[which];
    const u64 *addresses = kept.addresses + layer * Layers::WORDS;
    const f32 *units_of = reinterpret_cast<const f32 *>(addresses[4 + which]);
    const f32 *norm = reinterpret_cast<const f32 *>(addresses[8 + which]);
    const bool gated = of.finish == GATE;
    const u32 by_pair = gated ? 16 : 32;
    constexpr u32 N = SLOTS * EACH;
    const u32 thread = this_thread();
    const u32 lane = thread % WARP, warp = thread / WARP;
    const u32 slot_tiles = kept.shapes.slot_tiles;
    const u32 col_tiles = (cols + 127) / 128;
    const u32 features = min(share.count * by_pair, of.features - share.first * by_pair);
    // Of the warp's tiles, by slot; those of no tile are beyond the last.
    const auto tile_of = [&](u32 i) {
        const u32 in_slot = warp + i % EACH * MULTIPLIERS;
        return in_slot < slot_tiles ? i / EACH * slot_tiles + in_slot : TILES_MAX;
    };
    MARK(0);
    float4 x[N], weight[N];
#pragma unroll
    for (u32 i = 0; i < N; ++i) {
        const u32 col = tile_of(i) * 128 + lane * 4;
        weight[i] = make_float4(1.0f, 1.0f, 1.0f, 1.0f);
        x[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (norm != nullptr && col < cols) {
            weight[i] = __ldg(reinterpret_cast<const float4 *>(norm + col));
        }
    }
    // What the thread's feature is multiplied by, and that of up.
    f32 unit_of = 0.0f, other_of = 0.0f;
    if (thread < features) {
        const f32 *units = units_of
            + share.first * 32 + (gated ? thread / 16 * 32 + thread % 16 : thread);
        unit_of = __ldg(units);
        if (gated) {
            other_of = __ldg(units + 16);
        }
    }
    u32 looks = 0;
    for (;;) {
        bool complete = true;
#pragma unroll
        for (u32 i = 0; i < N; ++i) {
            const u32 col = tile_of(i) * 128 + lane * 4;
            if (col < cols) {
                x[i] = load_fresh4(of.x + col);
            }
        }
#pragma unroll
        for (u32 i = 0; i < N; ++i) {
            complete = complete && are_written(x[i]);
        }
        if (complete || !of.awaited) {
            break;
        }
        look_again(looks);
    }
    MARK(1);
    f32 peak = 0.0f, large = 0.0f;
#pragma unroll
    for (u32 i = 0; i < N; ++i) {
        const u32 tile = tile_of(i);
        if (tile < col_tiles) {
            kept.squares[lane * SQUARES_STRIDE + tile] =
                (x[i].x * x[i].x + x[i].y * x[i].y) + (x[i].z * x[i].z + x[i].w * x[i].w);
        }
        large = fmaxf(large, greatest(x[i]));
        x[i] = make_float4(x[i].x * weight[i].x, x[i].y * weight[i].y, x[i].z * weight[i].z,
                           x[i].w * weight[i].w);
        peak = fmaxf(peak, greatest(x[i]));
    }
    peak = warp_peak(peak);
    large = warp_peak(large);
    if (lane == 0) {
        kept.peaks[warp] = make_float2(peak, large);
    }
    meet<PEAKS>();
    if (of.finish == ADD && thread < features) {
        // It was complete before the row was.
        other_of = load_fresh(of.residual + share.first * 32 + thread);
    }
    MARK(2);
    const float2 found = kept.peaks[lane];
    peak = warp_peak(found.x);
    if (norm == nullptr) {
        peak = fmaxf(peak, PEAK_MIN);
    } else if (!is_plain(peak, warp_peak(found.y), args.eps)) {
        meet<PEAK>();
        peak = kept.row_peak;
    }
    const f32 factor = __fdiv_rn(127.0f, peak);
    i32 value_sum = 0;
    Planes planes[N];
    const PlaneLane plane_lane(lane);
    u32 *const words = kept.words[warp];
#pragma unroll
    for (u32 first = 0; first < N; first += EACH) {
        __syncwarp();
#pragma unroll
        for (u32 i = 0; i < EACH; ++i) {
            words[i * WARP + plane_lane.to] = shifted(quantise(x[first + i], factor, value_sum));
        }
        __syncwarp();
#pragma unroll
        for (u32 i = 0; i < EACH; ++i) {
            planes[first + i] = planes_of(words + i * WARP, plane_lane);
        }
    }
    value_sum = __reduce_add_sync(ALL, value_sum);
    MARK(3);
    const unsigned char *own = slots + warp * TILE_BYTES + lane * 16;
#pragma unroll 1
    for (u32 pair = 0; pair < share.count; ++pair) {
        i32 c[PAIR][2][4] = {};
#pragma unroll
        for (u32 slot = 0; slot < SLOTS; ++slot) {
            const u32 before = slot * slot_tiles;
            if (before < col_tiles) {
                const u32 row_bytes = min(slot_tiles, col_tiles - before) * TILE_BYTES;
                const unsigned char *codes = own + ring.slot * slot_tiles * PAIR * TILE_BYTES;
                uint4 a[EACH][PAIR];
                barrier_wait(shared_address(&kept.full[ring.slot]), ring.parity);
#pragma unroll
                for (u32 i = 0; i < EACH; ++i) {
                    if (tile_of(slot * EACH + i) < col_tiles) {
#pragma unroll
                        for (u32 t = 0; t < PAIR; ++t) {
                            a[i][t] = *reinterpret_cast<const uint4 *>(
                                codes + i * MULTIPLIERS * TILE_BYTES + t * row_bytes);
                        }
                    }
                }
                __syncwarp();
                if (lane == 0) {
                    barrier_arrive(shared_address(&kept.empty[ring.slot]));
                }
                ring.advance();
#pragma unroll
                for (u32 i = 0; i < EACH; ++i) {
                    if (tile_of(slot * EACH + i) < col_tiles) {
                        multiply_planes(c, a[i], planes[slot * EACH + i]);
                    }
                }
            }
        }
        sums[(pair * MULTIPLIERS + warp) * 32 + lane % 4 * 8 + lane / 4] =
            sum_planes(c, lane) - value_sum;
    }
    MARK(4);
    meet<SUMS>();
    MARK(5);
    if (thread < features) {
        const f32 unit = kept.row_unit;
        const i32 *from = sums + thread / by_pair * MULTIPLIERS * 32 + thread % by_pair;
        i32 all = 0;
#pragma unroll
        for (u32 w = 0; w < MULTIPLIERS; ++w) {
            all += from[w * 32];
        }
        f32 value = static_cast<f32>(all) * unit * unit_of;
        if (gated) {
            i32 up = 0;
#pragma unroll
            for (u32 w = 0; w < MULTIPLIERS; ++w) {
                up += from[w * 32 + 16];
            }
            value = activate(args.activation, value) * (static_cast<f32>(up) * unit * other_of);
        } else if (of.finish == ADD) {
            value = other_of + value;
        }
        store_fresh(of.out + share.first * by_pair + thread, value);
    }
    MARK(6);
}

// The sum of `COUNT` numbers `STRIDE` apart: neighbours, then neighbours of those, as a warp's
// butterfly adds its lanes.
template <u32 COUNT, u32 STRIDE>
__device__ __forceinline__ f32 sum_tree(const f32 *from) {
    if constexpr (COUNT == 1) {
        return *from;
    } else {
        return sum_tree<COUNT / 2, STRIDE>(from)
            + sum_tree<COUNT / 2, STRIDE>(from + COUNT / 2 * STRIDE);
    }
}

// What the keeper does of a linear.
template <u32 DIM>
__device__ __forceinline__ void keep_row(const Layers &args, u32 cols, bool normed,
                                         Kept<DIM> &kept) {
    const u32 lane = threadIdx.x % WARP;
    meet<PEAKS>();
    const float2 found = kept.peaks[lane];
    const f32 peak = warp_peak(found.x);
    const bool plain = !normed || is_plain(peak, warp_peak(found.y), args.eps);
    f32 inverse_rms = 1.0f;
    f32 least = PEAK_MIN;
    if (normed) {
        const u32 col_tiles = (cols + 127) / 128;
#pragma unroll 1
        for (u32 tile = lane; tile < 4 * WARP; tile += WARP) {
            kept.tiles[tile] = tile < col_tiles ? sum_tree<WARP, SQUARES_STRIDE>(kept.squares + tile) : 0.0f;
        }
        __syncwarp();
        // The upper levels of the tree: stretches of a lane, then lanes.
        const float4 leaf = reinterpret_cast<const float4 *>(kept.tiles)[lane];
        f32 sum = (leaf.x + leaf.y) + (leaf.z + leaf.w);
#pragma unroll
        for (u32 distance = 1; distance < WARP; distance *= 2) {
            sum = sum + __shfl_xor_sync(ALL, sum, distance);
        }
        const f32 mean = __fdiv_rn(sum, static_cast<f32>(cols));
        inverse_rms = __fdiv_rn(1.0f, __fsqrt_rn(mean + args.eps));
        least = fmaxf(__fdiv_rn(PEAK_MIN, inverse_rms), 1.17549435e-38f);
    }
    if (lane == 0) {
        const f32 bounded = fmaxf(peak, least);
        kept.row_peak = bounded;
        kept.row_unit = __fdiv_rn(bounded, 127.0f) * inverse_rms;
    }
    if (!plain) {
        // The multipliers take the peak from here.
        meet<PEAK>();
    }
    meet<SUMS>();
}

// Makes words that this block and `blocks - 1` others share `UNWRITTEN`.
__device__ __forceinline__ void clear(f32 *words, u32 count, u32 blocks) {
    const uint4 mark = make_uint4(UNWRITTEN, UNWRITTEN, UNWRITTEN, UNWRITTEN);
#pragma unroll 1
    for (u32 at = (blockIdx.x * WARP + threadIdx.x % WARP) * 4; at < count;
         at += blocks * WARP * 4) {
        *reinterpret_cast<uint4 *>(words + at) = mark;
    }
}

// Where the set of rooms of a layer is, the step's first layer having set `first`.
__device__ __forceinline__ f32 *room_of(const Layers &args, const Rooms &rooms, u32 first,
                                        u32 layer) {
    return args.rooms + (first + layer) % Layers::SETS * rooms.words;
}

// What the first WARPS warps do of attention: the part of this block.
template <u32 RANKS, u32 DIM>
__device__ __forceinline__ void attend_part(const Args &args, u32 layer, const Rooms &rooms,
                                            f32 *room, Kept<DIM> &kept, unsigned char *slabs) {
    Part part = kept.part;
    part.lane = this_thread() % WARP;
    part.warp = this_thread() / WARP;
    attend_units<DIM>(
        args, part, slabs, kept.prepared, kept.by_warp, [] { meet<ATTEND>(); },
        [&] {
            Angles<DIM> angles;
#pragma unroll
            for (u32 k = 0; k < DIM / 2 / WARP; ++k) {
                angles.cosine[k] = kept.cosine[part.lane + k * WARP];
                angles.sine[k] = kept.sine[part.lane + k * WARP];
            }
            MARK(2);
            return angles;
        },
        [&] {
            if (part.warp < BROUGHT) {
                barrier_wait(shared_address(&kept.cache_full), layer % 2);
            } else {
                wait_for_copies();
            }
        });
    meet<ATTEND>();
    MARK(5);
    const u32 elements = part.heads * part.dim;
    const u32 by_dim = reciprocal(part.dim);
    const u32 warps = warps_of(part, part.rank);
    const u32 slab_bytes = Slab::bytes_of(part.dim);
    f32 *mixed = args.mixed + part.first_head * part.dim;
    // Those of rank 0 of the same heads.
    f32 *values = room + rooms.parts + (blockIdx.x - part.rank) * rooms.part;
    f32 *peaks = room + rooms.peaks + (blockIdx.x - part.rank) * HEADS * 2;
#pragma unroll 1
    for (u32 e = threadIdx.x; e < elements; e += Args::THREADS) {
        const u32 head = quotient(e, by_dim);
        const Mixed of = mix_parts<WARPS>(
            warps, [&](u32 w) { return kept.by_warp[w][head]; },
            [&](u32 w) { return reinterpret_cast<const f32 *>(slabs + w * slab_bytes)[e]; });
        if (part.ranks == 1) {
            store_fresh(mixed + e, __fdividef(of.value, of.total));
            continue;
        }
        store_fresh(values + part.rank * rooms.part + e, of.value);
        if (e == head * part.dim) {
            store_fresh(peaks + (part.rank * HEADS + head) * 2, of.top);
            store_fresh(peaks + (part.rank * HEADS + head) * 2 + 1, of.total);
        }
    }
    MARK(6);
    if (part.ranks > 1) {
        const u32 slice = (elements + RANKS - 1) / RANKS;
        const u32 end = min(elements, (part.rank + 1) * slice);
#pragma unroll 1
        for (u32 e = part.rank * slice + threadIdx.x; e < end; e += Args::THREADS) {
            const u32 head = quotient(e, by_dim);
            f32 value[RANKS], top[RANKS], total[RANKS];
            u32 looks = 0;
            for (;;) {
                bool complete = true;
#pragma unroll
                for (u32 r = 0; r < RANKS; ++r) {
                    value[r] = load_fresh(values + r * rooms.part + e);
                    top[r] = load_fresh(peaks + (r * HEADS + head) * 2);
                    total[r] = load_fresh(peaks + (r * HEADS + head) * 2 + 1);
                }
#pragma unroll
                for (u32 r = 0; r < RANKS; ++r) {
                    complete = complete && is_written(value[r]) && is_written(top[r])
                        && is_written(total[r]);
                }
                if (complete) {
                    break;
                }
                look_again(looks);
            }
            const Mixed of = mix_parts<RANKS>(
                RANKS, [&](u32 r) { return make_float2(top[r], total[r]); },
                [&](u32 r) { return value[r]; });
            store_fresh(mixed + e, __fdividef(of.value, of.total));
        }
    }
    MARK(7);
    // The slabs are free for the next layer: those of this warp to itself, all to the fetcher.
    meet<ATTEND>();
    if (this_thread() == 0) {
        barrier_arrive(shared_address(&kept.cache_empty));
    }
}

// Asks for this block's part of a layer's norms and units to come into the L2 cache.
template <u32 DIM>
__device__ __forceinline__ void fetch_ahead(const Layers &args, const Kept<DIM> &kept, u32 layer) {
    if (layer < args.count) {
        const u64 *of = kept.addresses + layer * Layers::WORDS;
#pragma unroll 1
        for (u32 which = 0; which < LINEARS; ++which) {
            const Share share = kept.shares[which];
            if (share.count > 0) {
                prefetch(reinterpret_cast<const f32 *>(of[4 + which]) + share.first * 32,
                         min(share.count * 32, kept.shapes.row_tiles[which] * 16 - share.first * 32)
                             * 4);
            }
            // In units of a line.
            const u32 lines = (kept.shapes.cols[which] + 31) / 32;
            const u32 each = (lines + gridDim.x - 1) / gridDim.x;
            const u32 first = blockIdx.x * each * 32;
            if (of[8 + which] != 0 && first < kept.shapes.cols[which]) {
                prefetch(reinterpret_cast<const f32 *>(of[8 + which]) + first,
                         min(each * 32, kept.shapes.cols[which] - first) * 4);
            }
        }
    }
}

// Has a linear's weights come to the slots, as they get empty.
template <u32 DIM>
__device__ __forceinline__ void fetch_weights(const Layers &args, Kept<DIM> &kept, u32 which,
                                              u32 layer, unsigned char *slots, Ring &ring) {
    const Share share = kept.shares[which];
    const u32 slot_tiles = kept.shapes.slot_tiles;
    const u32 col_tiles = (kept.shapes.cols[which] + 127) / 128;
    const u32 row_bytes = col_tiles * TILE_BYTES;
    const u8 *codes = reinterpret_cast<const u8 *>(kept.addresses[layer * Layers::WORDS + which]);
#pragma unroll 1
    for (u32 pair = share.first; pair < share.first + share.count; ++pair) {
        const u8 *from = codes + static_cast<size_t>(pair) * PAIR * row_bytes;
        // The last pair may be one tile row; the other is never stored.
        const u32 rows = min(PAIR, kept.shapes.row_tiles[which] - pair * PAIR);
#pragma unroll 1
        for (u32 tile = 0; tile < col_tiles; tile += slot_tiles) {
            if (threadIdx.x % WARP == 0) {
                const u32 bytes = min(slot_tiles, col_tiles - tile) * TILE_BYTES;
                const u32 to =
                    shared_address(slots + ring.slot * slot_tiles * PAIR * TILE_BYTES);
                const u32 full = shared_address(&kept.full[ring.slot]);
                barrier_wait(shared_address(&kept.empty[ring.slot]), ring.parity);
                barrier_expect(full, rows * bytes);
                bulk_copy(to, from + tile * TILE_BYTES, bytes, full);
                if (rows == PAIR) {
                    bulk_copy(to + bytes, from + row_bytes + tile * TILE_BYTES, bytes, full);
                }
            }
            ring.advance();
        }
    }
    __syncwarp();
}

// What attention is told of a layer; `qkv` and `mixed` are the caller's to fill in.
__device__ __forceinline__ Args cache_of(const Layers &args, u32 layer) {
    const size_t at = layer * static_cast<size_t>(args.layer_stride) * 16;
    return {nullptr, args.keys + at, args.values + at, args.cos, args.sin, args.positions,
            args.slots, nullptr, args.heads, args.kv_heads, args.head_dim, args.capacity, 1,
            args.factor};
}

// The part of attention that this block has, the same in all layers. False: none.
template <u32 RANKS>
__device__ __forceinline__ bool part_of_block(const Layers &args, Part &part) {
    const u32 sets = args.kv_heads * ((args.heads / args.kv_heads + HEADS - 1) / HEADS);
    if (blockIdx.x >= sets * RANKS) {
        return false;
    }
    const Args shape = cache_of(args, 0);
    aim(shape, 0, blockIdx.x / RANKS, part);
    part.rank = blockIdx.x % RANKS;
    part.position = args.positions[0];
    spread<RANKS>(shape, UNIT, part);
    return part.rank < part.ranks;
}

// Asks for this block's share of a layer's keys and values to come into the L2 cache.
__device__ __forceinline__ void fetch_cache_ahead(const Layers &args, const Part &part,
                                                  u32 layer) {
    if (layer < args.count) {
        // A rank's share of the head's positions, in blocks of keys.
        const u32 blocks = part.position / BLOCK + 1;
        const u32 each = (blocks + part.ranks - 1) / part.ranks;
        const u32 first = min(blocks, part.rank * each);
        const u32 bytes = (min(blocks, first + each) - first) * BLOCK * part.dim * 2;
        if (bytes > 0) {
            const Args next = cache_of(args, layer);
            const size_t at = (part.start + static_cast<size_t>(first) * BLOCK * part.dim) * 2;
            prefetch(next.keys + at, bytes);
            prefetch(next.values + at, bytes);
        }
    }
}

template <u32 RANKS, u32 DIM>
__device__ __forceinline__ void decode_layers(const Layers &args) {
    extern __shared__ __align__(128) unsigned char shared[];
    __shared__ Kept<DIM> kept;
    const u32 lane = this_thread() % WARP, warp = this_thread() / WARP;
    const u32 slot_bytes =
        (max(args.hidden_cols, args.heads * args.head_dim) + 127) / 128 * PAIR * TILE_BYTES;
    unsigned char *slabs = shared + args.slots_of_weights * slot_bytes;
    i32 *sums = reinterpret_cast<i32 *>(slabs + WARPS * Slab::bytes_of(args.head_dim));

    if (threadIdx.x == 0) {
#pragma unroll 1
        for (u32 slot = 0; slot < args.slots_of_weights; ++slot) {
            barrier_init(shared_address(&kept.full[slot]), 1);
            barrier_init(shared_address(&kept.empty[slot]), MULTIPLIERS);
        }
        barrier_init(shared_address(&kept.cache_full), 2 * WARP);
        barrier_init(shared_address(&kept.cache_empty), 1);
        barriers_ready();
        kept.rooms.lay_out(args, RANKS);
        // At first `UNWRITTEN`, as all rooms are: set 0. The step ahead has ended in any case: its
        // token was chosen behind it.
        kept.first_set = __float_as_uint(load_fresh(args.rooms + Layers::SETS * kept.rooms.words))
            - UNWRITTEN;
        kept.shapes.measure(args);
        const Shapes &shapes = kept.shapes;
        // Blocks that get a pair less in one linear get it in another.
        const u32 mirrored = gridDim.x - 1 - blockIdx.x;
        kept.shares[QKV] = share_of(shapes.row_tiles[QKV], blockIdx.x);
        kept.shares[OUT] = share_of(shapes.row_tiles[OUT], mirrored);
        kept.shares[GATE_UP] = share_of(shapes.row_tiles[GATE_UP], blockIdx.x);
        kept.shares[DOWN] = share_of(shapes.row_tiles[DOWN], mirrored);
    }
#pragma unroll 1
    for (u32 at = threadIdx.x; at < args.count * Layers::WORDS; at += Layers::THREADS) {
        kept.addresses[at] = __ldg(reinterpret_cast<const u64 *>(args.layers) + at);
    }
    // Beyond the multipliers there is nobody's peak.
    if (warp == KEEPER && lane >= MULTIPLIERS) {
        kept.peaks[lane] = make_float2(0.0f, 0.0f);
    }
    __syncthreads();

    if (warp == FETCHER) {
        Ring ring{args.slots_of_weights};
        // Slots are empty at first.
        ring.parity = 1;
        bool attends = false;
#pragma unroll 1
        for (u32 layer = 0; layer < args.count; ++layer) {
            if (lane == 0) {
                fetch_ahead(args, kept, layer + 1);
            }
            fetch_weights(args, kept, QKV, layer, shared, ring);
            if (layer == 0) {
                wait_for_dependencies();
                Part part = {};
                attends = part_of_block<RANKS>(args, part);
                if (lane == 0) {
                    kept.fetched = part;
                }
                __syncwarp();
            }
            if (attends) {
                if (layer > 0) {
                    barrier_wait(shared_address(&kept.cache_empty), (layer - 1) % 2);
                }
                const Args cache = cache_of(args, layer);
#pragma unroll 1
                for (u32 w = 0; w < BROUGHT; ++w) {
                    fetch_first(cache, kept.fetched, w, slabs);
                }
                // Copies of a lane, and what it has written itself.
                const u32 full = shared_address(&kept.cache_full);
                asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(full)
                             : "memory");
                barrier_arrive(full);
                if (lane == 0) {
                    fetch_cache_ahead(args, kept.fetched, layer + 1);
                }
            }
            fetch_weights(args, kept, OUT, layer, shared, ring);
            fetch_weights(args, kept, GATE_UP, layer, shared, ring);
            fetch_weights(args, kept, DOWN, layer, shared, ring);
        }
        return;
    }

    const Rooms &rooms = kept.rooms;
    Ring ring{args.slots_of_weights};
    wait_for_dependencies();
    if (warp < WARPS) {
        Part part = {};
        const bool attends = part_of_block<RANKS>(args, part);
        if (threadIdx.x == 0) {
            kept.attends = attends;
            kept.part = part;
        }
        const u32 pairs = args.head_dim / 2;
        if (threadIdx.x < DIM / 2) {
            const bool turns = args.cos != nullptr && threadIdx.x < pairs;
            const size_t at = static_cast<size_t>(part.position) * pairs + threadIdx.x;
            kept.cosine[threadIdx.x] = turns ? __ldg(args.cos + at) : 1.0f;
            kept.sine[threadIdx.x] = turns ? __ldg(args.sin + at) : 0.0f;
        }
        clear_queries(kept.prepared);
        meet<ATTEND>();
    }
    if (warp == KEEPER) {
        // Blocks that multiply in qkv know then that the layer ahead is done with; for what they
        // write in gate_up all others wait.
        const u32 blocks = min(gridDim.x, (min(kept.shapes.row_tiles[QKV],
                                               kept.shapes.row_tiles[GATE_UP]) + 1) / PAIR);
#pragma unroll 1
        for (u32 layer = 0; layer < args.count; ++layer) {
#pragma unroll 1
            for (u32 which = 0; which < LINEARS; ++which) {
                if (kept.shares[which].count > 0) {
                    keep_row(args, kept.shapes.cols[which],
                             kept.addresses[layer * Layers::WORDS + 8 + which] != 0, kept);
                }
                if (which == QKV && blockIdx.x < blocks) {
                    // Of the layer ahead the row is still needed, of the one before it no longer.
                    constexpr u32 AHEAD = Layers::SETS - 1;
                    clear(room_of(args, rooms, kept.first_set, layer + AHEAD), rooms.hidden, blocks);
                    clear(room_of(args, rooms, kept.first_set, layer + AHEAD - 1) + rooms.hidden,
                          args.hidden_cols, blocks);
                    // Ordered before what this block writes next: the fence, then a barrier.
                    __threadfence();
                }
            }
        }
        return;
    }

#pragma unroll 1
    for (u32 layer = 0; layer < args.count; ++layer) {
        const bool is_first = layer == 0, is_last = layer + 1 == args.count;
        f32 *room = room_of(args, rooms, kept.first_set, layer);
        const f32 *hidden = is_first
            ? args.hidden : room_of(args, rooms, kept.first_set, layer - 1) + rooms.hidden;
        const auto run = [&](u32 which, const Linear &linear) {
            if (which == DOWN) {
                multiply_row<WIDE>(args, which, layer, linear, kept, shared, sums, ring);
            } else {
                multiply_row<1>(args, which, layer, linear, kept, shared, sums, ring);
            }
        };
        if (BROUGHT <= warp && warp < WARPS && kept.attends) {
            // Under way while the row is awaited.
            fetch_first(cache_of(args, layer), kept.part, warp, slabs);
        }
        run(QKV, {STORE, hidden, !is_first, nullptr, room, rooms.mixed});
        if (warp < WARPS && kept.attends) {
            Args attend = cache_of(args, layer);
            attend.qkv = room;
            attend.mixed = room + rooms.mixed;
            attend_part<RANKS>(attend, layer, rooms, room, kept, slabs);
        }
        run(OUT, {ADD, room + rooms.mixed, true, hidden, room + rooms.middle, args.hidden_cols});
        run(GATE_UP, {GATE, room + rooms.middle, true, nullptr, room + rooms.gated, args.ffn});
        run(DOWN, {ADD, room + rooms.gated, true, room + rooms.middle,
                   is_last ? args.hidden : room + rooms.hidden, args.hidden_cols});
    }
    // Every block that has something to do has looked at this.
    if (blockIdx.x == 0 && this_thread() == 0) {
        const u32 next = (kept.first_set + args.count) % Layers::SETS;
        store_fresh(args.rooms + Layers::SETS * rooms.words, __uint_as_float(next + UNWRITTEN));
    }
}

}  // namespace
