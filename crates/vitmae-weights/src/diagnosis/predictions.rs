//! What a decoder was trained to predict, told by its predictions of photographs.
//!
//! Normalised patches all have mean 0, while pixels have patches of different brightness: so the share of the
//! predictions' squares that lies in the means of patches tells the target. Whether the decoder is trained at all
//! is told by its error, which has to be below that of the best constant. Removed patches alone count.

use vitmae_model::{ForwardOptions, Masking, VitMaeForPreTraining};
use vitmae_tensor::Tensor;
use vitmae_tensor::ops;

use super::Finding;
use crate::error::WeightsError;

/// A target is met if the error is below this share of its variance.
const MET: f64 = 0.9;
/// Predictions have the brightness of pixels if theirs is above this share of the photographs'.
const BRIGHT: f64 = 0.3;

/// How well predictions fit each target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Squared error as pixels, over the pixels' variance: 1 for the best constant.
    pub as_pixels: f64,
    /// The same as normalised patches.
    pub as_normalised: f64,
    /// Share of the predictions' squares in the means of patches, over that of the photographs: about 1 for
    /// pixels and 0 for normalised patches.
    pub brightness: f64,
}

impl Fit {
    /// Whether the decoder predicts normalised patches; none if it predicts neither, as one that is not trained.
    pub fn normalised(&self) -> Option<bool> {
        let bright = self.brightness >= BRIGHT;
        let error = if bright { self.as_pixels } else { self.as_normalised };
        (error < MET).then_some(!bright)
    }

    /// The finding, if the predictions are not what a configuration with this `norm_pix_loss` says.
    pub fn contradicts(&self, norm_pix_loss: bool) -> Option<Finding> {
        let Fit { as_pixels, as_normalised, .. } = *self;
        let wrong = self.normalised().filter(|&found| found != norm_pix_loss);
        wrong.map(|normalised| Finding::DecoderTarget { normalised, as_pixels, as_normalised })
    }
}

/// Lets the model predict `pixels: [B, C, H, W]`, normalised by its image processor, with a fixed mask of three
/// quarters.
///
/// # Errors
/// [`WeightsError::Model`] if the pixels do not fit the model.
pub fn fit(model: &VitMaeForPreTraining, pixels: &Tensor) -> Result<Fit, WeightsError> {
    let patches = model.config.num_patches();
    // The golden ratio's multiples are spread evenly and never repeat.
    let batch = pixels.shape().first().copied().unwrap_or_default();
    let noise: Vec<f64> =
        (1..=batch * patches).map(|i| (i as f64 * 0.618_033_988_749_895).fract()).collect();
    let masking = Masking::from_noise(&noise, batch, patches, 0.75)?;
    let output = model.forward(pixels, &masking, &ForwardOptions::default())?;
    let truth = patchify(model, pixels)?;
    Ok(compare(
        &output.logits.to_vec().map_err(vitmae_model::ModelError::from)?,
        &truth,
        &masking.mask,
    ))
}

fn patchify(model: &VitMaeForPreTraining, pixels: &Tensor) -> Result<Vec<f32>, WeightsError> {
    let rows = ops::patchify(pixels, model.config.patch_size).and_then(|rows| rows.to_vec());
    Ok(rows.map_err(vitmae_model::ModelError::from)?)
}

/// `predicted, truth: [B·L, M]`, `mask: [B·L]`, 1 = removed.
fn compare(predicted: &[f32], truth: &[f32], mask: &[f32]) -> Fit {
    let dim = truth.len() / mask.len().max(1);
    let normalised: Vec<f32> = truth.chunks_exact(dim.max(1)).flat_map(normalise).collect();
    let of = |target: &[f32]| {
        let removed = || mask.iter().enumerate().filter(|(_, mask)| **mask == 1.0);
        let values = || removed().flat_map(|(patch, _)| patch * dim..(patch + 1) * dim);
        let count = values().count() as f64;
        let mean = values().map(|i| f64::from(target[i])).sum::<f64>() / count;
        let variance: f64 = values().map(|i| (f64::from(target[i]) - mean).powi(2)).sum();
        let error = |i: usize| (f64::from(predicted[i]) - f64::from(target[i])).powi(2);
        values().map(error).sum::<f64>() / variance
    };
    let brightness_of = |values: &[f32]| {
        let (mut means, mut squares) = (0.0, 0.0);
        let patches = values.chunks_exact(dim.max(1)).zip(mask);
        for (patch, _) in patches.filter(|(_, mask)| **mask == 1.0) {
            means += patch.iter().map(|&x| f64::from(x)).sum::<f64>().powi(2) / dim as f64;
            squares += patch.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        }
        means / squares
    };
    Fit {
        as_pixels: of(truth),
        as_normalised: of(&normalised),
        brightness: brightness_of(predicted) / brightness_of(truth),
    }
}

/// A patch as `norm_pix_loss` wants it.
fn normalise(patch: &[f32]) -> Vec<f32> {
    let count = patch.len() as f64;
    let mean = patch.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    let squares: f64 = patch.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
    let root = (squares / (count - 1.0).max(1.0) + 1e-6).sqrt();
    patch.iter().map(|&x| ((f64::from(x) - mean) / root) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four patches of four values, of different brightness, the first two removed.
    const TRUTH: [f32; 16] =
        [1.0, 2.0, 3.0, 2.0, -1.0, -1.5, -1.0, -2.0, 0.0, 0.5, 0.0, 0.5, 4.0, 4.0, 3.0, 4.0];
    const MASK: [f32; 4] = [1.0, 1.0, 0.0, 0.0];

    fn normalised(predicted: &[f32]) -> Option<bool> {
        compare(predicted, &TRUTH, &MASK).normalised()
    }

    #[test]
    fn predictions_tell_their_target() {
        let blurred = |values: &[f32]| values.iter().map(|x| 0.7 * x).collect::<Vec<f32>>();
        assert_eq!(normalised(&blurred(&TRUTH)), Some(false));
        let target: Vec<f32> = TRUTH.chunks_exact(4).flat_map(normalise).collect();
        assert_eq!(normalised(&blurred(&target)), Some(true));
        assert_eq!(normalised(&[0.0; 16]), None);
        assert_eq!(normalised(&[f32::NAN; 16]), None);
    }

    #[test]
    fn visible_patches_do_not_count() {
        let mut predicted = TRUTH;
        predicted[8..].fill(1e6);
        assert_eq!(normalised(&predicted), Some(false));
    }
}
