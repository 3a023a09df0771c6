//! Mean squared or absolute error over the removed patches.
//!
//!   loss = Σ_{b,l} mask[b,l] · mean_m d(pred − target) / Σ mask          (mask: 1 = removed), d(e) = e² or |e|
//!
//! One quotient over the whole batch; with no removed patch it is 0/0 = NaN, as in PyTorch.
//!
//! Trap: `norm_pix_loss` divides by √(v + 1e-6) with the **unbiased** variance v; layer norm's is biased,
//! and so is that of the TensorFlow classes.
//!
//! Source: `forward_loss` of transformers 4.57.6. Oracle: `vitmae_testing::reference::loss`.

use rayon::prelude::*;

/// What the prediction is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The pixels of the patch.
    Pixels,
    /// `(t − μ) / √(v + 1e-6)` with the unbiased variance `v`, as in PyTorch.
    Normalised,
    /// The same with the population variance, as in the TensorFlow classes.
    NormalisedPopulation,
}

/// How a prediction is compared with its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distance {
    /// By squares: Hugging Face's and the original's loss.
    #[default]
    Squared,
    /// By absolute values (L1); its derivative where both are equal is 0, as in PyTorch.
    Absolute,
}

/// A loss: what predictions are compared with, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objective {
    /// What the prediction is compared with.
    pub target: Target,
    /// How.
    pub distance: Distance,
}

impl Target {
    /// `(μ, 1/√(v + 1e-6))` of a patch; (0, 1) for raw pixels.
    fn statistics(self, patch: &[f32]) -> (f32, f32) {
        let count = patch.len() as f64;
        let divisor = match self {
            Target::Pixels => return (0.0, 1.0),
            Target::Normalised => count - 1.0,
            Target::NormalisedPopulation => count,
        };
        let mean = patch.iter().map(|&t| f64::from(t)).sum::<f64>() / count;
        let squares: f64 = patch.iter().map(|&t| (f64::from(t) - mean).powi(2)).sum();
        (mean as f32, (1.0 / (squares / divisor + 1e-6).sqrt()) as f32)
    }
}

/// The loss.
///
/// # Shapes
/// `pred, patches: [B·L, M]`, `mask: [B·L]`
///
/// # Panics
/// If a length does not fit.
pub fn forward(pred: &[f32], patches: &[f32], mask: &[f32], objective: Objective) -> f32 {
    let dim = patch_dim(pred, patches, mask);
    let of_row = |(row, mask): (usize, &f32)| {
        if *mask == 0.0 {
            return 0.0;
        }
        let (pred, patch) = (&pred[row * dim..][..dim], &patches[row * dim..][..dim]);
        let (mean, scale) = objective.target.statistics(patch);
        let errors = pred.iter().zip(patch).map(|(y, t)| f64::from(y - (t - mean) * scale));
        let sum: f64 = match objective.distance {
            Distance::Squared => errors.map(|error| error.powi(2)).sum(),
            Distance::Absolute => errors.map(f64::abs).sum(),
        };
        f64::from(*mask) * sum / dim as f64
    };
    // Collected in order, so the sum does not depend on which thread did what.
    let rows: Vec<f64> = mask.par_iter().enumerate().map(of_row).collect();
    let sum: f64 = rows.iter().sum();
    (sum / removed(mask)) as f32
}

/// `scale` times the gradient of the loss: `scale·mask·d′(pred − target) / (M·Σ mask)` with d′(e) = 2·e or the sign of e.
///
/// # Shapes
/// `pred, patches, dpred: [B·L, M]`, `mask: [B·L]`
///
/// # Panics
/// If a length does not fit.
pub fn backward(
    pred: &[f32],
    patches: &[f32],
    mask: &[f32],
    objective: Objective,
    scale: f32,
    dpred: &mut [f32],
) {
    let dim = patch_dim(pred, patches, mask);
    assert_eq!(dpred.len(), pred.len(), "loss: dpred");
    if dim == 0 {
        return;
    }
    let factor = f64::from(scale) / (dim as f64 * removed(mask));
    dpred.par_chunks_mut(dim).enumerate().for_each(|(row, dpred)| {
        if mask[row] == 0.0 {
            return dpred.fill(0.0);
        }
        let (pred, patch) = (&pred[row * dim..][..dim], &patches[row * dim..][..dim]);
        let (mean, scale) = objective.target.statistics(patch);
        let factor = factor * f64::from(mask[row]);
        let errors = pred.iter().zip(patch).map(|(y, t)| y - (t - mean) * scale);
        match objective.distance {
            Distance::Squared => {
                let factor = (2.0 * factor) as f32;
                dpred.iter_mut().zip(errors).for_each(|(d, error)| *d = factor * error);
            }
            Distance::Absolute => {
                let factor = factor as f32;
                dpred.iter_mut().zip(errors).for_each(|(d, error)| *d = factor * sign(error));
            }
        }
    });
}

/// What predictions are compared with, `[N, M]` from `patches: [N, M]`.
///
/// # Panics
/// If a length does not fit.
pub fn normalise_targets(patches: &[f32], patch_dim: usize, target: Target, out: &mut [f32]) {
    assert_eq!(patches.len(), out.len(), "loss: targets");
    let rows = patches.par_chunks(patch_dim.max(1));
    out.par_chunks_mut(patch_dim.max(1)).zip(rows).for_each(|(out, patch)| {
        let (mean, scale) = target.statistics(patch);
        out.iter_mut().zip(patch).for_each(|(out, t)| *out = (t - mean) * scale);
    });
}

/// 1, −1, or the error itself where it is 0 or no number.
fn sign(error: f32) -> f32 {
    if error > 0.0 {
        1.0
    } else if error < 0.0 {
        -1.0
    } else {
        error
    }
}

fn removed(mask: &[f32]) -> f64 {
    mask.iter().map(|&mask| f64::from(mask)).sum()
}

/// M
fn patch_dim(pred: &[f32], patches: &[f32], mask: &[f32]) -> usize {
    assert_eq!(pred.len(), patches.len(), "loss: patches");
    assert!(mask.is_empty() || pred.len().is_multiple_of(mask.len()), "loss: mask");
    pred.len().checked_div(mask.len()).unwrap_or(0)
}
