//! Held-out photographs: views of them, the model's reconstructions and their errors.

use anyhow::Result;
use vitmae_image::{Crop, Filter, Image, VitImageProcessor, crop, encode_png, resize};
use vitmae_model::{Masking, VitMaeConfig, VitMaeForPreTraining};
use vitmae_tensor::Device;
use vitmae_trainer::evaluation::{fixed_noise, prepare};
use vitmae_trainer::reconstruction::masked_mse;

use super::assets;
use super::baselines::{interpolation, mean_colour};
use crate::reconstruct::{Reconstruction, draw, reconstruct};

/// Masks each view is measured under.
const MASKS: u64 = 4;
/// Seed of these masks; they are the same in every run.
const MASK_SEED: u64 = 2;
/// Views that the picture shows.
const SHOWN: [usize; 6] = [0, 5, 10, 1, 8, 14];
/// Enlargement of the picture.
const ZOOM: usize = 2;

/// Mean squared errors over removed patches, colour values in 0..1.
pub struct Errors {
    /// The model's reconstruction.
    pub model: f64,
    /// Smooth interpolation from the visible pixels.
    pub interpolation: f64,
    /// The image's mean colour.
    pub mean_colour: f64,
}

/// What was measured on held-out photographs.
pub struct HeldOut {
    /// Mean over all views and masks.
    pub mse: Errors,
    /// Views measured.
    pub views: usize,
    /// Photographs they show.
    pub photos: usize,
    /// Masks of each.
    pub masks: u64,
    shown: Vec<Reconstruction>,
}

/// Five views of each held-out photograph: its central square and that square's quarters.
pub fn views() -> Result<Vec<Image>> {
    let mut views = Vec::new();
    for photo in assets::held_out_photos()? {
        let Image { width, height, .. } = photo;
        let side = width.min(height);
        let (left, top) = ((width - side) / 2, (height - side) / 2);
        let half = side / 2;
        let squares =
            [(0, 0, side), (0, 0, half), (half, 0, half), (0, half, half), (half, half, half)];
        for (x, y, side) in squares {
            let area = Crop { left: left + x, top: top + y, width: side, height: side };
            views.push(crop(&photo, area)?);
        }
    }
    Ok(views)
}

/// Reconstructs every view under every mask and compares with the baselines.
pub fn measure(
    model: &VitMaeForPreTraining,
    device: &Device,
    views: &[Image],
    processor: &VitImageProcessor,
) -> Result<HeldOut> {
    let config = &model.config;
    let mut mse = Errors { model: 0.0, interpolation: 0.0, mean_colour: 0.0 };
    let mut first = Vec::new();
    // Pixels are 2·value − 1, so a squared difference of pixels is 4 of colour values.
    let share = 0.25 / (views.len() as f64 * MASKS as f64);
    for (index, view) in views.iter().enumerate() {
        let pixels = prepare(view, config.image_size, processor)?;
        for number in 0..MASKS {
            let sample = index as u64 * MASKS + number;
            let noise = fixed_noise(MASK_SEED, sample, config.num_patches());
            let masking = Masking::from_noise(&noise, 1, config.num_patches(), config.mask_ratio)?;
            let one = reconstruct(model, device, pixels.clone(), &masking)?;
            let error = |filled: &[f32]| share * masked_mse(config, &pixels, filled, &one.mask);
            mse.model += error(&one.predicted);
            mse.interpolation += error(&interpolation(config, &pixels, &one.mask));
            mse.mean_colour += error(&mean_colour(config, &pixels));
            if number == 0 {
                first.push(one);
            }
        }
    }
    let mut first: Vec<_> = first.into_iter().map(Some).collect();
    let shown = SHOWN.iter().filter_map(|&view| first.get_mut(view)?.take()).collect();
    let photos = assets::held_out_photo_count();
    Ok(HeldOut { mse, views: views.len(), photos, masks: MASKS, shown })
}

impl HeldOut {
    /// The picture of some reconstructions, a PNG.
    pub fn picture(&self, config: &VitMaeConfig, processor: &VitImageProcessor) -> Result<Vec<u8>> {
        let sheet = draw(&self.shown, config, processor)?;
        let size = (sheet.width * ZOOM, sheet.height * ZOOM);
        Ok(encode_png(&resize(&sheet, size, None, Filter::Nearest)?)?)
    }
}
