#include "decode_attend_f16.cuh"

// A multiprocessor gives a quarter of its registers to every fourth warp. With at most 112 a
// thread, which is what the bound is for, a block of the linear behind or ahead of this one, 17
// warps with 56, is resident at the same time, and fetches its weights.
//
// Grid: DecodeAttendShape::grid.
extern "C" __global__ void __cluster_dims__(8, 1, 1) __launch_bounds__(576, 1)
    decode_attend_f16_128_c8(Args args) {
    decode_attend<8, 128>(args);
}
