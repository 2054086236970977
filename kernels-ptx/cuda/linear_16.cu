// Ternary linears, 16 rows of the step at a time: linear.cuh. Two blocks fit a Hopper
// multiprocessor, so that one fetches its codes while the one ahead of it ends.
#include "linear.cuh"

// Grid: any number of blocks up to the number of units; the result is the same.
extern "C" __global__ void __launch_bounds__(LinearArgs::THREADS, 1 + HOPPER)
    linear_16(LinearArgs args) {
    linear_tiles::run<16, 40, 96>(args);
}
