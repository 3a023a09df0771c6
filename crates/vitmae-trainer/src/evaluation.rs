//! Evaluation that gives the same number for the same weights: every image has a mask of its own
//! that never changes, a function of (seed, image), and is prepared without randomness.
//!
//! Preparation as the original's: the shorter side becomes S / 0.875 (S above 224: S), bicubic, then
//! the central S pixels.

use vitmae_cpu::random::Stream;
use vitmae_image::{Filter, Image, ImageError, VitImageProcessor, center_crop, resize};
use vitmae_model::{ForwardOptions, Masking, VitMaeConfig, VitMaeForPreTraining};
use vitmae_tensor::Tensor;
use vitmae_tensor::ops::Distance;

use crate::data::Dataset;
use crate::{Team, TrainerError};

/// Mean squared error of the removed patches over every image of a set, `batch_size` at a time.
///
/// # Errors
/// [`TrainerError::EvaluationImage`] for an image that cannot be used, [`TrainerError::Model`].
pub fn evaluate(
    model: &VitMaeForPreTraining,
    dataset: &dyn Dataset,
    processor: &VitImageProcessor,
    seed: u64,
    batch_size: usize,
) -> Result<f64, TrainerError> {
    let how = (seed, Distance::Squared);
    evaluate_together(model, dataset, processor, how, batch_size, &Team::default())
}

/// [`evaluate`] with the run's own loss by several processes, which take batches in turn: the same bits as by one.
pub(crate) fn evaluate_together(
    model: &VitMaeForPreTraining,
    dataset: &dyn Dataset,
    processor: &VitImageProcessor,
    (seed, distance): (u64, Distance),
    batch_size: usize,
    team: &Team,
) -> Result<f64, TrainerError> {
    let config = &model.config;
    let (height, width) = config.image_size;
    let patches = config.num_patches();
    let batch_size = batch_size.max(1);
    let options = ForwardOptions { distance, ..ForwardOptions::default() };
    let sums = team.spread(dataset.len().div_ceil(batch_size), |index| {
        let samples = index * batch_size..((index + 1) * batch_size).min(dataset.len());
        let batch = samples.len();
        let (mut pixels, mut noise) = (Vec::new(), Vec::new());
        for sample in samples {
            pixels.extend(pixels_of(dataset, sample, config, processor)?);
            noise.extend(fixed_noise(seed, sample as u64, patches));
        }
        let shape = [batch, config.num_channels, height, width];
        let device = model.device();
        let pixels = Tensor::from_vec(device, &shape, pixels)?;
        let masking = Masking::from_noise(&noise, batch, patches, config.mask_ratio)?;
        let output = model.forward(&pixels, &masking, &options)?;
        let sum = f64::from(output.loss.unwrap_or(f32::NAN)) * batch as f64;
        Ok(sum.to_bits())
    })?;
    Ok(sums.into_iter().map(f64::from_bits).sum::<f64>() / dataset.len() as f64)
}

/// The pixels of an image of a set for a model with `config`, `[C, H, W]`, prepared by [`prepare`].
///
/// # Errors
/// [`TrainerError::EvaluationImage`] for an image that cannot be used.
pub fn pixels_of(
    dataset: &dyn Dataset,
    sample: usize,
    config: &VitMaeConfig,
    processor: &VitImageProcessor,
) -> Result<Vec<f32>, TrainerError> {
    let (height, width) = config.image_size;
    let prepared = dataset.load(sample).and_then(|image| {
        let pixels = prepare(&image, (height, width), processor)?;
        check_channels(&pixels, config.num_channels, height * width)?;
        Ok(pixels)
    });
    prepared.map_err(|source| TrainerError::EvaluationImage {
        path: dataset.name(sample),
        source: Box::new(source),
    })
}

/// The masking noise of an evaluation image, `[L]` in [0, 1).
pub fn fixed_noise(seed: u64, sample: u64, patches: usize) -> Vec<f64> {
    let stream = Stream::new(seed, "evaluation mask", 0, sample);
    (0..patches as u64).map(|patch| stream.uniform(patch)).collect()
}

/// The central (height, width) pixels of an image, after resizing it to a little more.
///
/// # Shapes
/// `[H, W, C]` u8 → `[C, height, width]` f32
///
/// # Errors
/// Those of [`resize`] and [`VitImageProcessor::normalise`].
pub fn prepare(
    image: &Image,
    (height, width): (usize, usize),
    processor: &VitImageProcessor,
) -> Result<Vec<f32>, ImageError> {
    let margin = if height.max(width) <= 224 { 0.875 } else { 1.0 };
    // The smallest size of the image's own proportions that covers the target with its margin.
    let scale = f64::max(
        (height as f64 / margin).floor() / image.height as f64,
        (width as f64 / margin).floor() / image.width as f64,
    );
    let side = |length: usize, least: usize| ((length as f64 * scale) as usize).max(least);
    let size = (side(image.width, width), side(image.height, height));
    let resized = resize(image, size, None, Filter::Bicubic)?;
    let mut cropped = center_crop(&resized, (height, width))?;
    if processor.do_convert_rgb == Some(true) && cropped.channels != 3 {
        cropped = cropped.to_rgb();
    }
    processor.normalise(&cropped)
}

fn check_channels(pixels: &[f32], channels: usize, plane: usize) -> Result<(), ImageError> {
    if pixels.len() == channels * plane {
        return Ok(());
    }
    let (found, expected) = (pixels.len() / plane.max(1), format!("{channels}, as the model"));
    Err(ImageError::Channels { what: "evaluation image", found, expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preparation_takes_the_middle_and_is_always_the_same_size() {
        let processor = VitImageProcessor {
            do_rescale: false,
            do_normalize: false,
            ..VitImageProcessor::default()
        };
        for (width, height) in [(64, 64), (300, 40), (40, 300), (7, 5), (1, 1)] {
            let image = Image::new(width, height, 3, vec![90; width * height * 3]).unwrap();
            let pixels = prepare(&image, (32, 48), &processor).unwrap();
            assert_eq!(pixels, vec![90.0; 3 * 32 * 48], "{width}x{height}");
        }
    }

    #[test]
    fn the_noise_of_an_image_is_its_own_and_stays() {
        assert_eq!(fixed_noise(1, 2, 9), fixed_noise(1, 2, 9));
        assert_ne!(fixed_noise(1, 2, 9), fixed_noise(1, 3, 9));
        assert_ne!(fixed_noise(1, 2, 9), fixed_noise(2, 2, 9));
    }
}
