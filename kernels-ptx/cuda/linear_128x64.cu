// Ternary linears, tiles of 128 features by 64 rows of the step: linear_slabs.cuh.
// Launched with few registers, so that a block of `quantize` has room beside one of these.
#include "linear_slabs.cuh"

// Grid: a cluster of blocks, or one block, for each tile.
extern "C" __global__ void __launch_bounds__(768, 1) linear_128x64(LinearArgs args) {
    linear_slabs::run<2, 64, 32, 104>(args);
}
