// Linears over more than 16 rows on capability 9.0. A tile is some slabs of 64 features by N rows
// of the step. Each slab has a team (a warpgroup) that multiplies it; a single slab has two, which
// take turns with the columns. The blocks of a cluster share a tile's columns evenly. When all are
// done, the sums lie in shared memory, and each block adds up some of the rows from all the others
// and finishes them: integer sums have no order, so nobody can tell how the columns were dealt out.
#pragma once
#include "linear_slabs_end.cuh"
#include "wgmma.cuh"

namespace linear_slabs {

template <u32 SLABS, u32 N>
__device__ __forceinline__ void fetch(const Args &args, const Pool &pool, const Job &job) {
    using S = Shape<SLABS, N>;
    const u32 lane = threadIdx.x % 32;
    const u32 warp = threadIdx.x / 32 % 4;
    const size_t step = static_cast<size_t>(args.row_blocks) * ROW_BLOCK;
    const u32 rows = min(args.row_tiles - job.row_tile, S::ROW_TILES);
    const u32 bytes = min(args.row_blocks - job.first_row / 8, N / 8) * ROW_BLOCK;
    const i8 *from = args.values + static_cast<size_t>(job.first_row / 8) * ROW_BLOCK;
    // The lanes of a warp start copies one after another, which is why each warp has few.
    const u32 row = lane * 4 + warp;
    const u32 *of_row = args.codes
        + static_cast<size_t>(job.row_tile + min(row, rows - 1)) * args.col_tiles * (CODE_TILE / 4);
    const auto codes = [&](u32 stage, u32 unit) {
        const u32 count = min(job.end - unit, DEPTH);
        if (warp == 0 && lane == 0) {
            async::barrier_expect(pool.full(stage), count * (rows * CODE_TILE + bytes));
        }
        if (row < rows) {
            async::bulk_copy(pool.stages + stage * S::STAGE + row * DEPTH * CODE_TILE,
                             of_row + unit * (CODE_TILE / 4), count * CODE_TILE, pool.full(stage));
        }
    };
    u32 ahead = 0;
    for (u32 unit = job.begin; unit < job.end && ahead < S::STAGES; unit += DEPTH, ++ahead) {
        codes(ahead, unit);
    }
    async::wait_for_producers();
    u32 stage = 0;
    u32 parity = 1;
    u32 done = 0;
    for (u32 unit = job.begin; unit < job.end; unit += DEPTH) {
        if (done < ahead) {
            ++done;
        } else {
            async::barrier_wait(pool.empty(stage), parity);
            codes(stage, unit);
        }
        if (lane == 0 && warp < min(job.end - unit, DEPTH)) {
            async::bulk_copy(pool.stages + stage * S::STAGE + S::CODE_BYTES + warp * S::VALUE_BYTES,
                             from + (unit + warp) * step, bytes, pool.full(stage));
        }
        if (++stage == S::STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
}

// Codes of 64 columns: a byte each.
__device__ __forceinline__ void unpack(u32 (&a)[2][4], uint4 words, u32 half) {
#pragma unroll
    for (u32 step = 0; step < 2; ++step) {
        const u32 shift = (half * 2 + step) * 2;
        a[step][0] = words.x >> shift & 0x03030303u;
        a[step][1] = words.y >> shift & 0x03030303u;
        a[step][2] = words.z >> shift & 0x03030303u;
        a[step][3] = words.w >> shift & 0x03030303u;
    }
}

// The low word of a descriptor: `wgmma::describe`.
template <u32 N>
__device__ __forceinline__ void multiply_half(i32 (&acc)[N / 2], const u32 (&a)[2][4], u32 low) {
    constexpr u32 HIGH = static_cast<u32>((1ull << 62 | 1024ull >> 4 << 32) >> 32);
    unsigned long long b[2];
    asm("mov.b64 %0, {%1, %2};" : "=l"(b[0]) : "r"(low), "n"(HIGH));
    asm("mov.b64 %0, {%1, %2};" : "=l"(b[1]) : "r"(low + 2), "n"(HIGH));
    wgmma::fence();
    wgmma::multiply<N>(acc, a[0], b[0]);
    wgmma::multiply<N>(acc, a[1], b[1]);
    wgmma::commit();
}

template <u32 SLABS, u32 N>
__device__ __forceinline__ void multiply(const Args &args, const Pool &pool, const Job &job) {
    using S = Shape<SLABS, N>;
    const u32 warp = threadIdx.x / 32 % 4;
    const u32 lane = threadIdx.x % 32;
    const u32 team = threadIdx.x / TEAM;
    const u32 slab = S::SHARING == 2 ? 0 : team;
    // What trits of the weight rows are worth.
    for (u32 at = threadIdx.x; at < SLABS * FEATURES; at += S::TEAMS * TEAM) {
        const u32 row = job.row_tile * 16 + at;
        reinterpret_cast<f32 *>(pool.shared + UNITS)[at] =
            row < args.row_tiles * 16 ? args.units[row] : 0.0f;
    }
    async::wait_for_producers();
    if (threadIdx.x < N) {
        const u32 row = job.first_row + threadIdx.x;
        const bool there = row < args.rows;
        RowInfo info;
        info.unit = there ? __ldcg(args.row_units + row) : 0.0f;
        info.sum = there ? __ldcg(args.value_sums + row) : 0;
        reinterpret_cast<RowInfo *>(pool.shared + INFOS)[threadIdx.x] = info;
    }
    i32 acc[N / 2];
#pragma unroll
    for (u32 i = 0; i < N / 2; ++i) {
        acc[i] = 0;
    }
    u32 stage = 0;
    u32 parity = 0;
    // Shared memory of the stage, for the codes of this warp; and for the matrix unit.
    const uint4 *codes = reinterpret_cast<const uint4 *>(
        pool.bytes + (slab * 4 + warp) * DEPTH * CODE_TILE) + lane;
    u32 values = __shfl_sync(0xffffffffu, (pool.stages + S::CODE_BYTES) / 16 | 1 << 16, 0);
    u32 barrier = pool.barriers;
    u32 a[2][2][4];
    const auto unit = [&](u32 i) {
        const uint4 words = codes[i * 32];
        const u32 low = values + i * (S::VALUE_BYTES / 16);
        unpack(a[0], words, 0);
        multiply_half<N>(acc, a[0], low);
        wgmma::wait<1>();
        unpack(a[1], words, 1);
        multiply_half<N>(acc, a[1], low + 4);
        wgmma::wait<1>();
    };
    // A stage is released once its last products are sure to be done: within the next.
    u32 before = 0;
    const auto release = [&]() {
        if (lane == 0 && before != 0) {
            async::barrier_arrive(before + 8);
        }
    };
    const u32 first = S::SHARING == 2 ? team : 0;
#pragma unroll 1
    for (u32 from = job.begin; from < job.end; from += DEPTH) {
        async::barrier_wait(barrier, parity);
        const u32 count = job.end - from;
        if (first < count) {
            unit(first);
        } else {
            wgmma::wait<0>();
        }
        release();
        if (S::SHARING == 1 && count > 1) {
            unit(1);
        }
        before = barrier;
        barrier += 16;
        codes += S::STAGE / 16;
        values += S::STAGE / 16;
        if (++stage == S::STAGES) {
            stage = 0;
            parity ^= 1;
            barrier -= S::STAGES * 16;
            codes -= S::STAGES * (S::STAGE / 16);
            values -= S::STAGES * (S::STAGE / 16);
        }
    }
    End<SLABS, N> ending(args, pool, job);
    wgmma::wait<0>();
    wgmma::settle(acc);
    // Nobody reads the stages any more, and all that was to come has come.
    async::meet(MEETS, S::TEAMS * TEAM);
    i32 *const put = reinterpret_cast<i32 *>(pool.bytes) + team * S::ROOM + lane % 4 * 2 * PITCH
        + warp * 16 + lane / 4;
#pragma unroll
    for (u32 i = 0; i < N / 8; ++i) {
#pragma unroll
        for (u32 j = 0; j < 2; ++j) {
            put[(i * 8 + j) * PITCH] = acc[i * 4 + j];
            put[(i * 8 + j) * PITCH + 8] = acc[i * 4 + 2 + j];
        }
    }
    if (job.sharing > 1) {
        cluster_arrive();
        cluster_wait();
    } else if (S::SHARING == 2) {
        async::meet(MEETS, S::TEAMS * TEAM);
    } else {
        async::meet(MEETS + 1 + team, TEAM);
    }
    ending.finish();
    if (job.sharing > 1) {
        // Others still read here.
        cluster_wait();
    }
}

// The kernel for tiles of SLABS slabs and N rows. Those that fetch keep FETCHING registers and
// leave the rest to the teams, which then have MULTIPLYING; 0: all keep what they had at launch.
template <u32 SLABS, u32 N, u32 FETCHING, u32 MULTIPLYING>
__device__ __forceinline__ void run(const Args &args) {
    using S = Shape<SLABS, N>;
    extern __shared__ __align__(1024) unsigned char shared[];
    const u32 address = async::shared_address(shared);
    const u32 stages = (address + HEAD + 1023) / 1024 * 1024;
    const Pool pool{shared, address, stages, shared + (stages - address)};
    if (threadIdx.x == 0) {
        for (u32 stage = 0; stage < S::STAGES; ++stage) {
            async::barrier_init(pool.full(stage), 1);
            async::barrier_init(pool.empty(stage), S::TEAMS * 4);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    async::launch_dependents();
    if (args.tile != N) {
        return;
    }
    const Job job = Job::of<SLABS, N>(args);
    if (threadIdx.x / TEAM == S::TEAMS) {
        if constexpr (FETCHING != 0) {
            asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(FETCHING));
        }
        fetch<SLABS, N>(args, pool, job);
        if (job.sharing > 1) {
            cluster_arrive();
            cluster_wait();
            cluster_arrive();
            cluster_wait();
        }
    } else {
        if constexpr (FETCHING != 0) {
            asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(MULTIPLYING));
        }
        multiply<SLABS, N>(args, pool, job);
    }
}

}  // namespace linear_slabs
