// The end of a tile of linear_slabs.cuh: sums of several blocks come together and become numbers.
#pragma once
#include "activation.cuh"
#include "async.cuh"

namespace linear_slabs {

using Args = LinearArgs;

constexpr u32 TEAM = 128;
constexpr u32 CODE_TILE = 512;
constexpr u32 ROW_BLOCK = 1024;
// Features of a slab, and what lies between two rows of its sums in shared memory: lanes that are
// apart by two rows then use other banks.
constexpr u32 FEATURES = 64;
constexpr u32 PITCH = FEATURES + 4;
// Units of columns that are fetched at a time.
constexpr u32 DEPTH = 2;
constexpr u32 STAGES_MAX = 8;
constexpr u32 SLABS_MAX = 4;
// What is in front of the stages.
constexpr u32 INFOS = STAGES_MAX * 16;
constexpr u32 UNITS = INFOS + 128 * 8;
constexpr u32 HEAD = UNITS + SLABS_MAX * FEATURES * 4;
constexpr u32 MEETS = 1;

// SLABS of a tile of N rows; 1: two teams have the slab.
template <u32 SLABS, u32 N>
struct Shape {
    static constexpr u32 SHARING = SLABS == 1 ? 2 : 1;
    static constexpr u32 TEAMS = SLABS * SHARING;
    static constexpr u32 ROW_TILES = SLABS * 4;
    static constexpr u32 CODE_BYTES = ROW_TILES * DEPTH * CODE_TILE;
    static constexpr u32 VALUE_BYTES = N * 128;
    static constexpr u32 STAGE = CODE_BYTES + DEPTH * VALUE_BYTES;
    static constexpr u32 FIT = (Args::SHARED_SLABS_SM_90 - HEAD - 1023) / STAGE;
    static constexpr u32 STAGES = FIT < STAGES_MAX ? FIT : STAGES_MAX;
    // Sums of a team.
    static constexpr u32 ROOM = N * PITCH;
    static_assert(TEAMS * ROOM * 4 <= STAGES * STAGE, "sums lie where the stages were");
    static_assert(STAGES >= 3, "some to fetch while one is multiplied");
};

// What a row of values is worth, and their sum.
struct RowInfo {
    f32 unit;
    i32 sum;
};

struct Pool {
    unsigned char *shared;
    u32 barriers;
    u32 stages;
    unsigned char *bytes;

    __device__ __forceinline__ u32 full(u32 stage) const { return barriers + stage * 16; }
    __device__ __forceinline__ u32 empty(u32 stage) const { return barriers + stage * 16 + 8; }
};

// What a block has to do.
struct Job {
    // Blocks of the cluster, and this one's number among them.
    u32 sharing;
    u32 rank;
    u32 row_tile;
    u32 first_row;
    u32 begin;
    u32 end;

    template <u32 SLABS, u32 N>
    __device__ __forceinline__ static Job of(const Args &args) {
        Job job;
        asm("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(job.sharing));
        asm("mov.u32 %0, %%cluster_ctaid.x;" : "=r"(job.rank));
        const u32 tile = blockIdx.x / job.sharing;
        const u32 tiles_n = (args.rows + N - 1) / N;
        job.row_tile = tile / tiles_n * SLABS * 4;
        job.first_row = tile % tiles_n * N;
        job.begin = args.col_tiles * job.rank / job.sharing;
        job.end = args.col_tiles * (job.rank + 1) / job.sharing;
        return job;
    }
};

__device__ __forceinline__ void cluster_arrive() {
    asm volatile("barrier.cluster.arrive.release;" ::: "memory");
}

__device__ __forceinline__ void cluster_wait() {
    asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

// Where another block of the cluster has what is at `address` here.
__device__ __forceinline__ u32 address_of(u32 address, u32 rank) {
    u32 remote;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
    return remote;
}

// Only between two meetings of the cluster; several may be on their way.
__device__ __forceinline__ int4 load_remote(u32 address) {
    int4 x;
    asm volatile("ld.shared::cluster.v4.s32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "r"(address));
    return x;
}

__device__ __forceinline__ void add_to(int4 &x, int4 y) {
    x.x += y.x;
    x.y += y.y;
    x.z += y.z;
    x.w += y.w;
}

// Four neighbours in rows of the output, at once where that is possible.
struct Output {
    f32 *first;
    u32 stride;
    // How many of the four there are.
    u32 count;
    bool at_once;

    __device__ __forceinline__ Output(const Args &args, u32 feature, u32 first_row)
        : first(args.out + static_cast<size_t>(first_row) * args.out_stride + args.out_offset
                + feature),
          stride(args.out_stride),
          count(feature < args.features ? min(args.features - feature, 4u) : 0),
          at_once(count == 4 && stride % 4 == 0
                  && reinterpret_cast<unsigned long long>(first) % 16 == 0) {}

    __device__ __forceinline__ void load(f32 (&x)[4], u32 row) const {
        const f32 *from = place(row);
        if (at_once) {
            const float4 four = __ldcg(reinterpret_cast<const float4 *>(from));
            x[0] = four.x;
            x[1] = four.y;
            x[2] = four.z;
            x[3] = four.w;
        } else {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                x[i] = i < count ? __ldcg(from + i) : 0.0f;
            }
        }
    }

    __device__ __forceinline__ f32 *place(u32 row) const {
        return first + static_cast<size_t>(row) * stride;
    }

    __device__ __forceinline__ void store_at_once(const f32 (&x)[4], u32 row) const {
        *reinterpret_cast<float4 *>(place(row)) = make_float4(x[0], x[1], x[2], x[3]);
    }

    __device__ __forceinline__ void store(const f32 (&x)[4], u32 row) const {
        if (at_once) {
            store_at_once(x, row);
        } else {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                if (i < count) {
                    place(row)[i] = x[i];
                }
            }
        }
    }
};

// The end of a tile: of each slab a thread has four features in every `step`th of the block's rows.
template <u32 SLABS, u32 N>
struct End {
    using S = Shape<SLABS, N>;
    // Threads of a slab, and rows that one of them has on their way at a time.
    static constexpr u32 THREADS = S::SHARING * TEAM;
    static constexpr u32 COUNT = 4;

    const Args &args;
    const Pool &pool;
    const Job &job;
    u32 slab;
    bool gated;
    u32 chunk;
    u32 four;
    u32 first_weight;
    Output out;
    u32 row;
    u32 step;
    u32 end;
    bool has_left = false;
    f32 before[COUNT][4];

    // What is added to comes ahead of the last products' ends.
    __device__ __forceinline__ End(const Args &args, const Pool &pool, const Job &job)
        : args(args),
          pool(pool),
          job(job),
          slab(S::SHARING == 2 ? 0 : threadIdx.x / TEAM),
          gated(args.finish == Args::GATED),
          chunk(threadIdx.x % (gated ? 8 : 16)),
          // The first of four weight rows, counted from the slab's first; of a gate.
          four(gated ? chunk / 4 * 32 + chunk % 4 * 4 : chunk * 4),
          first_weight((job.row_tile + slab * 4) * 16),
          out(args, gated ? first_weight / 2 + chunk * 4 : first_weight + four, job.first_row) {
        const u32 rows = min(args.rows - job.first_row, N);
        const u32 chunks = gated ? 8 : 16;
        row = rows * job.rank / job.sharing + threadIdx.x % THREADS / chunks;
        end = out.count == 0 ? 0 : rows * (job.rank + 1) / job.sharing;
        step = THREADS / chunks;
        if (args.finish == Args::ADD) {
            load(row);
        }
    }

    __device__ __forceinline__ void load(u32 from) {
#pragma unroll
        for (u32 k = 0; k < COUNT; ++k) {
            if (from + k * step < end) {
                out.load(before[k], from + k * step);
            }
        }
    }

    __device__ __forceinline__ const i32 *sums() const {
        return reinterpret_cast<const i32 *>(pool.bytes) + slab * S::ROOM + four;
    }

    // Sums of rows, `COUNT` of them `step` apart.
    template <u32 COUNT>
    __device__ __forceinline__ void gather(int4 (&x)[COUNT], u32 from) const {
        const i32 *own = sums() + from * PITCH;
#pragma unroll
        for (u32 k = 0; k < COUNT; ++k) {
            x[k] = local(own + k * step * PITCH);
        }
        const u32 address = async::shared_address(own);
#pragma unroll 1
        for (u32 other = 1; other < job.sharing; ++other) {
            const u32 rank = job.rank + other;
            const u32 remote = address_of(address, rank < job.sharing ? rank : rank - job.sharing);
            int4 more[COUNT * S::SHARING];
#pragma unroll
            for (u32 k = 0; k < COUNT; ++k) {
#pragma unroll
                for (u32 team = 0; team < S::SHARING; ++team) {
                    more[k * S::SHARING + team] =
                        load_remote(remote + (k * step * PITCH + team * S::ROOM) * 4);
                }
            }
#pragma unroll
            for (u32 k = 0; k < COUNT * S::SHARING; ++k) {
                add_to(x[k / S::SHARING], more[k]);
            }
        }
    }

    // Codes are trits plus one. The sum is exact as a single.
    __device__ __forceinline__ static void values(f32 (&real)[4], int4 x, RowInfo info,
                                                  float4 unit) {
        real[0] = __fmul_rn(__fmul_rn(__int2float_rn(x.x - info.sum), info.unit), unit.x);
        real[1] = __fmul_rn(__fmul_rn(__int2float_rn(x.y - info.sum), info.unit), unit.y);
        real[2] = __fmul_rn(__fmul_rn(__int2float_rn(x.z - info.sum), info.unit), unit.z);
        real[3] = __fmul_rn(__fmul_rn(__int2float_rn(x.w - info.sum), info.unit), unit.w);
    }

    __device__ __forceinline__ float4 unit(u32 up) const {
        return *reinterpret_cast<const float4 *>(pool.shared + UNITS
                                                 + (slab * FEATURES + four + up) * 4);
    }

    __device__ __forceinline__ const RowInfo *infos() const {
        return reinterpret_cast<const RowInfo *>(pool.shared + INFOS);
    }

    __device__ __forceinline__ RowInfo info(u32 row) const { return infos()[row]; }

    // Four sums of this block.
    __device__ __forceinline__ static int4 local(const i32 *own) {
        int4 x = *reinterpret_cast<const int4 *>(own);
        if (S::SHARING == 2) {
            add_to(x, *reinterpret_cast<const int4 *>(own + S::ROOM));
        }
        return x;
    }

    __device__ __forceinline__ void add_bias(f32 (&real)[4], u32 up) const {
        const f32 *bias = args.bias + first_weight + four + up;
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            real[i] = __fadd_rn(real[i], i < out.count ? bias[i] : 0.0f);
        }
    }

    // What is usual has loops of its own.
    __device__ __forceinline__ void finish() {
        const u32 how = args.finish;
        const bool usual = args.bias == nullptr && out.at_once;
        const float4 mine = unit(0);
        if (usual && gated && job.sharing == 1) {
            const float4 up_unit = unit(16);
            const i32 *from = sums() + row * PITCH;
            const RowInfo *of = infos() + row;
            f32 *to = out.place(row);
            const size_t stride = static_cast<size_t>(step) * out.stride;
#pragma unroll 1
            for (; row < end; row += step) {
                f32 real[4], up[4];
                const RowInfo info = *of;
                values(real, local(from), info, mine);
                values(up, local(from + 16), info, up_unit);
                activation::apply(args.activation, real);
#pragma unroll
                for (u32 i = 0; i < 4; ++i) {
                    real[i] = __fmul_rn(real[i], up[i]);
                }
                *reinterpret_cast<float4 *>(to) = make_float4(real[0], real[1], real[2], real[3]);
                from += step * PITCH;
                of += step;
                to += stride;
            }
        } else if (usual && how <= Args::ADD) {
#pragma unroll 1
            while (row + (COUNT - 1) * step < end) {
                int4 x[COUNT];
                gather(x, row);
                if (row + COUNT * step >= end) {
                    leave();
                }
                f32 real[COUNT][4];
#pragma unroll
                for (u32 k = 0; k < COUNT; ++k) {
                    values(real[k], x[k], info(row + k * step), mine);
                    if (how == Args::ADD) {
#pragma unroll
                        for (u32 i = 0; i < 4; ++i) {
                            real[k][i] = __fadd_rn(before[k][i], real[k][i]);
                        }
                    }
                }
                const u32 done = row;
                row += COUNT * step;
                if (how == Args::ADD) {
                    load(row);
                }
#pragma unroll
                for (u32 k = 0; k < COUNT; ++k) {
                    out.store_at_once(real[k], done + k * step);
                }
            }
        }
#pragma unroll 1
        for (; row < end; row += step) {
            int4 x[1];
            gather(x, row);
            f32 real[4];
            values(real, x[0], info(row), mine);
            if (args.bias != nullptr) {
                add_bias(real, 0);
            }
            if (how == Args::ADD) {
                f32 old[4];
                out.load(old, row);
#pragma unroll
                for (u32 i = 0; i < 4; ++i) {
                    real[i] = __fadd_rn(old[i], real[i]);
                }
            } else if (how != Args::STORE) {
                activation::apply(args.activation, real);
            }
            if (gated) {
                f32 up[4];
                row_up(x, up, unit(16));
                if (args.bias != nullptr) {
                    add_bias(up, 16);
                }
#pragma unroll
                for (u32 i = 0; i < 4; ++i) {
                    real[i] = __fmul_rn(real[i], up[i]);
                }
            }
            out.store(real, row);
        }
        leave();
    }

    // Nothing of other blocks is read any more.
    __device__ __forceinline__ void leave() {
        if (!has_left && job.sharing > 1) {
            cluster_arrive();
        }
        has_left = true;
    }

    // Of the row's up.
    __device__ __forceinline__ void row_up(int4 (&x)[1], f32 (&up)[4], float4 up_unit) {
        four += 16;
        gather(x, row);
        four -= 16;
        values(up, x[0], info(row), up_unit);
    }
};

}  // namespace linear_slabs
