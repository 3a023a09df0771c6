//! Mean squared or absolute error over the removed patches.

use vitmae_cpu::loss as cpu;
pub use vitmae_cpu::loss::{Distance, Objective, Target};
#[cfg(feature = "gpu")]
use vitmae_kernels::loss as gpu;

use crate::{Tensor, TensorError};

/// `Σ_{b,l} mask[b,l] · mean_m d(pred − target) / Σ mask`, d(e) = e² or |e|; NaN when nothing is removed.
///
/// # Shapes
/// `pred, patches: [B, L, M]`, `mask: [B, L]`, 1 = removed, 0 = kept → one value, `[]`
///
/// # Errors
/// [`TensorError::Shape`] if a shape does not fit.
///
/// Source: `forward_loss` of transformers 4.57.6.
pub fn loss(
    pred: &Tensor,
    patches: &Tensor,
    mask: &Tensor,
    objective: Objective,
) -> Result<Tensor, TensorError> {
    check("loss", pred, patches, mask)?;
    #[cfg(feature = "gpu")]
    if let Some(client) = pred.device().client() {
        let loss = Tensor::empty(pred.device(), &[])?;
        let (pred, patches, mask) = (pred.array(), patches.array(), mask.array());
        gpu::forward(client, pred, patches, mask, of_kernels(objective), loss.array());
        return Ok(loss);
    }
    let loss = cpu::forward(pred.as_slice(), patches.as_slice(), mask.as_slice(), objective);
    Tensor::from_slice(pred.device(), &[], &[loss])
}

/// `dpred: [B, L, M]` of `scale` times [`loss`].
///
/// # Errors
/// As [`loss`].
pub fn loss_backward(
    pred: &Tensor,
    patches: &Tensor,
    mask: &Tensor,
    objective: Objective,
    scale: f32,
) -> Result<Tensor, TensorError> {
    check("loss_backward", pred, patches, mask)?;
    #[cfg(feature = "gpu")]
    if let Some(client) = pred.device().client() {
        let dpred = Tensor::empty(pred.device(), pred.shape())?;
        let (pred, patches, mask) = (pred.array(), patches.array(), mask.array());
        gpu::backward(client, pred, patches, mask, of_kernels(objective), scale, dpred.array());
        return Ok(dpred);
    }
    Tensor::written(pred.device(), pred.shape(), |dpred| {
        let (pred, patches, mask) = (pred.as_slice(), patches.as_slice(), mask.as_slice());
        cpu::backward(pred, patches, mask, objective, scale, dpred);
    })
}

/// What predictions are compared with: the patches themselves, or normalised by their own mean and
/// variance. `[B, L, M]` → the same.
///
/// # Errors
/// [`TensorError::Rank`] if `patches` has no sides.
pub fn normalise_targets(patches: &Tensor, target: Target) -> Result<Tensor, TensorError> {
    let (_, patch_dim) = patches.rows("normalise_targets", "patches")?;
    #[cfg(feature = "gpu")]
    if let Some(client) = patches.device().client() {
        let out = Tensor::empty(patches.device(), patches.shape())?;
        let target = target_of_kernels(target);
        gpu::normalise_targets(client, patches.array(), patch_dim, target, out.array());
        return Ok(out);
    }
    Tensor::written(patches.device(), patches.shape(), |out| {
        cpu::normalise_targets(patches.as_slice(), patch_dim, target, out);
    })
}

fn check(
    op: &'static str,
    pred: &Tensor,
    patches: &Tensor,
    mask: &Tensor,
) -> Result<(), TensorError> {
    let [batch, count, _] = pred.dims(op, "pred")?;
    patches.expect(op, "patches", pred.shape())?;
    mask.expect(op, "mask", &[batch, count])?;
    Tensor::expect_together(op, &[pred, patches, mask])
}

#[cfg(feature = "gpu")]
fn of_kernels(Objective { target, distance }: Objective) -> gpu::Objective {
    let distance = match distance {
        Distance::Squared => gpu::Distance::Squared,
        Distance::Absolute => gpu::Distance::Absolute,
    };
    gpu::Objective { target: target_of_kernels(target), distance }
}

#[cfg(feature = "gpu")]
fn target_of_kernels(target: Target) -> gpu::Target {
    match target {
        Target::Pixels => gpu::Target::Pixels,
        Target::Normalised => gpu::Target::Normalised,
        Target::NormalisedPopulation => gpu::Target::NormalisedPopulation,
    }
}
