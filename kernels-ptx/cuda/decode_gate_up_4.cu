#include "decode_linear.cuh"

// Grid: DecodeLinearShape::grid.
extern "C" __global__ void __launch_bounds__(Args::THREADS, 2) decode_gate_up_4(Args args) {
    decode_linear<32, GATE>(args);
}
