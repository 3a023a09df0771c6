//! What a training's model makes of the same images under the same masks, as a picture after some epochs.

use std::path::Path;

use vitmae_image::{Image, PanelShape, SheetRow, VitImageProcessor, encode_png, sheet};
use vitmae_model::{ForwardOptions, Masking, VitMaeForPreTraining};
use vitmae_tensor::Tensor;
use vitmae_weights::{WeightsError, write_atomically};

use super::predicted_pixels;
use crate::TrainerError;
use crate::data::Dataset;
use crate::evaluation::{fixed_noise, pixels_of};

/// Images of a sheet.
const ROWS: usize = 8;
/// Images that are looked at for them, since some may be unreadable.
const TRIED: usize = 64;

/// The first images of a set that can be read, prepared and masked as evaluation does; it changes nothing in the model.
pub(crate) fn draw(
    model: &VitMaeForPreTraining,
    images: &dyn Dataset,
    processor: &VitImageProcessor,
    seed: u64,
) -> Result<Image, TrainerError> {
    let config = &model.config;
    let ((height, width), channels) = (config.image_size, config.num_channels);
    let patches = config.num_patches();
    let (mut originals, mut noise, mut failure) = (Vec::new(), Vec::new(), None);
    for sample in 0..images.len().min(TRIED) {
        match pixels_of(images, sample, config, processor) {
            Ok(pixels) => {
                originals.push(pixels);
                noise.extend(fixed_noise(seed, sample as u64, patches));
            }
            Err(error) => failure = Some(error),
        }
        if originals.len() == ROWS {
            break;
        }
    }
    if let Some(error) = failure.filter(|_| originals.is_empty()) {
        return Err(error);
    }
    let batch = originals.len();
    let shape = [batch, channels, height, width];
    let input = Tensor::from_vec(model.device(), &shape, originals.concat())?;
    let masking = Masking::from_noise(&noise, batch, patches, config.mask_ratio)?;
    let logits = model.forward(&input, &masking, &ForwardOptions::default())?.logits.to_vec()?;
    let predicted: Vec<_> = logits
        .chunks_exact(patches * config.patch_dim())
        .zip(&originals)
        .map(|(logits, pixels)| predicted_pixels(config, logits, pixels))
        .collect();
    let rows: Vec<_> = originals
        .iter()
        .zip(&predicted)
        .zip(masking.mask.chunks_exact(patches))
        .map(|((original, reconstruction), mask)| SheetRow { original, reconstruction, mask })
        .collect();
    let panels = PanelShape { channels, height, width, patch: config.patch_size };
    Ok(sheet(&rows, panels, processor)?)
}

/// Writes a sheet as a PNG, whole or not at all.
pub(crate) fn write(path: &Path, sheet: &Image) -> Result<(), TrainerError> {
    let bytes = encode_png(sheet)?;
    let failed = |action| {
        let path = path.to_path_buf();
        move |source| TrainerError::Io { action, path, source }
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed("create the folder of"))?;
    }
    write_atomically(path, |out| {
        let path = path.to_path_buf();
        out.write_all(&bytes).map_err(|source| WeightsError::Io { action: "write", path, source })
    })?;
    Ok(())
}
