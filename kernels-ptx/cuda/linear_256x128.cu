// Ternary linears, tiles of 256 features by 128 rows of the step: linear_slabs.cuh.
#include "linear_slabs.cuh"

// Grid: a cluster of blocks, or one block, for each tile.
extern "C" __global__ void __launch_bounds__(640, 1) linear_256x128(LinearArgs args) {
    linear_slabs::run<4, 128, 32, 112>(args);
}
