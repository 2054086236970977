// Rows of the embedding table, and of the table of learned positions; contract.cuh says what it
// computes. Tables are weights: nothing but tokens and positions depends on an earlier kernel.
#include "floats.cuh"

using Args = EmbedArgs;

namespace {

// Where element (row, col), col a multiple of 4, stands in `tile_weights`' tiles of 16-bit numbers
// (32 columns a chunk) or singles.
__device__ __forceinline__ size_t tiled(u32 form, size_t row, u32 col, u32 cols) {
    const u32 chunks = (cols + 31) / 32;
    const u32 lane = row % 8 * 4 + col % 32 / 8;
    const u32 half = row / 8 % 2;
    const size_t chunk = row / 16 * chunks + col / 32;
    return form > FORM_BF16
        ? ((chunk * 4 + half * 2 + col % 8 / 4) * WARP + lane) * 4
        : ((chunk * 2 + half) * WARP + lane) * 8 + col % 8;
}

}  // namespace

// Grid: (rows).
extern "C" __global__ void __launch_bounds__(Args::THREADS) embed(Args args) {
    launch_dependents();
    wait_for_dependencies();
    const u32 row = blockIdx.x;
    const u32 position = args.positions[row];
    const bool real = position != Args::NONE;
    const size_t token = real ? args.tokens[row] : 0;
    float4 *out = reinterpret_cast<float4 *>(args.hidden + static_cast<size_t>(row) * args.cols);
    for (u32 at = threadIdx.x * 4; at < args.cols; at += Args::THREADS * 4) {
        float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (real) {
            const size_t place = args.tiled != 0 ? tiled(args.table_form, token, at, args.cols)
                                                 : token * args.cols + at;
            x = load_four(args.table, args.table_form, place);
            if (args.learned != nullptr) {
                const size_t place = static_cast<size_t>(position) + args.learned_offset;
                const float4 y =
                    load_four(args.learned, args.learned_form, place * args.cols + at);
                x = make_float4(x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w);
            }
        }
        out[at / 4] = x;
    }
}
