//! CPU kernels for masked autoencoders over plain slices: GEMM, attention, layer norm and the rest,
//! forward and backward.
//!
//! One operation is one file. Matrices are row-major `f32`, or bf16 where a signature says [`values::Values`]; outputs are
//! the last arguments. Letters:
//! `B` batch, `N` tokens or rows, `D` width, `A` heads, `C` channels, `L` patches, `K` kept patches.
//!
//! **Numbers do not depend on the number of threads.** Work runs on the current Rayon pool; each
//! output element is computed by one task in one fixed order, and sums over rows are split at fixed
//! places.
//!
//! **Vector instructions are chosen at run time** (AVX-512, AVX2 with FMA, or portable code), so one
//! binary runs everywhere. Results may differ in the last bit between these three, never between runs.
//!
//! Lengths are the caller's duty: kernels assert them and panic on a mismatch. `vitmae-tensor` checks
//! shapes first and returns errors.

#![allow(rustdoc::broken_intra_doc_links, reason = "formulas index with brackets")]

pub mod activation;
pub mod adamw;
pub mod attention;
mod bf16;
pub mod cross_entropy;
pub mod decoder_assembly;
pub mod dropout;
pub mod ema;
pub mod encoder_assembly;
pub mod gather;
pub mod gemm;
pub mod interpolation;
pub mod layer_norm;
pub mod linear;
pub mod loss;
pub mod norm;
mod parallel;
pub mod patches;
pub mod peak;
pub mod random;
pub mod reduce;
mod scratch;
mod simd;
pub mod values;
