// What the warps of decode_layers.cuh share: who they are, what a block's part of a linear is, where
// numbers wait for others, and what is kept in shared memory.
#pragma once
#include "decode_attend_f16.cuh"
#include "decode_row.cuh"

namespace {

using Layers = DecodeLayersArgs;
static_assert(Layers::UNWRITTEN == UNWRITTEN, "one mark");

// Warps that multiply; then one that fetches weights, and one that keeps what a phase needs besides.
// Sixteen in all, so that each thread may have 128 registers.
constexpr u32 MULTIPLIERS = 14;
constexpr u32 FETCHER = MULTIPLIERS;
constexpr u32 KEEPER = MULTIPLIERS + 1;
static_assert(Layers::THREADS == (MULTIPLIERS + 2) * WARP, "every warp has a place");
constexpr u32 AT_WORK = MULTIPLIERS * WARP;

// A warp's place among those that tiles of columns are dealt to in turn: four bits each, from warp
// 0 on. A quarter of a multiprocessor has every fourth warp, and so three multipliers or four. The
// second round begins with quarters of three, so that no quarter has many more than another.
constexpr u64 PLACES = 0xdc76ba32981054ull;
static_assert(MULTIPLIERS == 14, "PLACES has as many");

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
// row of next to nothing. And one of the warps that attend, and of the multipliers behind them.
constexpr u32 PEAKS = 1;
constexpr u32 SUMS = 2;
constexpr u32 PEAK = 3;
constexpr u32 ATTEND = 4;
constexpr u32 ATTENDED = 5;

// Looks at words that others write before something must be wrong: some seconds.
constexpr u32 PATIENCE = 1u << 23;

template <u32 BARRIER>
__device__ __forceinline__ void meet() {
    asm volatile("bar.sync %0, %1;" ::"n"(BARRIER),
                 "n"(BARRIER == ATTEND ? Args::THREADS
                                       : AT_WORK + (BARRIER == ATTENDED ? 0 : WARP))
                 : "memory");
}

__device__ __forceinline__ void look_again(u32 &looks) {
    if (++looks == PATIENCE) {
        __trap();
    }
}

// The greatest of four numbers' bits: `UNWRITTEN` where one is not written.
__device__ __forceinline__ u32 most_of(float4 x) {
    return max(max(__float_as_uint(x.x), __float_as_uint(x.y)),
               max(__float_as_uint(x.z), __float_as_uint(x.w)));
}
static_assert(UNWRITTEN == 0xffffffffu, "the greatest of all bits");

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
    // Of lanes, of tiles of columns.
    f32 squares[WARP * SQUARES_STRIDE];
    __align__(16) f32 tiles[4 * WARP];
    // Of a linear's row, and zero for the next one's, in turn: the greatest product of weight and
    // number, and the greatest sum of four squares; neither is negative, so as bits.
    uint2 peaks[2];
    // Nobody reads it: see where slots are given back.
    volatile u32 seen[MULTIPLIERS];
    f32 row_peak;
    f32 row_unit;
    // Attention: this block's part, if it has one, and the position's angles.
    bool attends;
    Part part;
    // Of the part: what divides by `dim`; of half the elements, how many a rank mixes.
    u32 by_dim;
    u32 slice;
    // Warps that have a unit.
    u32 warps;
    // The part for the warp that fetches.
    Part fetched;
    f32 cosine[DIM / 2];
    f32 sine[DIM / 2];
    Prepared<DIM> prepared;
    float2 by_warp[WARPS][HEADS];
};

// Which slot comes next, and how often slots have been gone through; and what else takes turns.
struct Ring {
    u32 slots;
    u32 slot = 0;
    u32 parity = 0;
    // Of `Kept::peaks`, which belong to the next linear.
    u32 turn = 0;

    __device__ __forceinline__ void advance() {
        if (++slot == slots) {
            slot = 0;
            parity ^= 1;
        }
    }
};

// Has the warp ask for a unit's keys and values, `slab` being a shared address. Called, not inlined:
// all instructions of a layer must stay near.
__device__ __noinline__ void fetch_unit(u32 slab, u32 dim, const u16 *keys, const u16 *values,
                                        u32 unit, u32 position) {
    Slab(static_cast<unsigned char *>(__cvta_shared_to_generic(slab)), dim)
        .fetch(keys, values, unit, position);
}

// The same for unit `unit` of a part, into the slab of warp `warp`, if it has so many.
__device__ __forceinline__ void fetch_unit_of(const Args &args, const Part &part, u32 slabs,
                                              u32 warp, u32 unit) {
    if (unit < part.units) {
        fetch_unit(slabs + warp * Slab::bytes_of(part.dim), part.dim,
                   reinterpret_cast<const u16 *>(args.keys) + part.start,
                   reinterpret_cast<const u16 *>(args.values) + part.start, unit, part.position);
    }
}

// The first unit of a warp.
__device__ __forceinline__ void fetch_first_unit(const Args &args, const Part &part, u32 slabs,
                                                 u32 warp) {
    fetch_unit_of(args, part, slabs, warp, part.rank + warp * part.ranks);
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

// What attention is told of a layer; `qkv` and `mixed` are the caller's to fill in.
__device__ __forceinline__ Args cache_of(const Layers &args, u32 layer) {
    const size_t at = layer * static_cast<size_t>(args.layer_stride) * 16;
    return {nullptr, args.keys + at, args.values + at, args.cos, args.sin, args.positions,
            args.slots, nullptr, args.heads, args.kv_heads, args.head_dim, args.capacity, 1,
            args.factor};
}

}  // namespace
