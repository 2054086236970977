#include "float_linear_many.cuh"

// Grid: FloatLinearShape::grid.
extern "C" __global__ void __launch_bounds__(Args::THREADS) float_linear_narrow_i8(Args args) {
    float_linear_many<Narrow<I8>>(args);
}
