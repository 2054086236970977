#include "float_linear_few.cuh"

// Grid: FloatLinearShape::grid.
extern "C" __global__ void __launch_bounds__(Args::THREADS) float_linear_bf16(Args args) {
    float_linear_few<BF16>(args);
}
