//! Element-wise non-linearities.

pub use vitmae_cpu::activation::Activation;

use crate::{Tensor, TensorError};

/// `y = f(x)`, any shape.
///
/// # Errors
/// [`TensorError::TooLarge`] never in practice: the output is as large as the input.
pub fn activation(x: &Tensor, f: Activation) -> Result<Tensor, TensorError> {
    Tensor::written(x.device(), x.shape(), |y| {
        vitmae_cpu::activation::forward(f, x.as_slice(), y);
    })
}

/// `dx = dy · f'(x)`.
///
/// # Errors
/// [`TensorError::Shape`] if `dy` has not the shape of `x`.
pub fn activation_backward(dy: &Tensor, x: &Tensor, f: Activation) -> Result<Tensor, TensorError> {
    dy.expect("activation_backward", "dy", x.shape())?;
    Tensor::written(x.device(), x.shape(), |dx| {
        vitmae_cpu::activation::backward(f, x.as_slice(), dy.as_slice(), dx);
    })
}
