// How linear.cuh cuts a linear into tiles, deals them out to thread blocks and fetches them.
#pragma once
#include "async.cuh"

namespace linear_tiles {

using Args = LinearArgs;

constexpr u32 TEAMS = 2;
constexpr u32 TEAM = 128;
constexpr u32 CODE_TILE = 512;
constexpr u32 ROW_BLOCK = 1024;
constexpr u32 STAGES_MAX = 16;
constexpr u32 BARRIER_BYTES = STAGES_MAX * 2 * 8;
// A copy of the arguments, so that they take no registers while the teams multiply.
constexpr u32 INFOS = BARRIER_BYTES + sizeof(Args);
constexpr u32 HEAD_BYTES = INFOS + TEAMS * 128 * 8;
static_assert(INFOS % 8 == 0, "pairs of words");
// What there is from a multiple of 1024 on behind the head, which itself may begin anywhere.
constexpr u32 POOL = ((HOPPER ? Args::SHARED_FEW_SM_90 : Args::SHARED_SM_80) - HEAD_BYTES - 1023)
    / 1024 * 1024;
static_assert(Args::THREADS == (TEAMS + 1) * TEAM, "two teams and the warpgroup that fetches");
// A team's features, and what lies between two rows of its sums in shared memory: lanes that are
// apart by two rows then use other banks.
constexpr u32 FEATURES = 128;
constexpr u32 PITCH = FEATURES + 4;

// Rows that are finished at a time, of N.
__host__ __device__ constexpr u32 chunk_of(u32 n) {
    return n < 32 ? 8 : 16;
}

// Named barriers.
enum : u32 { TEAM_MEETS = 1, SUMS_READY = TEAM_MEETS + TEAMS, SUMS_READ };

// How a tile is multiplied, by what the caller calls it: its rows.
template <u32 TILE>
struct Shape {
    // No warp can have more than 168 registers here, so that a large tile is two of half the rows.
    static constexpr u32 N = TILE == 128 ? 64 : TILE;
    static_assert(!HOPPER || TILE <= Args::FEW, "of more rows linear_slabs.cuh takes care there");
    // Whether the teams have the same features and share the columns.
    static constexpr bool SPLIT = TILE < 128;
    static constexpr u32 ROW_TILES = SPLIT ? 8 : 16;
    // Units of columns that are fetched at a time.
    static constexpr u32 DEPTH = HOPPER ? 4 : (SPLIT ? 2 : 1);
    static constexpr u32 CODE_BYTES = ROW_TILES * DEPTH * CODE_TILE;
    static constexpr u32 VALUE_BYTES = N * 128;
    static constexpr u32 STAGE = CODE_BYTES + DEPTH * VALUE_BYTES;
    // Room for the sums that are finished at a time.
    static constexpr u32 CHUNK_BYTES = chunk_of(N) * PITCH * 4;
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

// What a row of values is worth, and their sum.
struct RowInfo {
    f32 unit;
    i32 sum;
};

struct Pool {
    RowInfo *infos;
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

    // Each of the four warps has every fourth row tile; a lane copies 16 of a tile's 512 bytes.
    __device__ __forceinline__ void codes(u32 stage, u32 unit, u32 count) const {
        const u32 lane = threadIdx.x % 32;
        const u32 rows = min(args.row_tiles - row_tile, S::ROW_TILES);
        const u32 to = pool.stages + stage * S::STAGE + lane * 16;
        const u32 *from = args.codes + lane * 4;
#pragma unroll 1
        for (u32 row = threadIdx.x / 32 % 4; row < rows; row += 4) {
            const size_t tile = static_cast<size_t>(row_tile + row) * args.col_tiles + unit;
#pragma unroll
            for (u32 i = 0; i < S::DEPTH; ++i) {
                if (i < count) {
                    async::copy16(to + (row * S::DEPTH + i) * CODE_TILE,
                                  from + (tile + i) * (CODE_TILE / 4));
                }
            }
        }
    }

    __device__ __forceinline__ void values(u32 stage, u32 unit, u32 count) const {
        const u32 bytes = min(args.row_blocks - row_block, N / 8) * ROW_BLOCK;
        const u32 to = pool.stages + stage * S::STAGE + S::CODE_BYTES;
        const size_t step = static_cast<size_t>(args.row_blocks) * ROW_BLOCK;
        const i8 *from = args.values + unit * step + static_cast<size_t>(row_block) * ROW_BLOCK;
        const u32 thread = threadIdx.x % TEAM;
#if HOPPER
        if (thread == 0) {
            async::barrier_expect(pool.full(stage), count * bytes);
            for (u32 i = 0; i < count; ++i) {
                async::bulk_copy(to + i * S::VALUE_BYTES, from + i * step, bytes, pool.full(stage));
            }
        }
#else
        for (u32 i = 0; i < count; ++i) {
            for (u32 byte = thread * 16; byte < bytes; byte += TEAM * 16) {
                async::copy16(to + i * S::VALUE_BYTES + byte, from + i * step + byte);
            }
        }
#endif
        async::barrier_arrive_after_copies(pool.full(stage));
    }
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

}  // namespace linear_tiles
