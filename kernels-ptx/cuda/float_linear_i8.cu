#include "float_linear_few.cuh"

// Grid: FloatLinearShape::grid.
extern "C" __global__ void __launch_bounds__(Args::THREADS) float_linear_i8(Args args) {
    float_linear_few<I8>(args);
}
