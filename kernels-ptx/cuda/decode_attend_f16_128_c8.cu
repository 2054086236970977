#include "decode_attend_f16.cuh"

// Grid: DecodeAttendShape::grid.
extern "C" __global__ void __cluster_dims__(8, 1, 1) __launch_bounds__(Args::THREADS, 2)
    decode_attend_f16_128_c8(Args args) {
    decode_attend<8, 128>(args);
}
