// Ternary linears over the rows of a step; contract.cuh says what they compute.
//
// The output is cut into tiles of features by rows, and every tile's columns into units of 128. The
// units of all tiles, one after another, are dealt out evenly: each thread block takes one stretch,
// from its end to its beginning. Of the tiles in a stretch only the first that is met can lack its
// last columns; its sums are handed, as integers, to the block that has those, and which meets
// that tile last. Integer sums have no order, so nobody can tell how the units were dealt out.
//
// Eight warps multiply, in two teams of four; the ninth fetches. A tile of 256 features has 128 for
// each team; one of 128 features gives them to both, and the columns alternate between them. A warp
// owns two row tiles of codes, so a gate and its up meet in one thread. On capability 9.0 the teams
// are warpgroups for `wgmma`, whose A is unpacked in registers and whose B the copy engine fetches.
#include "activation.cuh"
#include "wgmma.cuh"

namespace {

using Args = LinearArgs;

constexpr u32 TEAMS = 2;
constexpr u32 TEAM = 128;
constexpr u32 FETCHER = TEAMS * 4;
constexpr u32 CODE_TILE = 512;
constexpr u32 ROW_BLOCK = 1024;
constexpr u32 STAGES_MAX = 16;
constexpr u32 BARRIER_BYTES = STAGES_MAX * 2 * 8;
constexpr u32 SHARED = HOPPER ? Args::SHARED_SM_90 : Args::SHARED_SM_80;
// Behind the barriers, from a multiple of 1024 on; the pool itself may begin anywhere.
constexpr u32 POOL = (SHARED - BARRIER_BYTES - 1023) / 1024 * 1024;
static_assert(Args::THREADS == (TEAMS + 1) * TEAM, "two teams and the warpgroup that fetches");
// A team's features, and what lies between two rows of its sums in shared memory: lanes that are
// apart by two rows then use other banks.
constexpr u32 FEATURES = 128;
constexpr u32 PITCH = FEATURES + 4;

// Named barriers.
enum : u32 { TEAM_MEETS = 1, SUMS_READY = TEAM_MEETS + TEAMS, SUMS_READ };

// How a tile is multiplied, by what the caller calls it: its rows.
template <u32 TILE>
struct Shape {
    // Before capability 9.0 no warp can have more than 168 registers here, so that a large tile is
    // two of half the rows.
    static constexpr u32 N = !HOPPER && TILE == 128 ? 64 : TILE;
    // Whether the teams have the same features and share the columns.
    static constexpr bool SPLIT = TILE < 128;
    static constexpr u32 ROW_TILES = SPLIT ? 8 : 16;
    // Units of columns that are fetched at a time.
    static constexpr u32 DEPTH = HOPPER ? (SPLIT ? 4 : 2) : (SPLIT ? 2 : 1);
    static constexpr u32 CODE_BYTES = ROW_TILES * DEPTH * CODE_TILE;
    static constexpr u32 VALUE_BYTES = N * 128;
    static constexpr u32 STAGE = CODE_BYTES + DEPTH * VALUE_BYTES;
    // Rows that are finished at a time, and the room for their sums.
    static constexpr u32 CHUNK = N < 16 ? N : 16;
    static constexpr u32 CHUNK_BYTES = CHUNK * PITCH * 4;
    // Room for the sums that the second team hands over; the first finishes in it afterwards.
    static constexpr u32 SUM_BYTES = TEAM * N * 4 < CHUNK_BYTES ? CHUNK_BYTES : TEAM * N * 4;
    static constexpr u32 END_BYTES = SPLIT ? SUM_BYTES : TEAMS * CHUNK_BYTES;
    static constexpr u32 STAGES_FIT = (POOL - END_BYTES) / STAGE;
    static constexpr u32 STAGES = STAGES_FIT < STAGES_MAX ? STAGES_FIT : STAGES_MAX;
    static constexpr u32 SLOT_WORDS = ROW_TILES * 16 * N;
    static_assert(STAGE % ROW_BLOCK == 0 && CODE_BYTES % ROW_BLOCK == 0, "swizzled blocks");
    static_assert(STAGES >= 2, "one to fetch while one is multiplied");
};

// The part of a tile's columns that a block multiplies.
struct Segment {
    u32 tile;
    u32 begin;
    u32 end;
};

// Which units are whose.
struct Deal {
    u32 col_tiles;
    u32 units;
    u32 begin;
    // Units from here on are done.
    u32 end;

    __device__ __forceinline__ static u32 begin_of(u32 units, u32 block) {
        return static_cast<u32>(static_cast<unsigned long long>(units) * block / gridDim.x);
    }

    __device__ __forceinline__ Deal(u32 tiles, u32 col_tiles)
        : col_tiles(col_tiles),
          units(tiles * col_tiles),
          begin(begin_of(units, blockIdx.x)),
          end(begin_of(units, blockIdx.x + 1)) {}

    __device__ __forceinline__ bool next(Segment &segment) {
        if (end <= begin) {
            return false;
        }
        segment.tile = (end - 1) / col_tiles;
        const u32 first = segment.tile * col_tiles;
        segment.begin = max(begin, first) - first;
        segment.end = end - first;
        end = first + segment.begin;
        return true;
    }

    // The block that has the first unit of a tile.
    __device__ __forceinline__ u32 first_block(u32 tile) const {
        const unsigned long long unit = static_cast<unsigned long long>(tile) * col_tiles;
        return static_cast<u32>(((unit + 1) * gridDim.x - 1) / units);
    }
};

// A ring of stages in shared memory: which one is next, and which way its barriers tip.
template <u32 STAGES>
struct Ring {
    u32 stage = 0;
    u32 parity = 0;

    __device__ __forceinline__ void advance() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

struct Pool {
    u32 barriers;
    u32 stages;
    unsigned char *bytes;

    __device__ __forceinline__ u32 full(u32 stage) const { return barriers + stage * 16; }
    __device__ __forceinline__ u32 empty(u32 stage) const { return barriers + stage * 16 + 8; }
};

template <u32 TILE>
struct Fetch {
    using S = Shape<TILE>;
    static constexpr u32 N = S::N;

    const Args &args;
    const Pool &pool;
    u32 row_tile;
    u32 row_block;

    __device__ __forceinline__ void aim(u32 tile, u32 tiles_n) {
        row_tile = tile / tiles_n * S::ROW_TILES;
        row_block = tile % tiles_n * (N / 8);
    }

#if HOPPER
    __device__ __forceinline__ void codes(u32 stage, u32 unit, u32 count) const {
        const u32 lane = threadIdx.x % 32;
        const u32 rows = min(args.row_tiles - row_tile, S::ROW_TILES);
        const u32 blocks = min(args.row_blocks - row_block, N / 8);
        const u32 barrier = pool.full(stage);
        if (lane == 0) {
            async::barrier_expect(barrier, count * (rows * CODE_TILE + blocks * ROW_BLOCK));
        }
        __syncwarp();
        if (lane < rows) {
            const size_t tile = static_cast<size_t>(row_tile + lane) * args.col_tiles + unit;
            async::bulk_copy(pool.stages + stage * S::STAGE + lane * S::DEPTH * CODE_TILE,
                             args.codes + tile * (CODE_TILE / 4), count * CODE_TILE, barrier);
        }
    }

    __device__ __forceinline__ void values(u32 stage, u32 unit, u32 count) const {
        const u32 lane = threadIdx.x % 32;
        const u32 blocks = min(args.row_blocks - row_block, N / 8);
        if (lane < count) {
            const size_t block = static_cast<size_t>(unit + lane) * args.row_blocks + row_block;
            async::bulk_copy(
                pool.stages + stage * S::STAGE + S::CODE_BYTES + lane * S::VALUE_BYTES,
                args.values + block * ROW_BLOCK, blocks * ROW_BLOCK, pool.full(stage));
        }
    }
#else
    __device__ __forceinline__ void codes(u32 stage, u32 unit, u32 count) const {
        const u32 lane = threadIdx.x % 32;
        const u32 rows = min(args.row_tiles - row_tile, S::ROW_TILES);
        const u32 to = pool.stages + stage * S::STAGE + lane * 16;
        const u32 *from = args.codes + lane * 4;
        for (u32 row = 0; row < rows; ++row) {
            const size_t tile = static_cast<size_t>(row_tile + row) * args.col_tiles + unit;
            for (u32 i = 0; i < count; ++i) {
                async::copy16(to + (row * S::DEPTH + i) * CODE_TILE,
                              from + (tile + i) * (CODE_TILE / 4));
            }
        }
    }

    __device__ __forceinline__ void values(u32 stage, u32 unit, u32 count) const {
        const u32 lane = threadIdx.x % 32;
        const u32 chunks = min(args.row_blocks - row_block, N / 8) * (ROW_BLOCK / 16);
        for (u32 i = 0; i < count; ++i) {
            const u32 to =
                pool.stages + stage * S::STAGE + S::CODE_BYTES + i * S::VALUE_BYTES;
            const size_t block = static_cast<size_t>(unit + i) * args.row_blocks + row_block;
            const i8 *from = args.values + block * ROW_BLOCK;
            for (u32 chunk = lane; chunk < chunks; chunk += 32) {
                async::copy16(to + chunk * 16, from + chunk * 16);
            }
        }
        async::barrier_arrive_after_copies(pool.full(stage));
    }
#endif
};

// Calls `use(tile, unit, count)` for every stage of a deal.
template <u32 DEPTH, typename Use>
__device__ __forceinline__ void each_stage(Deal deal, Use use) {
    Segment segment;
    while (deal.next(segment)) {
        for (u32 unit = segment.begin; unit < segment.end; unit += DEPTH) {
            if (!use(segment.tile, unit, min(segment.end - unit, DEPTH))) {
                return;
            }
        }
    }
}

template <u32 TILE>
__device__ __forceinline__ void fetch_all(const Args &args, const Pool &pool, const Deal &deal,
                                          u32 tiles_n) {
    using S = Shape<TILE>;
    Fetch<TILE> fetch{args, pool, 0, 0};
    // Codes depend on no kernel before this one: a ring full of them comes ahead.
    u32 ahead = 0;
    each_stage<S::DEPTH>(deal, [&](u32 tile, u32 unit, u32 count) {
        if (ahead == S::STAGES) {
            return false;
        }
        fetch.aim(tile, tiles_n);
        fetch.codes(ahead, unit, count);
        ++ahead;
        return true;
    });
    async::wait_for_producers();
    Ring<S::STAGES> ring;
    u32 done = 0;
    each_stage<S::DEPTH>(deal, [&](u32 tile, u32 unit, u32 count) {
        fetch.aim(tile, tiles_n);
        if (done < ahead) {
            ++done;
        } else {
            async::barrier_wait(pool.empty(ring.stage), ring.parity ^ 1);
            fetch.codes(ring.stage, unit, count);
        }
        fetch.values(ring.stage, unit, count);
        ring.advance();
        return true;
    });
}

// Sums of two row tiles (16 features each) of a warp by N rows, as tensor cores leave them: of
// lane 4g + q, `sums[t][4 · i + 2 · h + j]` is feature g + 8h of row tile t, row 8i + 2q + j.
template <u32 N>
struct Sums {
    i32 sums[2][N / 2];
};

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

__device__ __forceinline__ void add_four(i32 *sums, int4 more) {
    sums[0] += more.x;
    sums[1] += more.y;
    sums[2] += more.z;
    sums[3] += more.w;
}

// What becomes of the sums of a team: the first `features` of its row tiles by N rows of the step.
// They go through `room` in shared memory, some rows at a time, so that a warp writes neighbours.
template <u32 N>
__device__ __forceinline__ void finish(const Args &args, const Sums<N> &acc, i32 *room, u32 meeting,
                                       u32 row_tile, u32 first_row) {
    constexpr u32 CHUNK = N < 16 ? N : 16;
    constexpr u32 BATCH = 4;
    const u32 thread = threadIdx.x % TEAM;
    const u32 lane = threadIdx.x % 32;
    const bool gated = args.finish == Args::GATED;

    // A thread finishes one feature: of all rows, or of every other one where gate and up take two
    // threads' worth of weights.
    const u32 step = gated ? 2 : 1;
    const u32 offset = gated ? thread / 64 : 0;
    const u32 column = gated ? thread % 64 / 16 * 32 + thread % 16 : thread;
    const u32 feature = gated ? row_tile / 2 * 16 + thread % 64 : row_tile * 16 + thread;
    const u32 weight_row = row_tile * 16 + column;
    const bool inside = feature < args.features;
    const bool has_bias = args.bias != nullptr;
    const f32 unit = inside ? args.units[weight_row] : 0.0f;
    const f32 bias = inside && has_bias ? args.bias[weight_row] : 0.0f;
    const f32 up_unit = inside && gated ? args.units[weight_row + 16] : 0.0f;
    const f32 up_bias = inside && gated && has_bias ? args.bias[weight_row + 16] : 0.0f;

    i32 *const to = room + lane % 4 * 2 * PITCH + (threadIdx.x / 32 % 4) * 32 + lane / 4;
#pragma unroll 1
    for (u32 chunk = 0; chunk < N / CHUNK; ++chunk) {
        const u32 begin = first_row + chunk * CHUNK;
        if (begin >= args.rows) {
            break;
        }
        async::meet(meeting, TEAM);
#pragma unroll
        for (u32 candidate = 0; candidate < N / CHUNK; ++candidate) {
            if (candidate == chunk) {
#pragma unroll
                for (u32 i = 0; i < CHUNK / 8; ++i) {
#pragma unroll
                    for (u32 k = 0; k < 8; ++k) {
                        const u32 t = k / 4;
                        const u32 h = k / 2 % 2;
                        const u32 j = k % 2;
                        to[(i * 8 + j) * PITCH + t * 16 + h * 8] =
                            acc.sums[t][(candidate * (CHUNK / 8) + i) * 4 + h * 2 + j];
                    }
                }
            }
        }
        async::meet(meeting, TEAM);
        const u32 count = min(args.rows - begin, CHUNK);
        if (!inside) {
            continue;
        }
        f32 *out = args.out + static_cast<size_t>(begin) * args.out_stride + args.out_offset + feature;
#pragma unroll 1
        for (u32 from = offset; from < count; from += step * BATCH) {
            f32 real[BATCH];
            f32 old[BATCH];
#pragma unroll
            for (u32 i = 0; i < BATCH; ++i) {
                const u32 row = from + i * step;
                if (row < count) {
                    const f32 row_unit = args.row_units[begin + row];
                    const i32 value_sum = args.value_sums[begin + row];
                    old[i] = args.finish == Args::ADD
                        ? out[static_cast<size_t>(row) * args.out_stride] : 0.0f;
                    // Codes are trits plus one. The sum is exact as a single.
                    const i32 *sums = room + row * PITCH + column;
                    auto value = [&](i32 sum, f32 unit, f32 bias) {
                        const f32 value = __fmul_rn(
                            __fmul_rn(__int2float_rn(sum - value_sum), row_unit), unit);
                        return has_bias ? __fadd_rn(value, bias) : value;
                    };
                    real[i] = value(sums[0], unit, bias);
                    if (args.finish >= Args::ACTIVATE) {
                        real[i] = activation::apply(args.activation, real[i]);
                    }
                    if (gated) {
                        real[i] = __fmul_rn(real[i], value(sums[16], up_unit, up_bias));
                    }
                }
            }
#pragma unroll
            for (u32 i = 0; i < BATCH; ++i) {
                const u32 row = from + i * step;
                if (row < count) {
                    out[static_cast<size_t>(row) * args.out_stride] =
                        args.finish == Args::ADD ? __fadd_rn(old[i], real[i]) : real[i];
                }
            }
        }
    }
}

template <u32 TILE>
__device__ __forceinline__ void multiply_all(const Args &args, const Pool &pool, Deal deal,
                                             u32 tiles_n) {
    using S = Shape<TILE>;
    constexpr u32 N = S::N;
    const u32 warp = threadIdx.x / 32;
    const u32 lane = threadIdx.x % 32;
    const u32 team = warp / 4;
    const u32 thread = threadIdx.x % TEAM;
    const u32 warp_tile = (S::SPLIT ? warp % 4 : warp) * 2;
    u32 *const flags = args.workspace;
    const u32 part = S::SPLIT ? 0 : team;
    auto slot = [&](u32 block) {
        u32 *words = args.workspace + Args::FLAGS + static_cast<size_t>(block) * S::SLOT_WORDS
            + part * (TEAM * N);
        return reinterpret_cast<int4 *>(words) + thread;
    };
    int4 *const halves =
        reinterpret_cast<int4 *>(pool.bytes + S::STAGES * S::STAGE) + thread;

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
            // The second team hands its sums to the first and goes on.
            if (team == 1) {
                // It has read what it was handed before.
                if (!first) {
                    async::meet(SUMS_READ, TEAMS * TEAM);
                }
                each_four<N>(acc, [&](u32 index, i32 *four) {
                    halves[index * TEAM] = make_int4(four[0], four[1], four[2], four[3]);
                });
                async::meet(SUMS_READY, TEAMS * TEAM);
                first = false;
                continue;
            }
            async::meet(SUMS_READY, TEAMS * TEAM);
            each_four<N>(acc, [&](u32 index, i32 *four) {
                add_four(four, halves[index * TEAM]);
            });
        }

        if (segment.end < deal.col_tiles) {
            if (S::SPLIT && deal.begin < deal.end) {
                async::announce(SUMS_READ, TEAMS * TEAM);
            }
            int4 *const mine = slot(blockIdx.x);
            each_four<N>(acc, [&](u32 index, i32 *four) {
                __stcg(mine + index * TEAM, make_int4(four[0], four[1], four[2], four[3]));
            });
            __threadfence();
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
            __threadfence();
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
        finish<N>(args, acc, room, TEAM_MEETS + team,
                  segment.tile / tiles_n * S::ROW_TILES + part * 8, segment.tile % tiles_n * N);
        if (S::SPLIT && deal.begin < deal.end) {
            async::announce(SUMS_READ, TEAMS * TEAM);
        }
    }
}

template <u32 TILE, bool FETCHES>
__device__ __forceinline__ void work(const Args &args, unsigned char *shared) {
    using S = Shape<TILE>;
    const u32 address = async::shared_address(shared);
    const u32 stages = (address + BARRIER_BYTES + 1023) / 1024 * 1024;
    const Pool pool{address, stages, shared + (stages - address)};
    const u32 tiles_m = (args.row_tiles + S::ROW_TILES - 1) / S::ROW_TILES;
    const u32 tiles_n = (args.rows + S::N - 1) / S::N;
    const Deal deal(tiles_m * tiles_n, args.col_tiles);
    if constexpr (FETCHES) {
        fetch_all<TILE>(args, pool, deal, tiles_n);
    } else {
        multiply_all<TILE>(args, pool, deal, tiles_n);
    }
}

template <bool FETCHES>
__device__ __forceinline__ void work_on_tiles(const Args &args, unsigned char *shared) {
    switch (args.tile) {
        case 8:
            return work<8, FETCHES>(args, shared);
        case 16:
            return work<16, FETCHES>(args, shared);
        case 32:
            return work<32, FETCHES>(args, shared);
        case 64:
            return work<64, FETCHES>(args, shared);
        default:
            return work<128, FETCHES>(args, shared);
    }
}

}  // namespace

// Grid: any number of blocks up to the number of units; the result is the same.
extern "C" __global__ void __launch_bounds__(Args::THREADS, 1) linear(Args args) {
    extern __shared__ __align__(1024) unsigned char shared[];
    if (threadIdx.x == 0) {
        const u32 barriers = async::shared_address(shared);
        for (u32 stage = 0; stage < STAGES_MAX; ++stage) {
            async::barrier_init(barriers + stage * 16, HOPPER ? 1 : 32);
            async::barrier_init(barriers + stage * 16 + 8, TEAMS * 4);
        }
#if HOPPER
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
    }
    __syncthreads();
    async::launch_dependents();
    if (threadIdx.x / TEAM == TEAMS) {
#if HOPPER
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
#endif
        if (threadIdx.x / 32 == FETCHER) {
            work_on_tiles<true>(args, shared);
        }
    } else {
#if HOPPER
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
#endif
        work_on_tiles<false>(args, shared);
    }
}
