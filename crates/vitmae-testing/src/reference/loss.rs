//! Mean squared error over the removed patches.
//!
//!   loss = Σ_{b,l} mask[b,l] · mean_m (pred − target)² / Σ mask      (mask: 1 = removed)
//!
//! One quotient over the whole batch. With no removed patch it is 0/0 = NaN, as in PyTorch.
//!
//! Source: `forward_loss` of transformers 4.57.6, `modeling_vit_mae.py` and `modeling_tf_vit_mae.py`.

/// What the prediction is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The pixels of the patch.
    Pixels,
    /// `(t − μ) / √(v + 1e-6)` with the unbiased variance `v`, as in PyTorch.
    Normalised,
    /// The same with the population variance, as in the TensorFlow classes.
    NormalisedPopulation,
}

/// The target rows for `patches: [B·L, M]`, M values a patch.
pub fn targets(patches: &[f64], patch_dim: usize, target: Target) -> Vec<f64> {
    let divisor = match target {
        Target::Pixels => return patches.to_vec(),
        Target::Normalised => patch_dim as f64 - 1.0,
        Target::NormalisedPopulation => patch_dim as f64,
    };
    let mut out = Vec::with_capacity(patches.len());
    for row in patches.chunks(patch_dim) {
        let mean = row.iter().sum::<f64>() / patch_dim as f64;
        let variance = row.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / divisor;
        out.extend(row.iter().map(|t| (t - mean) / (variance + 1e-6).sqrt()));
    }
    out
}

/// The loss of `pred` against `patches`, both `[B·L, M]`, for `mask: [B·L]`.
pub fn forward(pred: &[f64], patches: &[f64], mask: &[f64], target: Target) -> f64 {
    let patch_dim = pred.len() / mask.len();
    assert_eq!(pred.len(), patches.len(), "patches");
    let wanted = targets(patches, patch_dim, target);
    let mut sum = 0.0;
    for (row, removed) in mask.iter().enumerate() {
        let of_row = row * patch_dim..(row + 1) * patch_dim;
        let squares: f64 = of_row.map(|i| (pred[i] - wanted[i]).powi(2)).sum();
        sum += removed * squares / patch_dim as f64;
    }
    sum / mask.iter().sum::<f64>()
}

/// `dpred: [B·L, M]` of [`forward`]: `2·mask·(pred − target) / (M·Σ mask)`.
pub fn backward(pred: &[f64], patches: &[f64], mask: &[f64], target: Target) -> Vec<f64> {
    let patch_dim = pred.len() / mask.len();
    let wanted = targets(patches, patch_dim, target);
    let removed: f64 = mask.iter().sum();
    (0..pred.len())
        .map(|i| 2.0 * mask[i / patch_dim] * (pred[i] - wanted[i]) / (patch_dim as f64 * removed))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::{Tolerance, assert_close};
    use crate::draws::Draws;
    use crate::gradient_check::assert_gradient;

    #[test]
    fn two_patches_by_hand() {
        let (pred, patches) = ([1.0, 2.0, 3.0, 5.0], [0.0, 0.0, 1.0, 2.0]);
        let loss = |mask: [f64; 2]| forward(&pred, &patches, &mask, Target::Pixels);
        assert_close(
            "loss",
            &[loss([1.0, 0.0]), loss([0.0, 1.0]), loss([1.0, 1.0])],
            &[2.5, 6.5, 4.5],
            Tolerance::EXACT,
        );
        assert!(loss([0.0, 0.0]).is_nan());
    }

    #[test]
    fn the_variance_is_unbiased_in_torch_and_biased_in_tf() {
        let patch = [1.0, 2.0, 3.0, 4.0]; // Σ(t − μ)² = 5
        let found = targets(&patch, 4, Target::Normalised);
        let root = (5.0 / 3.0 + 1e-6f64).sqrt();
        let expected = [-1.5 / root, -0.5 / root, 0.5 / root, 1.5 / root];
        assert_close("torch", &found, &expected, Tolerance::new(1e-15, 0.0));
        let found = targets(&patch, 4, Target::NormalisedPopulation);
        let root = (1.25 + 1e-6f64).sqrt();
        assert_close("tf", &found[3..], &[1.5 / root], Tolerance::new(1e-15, 0.0));
        // A patch of one colour must not divide by zero.
        assert_eq!(targets(&[3.0; 4], 4, Target::Normalised), [0.0; 4]);
    }

    #[test]
    fn backward_is_the_gradient_of_forward() {
        let mut draws = Draws::new(13);
        for round in 0..24 {
            let (rows, patch_dim) = (draws.integer(1..=5), draws.integer(2..=6));
            let (pred, patches) = (draws.vec(rows * patch_dim), draws.vec(rows * patch_dim));
            let mut mask: Vec<f64> = (0..rows).map(|_| draws.integer(0..=1) as f64).collect();
            mask[draws.integer(0..=rows - 1)] = 1.0;
            let target =
                [Target::Pixels, Target::Normalised, Target::NormalisedPopulation][round % 3];
            let objective = |pred: &[f64]| forward(pred, &patches, &mask, target);
            let dpred = backward(&pred, &patches, &mask, target);
            assert_gradient("dpred", objective, &pred, &dpred);
        }
    }
}
