//! GPU kernels for masked autoencoders, written once in CubeCL for every GPU API that it compiles to.
//!
//! One operation is one file, named as its CPU twin in `vitmae-cpu`, with the same arguments in the same
//! order: the client first, outputs last. Matrices are row-major. Letters: `B` batch, `N` tokens or rows,
//! `D` width, `A` heads, `C` channels, `L` patches, `K` kept patches.
//!
//! **Types.** Activations are f32, f16 or bf16, all of one type in a call; parameters, statistics and
//! gradients of parameters are f32. Arithmetic is f32 everywhere.
//!
//! **A launch is asynchronous.** What goes wrong on the device shows when values are read:
//! [`Array::to_f32`] gives an error then. Lengths are the caller's duty: launchers assert them and panic on
//! a mismatch.
//!
//! **Numbers are the same from run to run on one device**: no kernel uses atomics, and sums are split at
//! places that depend on the shape alone.
//!
//! **No index is checked by the compiler or the device.** Each kernel guards its indices by hand, which is
//! what the `SAFETY` comments at the launches mean by "guarded".

#![allow(rustdoc::broken_intra_doc_links, reason = "formulas index with brackets")]

pub mod activation;
pub mod adamw;
mod array;
pub mod attention;
pub mod convert;
pub mod cross_entropy;
pub mod decoder_assembly;
mod device;
pub mod dropout;
pub mod ema;
pub mod encoder_assembly;
mod error;
pub mod gather;
pub mod gemm;
pub mod interpolation;
mod launch;
pub mod layer_norm;
pub mod linear;
pub mod loss;
pub mod norm;
pub mod patches;
mod random;
pub mod reduce;
mod team;

pub use array::{Array, Dtype, Ids};
pub use cubecl;
pub use cubecl::client::Client;
pub use device::{Capabilities, cube_count};
pub use dropout::Dropout;
pub use error::KernelError;
