//! Layer normalisation over the last axis.

use vitmae_cpu::layer_norm as cpu;
#[cfg(feature = "gpu")]
use vitmae_kernels::layer_norm as gpu;

#[cfg(feature = "gpu")]
use super::linear::dtype_of;
use super::linear::{Precision, Weight};
use crate::{Tensor, TensorError};

/// Result of [`layer_norm`].
#[derive(Clone, Debug)]
pub struct Normalised {
    /// `[…, D]`
    pub y: Tensor,
    /// Mean of each row, `[N]`.
    pub mean: Tensor,
    /// `1 / √(variance + eps)` of each row, `[N]`.
    pub rstd: Tensor,
}

/// `y = (x − mean) · rstd · weight + bias` with the biased variance. `stored` is the precision of what reads `y`.
///
/// # Shapes
/// `x: […, D]`, `weight, bias: [D]`
///
/// # Errors
/// [`TensorError::Shape`] if `weight` or `bias` is not `[D]`.
///
/// Source: `torch.nn.functional.layer_norm`; arXiv:1607.06450.
pub fn layer_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f32,
    stored: Precision,
) -> Result<Normalised, TensorError> {
    let (rows, width) = x.rows("layer_norm", "x")?;
    weight.expect("layer_norm", "weight", &[width])?;
    bias.expect("layer_norm", "bias", &[width])?;
    Tensor::expect_together("layer_norm", &[x, weight, bias])?;
    let mut mean = Tensor::empty(x.device(), &[rows])?;
    let mut rstd = Tensor::empty(x.device(), &[rows])?;
    #[cfg(feature = "gpu")]
    if let Some(client) = x.device().client() {
        let y = Tensor::empty_as(x.device(), client, x.shape(), dtype_of(client, stored))?;
        let (weight, bias) = (weight.array(), bias.array());
        let (mean_out, rstd_out) = (mean.array(), rstd.array());
        gpu::forward(client, x.array(), weight, bias, eps, y.array(), mean_out, rstd_out);
        return Ok(Normalised { y, mean, rstd });
    }
    let y = Tensor::written_as(x.device(), x.shape(), stored, |y| {
        let (weight, bias) = (weight.as_slice(), bias.as_slice());
        cpu::forward(x.as_slice(), weight, bias, eps, y, mean.make_mut(), rstd.make_mut());
    })?;
    Ok(Normalised { y, mean, rstd })
}

/// `sum = x · weightᵀ + bias + residual`, the end of one half of a block, and the [`layer_norm`] of the sum
/// with which the other begins; a GPU does all but the product in one pass. Returns the sum too. `stored` is the
/// precision of what reads `y`.
///
/// # Shapes
/// `x: […, in]`, `weight: [D, in]`, `bias, norm_weight, norm_bias: [D]`, `residual: […, D]` → `sum, y: […, D]`
///
/// # Errors
/// Those of [`linear_residual`](super::linear_residual) and of [`layer_norm`].
pub fn linear_residual_norm(
    x: &Tensor,
    (weight, bias): (Weight, &Tensor),
    residual: &Tensor,
    (norm_weight, norm_bias): (&Tensor, &Tensor),
    eps: f32,
    stored: Precision,
) -> Result<(Tensor, Normalised), TensorError> {
    #[cfg(feature = "gpu")]
    if let Some(client) = x.device().client() {
        const OP: &str = "linear_residual_norm";
        let product = super::linear(x, weight, None, Precision::F32)?;
        let (rows, width) = product.rows(OP, "residual")?;
        residual.expect(OP, "residual", product.shape())?;
        bias.expect(OP, "bias", &[width])?;
        norm_weight.expect(OP, "norm_weight", &[width])?;
        norm_bias.expect(OP, "norm_bias", &[width])?;
        Tensor::expect_together(OP, &[x, bias, residual, norm_weight, norm_bias])?;
        let device = x.device();
        let sum = Tensor::empty(device, product.shape());
        let y = Tensor::empty_as(device, client, product.shape(), dtype_of(client, stored));
        let [mean, rstd] = [0, 1].map(|_| Tensor::empty(device, &[rows]));
        let (sum, y, mean, rstd) = (sum?, y?, mean?, rstd?);
        let added = gpu::Residual { shift: bias.array(), residual: residual.array() };
        gpu::forward_residual(
            client,
            product.array(),
            added,
            norm_weight.array(),
            norm_bias.array(),
            eps,
            sum.array(),
            y.array(),
            mean.array(),
            rstd.array(),
        );
        return Ok((sum, Normalised { y, mean, rstd }));
    }
    let sum = super::linear_residual(x, weight, Some(bias), residual)?;
    let normalised = layer_norm(&sum, norm_weight, norm_bias, eps, stored)?;
    Ok((sum, normalised))
}

/// Returns `dx`, the gradient `residual` that goes around the norm included, and adds to the slots of
/// `dweight` and `dbias`.
///
/// # Shapes
/// `dy, x, residual: […, D]`, `weight: [D]`, `mean, rstd: [N]`
///
/// # Errors
/// [`TensorError::Shape`] if a shape does not fit.
#[allow(clippy::too_many_arguments, reason = "the arguments of the formula")]
pub fn layer_norm_backward(
    dy: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    (mean, rstd): (&Tensor, &Tensor),
    residual: Option<&Tensor>,
    dweight: &mut Option<Tensor>,
    dbias: &mut Option<Tensor>,
) -> Result<Tensor, TensorError> {
    const OP: &str = "layer_norm_backward";
    let (rows, width) = x.rows(OP, "x")?;
    dy.expect(OP, "dy", x.shape())?;
    weight.expect(OP, "weight", &[width])?;
    mean.expect(OP, "mean", &[rows])?;
    rstd.expect(OP, "rstd", &[rows])?;
    if let Some(residual) = residual {
        residual.expect(OP, "residual", x.shape())?;
    }
    Tensor::expect_together(OP, &[&[dy, x, weight, mean, rstd][..], residual.as_slice()].concat())?;
    // Both slots are in the same state, or the empty one starts at zero.
    let accumulate = dweight.is_some() || dbias.is_some();
    for slot in [&mut *dweight, &mut *dbias] {
        match slot {
            Some(gradient) => gradient.expect(OP, "gradient", &[width])?,
            None if accumulate => *slot = Some(Tensor::zeros(x.device(), &[width])?),
            None => *slot = Some(Tensor::empty(x.device(), &[width])?),
        }
    }
    let (Some(dweight), Some(dbias)) = (dweight, dbias) else { unreachable!("filled above") };
    #[cfg(feature = "gpu")]
    if let Some(client) = x.device().client() {
        let dx = Tensor::empty(x.device(), x.shape())?;
        gpu::backward(
            client,
            dy.array(),
            x.array(),
            weight.array(),
            mean.array(),
            rstd.array(),
            residual.map(Tensor::array),
            dx.array(),
            dweight.array_mut()?,
            dbias.array_mut()?,
            accumulate,
        );
        return Ok(dx);
    }
    Tensor::written(x.device(), x.shape(), |dx| {
        cpu::backward(
            dy.values(),
            x.as_slice(),
            weight.as_slice(),
            mean.as_slice(),
            rstd.as_slice(),
            residual.map(Tensor::as_slice),
            dx,
            dweight.make_mut(),
            dbias.make_mut(),
            accumulate,
        );
    })
}
