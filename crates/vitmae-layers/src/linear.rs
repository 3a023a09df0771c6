//! Linear map over the last axis.

use std::sync::Arc;

use vitmae_tensor::ops::{self, Activation, PackedWeight, Precision, Weight};
use vitmae_tensor::{Tensor, TensorError};

use crate::{MakeParam, Param};

/// `y = x · weightᵀ + bias` over the last axis.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`, or a convolution's `[out, C, PH, PW]` with `in = C·PH·PW`.
    pub weight: Param,
    /// `[out]`
    pub bias: Option<Param>,
    /// Of the product, forward and backward.
    pub precision: Precision,
    packed: Option<Arc<PackedWeight>>,
}

impl Linear {
    /// A map in f32 whose parameters are `name.weight` of the given shape and `name.bias`, made by `param`.
    ///
    /// # Errors
    /// The first error of `param`.
    pub fn build<E>(
        name: &str,
        weight: &[usize],
        bias: bool,
        param: &mut MakeParam<'_, E>,
    ) -> Result<Self, E> {
        let value = param(format!("{name}.weight"), weight)?;
        let bias = bias.then(|| param(format!("{name}.bias"), &weight[..1])).transpose()?;
        Ok(Self { weight: value, bias, precision: Precision::F32, packed: None })
    }

    /// `[…, in]` → `[…, out]`.
    ///
    /// # Errors
    /// [`TensorError`] if the width of `x` is not `in`; the same holds for the other forward functions.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TensorError> {
        ops::linear(x, self.weight(), self.bias(), Precision::F32)
    }

    /// [`forward`](Self::forward) inside a block, where only operations in the map's precision read the result.
    pub(crate) fn forward_inside(&self, x: &Tensor) -> Result<Tensor, TensorError> {
        ops::linear(x, self.weight(), self.bias(), self.precision)
    }

    /// `(pre, f(pre))` with `pre` the map of `x`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_activation(
        &self,
        x: &Tensor,
        f: Activation,
    ) -> Result<(Tensor, Tensor), TensorError> {
        ops::linear_activation(x, self.weight(), self.bias(), f)
    }

    /// `f` of the map of `x`, for a pass that nothing is kept of.
    pub(crate) fn infer_activation(
        &self,
        x: &Tensor,
        f: Activation,
    ) -> Result<Tensor, TensorError> {
        ops::linear_activation_alone(x, self.weight(), self.bias(), f)
    }

    /// The map of `x` plus `residual`, `[…, out]`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_residual(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor, TensorError> {
        ops::linear_residual(x, self.weight(), self.bias(), residual)
    }

    /// Returns `dx: […, in]` and adds to the gradients of weight and bias; `x` is that of the forward pass.
    ///
    /// # Errors
    /// [`TensorError`] if `dy` has not the shape of the output.
    pub fn backward(&mut self, x: &Tensor, dy: &Tensor) -> Result<Tensor, TensorError> {
        self.backward_stored(x, dy, Precision::F32)
    }

    /// [`backward`](Self::backward) inside a block, where only operations in the map's precision read `dx`.
    pub(crate) fn backward_inside(
        &mut self,
        x: &Tensor,
        dy: &Tensor,
    ) -> Result<Tensor, TensorError> {
        self.backward_stored(x, dy, self.precision)
    }

    /// The gradient of what `x` is the activation `f` of, stored as `before` is, that argument of `f`; adds to the gradients of
    /// weight and bias.
    pub(crate) fn backward_activation(
        &mut self,
        x: Tensor,
        dy: &Tensor,
        before: &Tensor,
        f: Activation,
    ) -> Result<Tensor, TensorError> {
        let dy = self.backward_rounded(&x, dy)?;
        drop(x);
        ops::linear_backward_activation(self.precision, &dy, &self.weight.value, before, f)
    }

    fn backward_stored(
        &mut self,
        x: &Tensor,
        dy: &Tensor,
        stored: Precision,
    ) -> Result<Tensor, TensorError> {
        let dy = self.backward_rounded(x, dy)?;
        ops::linear_backward_input(self.precision, &dy, &self.weight.value, stored)
    }

    /// Adds to the gradients and returns `dy` as products read it, for the second of them.
    fn backward_rounded(&mut self, x: &Tensor, dy: &Tensor) -> Result<Tensor, TensorError> {
        if let Some(bias) = &mut self.bias {
            ops::linear_backward_bias(dy, &mut bias.grad)?;
        }
        let dy = ops::rounded(dy, self.precision)?;
        let Param { value, grad, .. } = &mut self.weight;
        ops::linear_backward_weight(self.precision, &dy, x, value.shape(), grad)?;
        Ok(dy)
    }

    /// As [`backward`](Self::backward) where nobody needs `dx`, as for the first layer of a model.
    ///
    /// # Errors
    /// As [`backward`](Self::backward).
    pub fn backward_parameters(&mut self, x: &Tensor, dy: &Tensor) -> Result<(), TensorError> {
        let Param { value, grad, .. } = &mut self.weight;
        ops::linear_backward_weight(self.precision, dy, x, value.shape(), grad)?;
        match &mut self.bias {
            Some(bias) => ops::linear_backward_bias(dy, &mut bias.grad),
            None => Ok(()),
        }
    }

    /// Packs the weight for forward passes on the CPU, until it changes, as [`ops::pack`] does: the same results, sooner. For
    /// inference; in f32 it costs no memory, in bf16 half of the weight's, or all of it on a CPU without instructions for bf16.
    ///
    /// # Errors
    /// [`TensorError::Rank`] if the weight has fewer than two sides.
    pub fn pack(&mut self) -> Result<(), TensorError> {
        self.packed = ops::pack(&mut self.weight.value, self.precision)?.map(Arc::new);
        Ok(())
    }

    /// As [`pack`](Self::pack), in 8 bits: not the same results, and a quarter of the weight's memory. Where there are no
    /// such products, on a GPU, nothing changes.
    ///
    /// # Errors
    /// As [`pack`](Self::pack).
    pub fn quantise(&mut self) -> Result<(), TensorError> {
        self.packed = PackedWeight::int8(&self.weight.value)?.map(Arc::new);
        Ok(())
    }

    pub(crate) fn weight(&self) -> Weight<'_> {
        let (tensor, precision) = (&self.weight.value, self.precision);
        Weight { tensor, precision, packed: self.packed.as_deref() }
    }

    fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref().map(|bias| &bias.value)
    }

    pub(crate) fn params(&self) -> impl Iterator<Item = &Param> {
        [&self.weight].into_iter().chain(&self.bias)
    }

    pub(crate) fn params_mut(&mut self) -> impl Iterator<Item = &mut Param> {
        [&mut self.weight].into_iter().chain(&mut self.bias)
    }

    /// Weight and bias, in this order.
    pub fn parameters(&self) -> Vec<&Param> {
        self.params().collect()
    }

    /// As [`parameters`](Self::parameters), to be changed.
    pub fn parameters_mut(&mut self) -> Vec<&mut Param> {
        self.params_mut().collect()
    }
}
