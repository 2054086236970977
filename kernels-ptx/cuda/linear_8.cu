// Ternary linears, 8 rows of the step at a time: linear.cuh. Two blocks fit a Hopper
// multiprocessor, so that one fetches its codes while the one ahead of it ends.
#include "linear.cuh"

// Grid: any number of blocks up to the number of units; the result is the same.
extern "C" __global__ void __launch_bounds__(LinearArgs::THREADS, 1 + HOPPER)
    linear_8(LinearArgs args) {
    linear_tiles::run<8, 40, 96>(args);
}
