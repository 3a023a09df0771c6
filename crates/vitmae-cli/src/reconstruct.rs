//! `vitmae reconstruct`: a picture of what the model makes of masked images.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use vitmae_cpu::random::Stream;
use vitmae_image::{
    Filter, Limits, PanelShape, SheetRow, VitImageProcessor, decode, encode_png, resize, sheet,
};
use vitmae_model::{ForwardOptions, Masking, VitMaeConfig, VitMaeForPreTraining};
use vitmae_tensor::{Device, Tensor};
use vitmae_trainer::reconstruction::{masked_mse, predicted_pixels};
use vitmae_weights::{LoadOptions, from_pretrained};

use crate::exit::{BadInput, Usage};
use crate::output::write_file;
use crate::precision::InferencePrecisionArgs;
use crate::{Global, mask_file, model_folder};

/// Example: vitmae reconstruct cat.jpg dog.png --model run --out sheet.png
///
/// Four panels an image: original, visible patches, reconstruction, reconstruction with the visible
/// patches put back.
#[derive(Args, Debug)]
pub struct ReconstructArgs {
    /// JPEG, PNG or WebP files
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<PathBuf>,
    /// Model folder, `.safetensors` file, or the output folder of a training
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The picture to write, a PNG
    #[arg(long, value_name = "FILE", default_value = "sheet.png")]
    out: PathBuf,
    /// Share of patches to remove [default: the model's]
    #[arg(long, conflicts_with = "mask")]
    mask_ratio: Option<f64>,
    /// Seed of the masks
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Picture of the mask, the same for all images: white is removed, black is kept
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// Masks as an `.npy` file: bool or uint8 with 1 = removed, or noise as floats of which the smallest are kept;
    /// one row of a number a patch for all images, or a row an image
    #[arg(long, value_name = "FILE", conflicts_with = "mask")]
    mask_file: Option<PathBuf>,
    #[command(flatten)]
    precision: InferencePrecisionArgs,
}

/// What the model made of one image.
pub struct Reconstruction {
    /// Normalised pixels `[C, H, W]` of the original.
    pub original: Vec<f32>,
    /// Normalised pixels `[C, H, W]` of the prediction.
    pub predicted: Vec<f32>,
    /// `[L]`, 1 = removed.
    pub mask: Vec<f32>,
    /// The model's loss.
    pub loss: Option<f32>,
}

/// Runs the command.
pub fn run(args: &ReconstructArgs, global: &Global, device: &Device) -> Result<u8> {
    let folder = model_folder::resolve(&args.model)?;
    let (mut model, _) = from_pretrained(&folder, device, &LoadOptions::default())?;
    args.precision.prepare(&mut model, device)?;
    let config = model.config.clone();
    let processor = model_folder::processor(&folder, &config)?;
    let ratio = args.mask_ratio.unwrap_or(config.mask_ratio);
    if !(0.0..1.0).contains(&ratio) {
        return Err(Usage(format!("`--mask-ratio` is {ratio}, expected from 0 to below 1")).into());
    }
    let given = given_masks(args, &config)?;
    let mut shown = Vec::new();
    for (index, path) in args.images.iter().enumerate() {
        let pixels = model_folder::pixels(path, &config, &processor)?;
        let masking = match &given {
            Some(rows) => Masking::from_mask(&rows[index % rows.len()], 1, config.num_patches()),
            None => random_mask(&config, args.seed, index as u64, ratio),
        };
        shown.push(reconstruct(&model, device, pixels, &masking?)?);
    }
    let picture = draw(&shown, &config, &processor)?;
    write_file(&args.out, &encode_png(&picture)?)?;
    if config.norm_pix_loss && !global.quiet {
        errln!(
            "note: this model predicts normalised patches; each is shown with the mean and \
             variance of the true patch"
        );
    }
    report(args, global, &config, &shown);
    Ok(0)
}

/// The caller's masks, one for all images or one an image.
fn given_masks(args: &ReconstructArgs, config: &VitMaeConfig) -> Result<Option<Vec<Vec<bool>>>> {
    if let Some(path) = &args.mask {
        return Ok(Some(vec![mask_from(path, config)?]));
    }
    let Some(path) = &args.mask_file else { return Ok(None) };
    let (rows, images) = (mask_file::read(path, config, args.mask_ratio)?, args.images.len());
    if rows.len() != 1 && rows.len() != images {
        let message =
            format!("it has {} rows, expected 1 or one for each of {images} images", rows.len());
        let what = format!("`{}` cannot be used", path.display());
        return Err(anyhow::Error::new(BadInput(message)).context(what));
    }
    Ok(Some(rows))
}

/// The mask of an image by its index, a function of the seed.
pub fn random_mask(
    config: &VitMaeConfig,
    seed: u64,
    index: u64,
    ratio: f64,
) -> Result<Masking, vitmae_model::ModelError> {
    let stream = Stream::new(seed, "reconstruct", 0, index);
    let noise: Vec<f64> = (0..config.num_patches() as u64).map(|i| stream.uniform(i)).collect();
    Masking::from_noise(&noise, 1, config.num_patches(), ratio)
}

/// Runs the model on one image.
pub fn reconstruct(
    model: &VitMaeForPreTraining,
    device: &Device,
    pixels: Vec<f32>,
    masking: &Masking,
) -> Result<Reconstruction> {
    let config = &model.config;
    let (height, width) = config.image_size;
    let shape = [1, config.num_channels, height, width];
    let input = Tensor::from_slice(device, &shape, &pixels)?;
    let output = model.forward(&input, masking, &ForwardOptions::default())?;
    let predicted = predicted_pixels(config, &output.logits.to_vec()?, &pixels);
    Ok(Reconstruction {
        original: pixels,
        predicted,
        mask: masking.mask.clone(),
        loss: output.loss,
    })
}

/// The sheet of several reconstructions, one row each.
pub fn draw(
    shown: &[Reconstruction],
    config: &VitMaeConfig,
    processor: &VitImageProcessor,
) -> Result<vitmae_image::Image> {
    let (height, width) = config.image_size;
    let channels = config.num_channels;
    let shape = PanelShape { channels, height, width, patch: config.patch_size };
    let rows: Vec<_> = shown
        .iter()
        .map(|one| SheetRow {
            original: &one.original,
            reconstruction: &one.predicted,
            mask: &one.mask,
        })
        .collect();
    Ok(sheet(&rows, shape, processor)?)
}

/// A mask picture as one flag a patch: removed where it is brighter than middle grey.
fn mask_from(path: &Path, config: &VitMaeConfig) -> Result<Vec<bool>> {
    let what = || format!("mask `{}` cannot be used", path.display());
    let image = decode(path, &Limits::default()).with_context(what)?;
    let (rows, columns) = config.grid();
    let small = resize(&image, (columns, rows), None, Filter::Box).with_context(what)?.to_rgb();
    let removed: Vec<bool> = small
        .data
        .chunks_exact(3)
        .map(|pixel| pixel.iter().map(|&value| u32::from(value)).sum::<u32>() > 3 * 127)
        .collect();
    if removed.iter().all(|&removed| removed) {
        let message = "it removes every patch, expected at least one black one".to_owned();
        return Err(anyhow::Error::new(BadInput(message)).context(what()));
    }
    Ok(removed)
}

fn report(
    args: &ReconstructArgs,
    global: &Global,
    config: &VitMaeConfig,
    shown: &[Reconstruction],
) {
    let rows: Vec<_> = args
        .images
        .iter()
        .zip(shown)
        .map(|(path, one)| {
            let removed = one.mask.iter().filter(|&&removed| removed > 0.5).count();
            let mse = masked_mse(config, &one.original, &one.predicted, &one.mask);
            json!({"image": path, "loss": one.loss, "masked_mse": mse, "removed": removed})
        })
        .collect();
    if global.json {
        outln!("{}", json!({"out": args.out, "images": rows}));
        return;
    }
    for row in rows {
        outln!(
            "{}: loss {:.5}, {} of {} patches removed",
            row["image"].as_str().unwrap_or_default(),
            row["loss"].as_f64().unwrap_or(f64::NAN),
            row["removed"],
            config.num_patches()
        );
    }
    outln!("{}", args.out.display());
}
