// Attention in decode_layers.cuh: the part of one thread block.
#pragma once
#include "decode_layers_shared.cuh"

namespace {

// As `score_unit`, all steps taken: a branch around one would have them wait for each other.
template <u32 DIM>
__device__ __forceinline__ void score_steps(f32 (&score)[4], const Slab &slab, u32 query,
                                            f32 factor, u32 left) {
    const u32 lane = this_thread() % WARP, dim = anew(slab.dim);
    const u32 q = lane % 4;
    const u32 key = slab.keys + Slab::key_chunk(lane % 16, lane / 16);
    // Beyond the last element the query is zero, the key any that there is.
    const u32 rest =
        slab.keys + Slab::key_chunk(min(dim / 16 * 16 + lane % 16, dim - 1), lane / 16);
    f32 s[2][2][4] = {};
#pragma unroll 4
    for (u32 k = 0; k < DIM / 16; ++k) {
        u32 a[4], b[4];
        load_matrices(a, query + k * 32);
        load_transposed(b, (k + 1) * 16 <= dim ? key + k * 16 * KEY_STRIDE : rest);
        multiply(s[0][k % 2], a, b[0], b[1]);
        multiply(s[1][k % 2], a, b[2], b[3]);
    }
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        const f32(&t)[2][4] = s[i / 2];
        const f32 product = ((t[0][i % 2] + t[1][i % 2])
                             + (t[0][i % 2 + 2] + t[1][i % 2 + 2])) * factor;
        score[i] = i / 2 * 8 + 2 * q + i % 2 <= left ? product : NONE;
    }
}

// Values of a unit, weighted: lane (g, q) gets two elements of head g and those 8 behind them.
// `values`: where this lane's chunk of eight values is.
__device__ __forceinline__ void mix_values(float2 (&two)[2], u32 values,
                                           const u32 (&weights)[4]) {
    u32 b[4];
    load_transposed(b, values);
#pragma unroll
    for (u32 i = 0; i < 2; ++i) {
        f32 c[4] = {};
        multiply(c, weights, b[2 * i], b[2 * i + 1]);
        // High and low.
        two[i] = make_float2(c[0] + c[2], c[1] + c[3]);
    }
}

// Queries and, where the part has the row's own position, key and value become halves in shared
// memory: queries and key turned.
template <u32 DIM>
__device__ __forceinline__ void prepare_part(const Args &args, const Part &part, bool fresh,
                                             Kept<DIM> &kept) {
    Prepared<DIM> &prepared = kept.prepared;
    Angles<DIM> angles;
#pragma unroll
    for (u32 k = 0; k < DIM / 2 / WARP; ++k) {
        angles.cosine[k] = kept.cosine[part.lane + k * WARP];
        angles.sine[k] = kept.sine[part.lane + k * WARP];
    }
    MARK(2);
    f32 held_low[DIM / 64] = {}, held_high[DIM / 64] = {};
    take_row<DIM>(
        args, part, angles, fresh,
        [&](u32 task, u32 i, f32 low, f32 high) {
            if (task >= part.heads) {
                if (i < part.dim / 2) {
                    prepared.fresh[task - part.heads][i] = to_f16(low);
                    prepared.fresh[task - part.heads][i + part.dim / 2] = to_f16(high);
                }
                return;
            }
#pragma unroll
            for (u32 k = 0; k < DIM / 64; ++k) {
                if (i / WARP == k) {
                    held_low[k] = low;
                    held_high[k] = high;
                }
            }
        },
        [&](u32 task) {
            if (task < part.heads) {
                const f32 scale = place_query<DIM>(held_low, held_high, part.dim,
                                                   prepared.queries[task],
                                                   prepared.queries[task + 8]);
                if (part.lane == 0) {
                    prepared.scales[task] = scale;
                }
            }
        });
}

// The row's own key and value, for later steps.
template <u32 DIM>
__device__ __forceinline__ void keep_fresh(const Args &args, const Part &part,
                                           const Prepared<DIM> &prepared) {
    u16 *keys = reinterpret_cast<u16 *>(args.keys) + part.start
        + static_cast<size_t>(part.position / BLOCK) * BLOCK * part.dim + part.position % BLOCK;
    u16 *values = reinterpret_cast<u16 *>(args.values) + part.start
        + static_cast<size_t>(part.position) * part.dim;
#pragma unroll 1
    for (u32 i = part.lane; i < part.dim; i += WARP) {
        keys[i * BLOCK] = prepared.fresh[0][i];
        values[i] = prepared.fresh[1][i];
    }
}

// The units of this warp, the first of which is `mine`: leaves the sums of weighted values in its
// slab, (heads, dim), and their peaks and sums of weights in `kept.by_warp`. As `attend_units`, but
// without branches around steps, which would have them wait for each other, and with little kept
// through the units: here are registers enough for the one, too few for the other.
template <u32 DIM>
__device__ __forceinline__ void attend_units_of_warp(const Layers &layers, u32 layer,
                                                     const Args &args, const Part &part, u32 mine,
                                                     Kept<DIM> &kept, unsigned char *slabs) {
    const u32 lane = part.lane, dim = part.dim;
    Prepared<DIM> &prepared = kept.prepared;
    const Slab slab(slabs + part.warp * Slab::bytes_of(dim), dim);
    const u32 last = part.units - 1;
    // Lane (g, q) has positions 2q and 2q + 1 (and 8 behind) of head g.
    const u32 g = lane / 4, q = lane % 4;
    const u32 query = shared_address(&prepared.queries[lane % 16][lane / 16 * 8]);
    const f32 factor = args.factor * LOG2_E * (g < part.heads ? prepared.scales[g] : 0.0f);
    Running running;
    float2 out[DIM / 8] = {};
    wait_for_copies();
#pragma unroll 1
    for (u32 unit = mine;;) {
        if (unit == last) {
            // What the copy brought for the new position is older than the position.
            const u32 place = anew(part.position) % UNIT;
#pragma unroll
            for (u32 i = this_thread() % WARP; i < DIM; i += WARP) {
                if (i < dim) {
                    *slab.key(place, i) = prepared.fresh[0][i];
                    *slab.value(place, i) = prepared.fresh[1][i];
                }
            }
            __syncwarp();
        }
        const u32 left = part.position - unit * UNIT;
        f32 score[4];
        score_steps<DIM>(score, slab, query, factor, left);
        u32 weights[4];
        const f32 fade = running.take(weights, score, left);
        // Chunks of eight values; the last elements may have none behind them.
        const u32 this_lane = this_thread() % WARP, chunks = anew(slab.value_stride) / 16;
        const u32 from = slab.values + this_lane % 16 * chunks * 16;
        const u32 first = from + this_lane / 16 * 16;
        const u32 rest = from + min((dim - 1) / 16 * 2 + this_lane / 16, chunks - 1) * 16;
        // Elements beyond the last are of no use.
#pragma unroll
        for (u32 n = 0; n < DIM / 8; n += 2) {
            float2 two[2];
            mix_values(two, n + 2 <= chunks ? first + n * 16 : rest, weights);
#pragma unroll
            for (u32 i = 0; i < 2; ++i) {
                out[n + i] = faded(out[n + i], fade, two[i]);
            }
        }
        __syncwarp();
        unit += part.ranks * WARPS;
        if (unit >= part.units) {
            break;
        }
        fetch_unit_of(cache_of(layers, anew(layer)), kept.part, anew(shared_address(slabs)),
                      this_thread() / WARP, unit);
        wait_for_copies();
    }
    const f32 sum = running.total();
    // The slab is free for the sums.
    __syncwarp();
    f32 *outs = reinterpret_cast<f32 *>(slab.bytes) + g * dim;
    if (g < part.heads) {
#pragma unroll
        for (u32 n = 0; n < DIM / 8; ++n) {
            if (n * 8 + q * 2 < dim) {
                *reinterpret_cast<float2 *>(outs + n * 8 + q * 2) = out[n];
            }
        }
        if (q == 0) {
            kept.by_warp[part.warp][g] = make_float2(running.top, sum);
        }
    }
}

// As `Mixed`, of two elements of a head.
struct MixedTwo {
    f32 top;
    f32 total;
    float2 value;
};

template <u32 PARTS, typename Peaks, typename Values>
__device__ __forceinline__ MixedTwo mix_two(u32 count, Peaks &&peaks, Values &&values) {
    float2 of[PARTS], two[PARTS];
    MixedTwo mixed = {NONE, 0.0f, make_float2(0.0f, 0.0f)};
#pragma unroll
    for (u32 i = 0; i < PARTS; ++i) {
        of[i] = peaks(i);
        two[i] = values(i);
    }
#pragma unroll
    for (u32 i = 0; i < PARTS; ++i) {
        mixed.top = i < count ? fmaxf(mixed.top, of[i].x) : mixed.top;
    }
#pragma unroll
    for (u32 i = 0; i < PARTS; ++i) {
        const f32 scale = exp2_fast(of[i].x - mixed.top);
        const f32 total = __fmaf_rn(scale, of[i].y, mixed.total);
        const f32 x = __fmaf_rn(scale, two[i].x, mixed.value.x);
        const f32 y = __fmaf_rn(scale, two[i].y, mixed.value.y);
        mixed.total = i < count ? total : mixed.total;
        mixed.value = i < count ? make_float2(x, y) : mixed.value;
    }
    return mixed;
}

__device__ __forceinline__ float2 divided(const MixedTwo &of) {
    return make_float2(__fdividef(of.value.x, of.total), __fdividef(of.value.y, of.total));
}

// What the first WARPS warps do of attention: the part of this block.
template <u32 RANKS, u32 DIM>
__device__ __forceinline__ void attend_part(const Layers &layers, u32 layer, Kept<DIM> &kept,
                                            unsigned char *slabs) {
    const Rooms &rooms = kept.rooms;
    f32 *room = room_of(layers, rooms, kept.first_set, layer);
    Args args = cache_of(layers, layer);
    args.qkv = room;
    args.mixed = room + rooms.mixed;
    Part part = kept.part;
    part.lane = this_thread() % WARP;
    part.warp = this_thread() / WARP;
    const bool fresh = (part.units - 1) % part.ranks == part.rank;
    prepare_part(args, part, fresh, kept);
    MARK(3);
    meet<ATTEND>();
    MARK(4);
    if (fresh && part.warp == WARPS - 1) {
        // The warp of the fewest units.
        keep_fresh(args, part, kept.prepared);
    }
    const u32 mine = part.rank + part.warp * part.ranks;
    if (mine < part.units) {
        attend_units_of_warp(layers, layer, args, part, mine, kept, slabs);
    }
    meet<ATTEND>();
    MARK(5);
    // Two elements a thread: of one head, as heads have an even number.
    const u32 pairs = part.heads * part.dim / 2;
    const u32 warps = kept.warps;
    const u32 slab_bytes = Slab::bytes_of(part.dim);
    f32 *mixed = args.mixed + part.first_head * part.dim;
    // Those of rank 0 of the same heads.
    f32 *values = room + rooms.parts + (blockIdx.x - part.rank) * rooms.part;
    f32 *peaks = room + rooms.peaks + (blockIdx.x - part.rank) * HEADS * 2;
#pragma unroll 1
    for (u32 e = this_thread(); e < pairs; e += Args::THREADS) {
        const u32 head = quotient(2 * e, kept.by_dim);
        const auto peak_of = [&](u32 w) { return kept.by_warp[w][head]; };
        const auto value_of = [&](u32 w) {
            return reinterpret_cast<const float2 *>(slabs + w * slab_bytes)[e];
        };
        const MixedTwo of = warps <= WARPS / 2 ? mix_two<WARPS / 2>(warps, peak_of, value_of)
                                               : mix_two<WARPS>(warps, peak_of, value_of);
        if (part.ranks == 1) {
            store_fresh2(mixed + 2 * e, divided(of));
            continue;
        }
        store_fresh2(values + part.rank * rooms.part + 2 * e, of.value);
        if (2 * e == head * part.dim) {
            store_fresh2(peaks + (part.rank * HEADS + head) * 2, make_float2(of.top, of.total));
        }
    }
    MARK(6);
}

// What the multipliers behind them do meanwhile: mixes this block's slice of the elements from the
// parts of all ranks, as they come.
template <u32 RANKS, u32 DIM>
__device__ __forceinline__ void mix_ranks(const Layers &layers, u32 layer, const Kept<DIM> &kept) {
    const Rooms &rooms = kept.rooms;
    const Part &part = kept.part;
    f32 *room = room_of(layers, rooms, kept.first_set, layer);
    f32 *mixed = room + rooms.mixed + part.first_head * part.dim;
    const u32 of_first_rank = blockIdx.x - part.rank;
    const f32 *values = room + rooms.parts + of_first_rank * rooms.part;
    const f32 *peaks = room + rooms.peaks + of_first_rank * HEADS * 2;
    const u32 end = min(part.heads * part.dim / 2, (part.rank + 1) * kept.slice);
#pragma unroll 1
    for (u32 e = part.rank * kept.slice + this_thread() - Args::THREADS; e < end;
         e += AT_WORK - Args::THREADS) {
        const u32 head = quotient(2 * e, kept.by_dim);
        float2 value[RANKS], peak[RANKS];
        u32 looks = 0;
        for (;;) {
            bool complete = true;
#pragma unroll
            for (u32 r = 0; r < RANKS; ++r) {
                value[r] = load_fresh2(values + r * rooms.part + 2 * e);
                peak[r] = load_fresh2(peaks + (r * HEADS + head) * 2);
            }
#pragma unroll
            for (u32 r = 0; r < RANKS; ++r) {
                complete = complete & is_written(value[r].x) & is_written(value[r].y)
                    & is_written(peak[r].x) & is_written(peak[r].y);
            }
            if (complete) {
                break;
            }
            look_again(looks);
        }
        store_fresh2(mixed + 2 * e, divided(mix_two<RANKS>(
            RANKS, [&](u32 r) { return peak[r]; }, [&](u32 r) { return value[r]; })));
    }
}

}  // namespace
