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

/// How the prediction is compared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distance {
    /// The square of the difference.
    Squared,
    /// Its absolute value.
    Absolute,
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
pub fn forward(
    pred: &[f64],
    patches: &[f64],
    mask: &[f64],
    (target, distance): (Target, Distance),
) -> f64 {
    let patch_dim = pred.len() / mask.len();
    assert_eq!(pred.len(), patches.len(), "patches");
    let wanted = targets(patches, patch_dim, target);
    let mut sum = 0.0;
    for (row, removed) in mask.iter().enumerate() {
        let of_row = row * patch_dim..(row + 1) * patch_dim;
        let of_value = |error: f64| match distance {
            Distance::Squared => error * error,
            Distance::Absolute => error.abs(),
        };
        let errors: f64 = of_row.map(|i| of_value(pred[i] - wanted[i])).sum();
        sum += removed * errors / patch_dim as f64;
    }
    sum / mask.iter().sum::<f64>()
}

/// `dpred: [B·L, M]` of [`forward`]: `mask · d′(pred − target) / (M·Σ mask)`, d′(e) = 2·e or the sign of e, 0 for 0.
pub fn backward(
    pred: &[f64],
    patches: &[f64],
    mask: &[f64],
    (target, distance): (Target, Distance),
) -> Vec<f64> {
    let patch_dim = pred.len() / mask.len();
    let wanted = targets(patches, patch_dim, target);
    let removed: f64 = mask.iter().sum();
    let slope = |error: f64| match distance {
        Distance::Squared => 2.0 * error,
        Distance::Absolute if error == 0.0 => 0.0,
        Distance::Absolute => error.signum(),
    };
    (0..pred.len())
        .map(|i| mask[i / patch_dim] * slope(pred[i] - wanted[i]) / (patch_dim as f64 * removed))
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
        for (distance, expected) in
            [(Distance::Squared, [2.5, 6.5, 4.5]), (Distance::Absolute, [1.5, 2.5, 2.0])]
        {
            let loss = |mask: [f64; 2]| forward(&pred, &patches, &mask, (Target::Pixels, distance));
            let found = [loss([1.0, 0.0]), loss([0.0, 1.0]), loss([1.0, 1.0])];
            assert_close("loss", &found, &expected, Tolerance::EXACT);
            assert!(loss([0.0, 0.0]).is_nan());
        }
        let slopes =
            backward(&[1.0, 2.0], &[1.0, 9.0], &[1.0], (Target::Pixels, Distance::Absolute));
        assert_close("dpred", &slopes, &[0.0, -0.5], Tolerance::EXACT);
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
            for distance in [Distance::Squared, Distance::Absolute] {
                let kind = (target, distance);
                let objective = |pred: &[f64]| forward(pred, &patches, &mask, kind);
                let dpred = backward(&pred, &patches, &mask, kind);
                assert_gradient("dpred", objective, &pred, &dpred);
            }
        }
    }
}
