//! tercet-kernels-ptx
