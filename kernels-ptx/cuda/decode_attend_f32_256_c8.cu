#include "decode_attend_f32.cuh"

// Grid: DecodeAttendShape::grid.
extern "C" __global__ void __cluster_dims__(8, 1, 1) __launch_bounds__(Args::THREADS, 1)
    decode_attend_f32_256_c8(Args args) {
    decode_attend<8, 256>(args);
}
