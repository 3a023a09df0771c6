//! Dropout from counter-based noise: what is dropped is a function of (stream, index).

use vitmae_cpu::dropout as cpu;
pub use vitmae_cpu::dropout::Dropout;
pub use vitmae_cpu::random::Stream;
#[cfg(feature = "gpu")]
use vitmae_kernels::dropout as gpu;

use crate::{Tensor, TensorError};

/// `y = x · keep (+ residual)`, where `keep` is 0 with probability `rate` and `1 / (1 − rate)` else.
///
/// # Errors
/// [`TensorError::Shape`] if `residual` has not the shape of `x`.
///
/// Source: `torch.nn.functional.dropout`.
pub fn dropout(
    x: &Tensor,
    residual: Option<&Tensor>,
    dropout: &Dropout,
) -> Result<Tensor, TensorError> {
    if let Some(residual) = residual {
        residual.expect("dropout", "residual", x.shape())?;
    }
    Tensor::expect_together("dropout", &[&[x][..], residual.as_slice()].concat())?;
    #[cfg(feature = "gpu")]
    if let Some(client) = x.device().client() {
        let y = Tensor::empty(x.device(), x.shape())?;
        let residual = residual.map(Tensor::array);
        gpu::forward(client, x.array(), residual, &of_kernels(dropout), y.array());
        return Ok(y);
    }
    Tensor::written(x.device(), x.shape(), |y| {
        cpu::forward(x.as_slice(), residual.map(Tensor::as_slice), dropout, y);
    })
}

/// `dx = dy · keep`.
///
/// # Errors
/// [`TensorError::TooLarge`] never in practice: the output is as large as the input.
pub fn dropout_backward(dy: &Tensor, dropout: &Dropout) -> Result<Tensor, TensorError> {
    #[cfg(feature = "gpu")]
    if let Some(client) = dy.device().client() {
        let dx = Tensor::empty(dy.device(), dy.shape())?;
        gpu::backward(client, dy.array(), &of_kernels(dropout), dx.array());
        return Ok(dx);
    }
    Tensor::written(dy.device(), dy.shape(), |dx| cpu::backward(dy.as_slice(), dropout, dx))
}

#[cfg(feature = "gpu")]
pub(super) fn of_kernels(dropout: &Dropout) -> gpu::Dropout {
    gpu::Dropout { rate: dropout.rate, key: dropout.stream.key() }
}
