// Attention in decode_layers.cuh: the part of one thread block.
#pragma once
#include "decode_layers_shared.cuh"

namespace {

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

}  // namespace
