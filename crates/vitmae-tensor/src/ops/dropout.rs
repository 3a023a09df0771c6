//! Dropout from counter-based noise: what is dropped is a function of (stream, index).

use vitmae_cpu::dropout as cpu;
pub use vitmae_cpu::dropout::Dropout;
pub use vitmae_cpu::random::Stream;

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
    Tensor::written(x.device(), x.shape(), |y| {
        cpu::forward(x.as_slice(), residual.map(Tensor::as_slice), dropout, y);
    })
}

/// `dx = dy · keep`.
///
/// # Errors
/// [`TensorError::TooLarge`] never in practice: the output is as large as the input.
pub fn dropout_backward(dy: &Tensor, dropout: &Dropout) -> Result<Tensor, TensorError> {
    Tensor::written(dy.device(), dy.shape(), |dx| cpu::backward(dy.as_slice(), dropout, dx))
}
