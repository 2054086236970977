// Ternary linears, 64 rows of the step at a time: linear.cuh. Launched with few registers, of which
// the teams that multiply then take those of the warps that fetch.
#include "linear.cuh"

// Grid: any number of blocks up to the number of units; the result is the same.
extern "C" __global__ void __launch_bounds__(HOPPER ? 512 : LinearArgs::THREADS, 1)
    linear_64(LinearArgs args) {
    linear_tiles::run<64, 56, 160>(args);
}
