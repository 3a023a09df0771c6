//! Transformer layers with explicit forward and backward.
//!
//! There is no tape: `forward` returns the output and a cache, `backward` consumes the cache, so a
//! second backward does not compile. Gradients of parameters **add** to [`Param::grad`]; gradients of
//! activations are returned.
//!
//! Letters: `B` batch, `N` tokens or rows, `D` width, `A` heads.
#![forbid(unsafe_code)]

mod attention;
mod block;
mod dropout;
mod layer_norm;
mod linear;
mod mlp;
mod param;
mod transformer;

pub use attention::{Attention, AttentionCache};
pub use block::{Block, BlockCache};
pub use dropout::{BlockDropout, BranchDropout, DropRates};
pub use layer_norm::{LayerNorm, LayerNormCache};
pub use linear::Linear;
pub use mlp::{Mlp, MlpCache};
pub use param::{GradientsDone, MakeParam, Param};
pub use transformer::{Sizes, Trace, Transformer, TransformerCache};
pub use vitmae_tensor::TensorError;

/// Why a layer failed, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{layer}")]
pub struct LayerError {
    /// The layer's name, such as `vit.blocks.7`.
    pub layer: String,
    /// What its operation refused.
    #[source]
    pub source: TensorError,
}

impl LayerError {
    /// Says where an operation failed.
    pub(crate) fn at(layer: &str) -> impl FnOnce(TensorError) -> LayerError + '_ {
        move |source| LayerError { layer: layer.to_owned(), source }
    }
}
