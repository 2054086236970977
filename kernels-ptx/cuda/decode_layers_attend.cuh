// Attention in decode_layers.cuh: the part of one thread block.
#pragma once
#include "decode_layers_shared.cuh"

namespace {

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
        },
        [&](u32 unit) {
            fetch_unit_of(cache_of(layers, anew(layer)), kept.part,
                          anew(shared_address(slabs)), this_thread() / WARP, unit);
        });
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
    // The slabs are free for the next layer.
    __syncwarp();
    if (part.lane == 0) {
        barrier_arrive(shared_address(&kept.cache_empty));
    }
    MARK(6);
    if (part.ranks > 1) {
        const u32 end = min(pairs, (part.rank + 1) * kept.slice);
#pragma unroll 1
        for (u32 e = part.rank * kept.slice + this_thread(); e < end; e += Args::THREADS) {
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
    MARK(7);
}

}  // namespace
