#include "float_linear_many.cuh"

// Grid: FloatLinearShape::grid.
extern "C" __global__ void __launch_bounds__(Args::THREADS) float_linear_wide_i8(Args args) {
    float_linear_many<Wide<I8>>(args);
}
