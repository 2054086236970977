// Ternary linears, 64 rows of the step at a time: linear.cuh.
#include "linear.cuh"

// Grid: any number of blocks up to the number of units; the result is the same.
extern "C" __global__ void __launch_bounds__(LinearArgs::THREADS, 1) linear_64(LinearArgs args) {
    linear_tiles::run<64>(args);
}
