//! CPU kernels for masked autoencoders: GEMM, attention, layer norm and the rest, forward and backward.
