// Rows of the embedding table, and of the table of learned positions; contract.cuh says what it
// computes. Tables are weights: nothing but tokens and positions depends on an earlier kernel.
#include "floats.cuh"

using Args = EmbedArgs;

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
            x = load_four(args.table, args.table_form, token * args.cols + at);
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
