//! Multi-head self-attention over packed rows q|k|v, without a matrix of all pairs.

use vitmae_cpu::attention::{self as cpu, Shape};
use vitmae_cpu::values::Values;
#[cfg(feature = "gpu")]
use vitmae_kernels::{Dtype, attention as gpu};

#[cfg(feature = "gpu")]
use super::linear::{as_type, dtype_of};
use super::{Dropout, Precision};
use crate::{Tensor, TensorError};

/// Result of [`attention`].
#[derive(Clone, Debug)]
pub struct Attended {
    /// `[B, N, D]`
    pub out: Tensor,
    /// Log-sum-exp of each row of scores, `[B, A, N]`: all that the backward pass keeps of them.
    pub lse: Tensor,
    /// Of the products, for the backward pass too.
    pub precision: Precision,
}

/// `out_i = Σ_j softmax_j(q_i·k_j / √head_dim) · v_j` for each head. In bf16 the factors of each product are rounded, and
/// `out` is stored so; a GPU that does not round to bf16 itself computes in f32.
///
/// # Shapes
/// `qkv: [B, N, 3·D]`, `D` a multiple of `heads`.
///
/// # Errors
/// [`TensorError::NotDivisible`] or [`TensorError::Rank`] if the shape does not fit,
/// [`TensorError::DeviceFailed`] if a head is too wide for a GPU.
///
/// Source: `eager_attention_forward` of transformers 4.57.6; log-sum-exp as in arXiv:2205.14135.
pub fn attention(
    qkv: &Tensor,
    heads: usize,
    precision: Precision,
    dropout: Option<&Dropout>,
) -> Result<Attended, TensorError> {
    let shape = shape_of("attention", qkv, heads)?;
    let Shape { batch, tokens, heads, .. } = shape;
    let device = qkv.device();
    let mut lse = Tensor::empty(device, &[batch, heads, tokens])?;
    #[cfg(feature = "gpu")]
    if let Some(client) = device.client() {
        let dtype = dtype_of(client, precision);
        let qkv = as_type(client, qkv, dtype);
        let out = Tensor::empty_as(device, client, &[batch, tokens, shape.width()], dtype)?;
        let dropout = dropout.map(super::dropout::of_kernels);
        let shape = of_kernels(shape);
        gpu::forward(client, &qkv, dropout.as_ref(), shape, out.array(), lse.array())
            .map_err(|error| device.failed(error))?;
        return Ok(Attended { out, lse, precision });
    }
    let out = Tensor::written_as(device, &[batch, tokens, shape.width()], precision, |out| {
        cpu::forward(precision, factors(qkv, precision), dropout, shape, out, lse.make_mut());
    })?;
    Ok(Attended { out, lse, precision })
}

/// `dqkv: [B, N, 3·D]` for `dout: [B, N, D]`; `dropout` as in the forward pass. `dqkv` is stored as `out` is.
///
/// # Errors
/// [`TensorError::Shape`] if a shape does not fit.
pub fn attention_backward(
    dout: &Tensor,
    qkv: &Tensor,
    attended: &Attended,
    heads: usize,
    dropout: Option<&Dropout>,
) -> Result<Tensor, TensorError> {
    const OP: &str = "attention_backward";
    let shape = shape_of(OP, qkv, heads)?;
    let Attended { out, lse, precision } = attended;
    out.expect(OP, "out", &[shape.batch, shape.tokens, shape.width()])?;
    dout.expect(OP, "dout", out.shape())?;
    lse.expect(OP, "lse", &[shape.batch, shape.heads, shape.tokens])?;
    Tensor::expect_together(OP, &[dout, qkv, out, lse])?;
    #[cfg(feature = "gpu")]
    if let Some(client) = qkv.device().client() {
        let dtype = dtype_of(client, *precision);
        let dqkv = Tensor::empty_as(qkv.device(), client, qkv.shape(), dtype)?;
        let dropout = dropout.map(super::dropout::of_kernels);
        let [dout, packed] = [dout, qkv].map(|tensor| as_type(client, tensor, dtype));
        let (out, lse, to) = (out.array(), lse.array(), dqkv.array());
        let shape = of_kernels(shape);
        gpu::backward(client, &dout, &packed, out, lse, dropout.as_ref(), shape, to)
            .map_err(|error| qkv.device().failed(error))?;
        return Ok(dqkv);
    }
    Tensor::written_as(qkv.device(), qkv.shape(), *precision, |dqkv| {
        let (dout, qkv, lse) = (dout.values(), factors(qkv, *precision), lse.as_slice());
        cpu::backward(*precision, dout, qkv, out.values(), lse, dropout, shape, dqkv);
    })
}

/// The probabilities themselves, `[B, A, N, N]`, for those who ask to see them.
///
/// # Errors
/// [`TensorError::Shape`] if a shape does not fit.
pub fn attention_probabilities(
    qkv: &Tensor,
    attended: &Attended,
    heads: usize,
) -> Result<Tensor, TensorError> {
    const OP: &str = "attention_probabilities";
    let shape = shape_of(OP, qkv, heads)?;
    let Shape { batch, tokens, heads, .. } = shape;
    let Attended { lse, precision, .. } = attended;
    lse.expect(OP, "lse", &[batch, heads, tokens])?;
    Tensor::expect_together(OP, &[qkv, lse])?;
    #[cfg(feature = "gpu")]
    if let Some(client) = qkv.device().client() {
        let p = Tensor::empty(qkv.device(), &[batch, heads, tokens, tokens])?;
        let packed = as_type(client, qkv, Dtype::F32);
        gpu::probabilities(client, &packed, lse.array(), of_kernels(shape), p.array())
            .map_err(|error| qkv.device().failed(error))?;
        return Ok(p);
    }
    Tensor::written(qkv.device(), &[batch, heads, tokens, tokens], |p| {
        cpu::probabilities(*precision, factors(qkv, *precision), lse.as_slice(), shape, p);
    })
}

/// `qkv` as products in `precision` read it.
fn factors(qkv: &Tensor, precision: Precision) -> Values<'_> {
    match precision {
        Precision::F32 => qkv.as_slice().into(),
        Precision::Bf16 => qkv.values(),
    }
}

fn shape_of(op: &'static str, qkv: &Tensor, heads: usize) -> Result<Shape, TensorError> {
    let [batch, tokens, width] = qkv.dims(op, "qkv")?;
    let parts = 3 * heads.max(1);
    if heads == 0 || !width.is_multiple_of(parts) {
        let what = "width of `qkv`";
        return Err(TensorError::NotDivisible { op, what, found: width, divisor: 3 * heads });
    }
    Ok(Shape { batch, tokens, heads, head_dim: width / parts })
}

#[cfg(feature = "gpu")]
fn of_kernels(Shape { batch, tokens, heads, head_dim }: Shape) -> gpu::Shape {
    gpu::Shape { batch, tokens, heads, head_dim }
}
