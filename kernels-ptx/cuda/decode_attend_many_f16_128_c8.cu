#include "decode_attend_many.cuh"

// Grid: DecodeAttendShape::grid.
extern "C" __global__ void __launch_bounds__(Args::THREADS, 2)
    decode_attend_many_f16_128_c8(Args args) {
    decode_attend_many<8, 128, true>(args);
}
