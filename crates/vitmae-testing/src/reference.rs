//! Every operation of the model as its plain formula: f64 loops, slices in, `Vec` out.
//!
//! These functions are the judges of every kernel, so they share no code with one: no tensor type, no
//! SIMD, no cleverness. Each backward is tested against central differences of its own forward.
//!
//! Letters: `B` batch, `N` tokens or rows, `D` width, `A` heads, `C` channels, `H W` pixels, `P` patch
//! side, `L` patches, `K` kept patches, `E` decoder width. Arrays are row-major. Backward functions
//! return gradients, they never add to one. Wrong lengths panic: the callers are tests.

pub mod activation;
pub mod adamw;
pub mod attention;
pub mod cross_entropy;
pub mod decoder_assembly;
pub mod dropout;
pub mod ema;
pub mod encoder_assembly;
pub mod gather;
pub mod interpolation;
pub mod layer_norm;
pub mod linear;
pub mod loss;
pub mod masking;
pub mod model;
pub mod norm;
pub mod patches;
pub mod position;
pub mod reduce;
