#include "attend_rows_hopper.cuh"

// Grid: tiles by heads, heads fastest.
extern "C" __global__ void __launch_bounds__(AttendRowsHopperArgs::THREADS, 1)
attend_rows_hopper_f16_96(AttendRowsHopperArgs args) {
#if HOPPER
    attend_rows<96>(args);
#endif
}
