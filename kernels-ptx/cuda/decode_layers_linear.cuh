// A linear in decode_layers.cuh: what the warps that multiply do of it, and what the keeper does.
#pragma once
#include "decode_layers_shared.cuh"

namespace {

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

// What the multipliers do of a linear of SLOTS slots a pair, if the block has a share of it; `sums`
// is (pairs of the share, 32), zero before and after.
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
    // Of the warp's tiles, by slot, each slot's tiles dealt on where those of the one before end;
    // those of no tile are beyond the last.
    u32 places[SLOTS];
    places[0] = PLACES >> (4 * warp) & 15;
#pragma unroll
    for (u32 slot = 1; slot < SLOTS; ++slot) {
        const u32 back = slot_tiles % MULTIPLIERS;
        places[slot] = places[slot - 1] + (places[slot - 1] < back ? MULTIPLIERS : 0) - back;
    }
    const auto tile_of = [&](u32 i) {
        const u32 in_slot = places[i / EACH] + i % EACH * MULTIPLIERS;
        return in_slot < slot_tiles ? i / EACH * slot_tiles + in_slot : TILES_MAX;
    };
    // Made before the row is there, not when it has come.
    PlaneLane plane_lane(lane);
#pragma unroll
    for (u32 i = 0; i < 3; ++i) {
        plane_lane.keep[i] = anew(plane_lane.keep[i]);
        plane_lane.turn[i] = anew(plane_lane.turn[i]);
    }
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
    // Takes the warp's codes of the next slot, of `tiles` tiles, the first of them `first`, and gives
    // the slot back. Where it has less than EACH these are any: there the row has nothing.
    const auto load_codes = [&](uint4 (&a)[EACH][PAIR], u32 first, u32 tiles) {
        const unsigned char *codes = slots + ring.slot * slot_tiles * PAIR * TILE_BYTES + lane * 16;
        barrier_wait(shared_address(&kept.full[ring.slot]), ring.parity);
#pragma unroll
        for (u32 i = 0; i < EACH; ++i) {
            const u32 tile = min(first + i * MULTIPLIERS, tiles - 1);
#pragma unroll
            for (u32 t = 0; t < PAIR; ++t) {
                a[i][t] =
                    *reinterpret_cast<const uint4 *>(codes + (t * tiles + tile) * TILE_BYTES);
            }
        }
        // The copy that overwrites the slot has to find the loads done. The arrival does not wait
        // for them: they may be in a queue still, behind copies of keys and values. A store of what
        // they bring does, and the arrival comes behind the store.
        kept.seen[warp] = a[0][0].x ^ a[0][1].x ^ a[1][0].x ^ a[1][1].x;
        __syncwarp();
        if (lane == 0) {
            barrier_arrive(shared_address(&kept.empty[ring.slot]));
        }
        ring.advance();
    };
    uint4 a[EACH][PAIR];
    if (SLOTS == 1) {
        // There before the row is.
        load_codes(a, places[0], col_tiles);
    }
    u32 looks = 0;
    u32 wanted[N];
#pragma unroll
    for (u32 i = 0; i < N; ++i) {
        wanted[i] = tile_of(i) * 128 + lane * 4 < cols;
    }
    for (;;) {
#pragma unroll
        for (u32 i = 0; i < N; ++i) {
            load_fresh4(x[i], of.x + tile_of(i) * 128 + lane * 4, wanted[i]);
        }
        u32 most = 0;
#pragma unroll
        for (u32 i = 0; i < N; ++i) {
            const u32 bits = most_of(x[i]);
            wanted[i] = bits == UNWRITTEN;
            most = max(most, bits);
        }
        if (most != UNWRITTEN || !of.awaited) {
            break;
        }
        look_again(looks);
    }
    MARK(1);
    f32 peak = 0.0f, most = 0.0f;
#pragma unroll
    for (u32 i = 0; i < N; ++i) {
        const u32 tile = tile_of(i);
        const f32 squares =
            (x[i].x * x[i].x + x[i].y * x[i].y) + (x[i].z * x[i].z + x[i].w * x[i].w);
        if (tile < col_tiles) {
            kept.squares[lane * SQUARES_STRIDE + tile] = squares;
        }
        most = fmaxf(most, squares);
        x[i] = make_float4(x[i].x * weight[i].x, x[i].y * weight[i].y, x[i].z * weight[i].z,
                           x[i].w * weight[i].w);
        peak = fmaxf(peak, greatest(x[i]));
    }
    peak = warp_peak(peak);
    most = warp_peak(most);
    if (lane == 0) {
        // Zero: the keeper saw to that before the last meeting.
        atomicMax(&kept.peaks[ring.turn].x, __float_as_uint(peak));
        atomicMax(&kept.peaks[ring.turn].y, __float_as_uint(most));
    }
    meet<PEAKS>();
    if (of.finish == ADD && thread < features) {
        // It was complete before the row was.
        other_of = load_fresh(of.residual + share.first * 32 + thread);
    }
    MARK(2);
    peak = __uint_as_float(kept.peaks[ring.turn].x);
    most = __uint_as_float(kept.peaks[ring.turn].y);
    ring.turn ^= 1;
    if (norm == nullptr) {
        peak = fmaxf(peak, PEAK_MIN);
    } else if (!is_plain_by_squares(peak, most, args.eps)) {
        meet<PEAK>();
        peak = kept.row_peak;
    }
    const f32 factor = __fdiv_rn(127.0f, peak);
    i32 value_sum = 0;
    Planes planes[N] = {};
#pragma unroll
    for (u32 i = 0; i < N; ++i) {
        // Of wide rows a warp has a second tile in few slots.
        if (SLOTS == 1 || i % EACH == 0 || tile_of(i) < col_tiles) {
            planes[i] = planes_of(quantise(x[i], factor, value_sum), plane_lane);
        }
    }
    value_sum = __reduce_add_sync(ALL, value_sum);
    MARK(3);
#pragma unroll 1
    for (u32 pair = 0; pair < share.count; ++pair) {
        i32 c[PAIR][2][4] = {};
        if (SLOTS == 1) {
#pragma unroll
            for (u32 i = 0; i < EACH; ++i) {
                if (i == 0 || tile_of(i) < col_tiles) {
                    multiply_planes(c, a[i], planes[i]);
                }
            }
            if (pair + 1 < share.count) {
                load_codes(a, places[0], col_tiles);
            }
        } else {
#pragma unroll
            for (u32 slot = 0; slot < SLOTS; ++slot) {
                const u32 before = slot * slot_tiles;
                if (before < col_tiles) {
                    load_codes(a, places[slot], min(slot_tiles, col_tiles - before));
#pragma unroll
                    for (u32 i = 0; i < EACH; ++i) {
                        if (i == 0 || tile_of(slot * EACH + i) < col_tiles) {
                            multiply_planes(c, a[i], planes[slot * EACH + i]);
                        }
                    }
                }
            }
        }
        atomicAdd(sums + pair * 32 + lane % 4 * 8 + lane / 4, sum_planes(c, lane) - value_sum);
    }
    MARK(4);
    meet<SUMS>();
    MARK(5);
    // Beyond the last feature there may be sums of rows that are none. All become zero for the next
    // linear, which adds behind the next meeting.
    if (thread < share.count * by_pair) {
        const f32 unit = kept.row_unit;
        i32 *of_feature = sums + thread / by_pair * 32 + thread % by_pair;
        f32 value = static_cast<f32>(*of_feature) * unit * unit_of;
        *of_feature = 0;
        if (gated) {
            const f32 up = static_cast<f32>(of_feature[16]) * unit * other_of;
            of_feature[16] = 0;
            value = activate(args.activation, value) * up;
        } else if (of.finish == ADD) {
            value = other_of + value;
        }
        if (thread < features) {
            store_fresh(of.out + share.first * by_pair + thread, value);
        }
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
                                         Kept<DIM> &kept, u32 &turn) {
    const u32 lane = threadIdx.x % WARP;
    meet<PEAKS>();
    const f32 peak = __uint_as_float(kept.peaks[turn].x);
    const bool plain =
        !normed || is_plain_by_squares(peak, __uint_as_float(kept.peaks[turn].y), args.eps);
    turn ^= 1;
    if (lane == 0) {
        // Those of the linear behind: whoever read them has met at its sums. Those who will write
        // here meet at this one's first.
        kept.peaks[turn] = make_uint2(0, 0);
    }
    f32 inverse_rms = 1.0f;
    f32 least = PEAK_MIN;
    if (normed) {
        const u32 col_tiles = (cols + 127) / 128;
#pragma unroll 1
        for (u32 tile = lane; tile < 4 * WARP; tile += WARP) {
            kept.tiles[tile] =
                tile < col_tiles ? sum_tree<WARP, SQUARES_STRIDE>(kept.squares + tile) : 0.0f;
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

}  // namespace
