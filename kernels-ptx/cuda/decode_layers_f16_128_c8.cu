#include "decode_layers.cuh"

// Grid: DecodeLayersShape::grid.
extern "C" __global__ void __launch_bounds__(Layers::THREADS, 1)
    decode_layers_f16_128_c8(Layers args) {
    decode_layers<8, 128>(args);
}
