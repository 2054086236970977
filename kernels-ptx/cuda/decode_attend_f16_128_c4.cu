#include "decode_attend_f16.cuh"

// Grid: DecodeAttendShape::grid.
extern "C" __global__ void __cluster_dims__(4, 1, 1) __launch_bounds__(Args::THREADS, 2)
    decode_attend_f16_128_c4(Args args) {
    decode_attend<4, 128>(args);
}
