#include "float_linear_hopper.cuh"

// Grid: FloatLinearShape::hopper.
extern "C" __global__ void __launch_bounds__(HopperArgs::THREADS, 1)
    float_linear_hopper_f16(HopperArgs args) {
    float_linear_hopper<F16>(args);
}
