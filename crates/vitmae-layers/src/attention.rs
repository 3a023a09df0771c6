//! Multi-head self-attention with its projections and the residual around it.

use vitmae_tensor::ops::{self, Attended, Dropout};
use vitmae_tensor::{Tensor, TensorError};

use crate::{Linear, LinearCache, Param};

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

/// What [`Attention::backward`] needs from the forward pass.
#[derive(Clone, Debug)]
pub struct AttentionCache {
    qkv_input: LinearCache,
    qkv: Tensor, // [B, N, 3·D]
    attended: Attended,
    projection: LinearCache,
    heads: usize,
    probabilities_dropout: Option<Dropout>,
    output_dropout: Option<Dropout>,
}

impl Attention {
    /// # Shapes
    /// `x, residual: [B, N, D]` → the same
    ///
    /// # Errors
    /// [`TensorError`] if a shape does not fit.
    pub fn forward(
        &self,
        x: Tensor,
        residual: &Tensor,
        probabilities_dropout: Option<Dropout>,
        output_dropout: Option<Dropout>,
    ) -> Result<(Tensor, AttentionCache), TensorError> {
        let (qkv, qkv_input) = self.qkv.forward(x)?; // [B, N, 3·D]
        let attended = ops::attention(&qkv, self.heads, probabilities_dropout.as_ref())?;
        let mixed = attended.out.clone(); // [B, N, D]
        let (y, projection) = match &output_dropout {
            None => self.projection.forward_residual(mixed, residual)?,
            Some(dropout) => {
                let (projected, cache) = self.projection.forward(mixed)?;
                (ops::dropout(&projected, Some(residual), dropout)?, cache)
            }
        };
        let heads = self.heads;
        let cache = AttentionCache {
            qkv_input,
            qkv,
            attended,
            projection,
            heads,
            probabilities_dropout,
            output_dropout,
        };
        Ok((y, cache))
    }

    /// Returns `dx`, without the part that goes through `residual`, and adds to the gradients.
    ///
    /// # Errors
    /// [`TensorError`] if `dy` has not the shape of the output.
    pub fn backward(&mut self, cache: AttentionCache, dy: &Tensor) -> Result<Tensor, TensorError> {
        let dmixed = match &cache.output_dropout {
            None => self.projection.backward(cache.projection, dy)?,
            Some(dropout) => {
                let dprojected = ops::dropout_backward(dy, dropout)?;
                self.projection.backward(cache.projection, &dprojected)?
            }
        };
        let dropout = cache.probabilities_dropout.as_ref();
        let dqkv =
            ops::attention_backward(&dmixed, &cache.qkv, &cache.attended, self.heads, dropout)?;
        self.qkv.backward(cache.qkv_input, &dqkv)
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
        ops::attention_probabilities(&self.qkv, &self.attended.lse, self.heads)
    }
}
