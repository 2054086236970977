// The end of a tile of a linear that the two teams of a thread block share: each takes the rows of
// its parity from the other, adds what other blocks made of the tile's columns, and finishes them.
#pragma once
#include "activation.cuh"
#include "linear_tiles.cuh"

namespace linear_tiles {

// Sums of two row tiles (16 features each) of a warp by N rows, as tensor cores leave them: of
// lane 4g + q, `sums[t][4 · i + 2 · h + j]` is feature g + 8h of row tile t, row 8i + 2q + j.
template <u32 N>
struct Sums {
    i32 sums[2][N / 2];
};

__device__ __forceinline__ void add_four(i32 *sums, int4 more) {
    sums[0] += more.x;
    sums[1] += more.y;
    sums[2] += more.z;
    sums[3] += more.w;
}

// What a thread finishes of a tile that the teams share, by row `8 i + 2 q + team` of the tile and
// feature `g + 8 h` of row tile `t` of its warp (lane 4g + q): each team has every other row.
template <u32 N>
struct Own {
    i32 sums[N / 8][2][2];
};

// What a thread needs to know of its features, to finish them.
struct Features {
    // `outside` where there is no such feature.
    u32 at[2][2];
    f32 unit[2][2];
    f32 bias[2][2];
    // Of the thread's row among those of the tile, for all to read.
    RowInfo info;

    __device__ __forceinline__ void load(const Args &args, u32 row_tile, u32 first_row, u32 rows) {
        const u32 lane = threadIdx.x % 32;
        const bool gated = args.finish == Args::GATED;
        const u32 tile = row_tile + threadIdx.x / 32 % 4 * 2;
#pragma unroll
        for (u32 t = 0; t < 2; ++t) {
#pragma unroll
            for (u32 h = 0; h < 2; ++h) {
                const u32 column = lane / 4 + 8 * h;
                const u32 weight_row = (tile + t) * 16 + column;
                const u32 feature = gated ? tile / 2 * 16 + column : weight_row;
                const bool inside = feature < args.features;
                // What a gate and its up make is written once.
                at[t][h] = inside && !(gated && t == 1) ? feature : OUTSIDE;
                unit[t][h] = inside ? args.units[weight_row] : 0.0f;
                bias[t][h] = inside && args.bias != nullptr ? args.bias[weight_row] : 0.0f;
            }
        }
        const u32 thread = threadIdx.x;
        const u32 row = first_row + thread;
        const bool there = thread < rows && row < args.rows;
        info.unit = there ? __ldcg(args.row_units + row) : 0.0f;
        info.sum = there ? __ldcg(args.value_sums + row) : 0;
    }

    static constexpr u32 OUTSIDE = 0xffffffffu;
};

// Blocks of eight rows that are finished at a time.
__host__ __device__ constexpr u32 together(u32 n) {
    return n / 8 < 4 ? n / 8 : 4;
}

// The thread's row of block `i` of eight, counted from the first of the step.
__device__ __forceinline__ u32 row_of(u32 first_row, u32 i) {
    return first_row + 8 * i + threadIdx.x % 4 * 2 + threadIdx.x / TEAM;
}

__device__ __forceinline__ f32 *out_of(const Args &args, u32 row) {
    return args.out + static_cast<size_t>(row) * args.out_stride + args.out_offset;
}

// What is in the output where values are added to it: asked for well ahead of what is stored.
template <u32 COUNT>
struct Before {
    f32 x[COUNT][2][2];

    // Of blocks `begin` on of the tile's eight rows.
    __device__ __forceinline__ void load(const Args &args, const Features &mine, u32 first_row,
                                         u32 begin) {
#pragma unroll
        for (u32 i = 0; i < COUNT; ++i) {
            const u32 row = row_of(first_row, begin + i);
            const f32 *from = out_of(args, row);
#pragma unroll
            for (u32 t = 0; t < 2; ++t) {
#pragma unroll
                for (u32 h = 0; h < 2; ++h) {
                    const bool there = row < args.rows && mine.at[t][h] != Features::OUTSIDE;
                    x[i][t][h] = there ? __ldcg(from + mine.at[t][h]) : 0.0f;
                }
            }
        }
    }
};

// Where a thread finds what the other team gave it; afterwards the place is its own.
template <u32 N>
__device__ __forceinline__ int4 *taken_of(int4 *room) {
    return room + (TEAMS - 1 - threadIdx.x / TEAM) * (N / 8) * TEAM;
}

// Each team gives the other the rows that it does not finish, and takes its own.
template <u32 N>
__device__ __forceinline__ void exchange(Own<N> &own, const Sums<N> &acc, int4 *room) {
    const u32 team = threadIdx.x / TEAM;
    int4 *const given = room + team * (N / 8) * TEAM;
    const int4 *const taken = taken_of<N>(room);
#pragma unroll
    for (u32 i = 0; i < N / 8; ++i) {
        i32 other[2][2];
#pragma unroll
        for (u32 t = 0; t < 2; ++t) {
#pragma unroll
            for (u32 h = 0; h < 2; ++h) {
                const i32 even = acc.sums[t][i * 4 + h * 2], odd = acc.sums[t][i * 4 + h * 2 + 1];
                own.sums[i][t][h] = team == 0 ? even : odd;
                other[t][h] = team == 0 ? odd : even;
            }
        }
        given[i * TEAM] = make_int4(other[0][0], other[0][1], other[1][0], other[1][1]);
    }
    async::meet(SUMS_READY, TEAMS * TEAM);
#pragma unroll
    for (u32 i = 0; i < N / 8; ++i) {
        add_four(&own.sums[i][0][0], taken[i * TEAM]);
    }
}

// What becomes of the sums of a tile that the teams share, straight from the registers: eight
// lanes write neighbours, which fill a sector. `before` is what the first rows have; of many rows
// the sums wait in `room`, so that the code is short.
template <u32 N>
__device__ __forceinline__ void finish_shared(const Args &args, Own<N> &own, const Features &mine,
                                              Before<together(N)> &before, const RowInfo *infos,
                                              int4 *room, u32 first_row) {
    constexpr u32 COUNT = together(N);
    const u32 how = args.finish;
    const u32 function = args.activation;
    const bool has_bias = args.bias != nullptr;
    int4 *const parked = taken_of<N>(room);
    if (COUNT < N / 8) {
#pragma unroll
        for (u32 i = COUNT; i < N / 8; ++i) {
            const auto &x = own.sums[i];
            parked[i * TEAM] = make_int4(x[0][0], x[0][1], x[1][0], x[1][1]);
        }
    }
#pragma unroll 1
    for (u32 begin = 0; begin < N / 8 && first_row + begin * 8 < args.rows; begin += COUNT) {
        f32 old[COUNT][2][2];
#pragma unroll
        for (u32 i = 0; i < COUNT; ++i) {
#pragma unroll
            for (u32 t = 0; t < 2; ++t) {
                old[i][t][0] = before.x[i][t][0];
                old[i][t][1] = before.x[i][t][1];
            }
        }
        if (COUNT < N / 8 && how == Args::ADD) {
            before.load(args, mine, first_row, begin + COUNT);
        }
#pragma unroll
        for (u32 i = 0; i < COUNT; ++i) {
            const u32 row = row_of(first_row, begin + i);
            f32 *const to = out_of(args, row);
            const RowInfo info = infos[row - first_row];
            f32 real[2][2];
#pragma unroll
            for (u32 t = 0; t < 2; ++t) {
#pragma unroll
                for (u32 h = 0; h < 2; ++h) {
                    // Codes are trits plus one. The sum is exact as a single.
                    const f32 sum = __int2float_rn(own.sums[i][t][h] - info.sum);
                    const f32 value = __fmul_rn(__fmul_rn(sum, info.unit), mine.unit[t][h]);
                    real[t][h] = has_bias ? __fadd_rn(value, mine.bias[t][h]) : value;
                }
            }
            if (how == Args::ADD) {
#pragma unroll
                for (u32 t = 0; t < 2; ++t) {
                    real[t][0] = __fadd_rn(old[i][t][0], real[t][0]);
                    real[t][1] = __fadd_rn(old[i][t][1], real[t][1]);
                }
            } else if (how != Args::STORE) {
                real[0][0] = activation::apply(function, real[0][0]);
                real[0][1] = activation::apply(function, real[0][1]);
                if (how == Args::GATED) {
                    real[0][0] = __fmul_rn(real[0][0], real[1][0]);
                    real[0][1] = __fmul_rn(real[0][1], real[1][1]);
                } else {
                    real[1][0] = activation::apply(function, real[1][0]);
                    real[1][1] = activation::apply(function, real[1][1]);
                }
            }
            if (row < args.rows) {
#pragma unroll
                for (u32 t = 0; t < 2; ++t) {
#pragma unroll
                    for (u32 h = 0; h < 2; ++h) {
                        if (mine.at[t][h] != Features::OUTSIDE) {
                            to[mine.at[t][h]] = real[t][h];
                        }
                    }
                }
            }
        }
        if (COUNT < N / 8) {
#pragma unroll
            for (u32 i = 0; i < COUNT; ++i) {
                if (begin + COUNT < N / 8) {
                    const int4 x = parked[(begin + COUNT + i) * TEAM];
                    own.sums[i][0][0] = x.x;
                    own.sums[i][0][1] = x.y;
                    own.sums[i][1][0] = x.z;
                    own.sums[i][1][1] = x.w;
                }
            }
        }
    }
}

// The end of a segment of a tile that the teams share. `deal` is what is left.
template <u32 N>
__device__ __forceinline__ void end_shared(const Args &args, const Pool &pool, const Deal &deal,
                                           const Segment &segment, const Sums<N> &acc,
                                           const Features &mine, u32 stages_end, u32 first_row,
                                           bool is_first) {
    const u32 team = threadIdx.x / TEAM;
    const u32 thread = threadIdx.x % TEAM;
    u32 *const flags = args.workspace;
    const auto slot = [&](u32 block) {
        u32 *words = args.workspace + Args::FLAGS
            + (static_cast<size_t>(block) * TEAMS + team) * (TEAM * N / 2);
        return reinterpret_cast<int4 *>(words) + thread;
    };
    const bool finishes = segment.end == deal.col_tiles;
    int4 *const room = reinterpret_cast<int4 *>(pool.bytes + stages_end) + thread;
    Before<together(N)> before;
    if (finishes && args.finish == Args::ADD) {
        before.load(args, mine, first_row, 0);
    }
    if (!is_first) {
        // What was handed over before has been read.
        async::meet(SUMS_READ, TEAMS * TEAM);
    }
    if (finishes && threadIdx.x < N) {
        pool.infos[threadIdx.x] = mine.info;
    }
    Own<N> own;
    exchange<N>(own, acc, room);
    if (!finishes) {
        int4 *const ours = slot(blockIdx.x);
#pragma unroll
        for (u32 i = 0; i < N / 8; ++i) {
            const auto &x = own.sums[i];
            __stcg(ours + i * TEAM, make_int4(x[0][0], x[0][1], x[1][0], x[1][1]));
        }
        async::meet(TEAM_MEETS + team, TEAM);
        if (thread == 0) {
            async::store_release(flags + blockIdx.x * 2 + team, 1);
        }
        return;
    }
    if (segment.begin > 0) {
        const u32 from = deal.first_block(segment.tile);
        for (u32 block = from + thread; block < blockIdx.x; block += TEAM) {
            while (async::load_acquire(flags + block * 2 + team) == 0) {
            }
        }
        async::meet(TEAM_MEETS + team, TEAM);
#pragma unroll 2
        for (u32 block = from; block < blockIdx.x; ++block) {
            const int4 *theirs = slot(block);
#pragma unroll
            for (u32 i = 0; i < N / 8; ++i) {
                add_four(&own.sums[i][0][0], __ldcg(theirs + i * TEAM));
            }
        }
        for (u32 block = from + thread; block < blockIdx.x; block += TEAM) {
            flags[block * 2 + team] = 0;
        }
    }
    finish_shared<N>(args, own, mine, before, pool.infos, room, first_row);
}

}  // namespace linear_tiles
