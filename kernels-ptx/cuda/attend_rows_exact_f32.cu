#include "attend_rows_exact.cuh"

// Grid: (tiles, heads).
extern "C" __global__ void __launch_bounds__(Args::THREADS, 2) attend_rows_exact_f32(Args args) {
    attend_rows_exact<f32>(args);
}
