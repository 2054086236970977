#include "decode_attend_many.cuh"

// Grid: DecodeAttendShape::grid.
extern "C" __global__ void __launch_bounds__(Args::THREADS, 4)
    decode_attend_many_f16_128_c4(Args args) {
    decode_attend_many<4, 128, false>(args);
}
