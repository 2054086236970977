// Ternary linears, tiles of 192 features by 64 rows of the step: linear_slabs.cuh.
#include "linear_slabs.cuh"

// Grid: a cluster of blocks, or one block, for each tile.
extern "C" __global__ void __launch_bounds__(512, 1) linear_192x64(LinearArgs args) {
    linear_slabs::run<3, 64, 0, 0>(args);
}
