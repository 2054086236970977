#include "attend_rows.cuh"

// Grid: (tiles, heads).
extern "C" __global__ void __launch_bounds__(Args::THREADS) attend_rows_f16_256(Args args) {
    attend_rows<256>(args);
}
