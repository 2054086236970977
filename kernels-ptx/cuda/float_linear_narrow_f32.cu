#include "float_linear_many.cuh"

// Grid: FloatLinearShape::grid.
extern "C" __global__ void __launch_bounds__(Args::THREADS) float_linear_narrow_f32(Args args) {
    float_linear_many<Narrow<F32>>(args);
}
