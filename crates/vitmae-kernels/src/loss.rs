//! Mean squared or absolute error over the removed patches.
//!
//!   loss = Σ_{b,l} mask[b,l] · mean_m d(pred − target) / Σ mask          (mask: 1 = removed), d(e) = e² or |e|
//!
//! One quotient over the whole batch; with no removed patch it is 0/0 = NaN, as in PyTorch.
//!
//! Trap: `norm_pix_loss` divides by √(v + 1e-6) with the **unbiased** variance v; layer norm's is biased,
//! and so is that of the TensorFlow classes.
//!
//! Arithmetic is f32, so mean and variance are taken of the differences from the first value of a patch:
//! a patch of one colour has targets of exactly 0.
//!
//! Source: `forward_loss` of transformers 4.57.6. Oracle: `vitmae_testing::reference::loss`; CPU twin:
//! `vitmae_cpu::loss`.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use crate::launch::ROW_UNITS;
use crate::reduce::cube_sum;
use crate::{Array, Client, Dtype, launch, reduce};

/// What the prediction is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The pixels of the patch.
    Pixels,
    /// `(t − μ) / √(v + 1e-6)` with the unbiased variance `v`, as in PyTorch.
    Normalised,
    /// The same with the population variance, as in the TensorFlow classes.
    NormalisedPopulation,
}

/// How a prediction is compared with its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Distance {
    /// By squares: Hugging Face's and the original's loss.
    #[default]
    Squared,
    /// By absolute values (L1); its derivative where both are equal is 0, as in PyTorch.
    Absolute,
}

/// A loss: what predictions are compared with, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Objective {
    /// What the prediction is compared with.
    pub target: Target,
    /// How.
    pub distance: Distance,
}

/// Writes the loss, one value.
///
/// # Shapes
/// `pred: [B·L, M]`, `patches: [B·L, M]` and `mask: [B·L]` f32, `loss: [1]` f32
///
/// # Panics
/// If a length or a type does not fit, or there is no patch.
pub fn forward(
    client: &Client,
    pred: &Array,
    patches: &Array,
    mask: &Array,
    objective: Objective,
    loss: &Array,
) {
    let dim = patch_dim(pred, patches, mask);
    assert!(mask.len > 0, "loss: no patches");
    assert_eq!((loss.len, loss.dtype), (1, Dtype::F32), "loss: loss");
    let errors = Array::empty(client, mask.len, Dtype::F32);
    let (count, units) = launch::rows(client, mask.len);
    // SAFETY: guarded by the number of patches and by M.
    unsafe {
        errors_kernel::launch_unchecked(
            client,
            count,
            units,
            pred.arg(),
            patches.arg(),
            mask.arg(),
            errors.arg(),
            mask.len as u32,
            dim as u32,
            objective,
            pred.dtype.elem(),
        );
    }
    let (count, units) = launch::rows(client, 1);
    // SAFETY: guarded by the number of patches; one cube writes one value.
    unsafe {
        quotient_kernel::launch_unchecked(
            client,
            count,
            units,
            errors.arg(),
            mask.arg(),
            loss.arg(),
            mask.len as u32,
        );
    }
}

/// `scale` times the gradient of the loss: `scale·mask·d′(pred − target) / (M·Σ mask)` with d′(e) = 2·e or the sign of e.
///
/// # Shapes
/// `pred, dpred: [B·L, M]`, `patches: [B·L, M]` and `mask: [B·L]` f32
///
/// # Panics
/// If a length or a type does not fit.
pub fn backward(
    client: &Client,
    pred: &Array,
    patches: &Array,
    mask: &Array,
    objective: Objective,
    scale: f32,
    dpred: &Array,
) {
    let dim = patch_dim(pred, patches, mask);
    assert!(dpred.len == pred.len && dpred.dtype == pred.dtype, "loss: dpred");
    if dpred.len == 0 {
        return;
    }
    let removed = Array::empty(client, 1, Dtype::F32);
    reduce::sum_rows(client, mask, &removed, false);
    let (count, units) = launch::rows(client, mask.len);
    // SAFETY: guarded by the number of patches and by M.
    unsafe {
        backward_kernel::launch_unchecked(
            client,
            count,
            units,
            pred.arg(),
            patches.arg(),
            mask.arg(),
            removed.arg(),
            dpred.arg(),
            mask.len as u32,
            dim as u32,
            scale,
            objective,
            pred.dtype.elem(),
        );
    }
}

/// What predictions are compared with.
///
/// # Shapes
/// `patches, out: [N, M]` f32
///
/// # Panics
/// If a length or a type does not fit.
pub fn normalise_targets(
    client: &Client,
    patches: &Array,
    patch_dim: usize,
    target: Target,
    out: &Array,
) {
    assert_eq!(patches.len, out.len, "loss: targets");
    assert!(patches.dtype == Dtype::F32 && out.dtype == Dtype::F32, "loss: types");
    if out.len == 0 {
        return;
    }
    assert!(patches.len.is_multiple_of(patch_dim), "loss: patches");
    let rows = patches.len / patch_dim;
    let (count, units) = launch::rows(client, rows);
    // SAFETY: guarded by the number of patches and by M.
    unsafe {
        targets_kernel::launch_unchecked(
            client,
            count,
            units,
            patches.arg(),
            out.arg(),
            rows as u32,
            patch_dim as u32,
            target,
        );
    }
}

/// M
fn patch_dim(pred: &Array, patches: &Array, mask: &Array) -> usize {
    assert!(pred.len == patches.len && patches.dtype == Dtype::F32, "loss: patches");
    let fits = mask.len == 0 || pred.len.is_multiple_of(mask.len);
    assert!(fits && mask.dtype == Dtype::F32, "loss: mask");
    pred.len.checked_div(mask.len).unwrap_or(0)
}

/// The three numbers that make a target of a pixel t: `((t − first) − mean) · scale`. The whole cube works
/// on one patch, and none of its units may have left; `end − start` is M, or 0 where nothing is asked.
#[cube]
fn statistics(
    patches: &[f32],
    start: usize,
    end: usize,
    dim: u32,
    #[comptime] target: Target,
) -> (f32, f32, f32) {
    let mut first = 0.0f32;
    let mut mean = 0.0f32;
    let mut scale = 1.0f32;
    if comptime!(target != Target::Pixels) {
        let count = f32::cast_from(dim);
        first = patches[start];
        let mut sum = 0.0f32;
        let mut i = start + UNIT_POS as usize;
        while i < end {
            sum += patches[i] - first;
            i += comptime!(ROW_UNITS as usize);
        }
        mean = cube_sum(sum, ROW_UNITS) / count;
        let mut squares = 0.0f32;
        i = start + UNIT_POS as usize;
        while i < end {
            let difference = patches[i] - first - mean;
            squares += difference * difference;
            i += comptime!(ROW_UNITS as usize);
        }
        let mut divisor = count;
        if comptime!(target == Target::Normalised) {
            divisor -= 1.0f32;
        }
        scale = 1.0f32 / f32::sqrt(cube_sum(squares, ROW_UNITS) / divisor + 1e-6f32);
    }
    (first, mean, scale)
}

/// Where the values of a patch begin and end; they end where they begin for a patch that does not count or
/// does not exist, so that units meet at every barrier.
#[cube]
fn range_of(row: usize, rows: u32, dim: u32, wanted: bool) -> (usize, usize) {
    let exists = row < rows as usize;
    let start = select(exists, row, 0usize) * dim as usize;
    let end = select(exists && wanted, start + dim as usize, start);
    (start, end)
}

/// One cube sums one patch: `errors[row] = mask · mean d(pred − target)`.
#[cube(launch_unchecked)]
fn errors_kernel<F: Float>(
    pred: &[F],
    patches: &[f32],
    mask: &[f32],
    errors: &mut [f32],
    rows: u32,
    dim: u32,
    #[comptime] objective: Objective,
    #[define(F)] _dtype: ElemType,
) {
    let row = CUBE_POS;
    let weight = mask[select(row < rows as usize, row, 0usize)];
    let (start, end) = range_of(row, rows, dim, weight != 0.0f32);
    let (first, mean, scale) = statistics(patches, start, end, dim, objective.target);
    let mut sum = 0.0f32;
    let mut i = start + UNIT_POS as usize;
    while i < end {
        let error = f32::cast_from(pred[i]) - (patches[i] - first - mean) * scale;
        if comptime!(objective.distance == Distance::Squared) {
            sum += error * error;
        } else {
            sum += f32::abs(error);
        }
        i += comptime!(ROW_UNITS as usize);
    }
    let total = cube_sum(sum, ROW_UNITS);
    if UNIT_POS == 0 && row < rows as usize {
        errors[row] = select(weight == 0.0f32, 0.0f32, weight * total / f32::cast_from(dim));
    }
}

/// One cube: `loss = Σ errors / Σ mask`.
#[cube(launch_unchecked)]
fn quotient_kernel(errors: &[f32], mask: &[f32], loss: &mut [f32], rows: u32) {
    let mut error = 0.0f32;
    let mut removed = 0.0f32;
    let mut row = UNIT_POS as usize;
    while row < rows as usize {
        error += errors[row];
        removed += mask[row];
        row += comptime!(ROW_UNITS as usize);
    }
    let error = cube_sum(error, ROW_UNITS);
    let removed = cube_sum(removed, ROW_UNITS);
    if ABSOLUTE_POS == 0 {
        loss[0] = error / removed;
    }
}

/// One cube writes one patch.
#[cube(launch_unchecked)]
fn backward_kernel<F: Float>(
    pred: &[F],
    patches: &[f32],
    mask: &[f32],
    removed: &[f32],
    dpred: &mut [F],
    rows: u32,
    dim: u32,
    scale: f32,
    #[comptime] objective: Objective,
    #[define(F)] _dtype: ElemType,
) {
    let row = CUBE_POS;
    let weight = mask[select(row < rows as usize, row, 0usize)];
    let (start, end) = range_of(row, rows, dim, true);
    let (first, mean, inverse) = statistics(patches, start, end, dim, objective.target);
    let factor = scale * weight / (f32::cast_from(dim) * removed[0]);
    let mut i = start + UNIT_POS as usize;
    while i < end {
        let mut gradient = 0.0f32;
        // Whatever was predicted for a patch that does not count, even NaN, its gradient is 0.
        if weight != 0.0f32 {
            let error = f32::cast_from(pred[i]) - (patches[i] - first - mean) * inverse;
            if comptime!(objective.distance == Distance::Squared) {
                gradient = 2.0f32 * factor * error;
            } else {
                // The error itself where it is 0 or no number.
                let sign = select(error < 0.0f32, -1.0f32, error);
                gradient = factor * select(error > 0.0f32, 1.0f32, sign);
            }
        }
        dpred[i] = F::cast_from(gradient);
        i += comptime!(ROW_UNITS as usize);
    }
}

/// One cube writes one patch.
#[cube(launch_unchecked)]
fn targets_kernel(
    patches: &[f32],
    out: &mut [f32],
    rows: u32,
    dim: u32,
    #[comptime] target: Target,
) {
    let (start, end) = range_of(CUBE_POS, rows, dim, true);
    let (first, mean, scale) = statistics(patches, start, end, dim, target);
    let mut i = start + UNIT_POS as usize;
    while i < end {
        out[i] = (patches[i] - first - mean) * scale;
        i += comptime!(ROW_UNITS as usize);
    }
}
