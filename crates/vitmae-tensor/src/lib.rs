//! Device, Tensor and one function per operation for masked autoencoders.
