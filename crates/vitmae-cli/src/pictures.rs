//! From a model's predictions to what can be shown.

use vitmae_model::{Numerics, VitMaeConfig};

/// Predicted patches as normalised pixels.
///
/// A model trained with `norm_pix_loss` predicts each patch with its mean and variance taken out:
/// the true patch's are put back, since the prediction does not hold them. What is shown then is
/// the texture that the model predicts, at the brightness and contrast of the original.
///
/// # Shapes
/// `logits: [L, ph·pw·C]`, channel last; `pixels`, result: `[C, H, W]`
pub fn predicted_pixels(config: &VitMaeConfig, logits: &[f32], pixels: &[f32]) -> Vec<f32> {
    let (height, width) = config.image_size;
    let channels = config.num_channels;
    // A validated configuration records nothing else.
    let population = matches!(Numerics::recorded(config), Ok(Numerics::Tf));
    let mut shown = vec![0.0; pixels.len()];
    for (patch, values) in logits.chunks_exact(config.patch_dim()).enumerate() {
        let places = places(config, patch);
        let (mean, deviation) = if config.norm_pix_loss {
            let truth: Vec<f64> = places
                .iter()
                .map(|&(c, y, x)| f64::from(pixels[(c * height + y) * width + x]))
                .collect();
            statistics(&truth, population)
        } else {
            (0.0, 1.0)
        };
        for (&(c, y, x), &value) in places.iter().zip(values) {
            debug_assert!(c < channels);
            shown[(c * height + y) * width + x] = (f64::from(value) * deviation + mean) as f32;
        }
    }
    shown
}

/// Mean and the deviation of the loss, 1e-6 inside the root; the variance is unbiased unless it is the
/// population's, as in TensorFlow's classes.
fn statistics(values: &[f64], population: bool) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let divisor = if population { count } else { (count - 1.0).max(1.0) };
    (mean, (squares / divisor + 1e-6).sqrt())
}

/// (channel, row, column) of each value of a patch, in the order of the prediction.
pub fn places(config: &VitMaeConfig, patch: usize) -> Vec<(usize, usize, usize)> {
    let (ph, pw) = config.patch_size;
    let columns = config.grid().1;
    let (top, left) = (patch / columns * ph, patch % columns * pw);
    let channels = config.num_channels;
    let pixel = |at: usize| (at % channels, top + at / channels / pw, left + at / channels % pw);
    (0..config.patch_dim()).map(pixel).collect()
}

/// Mean squared error over the removed patches alone.
///
/// # Shapes
/// `a, b: [C, H, W]`, `mask: [L]`, 1 = removed
pub fn masked_mse(config: &VitMaeConfig, a: &[f32], b: &[f32], mask: &[f32]) -> f64 {
    let (height, width) = config.image_size;
    let (mut sum, mut count) = (0.0, 0);
    for (patch, _) in mask.iter().enumerate().filter(|(_, removed)| **removed > 0.5) {
        for (c, y, x) in places(config, patch) {
            let at = (c * height + y) * width + x;
            sum += f64::from(a[at] - b[at]).powi(2);
            count += 1;
        }
    }
    sum / f64::from(count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(norm_pix_loss: bool) -> VitMaeConfig {
        VitMaeConfig {
            image_size: (4, 6),
            patch_size: (2, 3),
            num_channels: 2,
            norm_pix_loss,
            ..VitMaeConfig::default()
        }
    }

    #[test]
    fn patches_are_pixel_major_with_the_channel_last() {
        // Each prediction is 100·patch + its place in the patch.
        let logits: Vec<f32> =
            (0..4).flat_map(|p| (0..12).map(move |i| (100 * p + i) as f32)).collect();
        let shown = predicted_pixels(&config(false), &logits, &[0.0; 48]);
        // Channel 0, row 0: patches 0 and 1; their pixels are two values apart.
        assert_eq!(shown[..6], [0.0, 2.0, 4.0, 100.0, 102.0, 104.0]);
        // Channel 1, row 3: second row of patches 2 and 3.
        assert_eq!(shown[24 + 18..], [207.0, 209.0, 211.0, 307.0, 309.0, 311.0]);
    }

    #[test]
    fn a_normalised_prediction_of_the_truth_gives_the_truth() {
        let config = config(true);
        let pixels: Vec<f32> = (0..48).map(|i| ((i * 7) % 11) as f32).collect();
        let mut logits = Vec::new();
        for patch in 0..4 {
            let truth =
                places(&config, patch).into_iter().map(|(c, y, x)| pixels[(c * 4 + y) * 6 + x]);
            let truth: Vec<f64> = truth.map(f64::from).collect();
            let (mean, deviation) = statistics(&truth, false);
            logits.extend(truth.iter().map(|value| ((value - mean) / deviation) as f32));
        }
        let shown = predicted_pixels(&config, &logits, &pixels);
        assert!(shown.iter().zip(&pixels).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn only_removed_patches_count_in_the_error() {
        let config = config(false);
        let (a, mut b) = (vec![0.0; 48], vec![0.0; 48]);
        b[0] = 6.0; // patch 0
        b[5] = 100.0; // patch 1
        assert_eq!(masked_mse(&config, &a, &b, &[1.0, 0.0, 0.0, 0.0]), 3.0);
        assert_eq!(masked_mse(&config, &a, &b, &[0.0, 0.0, 1.0, 1.0]), 0.0);
    }
}
