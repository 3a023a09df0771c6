//! From a model's predictions to pictures and to numbers about them.

pub(crate) mod sheets;

use vitmae_cpu::random::Stream;
use vitmae_image::{VitImageProcessor, psnr, ssim};
use vitmae_model::{ForwardOptions, Masking, Numerics, VitMaeConfig, VitMaeForPreTraining};
use vitmae_tensor::Tensor;

use crate::data::Dataset;
use crate::evaluation::pixels_of;
use crate::{Team, TrainerError};

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

/// How well a model fills in the removed patches of one image, over several masks.
#[derive(Clone, Debug, PartialEq)]
pub struct Quality {
    /// The model's own loss, mean over the masks.
    pub loss: f64,
    /// Mean squared error of colour values in 0..=1, over removed patches alone.
    pub mse: f64,
    /// Peak signal-to-noise ratio of [`mse`](Self::mse), in decibels.
    pub psnr: f64,
    /// Structural similarity of the image and its reconstruction with the visible patches put back, mean over the masks; none
    /// for images below 11 pixels.
    pub ssim: Option<f64>,
    /// Mean squared error of each patch while it was removed, `[L]`; none where it never was. High values mark what the model does
    /// not expect.
    pub errors: Vec<Option<f64>>,
}

impl Quality {
    /// The patch that was filled in worst, and its error.
    pub fn worst(&self) -> Option<(usize, f64)> {
        let errors = self.errors.iter().enumerate().filter_map(|(at, error)| Some((at, (*error)?)));
        errors.max_by(|a, b| a.1.total_cmp(&b.1))
    }
}

/// Masks that together remove every patch equally often, or once more than others where that cannot be: `[masks][L]`, true is
/// removed.
///
/// The patches stand in an order that is a function of (seed, sample, round); each mask removes the next `removed` of them, and once
/// all were removed equally often, a round with another order begins. A round has L / gcd(L, `removed`) masks: 4 at ratio 0.75.
pub fn even_masks(
    seed: u64,
    sample: u64,
    patches: usize,
    removed: usize,
    masks: usize,
) -> Vec<Vec<bool>> {
    let (mut a, mut b) = (patches, removed);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    let round = patches / a.max(1);
    let mut order: Vec<usize> = (0..patches).collect();
    let mut all = Vec::with_capacity(masks);
    for number in 0..masks {
        if number.is_multiple_of(round.max(1)) {
            let stream = Stream::new(seed, "even masks", (number / round.max(1)) as u64, sample);
            let noise: Vec<f64> = (0..patches as u64).map(|patch| stream.uniform(patch)).collect();
            order.sort_by(|&a, &b| noise[a].total_cmp(&noise[b]));
        }
        let mut mask = vec![false; patches];
        for place in 0..removed {
            mask[order[(number * removed + place) % patches]] = true;
        }
        all.push(mask);
    }
    all
}

/// Judges the reconstructions of an image under `masks`, one or more, which must remove equally many patches each. The model sees
/// at most `batch_size` of them at once, since memory grows with that; what is found does not depend on it.
///
/// # Shapes
/// `pixels: [C, H, W]`, normalised by `processor`; a mask: `[L]`, true is removed
///
/// # Errors
/// [`TrainerError::Model`] if the pixels or masks do not fit the model, [`TrainerError::Image`].
pub fn quality(
    model: &VitMaeForPreTraining,
    pixels: &[f32],
    masks: &[Vec<bool>],
    batch_size: usize,
    processor: &VitImageProcessor,
) -> Result<Quality, TrainerError> {
    let config = &model.config;
    let (height, width) = config.image_size;
    let (channels, patches) = (config.num_channels, config.num_patches());
    let sizes = [channels, height, width];
    let colours = |pixels: &[f32]| processor.colour_planes(pixels, sizes);
    let truth = colours(pixels)?;
    let (mut sums, mut counts) = (vec![0.0; patches], vec![0u32; patches]);
    let (mut loss, mut similarity) = (0.0, 0.0);
    let is_large = height.min(width) >= 11;
    for group in masks.chunks(batch_size.max(1)) {
        let masking = Masking::from_mask(&group.concat(), group.len(), patches)?;
        let shape = [group.len(), channels, height, width];
        let input = Tensor::from_vec(model.device(), &shape, pixels.repeat(group.len()))?;
        let output = model.forward(&input, &masking, &ForwardOptions::default())?;
        // The mean over a group, in which every mask removes as many patches.
        loss += output.loss.map_or(f64::NAN, f64::from) * group.len() as f64;
        let logits = output.logits.to_vec()?;
        for (mask, logits) in group.iter().zip(logits.chunks(patches * config.patch_dim())) {
            let predicted = colours(&predicted_pixels(config, logits, pixels))?;
            let mut pasted = truth.clone();
            for (patch, _) in mask.iter().enumerate().filter(|(_, removed)| **removed) {
                for (c, y, x) in places(config, patch) {
                    let at = (c * height + y) * width + x;
                    sums[patch] += f64::from(predicted[at] - truth[at]).powi(2);
                    pasted[at] = predicted[at];
                }
                counts[patch] += 1;
            }
            if is_large {
                similarity += ssim(&truth, &pasted, sizes, 1.0)?;
            }
        }
    }
    let values = config.patch_dim() as f64;
    let error = |(sum, &count): (&f64, &u32)| (count > 0).then(|| sum / f64::from(count) / values);
    let removed: u32 = counts.iter().sum();
    let mse = sums.iter().sum::<f64>() / (f64::from(removed) * values);
    Ok(Quality {
        loss: loss / masks.len() as f64,
        mse,
        psnr: psnr(mse, 1.0),
        ssim: is_large.then(|| similarity / masks.len() as f64),
        errors: sums.iter().zip(&counts).map(error).collect(),
    })
}

/// [`quality`] of every image of a set, prepared as for evaluation, under the `masks` of its number, `batch_size` at once; `progress`
/// is told how many are done. The processes of `team` take images in turn, and all get the result, the same bits as of one.
///
/// # Errors
/// [`TrainerError::EvaluationImage`] for an image that cannot be used, [`TrainerError::TeamLost`], those of [`quality`].
pub fn qualities(
    model: &VitMaeForPreTraining,
    dataset: &dyn Dataset,
    processor: &VitImageProcessor,
    (masks, batch_size): (&dyn Fn(usize) -> Vec<Vec<bool>>, usize),
    team: &Team,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Quality>, TrainerError> {
    // As bits, since JSON has no NaN.
    let all = team.spread(dataset.len(), |sample| {
        let pixels = pixels_of(dataset, sample, &model.config, processor)?;
        let Quality { loss, mse, ssim, errors, .. } =
            quality(model, &pixels, &masks(sample), batch_size, processor)?;
        progress(sample + 1);
        let bits = |value: Option<f64>| value.map(f64::to_bits);
        let errors: Vec<Option<u64>> = errors.into_iter().map(bits).collect();
        Ok((loss.to_bits(), mse.to_bits(), bits(ssim), errors))
    })?;
    let whole = |(loss, mse, ssim, errors): (u64, u64, Option<u64>, Vec<Option<u64>>)| {
        let value = |bits: Option<u64>| bits.map(f64::from_bits);
        let (mse, ssim) = (f64::from_bits(mse), value(ssim));
        let errors = errors.into_iter().map(value).collect();
        Quality { loss: f64::from_bits(loss), mse, psnr: psnr(mse, 1.0), ssim, errors }
    };
    Ok(all.into_iter().map(whole).collect())
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
    fn masks_remove_every_patch_equally_often() {
        for (patches, removed, masks, least, most) in [
            (196, 147, 4, 3, 3),
            (196, 147, 8, 6, 6),
            (9, 6, 3, 2, 2),
            (16, 12, 5, 3, 4),
            (4, 1, 1, 0, 1),
        ] {
            let all = even_masks(3, 5, patches, removed, masks);
            let count = |at: usize| all.iter().filter(|mask| mask[at]).count();
            let counts: Vec<usize> = (0..patches).map(count).collect();
            assert!(all.iter().all(|mask| mask.iter().filter(|m| **m).count() == removed));
            assert_eq!((counts.iter().min(), counts.iter().max()), (Some(&least), Some(&most)));
        }
        assert_eq!(even_masks(1, 2, 9, 6, 3), even_masks(1, 2, 9, 6, 3));
        // The second round tells something new.
        let two = even_masks(1, 2, 196, 147, 8);
        assert!(two[..4].iter().all(|mask| !two[4..].contains(mask)));
        assert_ne!(even_masks(1, 2, 9, 6, 3), even_masks(1, 3, 9, 6, 3));
    }

    /// A model of 16 patches with random weights.
    fn small_model() -> VitMaeForPreTraining {
        let config = VitMaeConfig {
            hidden_size: 8,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 8,
            decoder_hidden_size: 8,
            decoder_num_hidden_layers: 1,
            decoder_num_attention_heads: 2,
            decoder_intermediate_size: 8,
            image_size: (16, 16),
            patch_size: (4, 4),
            ..VitMaeConfig::default()
        };
        VitMaeForPreTraining::new(config, &vitmae_tensor::Device::cpu(), 1).unwrap()
    }

    #[test]
    fn groups_of_masks_give_what_all_at_once_give() {
        let model = small_model();
        let pixels: Vec<f32> = (0..768).map(|i| ((i * 7) % 11) as f32 / 5.0 - 1.0).collect();
        let masks = even_masks(0, 0, 16, 12, 7);
        let of =
            |size| quality(&model, &pixels, &masks, size, &VitImageProcessor::default()).unwrap();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-6 * b.abs();
        let all = of(7);
        for size in [1, 3, 100] {
            let found = of(size);
            assert!(near(found.loss, all.loss) && near(found.mse, all.mse), "{size}: {found:?}");
            assert!(near(found.ssim.unwrap(), all.ssim.unwrap()), "{size}: {found:?}");
            let errors = found.errors.iter().zip(&all.errors);
            assert!(errors.clone().all(|(a, b)| near(a.unwrap(), b.unwrap())), "{size}: {found:?}");
        }
    }

    #[test]
    fn a_defect_is_where_the_error_is_largest() {
        // A model whose prediction is grey everywhere, on a grey image with one white patch.
        let mut model = small_model();
        for parameter in model.parameters_mut() {
            if parameter.name.starts_with("decoder.prediction.") {
                parameter.set(&vec![0.0; parameter.value.len()]).unwrap();
            }
        }
        let processor = VitImageProcessor::default(); // 0 is middle grey, 1 is white
        let mut pixels = vec![0.0; 3 * 256];
        for (c, y, x) in places(&model.config, 6) {
            pixels[(c * 16 + y) * 16 + x] = 1.0;
        }
        let masks = even_masks(0, 0, 16, 12, 4);
        let found = quality(&model, &pixels, &masks, 16, &processor).unwrap();
        assert_eq!(found.worst(), Some((6, 0.25)));
        assert_eq!(found.errors.iter().filter(|error| **error == Some(0.0)).count(), 15);
        assert!((found.mse - 0.25 / 16.0).abs() < 1e-12);
        assert!((found.psnr - 10.0 * 64.0f64.log10()).abs() < 1e-9);
        // The patch is removed by three of four masks; under the fourth the image is whole.
        let ssim = found.ssim.unwrap();
        assert!(ssim > 0.25 && ssim < 1.0, "{ssim}");
        assert!((found.loss - 1.0 / 16.0).abs() < 1e-6, "{}", found.loss);
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
