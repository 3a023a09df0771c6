//! The operations of the model: one file an operation, forward and backward side by side, each with a
//! CPU kernel and an f64 reference under the same file name.
//!
//! In [`Precision::Bf16`](Precision) products read their factors rounded to bf16. The CPU, and a GPU that rounds to bf16 itself,
//! also store so what only products, attention, activations and norms read: those operations say it, or take a `stored`
//! precision. Their results can be read, and given to each other in any mixture; other operations take them on the CPU alone,
//! which then keeps the values in f32 too.
//!
//! Every function checks devices' shapes first and returns a [`TensorError`](crate::TensorError); this
//! is the only place that chooses a device's kernels.

mod activation;
mod adamw;
mod attention;
mod cross_entropy;
mod decoder_assembly;
mod dropout;
mod ema;
mod encoder_assembly;
mod gather;
mod interpolation;
mod layer_norm;
mod linear;
mod loss;
mod norm;
mod patches;
mod reduce;

pub use activation::{Activation, activation, activation_backward};
pub use adamw::{AdamW, AdamWParameter, adamw};
pub use attention::{Attended, attention, attention_backward, attention_probabilities};
pub use cross_entropy::{cross_entropy, cross_entropy_backward};
pub use decoder_assembly::{
    decoder_assembly, decoder_assembly_backward_mask_token, decoder_assembly_backward_positions,
    decoder_assembly_backward_visible,
};
pub use dropout::{Dropout, Stream, drop_path, drop_path_backward, dropout, dropout_backward};
pub use ema::{EmaParameter, ema};
pub use encoder_assembly::{
    encoder_assembly, encoder_assembly_backward_cls, encoder_assembly_backward_positions,
    encoder_assembly_backward_tokens,
};
pub use gather::{gather, gather_backward};
pub use interpolation::{BicubicKernel, interpolation, interpolation_backward};
pub use layer_norm::{Normalised, layer_norm, layer_norm_backward, linear_residual_norm};
pub use linear::{
    PackedWeight, Precision, Weight, linear, linear_activation, linear_activation_alone,
    linear_backward_activation, linear_backward_bias, linear_backward_input,
    linear_backward_weight, linear_residual, pack, rounded,
};
pub use loss::{Distance, Objective, Target, loss, loss_backward, normalise_targets};
pub use norm::{clip_scale, global_norm};
pub use patches::{im2col, patchify, unpatchify};
pub use reduce::{add, mean_tokens, mean_tokens_backward};
