//! Sums and means.

use vitmae_cpu::reduce as cpu;
#[cfg(feature = "gpu")]
use vitmae_kernels::reduce as gpu;

use crate::{Tensor, TensorError};

/// `a + b`, both of one shape.
///
/// # Errors
/// [`TensorError::Shape`] if they are not.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor, TensorError> {
    b.expect("add", "b", a.shape())?;
    Tensor::expect_together("add", &[a, b])?;
    #[cfg(feature = "gpu")]
    if let Some(client) = a.device().client() {
        let out = Tensor::empty(a.device(), a.shape())?;
        gpu::add(client, a.array(), b.array(), out.array());
        return Ok(out);
    }
    Tensor::written(a.device(), a.shape(), |out| cpu::add(a.as_slice(), b.as_slice(), out))
}

/// Mean of each image's tokens from number `first` on.
///
/// # Shapes
/// `x: [B, N, D]`, `first < N` → `[B, D]`
///
/// # Errors
/// [`TensorError::Index`] if no token is left.
pub fn mean_tokens(x: &Tensor, first: usize) -> Result<Tensor, TensorError> {
    let [batch, tokens, width] = x.dims("mean_tokens", "x")?;
    expect_some("mean_tokens", first, tokens)?;
    #[cfg(feature = "gpu")]
    if let Some(client) = x.device().client() {
        let out = Tensor::empty(x.device(), &[batch, width])?;
        gpu::mean_tokens(client, x.array(), tokens, width, first, out.array());
        return Ok(out);
    }
    Tensor::written(x.device(), &[batch, width], |out| {
        cpu::mean_tokens(x.as_slice(), tokens, width, first, out);
    })
}

/// `dx: [B, N, D]` for `dout: [B, D]`; tokens before `first` get 0.
///
/// # Errors
/// [`TensorError::Index`] if no token is left.
pub fn mean_tokens_backward(
    dout: &Tensor,
    tokens: usize,
    first: usize,
) -> Result<Tensor, TensorError> {
    let [batch, width] = dout.dims("mean_tokens_backward", "dout")?;
    expect_some("mean_tokens_backward", first, tokens)?;
    #[cfg(feature = "gpu")]
    if let Some(client) = dout.device().client() {
        let dx = Tensor::empty(dout.device(), &[batch, tokens, width])?;
        gpu::mean_tokens_backward(client, dout.array(), tokens, width, first, dx.array());
        return Ok(dx);
    }
    Tensor::written(dout.device(), &[batch, tokens, width], |dx| {
        cpu::mean_tokens_backward(dout.as_slice(), tokens, width, first, dx);
    })
}

fn expect_some(op: &'static str, first: usize, tokens: usize) -> Result<(), TensorError> {
    if first < tokens {
        return Ok(());
    }
    Err(TensorError::Index { op, tensor: "first", found: first as u64, limit: tokens })
}
