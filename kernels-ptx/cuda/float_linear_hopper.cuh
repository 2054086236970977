// Float linears for many rows on Hopper's matrix instruction: a block multiplies 128 features and
// 128 rows at a time, weights from registers, terms from shared memory; a third warpgroup fetches
// both. Blocks stay: while one tile is finished, the next is being fetched.
//
// The bits are those of mma.sync: both instructions add the 16 products of a step and the sum so
// far at once, so that the order of the columns within a step does not matter.
#pragma once
#include "float_linear.cuh"
#include "wgmma.cuh"

namespace {

using HopperArgs = FloatLinearHopperArgs;

extern __shared__ u8 pool[];

template <typename W>
struct Hopper {
    static constexpr u32 ROWS = HopperArgs::ROWS;
    static constexpr u32 FEATURES = HopperArgs::FEATURES;
    static constexpr u32 TILES = FEATURES / Args::TILE_FEATURES;
    // Two teams multiply; a warp has a tile of features.
    static constexpr u32 TEAM = 128;
    static constexpr u32 WARPS = 2 * TEAM / WARP;
    static_assert(WARPS == TILES && HopperArgs::THREADS == 3 * TEAM, "every warp has a place");
    // A chunk of eight rows: a step of one term is 256 bytes.
    static constexpr u32 STEP = 256;
    static constexpr u32 TERM = 2 * UNITS<W> * STEP;
    static constexpr u32 ROW_BLOCK = W::TERMS * TERM;
    // A stage is 64 columns: the weights of a tile of features one after the other, then the terms
    // of a chunk one after the other.
    static constexpr u32 DEPTH = 2 / UNITS<W>;
    static constexpr u32 TILE = DEPTH * CHUNK_BYTES<W>;
    static constexpr u32 TERMS = ROWS / 8 * ROW_BLOCK;
    static constexpr u32 WEIGHTS = TILES * TILE;
    static constexpr u32 STAGE = WEIGHTS + DEPTH * TERMS;
    // A team finishes so many rows of its features at a time.
    static constexpr u32 CHUNK_ROWS = 32;
    static constexpr u32 PITCH = FEATURES / 2 + 4;
    static constexpr u32 ROOM = CHUNK_ROWS * PITCH * 4;
    static constexpr u32 ALIGN = 128;
    static constexpr u32 STAGES = (HopperArgs::SHARED_BYTES - 2 * ROOM - ALIGN) / STAGE;
    static_assert(STAGES >= 3, "some are fetched while two are multiplied");
    // Tiles that a warp fetches.
    static constexpr u32 FETCHERS = TEAM / WARP;
    static constexpr u32 EACH = TILES / FETCHERS;
    // Registers of a thread that fetches and of one that multiplies.
    static constexpr u32 FETCHING = 40;
    static constexpr u32 MULTIPLYING = 232;

    const HopperArgs &args;
    u32 barriers;
    u32 stages;
    u8 *bytes;

    __device__ __forceinline__ u32 full(u32 stage) const { return barriers + stage * 16; }
    __device__ __forceinline__ u32 empty(u32 stage) const { return barriers + stage * 16 + 8; }

    __device__ __forceinline__ u32 tiles() const {
        return (args.features + Args::TILE_FEATURES - 1) / Args::TILE_FEATURES;
    }
    __device__ __forceinline__ u32 chunks() const { return (args.cols + W::COLS - 1) / W::COLS; }
    __device__ __forceinline__ u32 parts() const { return (args.rows + ROWS - 1) / ROWS; }
    __device__ __forceinline__ u32 tasks() const {
        return (tiles() + TILES - 1) / TILES * parts();
    }

    // Rows vary fastest, so that blocks on the same weights run at the same time.
    struct Place {
        u32 tile;
        u32 row;
    };
    __device__ __forceinline__ Place place(u32 task) const {
        return {task / parts() * TILES, task % parts() * ROWS};
    }

    // What a task's stages consist of; the pointers are those of a warp that fetches.
    struct Source {
        u32 tiles;
        u32 row_blocks;
        const u8 *weights;
        size_t weights_step;
        const u8 *terms;
        size_t terms_step;
    };
    __device__ __forceinline__ Source source(u32 task, u32 warp) const {
        const Place at = place(task);
        const u32 row_blocks = (args.rows + 7) / 8;
        const size_t step = static_cast<size_t>(chunks()) * CHUNK_BYTES<W>;
        return {min(tiles() - at.tile, TILES), min(row_blocks - at.row / 8, ROWS / 8),
                args.weights + (at.tile + warp * EACH) * step, step,
                reinterpret_cast<const u8 *>(args.terms)
                    + static_cast<size_t>(at.row / 8) * ROW_BLOCK,
                static_cast<size_t>(row_blocks) * ROW_BLOCK};
    }

    // By the first lane of each warp that fetches: the chunks from `chunk` on.
    __device__ __forceinline__ void fetch_weights(const Source &from, u32 warp, u32 chunk,
                                                  u32 stage) const {
        const u32 count = min(chunks() - chunk, DEPTH);
        if (warp == 0) {
            async::barrier_expect(full(stage), count * (from.tiles * CHUNK_BYTES<W>
                                                        + from.row_blocks * ROW_BLOCK));
        }
#pragma unroll
        for (u32 i = 0; i < EACH; ++i) {
            const u32 tile = warp * EACH + i;
            if (tile < from.tiles) {
                async::bulk_copy(stages + stage * STAGE + tile * TILE,
                                 from.weights + i * from.weights_step
                                     + static_cast<size_t>(chunk) * CHUNK_BYTES<W>,
                                 count * CHUNK_BYTES<W>, full(stage));
            }
        }
    }

    __device__ __forceinline__ void fetch_terms(const Source &from, u32 warp, u32 chunk,
                                                u32 stage) const {
        if (warp < DEPTH && chunk + warp < chunks()) {
            async::bulk_copy(stages + stage * STAGE + WEIGHTS + warp * TERMS,
                             from.terms + (chunk + warp) * from.terms_step,
                             from.row_blocks * ROW_BLOCK, full(stage));
        }
    }

    // By each warp of the third team.
    __device__ __forceinline__ void fetch_all() const {
        const u32 warp = threadIdx.x / WARP - WARPS;
        const bool leads = threadIdx.x % WARP == 0;
        // Weights are on their way before the kernel that splits the rows has ended.
        u32 ahead = 0;
#pragma unroll 1
        for (u32 task = blockIdx.x; task < tasks() && ahead < STAGES; task += gridDim.x) {
            const Source from = source(task, warp);
#pragma unroll 1
            for (u32 chunk = 0; chunk < chunks() && ahead < STAGES; chunk += DEPTH, ++ahead) {
                if (leads) {
                    fetch_weights(from, warp, chunk, ahead);
                }
            }
        }
        wait_for_dependencies();
        u32 stage = 0, parity = 1;
#pragma unroll 1
        for (u32 task = blockIdx.x; task < tasks(); task += gridDim.x) {
            const Source from = source(task, warp);
#pragma unroll 1
            for (u32 chunk = 0; chunk < chunks(); chunk += DEPTH) {
                const bool fresh = ahead == 0;
                if (fresh) {
                    async::barrier_wait(empty(stage), parity);
                } else {
                    --ahead;
                }
                if (leads) {
                    if (fresh) {
                        fetch_weights(from, warp, chunk, stage);
                    }
                    fetch_terms(from, warp, chunk, stage);
                }
                __syncwarp();
                if (++stage == STAGES) {
                    stage = 0;
                    parity ^= 1;
                }
            }
        }
    }

    __device__ __forceinline__ void multiply_all() const {
        const u32 lane = threadIdx.x % WARP;
        const u32 warp = threadIdx.x / WARP;
        const uint4 *const weights = reinterpret_cast<const uint4 *>(bytes)
            + warp * (TILE / 16) + lane;
        u32 stage = 0, parity = 0, left = 0;
        const auto leave = [&] {
            if (lane == 0) {
                async::barrier_arrive(empty(left));
            }
            left = left + 1 == STAGES ? 0 : left + 1;
        };
        wait_for_dependencies();
#pragma unroll 1
        for (u32 task = blockIdx.x; task < tasks(); task += gridDim.x) {
            f32 total[ROWS / 2], acc[ROWS / 2];
#pragma unroll
            for (u32 i = 0; i < ROWS / 2; ++i) {
                total[i] = 0.0f;
                acc[i] = 0.0f;
            }
            // Of this step and of the one before, which may still be read.
            Parts<W> parts[2];
            const u32 end = chunks();
#pragma unroll 1
            for (u32 stretch = 0; stretch < end; stretch += CHUNKS<W>) {
                const u32 stretch_end = min(stretch + CHUNKS<W>, end);
#pragma unroll 1
                for (u32 first = stretch; first < stretch_end; first += DEPTH) {
                    async::barrier_wait(full(stage), parity);
#pragma unroll
                    for (u32 i = 0; i < 2; ++i) {
                        const u32 chunk = i / UNITS<W>, unit = i % UNITS<W>;
                        if (first + chunk >= stretch_end) {
                            break;
                        }
                        Stored<W> stored;
#pragma unroll
                        for (u32 piece = 0; piece < W::PIECES; ++piece) {
                            stored.pieces[piece] = weights[stage * (STAGE / 16)
                                                           + (chunk * W::PIECES + piece) * WARP];
                        }
                        parts[i] = split_unit<W>(stored, unit);
                        multiply_unit(acc, parts[i],
                                      stages + stage * STAGE + WEIGHTS + chunk * TERMS
                                          + unit * 2 * STEP,
                                      first > stretch || i > 0);
                        wgmma::wait<1>();
                        // The stage before is done with.
                        if (i == 0 && first > stretch) {
                            leave();
                        }
                    }
                    if (++stage == STAGES) {
                        stage = 0;
                        parity ^= 1;
                    }
                }
                wgmma::wait<0>();
                leave();
                wgmma::settle(acc);
#pragma unroll
                for (u32 i = 0; i < ROWS / 2; ++i) {
                    total[i] += acc[i];
                }
            }
            finish_all(place(task), total);
        }
    }

    // acc += 32 columns, whose terms are at `terms`, in the order of `float_linear.cuh`.
    __device__ __forceinline__ static void multiply_unit(f32 (&acc)[ROWS / 2],
                                                         const Parts<W> &weights, u32 terms,
                                                         bool adds) {
        wgmma::fence();
#pragma unroll
        for (u32 step = 0; step < 2; ++step) {
            const u32 a[4] = {weights.low[0][2 * step], weights.high[0][2 * step],
                              weights.low[0][2 * step + 1], weights.high[0][2 * step + 1]};
#pragma unroll
            for (u32 term = 0; term < W::TERMS; ++term) {
                const u32 at = terms + term * TERM + step * STEP;
                wgmma::multiply_floats<W::HALF>(acc, a, wgmma::describe_rows(at, ROW_BLOCK),
                                                adds || step + term > 0);
            }
        }
        wgmma::commit();
    }

    // Finishes a team's 64 features, by way of shared memory, so that a warp has neighbours.
    __device__ __forceinline__ void finish_all(Place at, const f32 (&total)[ROWS / 2]) const {
        const u32 lane = threadIdx.x % WARP;
        const u32 warp = threadIdx.x / WARP % (TEAM / WARP);
        const u32 team = threadIdx.x / TEAM;
        f32 *const room = reinterpret_cast<f32 *>(bytes + STAGES * STAGE + team * ROOM);
        f32 *const to = room + lane % 4 * 2 * PITCH + warp * 16 + lane / 4;
        const u32 feature = at.tile * Args::TILE_FEATURES + team * (FEATURES / 2) + lane;
        const size_t stride = args.out_stride;
        f32 unit[2], bias[2];
#pragma unroll
        for (u32 k = 0; k < 2; ++k) {
            const bool in = feature + k * WARP < args.features;
            unit[k] = in && args.units != nullptr ? __ldg(args.units + feature + k * WARP) : 0.0f;
            bias[k] = in && args.bias != nullptr ? __ldg(args.bias + feature + k * WARP) : 0.0f;
        }
#pragma unroll 1
        for (u32 begin = 0; begin < ROWS && at.row + begin < args.rows; begin += CHUNK_ROWS) {
            async::meet(1 + team, TEAM);
#pragma unroll
            for (u32 candidate = 0; candidate < ROWS; candidate += CHUNK_ROWS) {
                if (candidate == begin) {
#pragma unroll
                    for (u32 i = 0; i < CHUNK_ROWS; i += 8) {
                        const u32 n = (candidate + i) / 2;
                        to[i * PITCH] = total[n];
                        to[(i + 1) * PITCH] = total[n + 1];
                        to[i * PITCH + 8] = total[n + 2];
                        to[(i + 1) * PITCH + 8] = total[n + 3];
                    }
                }
            }
            async::meet(1 + team, TEAM);
            // A warp has every fourth row, and two features of a row a lane.
            constexpr u32 OWN = CHUNK_ROWS / (TEAM / WARP);
            const u32 row = at.row + begin + warp;
            const f32 *const sums = room + warp * PITCH + lane;
            if (args.epilogue > Args::ADD) {
#pragma unroll 1
                for (u32 i = 0; i < OWN; ++i) {
#pragma unroll 1
                    for (u32 k = 0; k < 2; ++k) {
                        finish<W>(args, row + 4 * i, feature + k * WARP,
                                  sums[4 * i * PITCH + k * WARP]);
                    }
                }
                continue;
            }
            f32 *const out = args.out + row * stride + args.offset + feature;
            const bool adds = args.epilogue == Args::ADD;
            f32 value[OWN][2], old[OWN][2];
#pragma unroll
            for (u32 i = 0; i < OWN; ++i) {
                const bool row_in = row + 4 * i < args.rows;
                const f32 scale = W::HALF && row_in ? args.scales[row + 4 * i] : 0.0f;
#pragma unroll
                for (u32 k = 0; k < 2; ++k) {
                    const bool in = row_in && feature + k * WARP < args.features;
                    old[i][k] = in && adds ? out[4 * i * stride + k * WARP] : 0.0f;
                    f32 x = sums[4 * i * PITCH + k * WARP];
                    x = W::HALF ? x * scale : x;
                    x = args.units != nullptr ? x * unit[k] : x;
                    value[i][k] = args.bias != nullptr ? x + bias[k] : x;
                }
            }
#pragma unroll
            for (u32 i = 0; i < OWN; ++i) {
#pragma unroll
                for (u32 k = 0; k < 2; ++k) {
                    if (row + 4 * i < args.rows && feature + k * WARP < args.features) {
                        out[4 * i * stride + k * WARP] =
                            adds ? old[i][k] + value[i][k] : value[i][k];
                    }
                }
            }
        }
    }

    __device__ __forceinline__ void run() const {
        if (threadIdx.x == 0) {
#pragma unroll 1
            for (u32 stage = 0; stage < STAGES; ++stage) {
                async::barrier_init(full(stage), 1);
                async::barrier_init(empty(stage), WARPS);
            }
            asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        }
        __syncthreads();
        launch_dependents();
        if (threadIdx.x < 2 * TEAM) {
            asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(MULTIPLYING));
            multiply_all();
        } else {
            asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(FETCHING));
            fetch_all();
        }
    }
};

template <typename W>
__device__ __forceinline__ void float_linear_hopper(const HopperArgs &args) {
    using H = Hopper<W>;
    __shared__ unsigned long long barriers[2 * H::STAGES];
    const u32 start = async::shared_address(pool);
    const u32 stages = (start + H::ALIGN - 1) / H::ALIGN * H::ALIGN;
    H{args, async::shared_address(barriers), stages, pool + (stages - start)}.run();
}

}  // namespace
