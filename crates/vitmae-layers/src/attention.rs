//! Multi-head self-attention with its projections and the residual around it.

use vitmae_tensor::ops::{self, Attended, Dropout, Precision};
use vitmae_tensor::{Indices, Tensor, TensorError};

use crate::{BranchDropout, LayerNorm, LayerNormCache, Linear, Param};

/// `y = residual + projection(attention(qkv(x)))`.
#[derive(Clone, Debug)]
pub struct Attention {
    /// `[3·D, D]`: the rows of query, key and value below each other.
    pub qkv: Linear,
    /// `[D, D]`
    pub projection: Linear,
    /// A, a divisor of D.
    pub heads: usize,
}

/// What [`Attention::backward`] needs from the forward pass beside the input.
#[derive(Clone, Debug)]
pub struct AttentionCache {
    qkv: Tensor, // [B, N, 3·D]
    attended: Attended,
    rows: Option<Indices>,
    heads: usize,
    probabilities_dropout: Option<Dropout>,
    output_dropout: BranchDropout,
}

impl Attention {
    /// `y` and the norm of it with which the other half of a block begins, for products in `precision`:
    /// `(y, norm(y), …)`. With `rows` each token is still attended to, but only these tokens get an output.
    ///
    /// # Shapes
    /// `x: [B, N, D]` → the same, or `[B, K, D]` for `rows: [B, K]`, of which `residual` has the shape too
    ///
    /// # Errors
    /// [`TensorError`] if a shape does not fit.
    pub fn forward(
        &self,
        x: &Tensor,
        residual: &Tensor,
        rows: Option<&Indices>,
        (norm, precision): (&LayerNorm, Precision),
        probabilities_dropout: Option<Dropout>,
        output_dropout: BranchDropout,
    ) -> Result<(Tensor, Tensor, AttentionCache, LayerNormCache), TensorError> {
        let qkv = self.qkv.forward_inside(x)?; // [B, N, 3·D]
        let attended =
            ops::attention(&qkv, self.heads, self.qkv.precision, probabilities_dropout.as_ref())?;
        let mixed = &chosen(&attended.out, rows)?; // [B, N, D] or [B, K, D]
        let (y, normed, of_norm) = if output_dropout.is_none() {
            norm.forward_sum(&self.projection, mixed, residual, precision)?
        } else {
            let y = output_dropout.join(&self.projection.forward(mixed)?, residual)?;
            let (normed, of_norm) = norm.forward_for(y.clone(), precision)?;
            (y, normed, of_norm)
        };
        let cache = AttentionCache {
            qkv,
            attended,
            rows: rows.cloned(),
            heads: self.heads,
            probabilities_dropout,
            output_dropout,
        };
        Ok((y, normed, cache, of_norm))
    }

    /// Returns `dx`, without the part that goes through `residual`, and adds to the gradients; `x` is that of
    /// the forward pass.
    ///
    /// # Errors
    /// [`TensorError`] if `dy` has not the shape of the output.
    pub fn backward(
        &mut self,
        cache: AttentionCache,
        x: &Tensor,
        dy: &Tensor,
    ) -> Result<Tensor, TensorError> {
        let mixed = &chosen(&cache.attended.out, cache.rows.as_ref())?;
        let dy = &cache.output_dropout.backward(dy)?;
        let mut dmixed = self.projection.backward_inside(mixed, dy)?;
        if let Some(rows) = &cache.rows {
            dmixed = ops::gather_backward(&dmixed, rows, x.shape()[1])?;
        }
        let dropout = cache.probabilities_dropout.as_ref();
        let dqkv =
            ops::attention_backward(&dmixed, &cache.qkv, &cache.attended, self.heads, dropout)?;
        drop((dmixed, cache));
        self.qkv.backward_inside(x, &dqkv)
    }

    /// Parameters of `qkv`, then of `projection`.
    pub fn parameters(&self) -> Vec<&Param> {
        self.qkv.params().chain(self.projection.params()).collect()
    }

    /// As [`parameters`](Self::parameters), to be changed.
    pub fn parameters_mut(&mut self) -> Vec<&mut Param> {
        self.qkv.params_mut().chain(self.projection.params_mut()).collect()
    }
}

impl AttentionCache {
    /// The probabilities `[B, A, N, N]`, before dropout.
    ///
    /// # Errors
    /// Those of [`ops::attention_probabilities`].
    pub fn probabilities(&self) -> Result<Tensor, TensorError> {
        ops::attention_probabilities(&self.qkv, &self.attended, self.heads)
    }
}

/// Some rows of each image, or all.
pub(crate) fn chosen(x: &Tensor, rows: Option<&Indices>) -> Result<Tensor, TensorError> {
    rows.map_or_else(|| Ok(x.clone()), |rows| ops::gather(x, rows))
}
