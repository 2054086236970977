// Rows of weights into the tiles that float linears read; contract.cuh says where what goes.
#include "floats.cuh"

using Args = TileWeightsArgs;

// Grid: (tiles).
extern "C" __global__ void __launch_bounds__(Args::THREADS) tile_weights(Args args) {
    // Of a chunk: columns, in all and of a lane; pieces of 16 bytes, half of them for either of two
    // features.
    const u32 bytes = args.form == Args::I8 ? 1 : args.form == Args::BITS16 ? 2 : 4;
    const u32 chunk_cols = args.form == Args::I8 ? 64 : 32;
    const u32 lane_cols = chunk_cols / 4;
    const u32 pieces = lane_cols * bytes / 16 * 2;
    const u32 chunks = (args.cols + chunk_cols - 1) / chunk_cols;
    const size_t tile_pieces = static_cast<size_t>(chunks) * pieces * WARP;
    uint4 *out = reinterpret_cast<uint4 *>(args.tiles) + blockIdx.x * tile_pieces;
    for (size_t i = threadIdx.x; i < tile_pieces; i += Args::THREADS) {
        const u32 lane = i % WARP;
        const u32 piece = i / WARP % pieces;
        const u32 chunk = i / WARP / pieces;
        const u32 half = piece / (pieces / 2);
        const u32 feature = blockIdx.x * 16 + lane / 4 + 8 * half;
        const u32 col =
            chunk * chunk_cols + lane % 4 * lane_cols + piece % (pieces / 2) * (16 / bytes);
        u32 words[4] = {};
        const u8 *from = args.rows + (static_cast<size_t>(feature) * args.cols + col) * bytes;
#pragma unroll
        for (u32 word = 0; word < 4; ++word) {
            if (feature < args.features && col + word * (4 / bytes) < args.cols) {
                words[word] = *reinterpret_cast<const u32 *>(from + 4 * word);
            }
        }
        out[i] = make_uint4(words[0], words[1], words[2], words[3]);
    }
}
