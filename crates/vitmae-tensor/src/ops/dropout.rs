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

/// Drop path: `y = x · keep[image] (+ residual)`, with one draw for each image.
///
/// # Shapes
/// `x, residual: [B, …]`
///
/// # Errors
/// [`TensorError::Shape`] if `residual` has not the shape of `x`, [`TensorError::Rank`] if `x` has no sides.
///
/// Source: arXiv:1603.09382; `drop_path` of timm.
pub fn drop_path(
    x: &Tensor,
    residual: Option<&Tensor>,
    dropout: &Dropout,
) -> Result<Tensor, TensorError> {
    const OP: &str = "drop_path";
    let Some(&batch) = x.shape().first() else {
        let (tensor, actual, expected) = ("x", Vec::new(), 1);
        return Err(TensorError::Rank { op: OP, tensor, actual, expected });
    };
    if let Some(residual) = residual {
        residual.expect(OP, "residual", x.shape())?;
    }
    Tensor::expect_together(OP, &[&[x][..], residual.as_slice()].concat())?;
    #[cfg(feature = "gpu")]
    if let Some(client) = x.device().client() {
        let y = Tensor::empty(x.device(), x.shape())?;
        let residual = residual.map(Tensor::array);
        gpu::drop_path(client, x.array(), residual, &of_kernels(dropout), batch, y.array());
        return Ok(y);
    }
    Tensor::written(x.device(), x.shape(), |y| {
        cpu::drop_path(x.as_slice(), residual.map(Tensor::as_slice), dropout, batch, y);
    })
}

/// `dx = dy · keep[image]`.
///
/// # Errors
/// As [`drop_path`].
pub fn drop_path_backward(dy: &Tensor, dropout: &Dropout) -> Result<Tensor, TensorError> {
    drop_path(dy, None, dropout)
}

#[cfg(feature = "gpu")]
pub(super) fn of_kernels(dropout: &Dropout) -> gpu::Dropout {
    gpu::Dropout { rate: dropout.rate, key: dropout.stream.key() }
}
