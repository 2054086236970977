#include "decode_linear.cuh"

// Two blocks to a multiprocessor, as for narrower rows: the weights of the one are on their way
// while the other ends.
//
// Grid: DecodeLinearShape::grid.
extern "C" __global__ void __launch_bounds__(Args::THREADS, 2) decode_out_9(Args args) {
    decode_linear<72, ADD>(args);
}
