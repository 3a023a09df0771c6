//! The two-layer perceptron of a block, with the residual around it.

use vitmae_tensor::ops::{self, Activation};
use vitmae_tensor::{Tensor, TensorError};

use crate::{BranchDropout, Linear, Param};

/// `y = residual + fc2(f(fc1(x)))`.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// `[inner, D]`
    pub fc1: Linear,
    /// `[D, inner]`
    pub fc2: Linear,
    /// `f`
    pub activation: Activation,
}

/// What [`Mlp::backward`] needs from the forward pass beside the input. The output of the activation is
/// computed again: it is as large as its argument and cheap.
#[derive(Clone, Debug)]
pub struct MlpCache {
    pre: Tensor, // [B, N, inner], before the activation
    dropout: BranchDropout,
}

impl Mlp {
    /// # Shapes
    /// `x, residual: [B, N, D]` → the same
    ///
    /// # Errors
    /// [`TensorError`] if a shape does not fit.
    pub fn forward(
        &self,
        x: &Tensor,
        residual: &Tensor,
        dropout: BranchDropout,
    ) -> Result<(Tensor, MlpCache), TensorError> {
        let (pre, hidden) = self.fc1.forward_activation(x, self.activation)?;
        let y = if dropout.is_none() {
            self.fc2.forward_residual(&hidden, residual)?
        } else {
            dropout.join(&self.fc2.forward(&hidden)?, residual)?
        };
        Ok((y, MlpCache { pre, dropout }))
    }

    /// The output of [`forward`](Self::forward) without dropout, keeping nothing for a backward pass.
    pub(crate) fn infer(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor, TensorError> {
        let hidden = self.fc1.infer_activation(x, self.activation)?;
        self.fc2.forward_residual(&hidden, residual)
    }

    /// Returns `dx`, without the part that goes through `residual`, and adds to the gradients; `x` is that of
    /// the forward pass.
    ///
    /// # Errors
    /// [`TensorError`] if `dy` has not the shape of the output.
    pub fn backward(
        &mut self,
        cache: MlpCache,
        x: &Tensor,
        dy: &Tensor,
    ) -> Result<Tensor, TensorError> {
        let (pre, f) = (cache.pre, self.activation);
        let hidden = ops::activation(&pre, f)?;
        let dpre = self.fc2.backward_activation(hidden, &cache.dropout.backward(dy)?, &pre, f)?;
        drop(pre);
        self.fc1.backward_inside(x, &dpre)
    }

    /// Parameters of `fc1`, then of `fc2`.
    pub fn parameters(&self) -> Vec<&Param> {
        self.fc1.params().chain(self.fc2.params()).collect()
    }

    /// As [`parameters`](Self::parameters), to be changed.
    pub fn parameters_mut(&mut self) -> Vec<&mut Param> {
        self.fc1.params_mut().chain(self.fc2.params_mut()).collect()
    }
}
