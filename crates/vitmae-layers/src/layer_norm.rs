//! Layer normalisation over the last axis.

use vitmae_tensor::ops::{self, Normalised, Precision};
use vitmae_tensor::{Tensor, TensorError};

use crate::{Linear, MakeParam, Param};

/// `y = (x − mean) · rstd · weight + bias` over the last axis.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// `[D]`
    pub weight: Param,
    /// `[D]`
    pub bias: Param,
    /// Added to the variance inside the root.
    pub eps: f32,
}

/// What [`LayerNorm::backward`] needs from the forward pass.
#[derive(Clone, Debug)]
pub struct LayerNormCache {
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
}

impl LayerNorm {
    /// A norm whose parameters are `name.weight` and `name.bias`, made by `param`.
    ///
    /// # Errors
    /// The first error of `param`.
    pub fn build<E>(
        name: &str,
        width: usize,
        eps: f32,
        param: &mut MakeParam<'_, E>,
    ) -> Result<Self, E> {
        let weight = param(format!("{name}.weight"), &[width])?;
        Ok(Self { weight, bias: param(format!("{name}.bias"), &[width])?, eps })
    }

    /// `[…, D]` → the same.
    ///
    /// # Errors
    /// [`TensorError`] if the width of `x` is not `D`.
    pub fn forward(&self, x: Tensor) -> Result<(Tensor, LayerNormCache), TensorError> {
        self.forward_for(x, Precision::F32)
    }

    /// [`forward`](Self::forward) where only products in `precision` read the result.
    pub(crate) fn forward_for(
        &self,
        x: Tensor,
        precision: Precision,
    ) -> Result<(Tensor, LayerNormCache), TensorError> {
        let Normalised { y, mean, rstd } =
            ops::layer_norm(&x, &self.weight.value, &self.bias.value, self.eps, precision)?;
        Ok((y, LayerNormCache { x, mean, rstd }))
    }

    /// `sum = residual + linear(x)` and its norm, which only products in `precision` read: `(sum, y)`, in one pass on a
    /// GPU.
    pub(crate) fn forward_sum(
        &self,
        linear: &Linear,
        x: &Tensor,
        residual: &Tensor,
        precision: Precision,
    ) -> Result<(Tensor, Tensor, LayerNormCache), TensorError> {
        let Some(bias) = &linear.bias else {
            let sum = linear.forward_residual(x, residual)?;
            let (y, cache) = self.forward_for(sum.clone(), precision)?;
            return Ok((sum, y, cache));
        };
        let of_linear = (linear.weight(), &bias.value);
        let of_norm = (&self.weight.value, &self.bias.value);
        let (sum, Normalised { y, mean, rstd }) =
            ops::linear_residual_norm(x, of_linear, residual, of_norm, self.eps, precision)?;
        Ok((sum.clone(), y, LayerNormCache { x: sum, mean, rstd }))
    }

    /// The output once more, for a backward pass that did not keep it: the same bits.
    pub(crate) fn again(
        &self,
        cache: &LayerNormCache,
        precision: Precision,
    ) -> Result<Tensor, TensorError> {
        let LayerNorm { weight, bias, eps } = self;
        Ok(ops::layer_norm(&cache.x, &weight.value, &bias.value, *eps, precision)?.y)
    }

    /// Returns `dx`, with the gradient `residual` that goes around the norm added, and adds to the
    /// gradients of weight and bias.
    ///
    /// # Errors
    /// [`TensorError`] if `dy` or `residual` has not the shape of the output.
    pub fn backward(
        &mut self,
        cache: LayerNormCache,
        dy: &Tensor,
        residual: Option<&Tensor>,
    ) -> Result<Tensor, TensorError> {
        let LayerNormCache { x, mean, rstd } = cache;
        let (weight, bias) = (&mut self.weight, &mut self.bias);
        let (dweight, dbias) = (&mut weight.grad, &mut bias.grad);
        ops::layer_norm_backward(dy, &x, &weight.value, (&mean, &rstd), residual, dweight, dbias)
    }

    /// Weight and bias, in this order.
    pub fn parameters(&self) -> Vec<&Param> {
        vec![&self.weight, &self.bias]
    }

    /// As [`parameters`](Self::parameters), to be changed.
    pub fn parameters_mut(&mut self) -> Vec<&mut Param> {
        vec![&mut self.weight, &mut self.bias]
    }
}
