#include "decode_linear.cuh"

// Grid: DecodeLinearShape::grid.
extern "C" __global__ void __launch_bounds__(Args::THREADS, 1) decode_out_9(Args args) {
    decode_linear<72, ADD>(args);
}
