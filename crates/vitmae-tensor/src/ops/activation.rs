//! Element-wise non-linearities.

pub use vitmae_cpu::activation::Activation;

use crate::{Tensor, TensorError};

/// `y = f(x)`, any shape, stored as `x` is.
///
/// # Errors
/// [`TensorError::TooLarge`] never in practice: the output is as large as the input.
pub fn activation(x: &Tensor, f: Activation) -> Result<Tensor, TensorError> {
    #[cfg(feature = "gpu")]
    if let Some(client) = x.device().client() {
        let y = Tensor::empty_as(x.device(), client, x.shape(), x.array().dtype)?;
        vitmae_kernels::activation::forward(client, of_kernels(f), x.array(), y.array());
        return Ok(y);
    }
    Tensor::written_as(x.device(), x.shape(), x.stored(), |y| {
        vitmae_cpu::activation::forward(f, x.values(), y);
    })
}

/// `dx = dy · f'(x)`, stored as `x` is.
///
/// # Errors
/// [`TensorError::Shape`] if `dy` has not the shape of `x`.
pub fn activation_backward(dy: &Tensor, x: &Tensor, f: Activation) -> Result<Tensor, TensorError> {
    dy.expect("activation_backward", "dy", x.shape())?;
    Tensor::expect_together("activation_backward", &[dy, x])?;
    #[cfg(feature = "gpu")]
    if let Some(client) = x.device().client() {
        let dtype = x.array().dtype;
        let dx = Tensor::empty_as(x.device(), client, x.shape(), dtype)?;
        let dy = super::linear::as_type(client, dy, dtype);
        vitmae_kernels::activation::backward(client, of_kernels(f), x.array(), &dy, dx.array());
        return Ok(dx);
    }
    Tensor::written_as(x.device(), x.shape(), x.stored(), |dx| {
        vitmae_cpu::activation::backward(f, x.values(), dy.values(), dx);
    })
}

/// The same function in the GPU kernels, which do not know the CPU's.
#[cfg(feature = "gpu")]
pub(super) fn of_kernels(f: Activation) -> vitmae_kernels::activation::Activation {
    use vitmae_kernels::activation::Activation as Kernel;
    match f {
        Activation::Gelu => Kernel::Gelu,
        Activation::Gelu10 => Kernel::Gelu10,
        Activation::GeluTanh => Kernel::GeluTanh,
        Activation::QuickGelu => Kernel::QuickGelu,
        Activation::Laplace => Kernel::Laplace,
        Activation::LeakyRelu => Kernel::LeakyRelu,
        Activation::Linear => Kernel::Linear,
        Activation::Mish => Kernel::Mish,
        Activation::Relu => Kernel::Relu,
        Activation::Relu2 => Kernel::Relu2,
        Activation::Relu6 => Kernel::Relu6,
        Activation::Selu => Kernel::Selu,
        Activation::Elu => Kernel::Elu,
        Activation::Sigmoid => Kernel::Sigmoid,
        Activation::Silu => Kernel::Silu,
        Activation::Tanh => Kernel::Tanh,
    }
}
