#include "attend_rows_exact.cuh"

// Grid: (tiles, heads).
extern "C" __global__ void __launch_bounds__(Args::THREADS, 2) attend_rows_exact_f16(Args args) {
    attend_rows_exact<u16>(args);
}
