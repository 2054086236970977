// Ternary linears over the rows of a step; contract.cuh says what they compute. On capability 9.0
// linear_slabs.cuh does those of more than 16 rows.
//
// The output is cut into tiles of features by rows, and every tile's columns into units of 128. The
// units of all tiles, one after another, are dealt out evenly: each thread block takes one stretch,
// from its end to its beginning. Of the tiles in a stretch only the first that is met can lack its
// last columns; its sums are handed, as integers, to the block that has those, and which meets
// that tile last. Integer sums have no order, so nobody can tell how the units were dealt out.
//
// Eight warps multiply, in two teams of four; four more fetch. A tile of 256 features has 128 for
// each team; one of 128 features gives them to both, and the columns alternate between them. A warp
// owns two row tiles of codes, so a gate and its up meet in one thread. On capability 9.0 the teams
// are warpgroups for `wgmma`, whose A is unpacked in registers and whose B the copy engine fetches.
#pragma once
#include "linear_shared.cuh"
#include "wgmma.cuh"

namespace linear_tiles {

// Registers of A for 32 columns: the codes of one row tile, a byte each.
__device__ __forceinline__ void unpack(u32 (&a)[4], uint4 words, u32 step) {
    a[0] = words.x >> (2 * step) & 0x03030303u;
    a[1] = words.y >> (2 * step) & 0x03030303u;
    a[2] = words.z >> (2 * step) & 0x03030303u;
    a[3] = words.w >> (2 * step) & 0x03030303u;
}

// Adds the products of 128 columns: two row tiles of codes by N rows of values.
template <u32 N>
__device__ __forceinline__ void multiply_unit(Sums<N> &acc, const uint4 (&words)[2], u32 values) {
#if HOPPER
    u32 a[2][4][4];
#pragma unroll
    for (u32 t = 0; t < 2; ++t) {
#pragma unroll
        for (u32 step = 0; step < 4; ++step) {
            unpack(a[t][step], words[t], step);
        }
    }
    const unsigned long long b = wgmma::describe(values);
    wgmma::fence();
#pragma unroll
    for (u32 step = 0; step < 4; ++step) {
        wgmma::multiply<N>(acc.sums[0], a[0][step], b + step * 2);
        wgmma::multiply<N>(acc.sums[1], a[1][step], b + step * 2);
    }
    wgmma::commit();
    wgmma::wait<0>();
#else
    // Half of the columns at a time keeps the registers down.
    const u32 lane = threadIdx.x % 32;
    const u32 line = lane % 8;
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        u32 a[2][2][4];
#pragma unroll
        for (u32 t = 0; t < 2; ++t) {
#pragma unroll
            for (u32 step = 0; step < 2; ++step) {
                unpack(a[t][step], words[t], half * 2 + step);
            }
        }
        const u32 chunk = (half * 4 + lane / 8) ^ line;
        const u32 from = values + line * 128 + chunk * 16;
#pragma unroll
        for (u32 i = 0; i < N / 8; ++i) {
            u32 b[4];
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                         : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                         : "r"(from + i * ROW_BLOCK)
                         : "memory");
#pragma unroll
            for (u32 step = 0; step < 2; ++step) {
#pragma unroll
                for (u32 t = 0; t < 2; ++t) {
                    i32 *c = acc.sums[t] + i * 4;
                    asm volatile(
                        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, "
                        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                        : "r"(a[t][step][0]), "r"(a[t][step][1]), "r"(a[t][step][2]),
                          "r"(a[t][step][3]), "r"(b[step * 2]), "r"(b[step * 2 + 1]));
                }
            }
        }
    }
#endif
}

// A thread's sums as groups of four, to write and to read 16 bytes at a time.
template <u32 N, typename Use>
__device__ __forceinline__ void each_four(Sums<N> &acc, Use use) {
#pragma unroll
    for (u32 t = 0; t < 2; ++t) {
#pragma unroll
        for (u32 i = 0; i < N / 8; ++i) {
            use(t * (N / 8) + i, acc.sums[t] + i * 4);
        }
    }
}

// Which feature a thread finishes: of all rows, or of every other one where gate and up take two
// threads' worth of weights. And what it needs to know for that.
struct Feature {
    u32 column;
    u32 feature;
    bool inside;
    f32 unit;
    f32 bias;
    f32 up_unit;
    f32 up_bias;
    // Of the thread's row among those of the tile, for all to read.
    RowInfo info;

    __device__ __forceinline__ void load(const Args &args, u32 row_tile, u32 first_row, u32 rows) {
        const u32 thread = threadIdx.x % TEAM;
        const bool gated = args.finish == Args::GATED;
        column = gated ? thread % 64 / 16 * 32 + thread % 16 : thread;
        feature = gated ? row_tile / 2 * 16 + thread % 64 : row_tile * 16 + thread;
        inside = feature < args.features;
        const u32 weight_row = row_tile * 16 + column;
        const f32 *units = args.units + weight_row;
        const f32 *biases = args.bias;
        const bool has_bias = inside && biases != nullptr;
        unit = inside ? units[0] : 0.0f;
        up_unit = inside && gated ? units[16] : 0.0f;
        bias = has_bias ? biases[weight_row] : 0.0f;
        up_bias = has_bias && gated ? biases[weight_row + 16] : 0.0f;
        const u32 row = first_row + thread;
        const bool there = thread < rows && row < args.rows;
        info.unit = there ? __ldcg(args.row_units + row) : 0.0f;
        info.sum = there ? __ldcg(args.value_sums + row) : 0;
    }
};

// What becomes of the sums of a team: 128 features by N rows of the step. They go through `room` in
// shared memory, some rows at a time, so that a warp writes neighbours. What is loaded comes well
// ahead of what is stored, for the compiler cannot know that they differ.
template <u32 N>
__device__ __forceinline__ void finish(const Args &args, const Sums<N> &acc, const Feature &mine,
                                       i32 *room, RowInfo *infos, u32 meeting, u32 first_row) {
    constexpr u32 CHUNK = chunk_of(N);
    constexpr u32 BATCH = 4;
    const u32 thread = threadIdx.x % TEAM;
    const u32 lane = threadIdx.x % 32;
    const u32 how = args.finish;
    const u32 function = args.activation;
    const bool gated = how == Args::GATED;
    const bool has_bias = args.bias != nullptr;
    const bool adds = mine.inside && how == Args::ADD;
    const u32 step = gated ? 2 : 1;
    const u32 offset = gated ? thread / 64 : 0;
    const u32 rows = args.rows - first_row;
    const size_t stride = args.out_stride;
    f32 *out = args.out + first_row * stride + args.out_offset + mine.feature;

    async::meet(meeting, TEAM);
    if (thread < N) {
        infos[thread] = mine.info;
    }
    i32 *const to = room + lane % 4 * 2 * PITCH + threadIdx.x / 32 % 4 * 32 + lane / 4;
#pragma unroll 1
    for (u32 begin = 0; begin < N && begin < rows; begin += CHUNK, out += CHUNK * stride) {
        const u32 count = min(rows - begin, CHUNK);
        f32 old[CHUNK];
#pragma unroll
        for (u32 row = 0; row < CHUNK; ++row) {
            const bool needed = adds && row < count;
            old[row] = needed ? out[row * stride] : 0.0f;
        }
        async::meet(meeting, TEAM);
#pragma unroll
        for (u32 candidate = 0; candidate < N; candidate += CHUNK) {
            if (candidate == begin) {
#pragma unroll
                for (u32 i = 0; i < CHUNK; i += 8) {
#pragma unroll
                    for (u32 k = 0; k < 8; ++k) {
                        const u32 t = k / 4;
                        const u32 h = k / 2 % 2;
                        const u32 j = k % 2;
                        to[(i + j) * PITCH + t * 16 + h * 8] =
                            acc.sums[t][(candidate + i) / 2 + h * 2 + j];
                    }
                }
            }
        }
        async::meet(meeting, TEAM);
        if (!mine.inside) {
            continue;
        }
        // Codes are trits plus one. The sum is exact as a single.
        auto value = [&](u32 row, u32 col, f32 unit, f32 bias) {
            const RowInfo info = infos[begin + row];
            const f32 sum = __int2float_rn(room[row * PITCH + col] - info.sum);
            const f32 value = __fmul_rn(__fmul_rn(sum, info.unit), unit);
            return has_bias ? __fadd_rn(value, bias) : value;
        };
        if (how == Args::STORE || how == Args::ADD) {
#pragma unroll
            for (u32 row = 0; row < CHUNK; ++row) {
                const f32 real = value(row, mine.column, mine.unit, mine.bias);
                old[row] = adds ? __fadd_rn(old[row], real) : real;
            }
#pragma unroll
            for (u32 row = 0; row < CHUNK; ++row) {
                if (row < count) {
                    out[row * stride] = old[row];
                }
            }
            continue;
        }
#pragma unroll 1
        for (u32 from = offset; from < count; from += BATCH * step) {
            f32 real[BATCH];
#pragma unroll
            for (u32 i = 0; i < BATCH; ++i) {
                const u32 row = min(from + i * step, CHUNK - 1);
                real[i] = value(row, mine.column, mine.unit, mine.bias);
                real[i] = activation::apply(function, real[i]);
                if (gated) {
                    const f32 up = value(row, mine.column + 16, mine.up_unit, mine.up_bias);
                    real[i] = __fmul_rn(real[i], up);
                }
            }
#pragma unroll
            for (u32 i = 0; i < BATCH; ++i) {
                const u32 row = from + i * step;
                if (row < count) {
                    out[row * stride] = real[i];
                }
            }
        }
    }
}

template <bool SPLIT>
struct Knows {
    using Type = Feature;
};

template <>
struct Knows<true> {
    using Type = Features;
};

template <u32 TILE>
__device__ __forceinline__ void multiply_all(const Args &args, const Pool &pool, Deal deal,
                                             u32 tiles_n) {
    using S = Shape<TILE>;
    constexpr u32 N = S::N;
    // Where there are registers to spare.
    constexpr bool LOADS_EARLY = HOPPER || N < 64;
    const u32 warp = threadIdx.x / 32;
    const u32 lane = threadIdx.x % 32;
    const u32 team = warp / 4;
    const u32 thread = threadIdx.x % TEAM;
    const u32 warp_tile = (S::SPLIT ? warp % 4 : warp) * 2;
    u32 *const flags = args.workspace;
    const u32 part = team;
    auto slot = [&](u32 block) {
        u32 *words = args.workspace + Args::FLAGS + static_cast<size_t>(block) * S::SLOT_WORDS
            + part * (TEAM * N);
        return reinterpret_cast<int4 *>(words) + thread;
    };

    async::wait_for_producers();
    Ring<S::STAGES> ring;
    Segment segment;
    bool first = true;
    while (deal.next(segment)) {
        Sums<N> acc;
#pragma unroll
        for (u32 t = 0; t < 2; ++t) {
#pragma unroll
            for (u32 i = 0; i < N / 2; ++i) {
                acc.sums[t][i] = 0;
            }
        }
        const u32 first_row = segment.tile % tiles_n * N;
        typename Knows<S::SPLIT>::Type mine;
        const u32 row_tile = segment.tile / tiles_n * S::ROW_TILES + (S::SPLIT ? 0 : part * 8);
        if (LOADS_EARLY && segment.end == deal.col_tiles) {
            mine.load(args, row_tile, first_row, N);
        }
        for (u32 unit = segment.begin; unit < segment.end; unit += S::DEPTH) {
            const u32 count = min(segment.end - unit, S::DEPTH);
            async::barrier_wait(pool.full(ring.stage), ring.parity);
            const u32 offset = ring.stage * S::STAGE;
            const uint4 *codes = reinterpret_cast<const uint4 *>(
                pool.bytes + offset + warp_tile * S::DEPTH * CODE_TILE) + lane;
#pragma unroll
            for (u32 i = 0; i < S::DEPTH; i += S::SPLIT ? TEAMS : 1) {
                const u32 mine = S::SPLIT ? i + team : i;
                if (mine < count) {
                    const uint4 words[2] = {codes[mine * 32], codes[(S::DEPTH + mine) * 32]};
                    multiply_unit<N>(
                        acc, words,
                        pool.stages + offset + S::CODE_BYTES + mine * S::VALUE_BYTES);
                }
            }
            if (lane == 0) {
                async::barrier_arrive(pool.empty(ring.stage));
            }
            ring.advance();
        }
#if HOPPER
        wgmma::settle(acc.sums[0]);
        wgmma::settle(acc.sums[1]);
#endif

        if constexpr (S::SPLIT) {
            if (!LOADS_EARLY && segment.end == deal.col_tiles) {
                mine.load(args, row_tile, first_row, N);
            }
            end_shared<N>(args, pool, deal, segment, acc, mine, S::STAGES * S::STAGE, first_row,
                          first);
            first = false;
            continue;
        } else {
        if (segment.end < deal.col_tiles) {
            int4 *const ours = slot(blockIdx.x);
            each_four<N>(acc, [&](u32 index, i32 *four) {
                __stcg(ours + index * TEAM, make_int4(four[0], four[1], four[2], four[3]));
            });
            async::meet(TEAM_MEETS + team, TEAM);
            if (thread == 0) {
                async::store_release(flags + blockIdx.x * 2 + part, 1);
            }
            continue;
        }
        if (segment.begin > 0) {
            const u32 from = deal.first_block(segment.tile);
            for (u32 block = from + thread; block < blockIdx.x; block += TEAM) {
                while (async::load_acquire(flags + block * 2 + part) == 0) {
                }
            }
            async::meet(TEAM_MEETS + team, TEAM);
#pragma unroll N < 32 ? 2 : 1
            for (u32 block = from; block < blockIdx.x; ++block) {
                const int4 *theirs = slot(block);
                each_four<N>(acc, [&](u32 index, i32 *four) {
                    add_four(four, __ldcg(theirs + index * TEAM));
                });
            }
            for (u32 block = from + thread; block < blockIdx.x; block += TEAM) {
                flags[block * 2 + part] = 0;
            }
        }
        i32 *const room = reinterpret_cast<i32 *>(pool.bytes + S::STAGES * S::STAGE)
            + part * (S::CHUNK_BYTES / 4);
        if (!LOADS_EARLY) {
            mine.load(args, row_tile, first_row, N);
        }
        finish<N>(args, acc, mine, room, pool.infos + part * N, TEAM_MEETS + team, first_row);
        }
    }
}

// The kernel for tiles of TILE rows. On capability 9.0 those that fetch keep FETCHING registers
// and leave the rest to the teams, which then have MULTIPLYING.
template <u32 TILE, u32 FETCHING = 0, u32 MULTIPLYING = 0>
__device__ __forceinline__ void run(const Args &args) {
    extern __shared__ __align__(1024) unsigned char shared[];
    using S = Shape<TILE>;
    const u32 address = async::shared_address(shared);
    const u32 stages = (address + HEAD_BYTES + 1023) / 1024 * 1024;
    const Pool pool{reinterpret_cast<RowInfo *>(shared + INFOS), address, stages,
                    shared + (stages - address)};
    Args &kept = *reinterpret_cast<Args *>(shared + BARRIER_BYTES);
    if (threadIdx.x == 0) {
        kept = args;
        for (u32 stage = 0; stage < S::STAGES; ++stage) {
            async::barrier_init(pool.full(stage), TEAM + HOPPER);
            async::barrier_init(pool.empty(stage), TEAMS * 4);
        }
#if HOPPER
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
    }
    __syncthreads();
    async::launch_dependents();
    if (args.tile != TILE) {
        return;
    }

    const u32 tiles_m = (args.row_tiles + S::ROW_TILES - 1) / S::ROW_TILES;
    const u32 tiles_n = (args.rows + S::N - 1) / S::N;
    const Deal deal(tiles_m * tiles_n, args.col_tiles);
    if (threadIdx.x / TEAM == TEAMS) {
#if HOPPER
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(FETCHING));
#endif
        fetch_all<TILE>(args, pool, deal, tiles_n);
    } else {
#if HOPPER
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(MULTIPLYING));
#endif
        multiply_all<TILE>(kept, pool, deal, tiles_n);
    }
}

}  // namespace linear_tiles
