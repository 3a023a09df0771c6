//! `vitmae quality`: how well a model fills in removed patches, and what it does not expect.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use vitmae_image::{Filter, Image, encode_png, resize};
use vitmae_model::VitMaeConfig;
use vitmae_tensor::Device;
use vitmae_trainer::Team;
use vitmae_trainer::data::{Dataset, Parts, open_parts};
use vitmae_trainer::reconstruction::{Quality, even_masks, qualities};
use vitmae_weights::{LoadOptions, from_pretrained};

use crate::exit::Usage;
use crate::output::write_file;
use crate::precision::InferencePrecisionArgs;
use crate::{Global, mask_file, model_folder, npy, processes};

/// Example: vitmae quality --model run --data-path photos --csv quality.csv --anomaly maps
///
/// Every image is reconstructed under several masks that together remove each patch equally often. MSE is of colour values in 0 to 1
/// on removed patches, PSNR of that, SSIM of the image with the reconstruction pasted in.
#[derive(Args, Debug)]
pub struct QualityArgs {
    /// Model: a folder, a file of weights, or the output folder of a pre-training
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Images of any known kind; where there is a part called `val` (or `test`), that one
    #[arg(long, alias = "data_path", value_name = "PATH")]
    data_path: PathBuf,
    /// Masks of each image; 4 remove every patch three times at ratio 0.75
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    masks: u16,
    /// The masks of every image as an `.npy` file, one row or several, a number for each patch: bool or uint8 with 1 = removed,
    /// or noise as floats
    #[arg(long, value_name = "FILE", conflicts_with_all = ["masks", "seed"])]
    mask_file: Option<PathBuf>,
    /// Share of patches to remove [default: the model's]
    #[arg(long)]
    mask_ratio: Option<f64>,
    /// Masks of an image that go through the model at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// Seed of the masks
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write a line for each image
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write for each image the error of its patches, as a picture and as `.npy`
    #[arg(long, value_name = "DIR")]
    anomaly: Option<PathBuf>,
    #[command(flatten)]
    precision: InferencePrecisionArgs,
}

/// Runs the command.
pub fn run(args: &QualityArgs, global: &Global, device: &Device, team: &Team) -> Result<u8> {
    let folder = model_folder::resolve(&args.model)?;
    let (mut model, _) = from_pretrained(&folder, device, &LoadOptions::default())?;
    args.precision.prepare(&mut model, device)?;
    let config = model.config.clone();
    let processor = model_folder::processor(&folder, &config)?;
    let ratio = args.mask_ratio.unwrap_or(config.mask_ratio);
    let patches = config.num_patches();
    let removed = patches - (patches as f64 * (1.0 - ratio)) as usize;
    if !(0.0..1.0).contains(&ratio) || removed == 0 || removed == patches {
        let message = format!(
            "`--mask-ratio` {ratio} removes {removed} of {patches} patches, expected some and not all"
        );
        return Err(Usage(message).into());
    }
    let given = args.mask_file.as_deref();
    let given = given.map(|path| mask_file::read(path, &config, args.mask_ratio)).transpose()?;
    let count = given.as_ref().map_or(usize::from(args.masks), Vec::len);
    let Parts { train, evaluation } = open_parts(&args.data_path)?;
    let images = evaluation.unwrap_or(train);
    let even = |sample| even_masks(args.seed, sample as u64, patches, removed, count);
    let masks = |sample| given.clone().unwrap_or_else(|| even(sample));
    // Masks of the first image stand for those of all.
    let settings = || format!("{} {:?} {:?}", images.fingerprint(), masks(0), args.precision);
    processes::check_same(team, &model.parameters(), settings)?;
    let mut told = crate::data::told(Path::new("quality"), images.len(), global);
    let found = qualities(
        &model,
        images.as_ref(),
        &processor,
        (&masks, args.batch_size.into()),
        team,
        &mut told,
    )?;
    if !team.leads() {
        return Ok(0);
    }
    if let Some(folder) = &args.anomaly {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create `{}`", folder.display()))?;
        for (sample, one) in found.iter().enumerate() {
            write_map(folder, sample, images.as_ref(), &config, one)?;
        }
    }
    if let Some(path) = &args.csv {
        write_file(path, table(images.as_ref(), &found).as_bytes())?;
    }
    report(global, images.as_ref(), &found, count);
    Ok(0)
}

/// One line an image.
fn table(images: &dyn Dataset, found: &[Quality]) -> String {
    let mut text = "image,loss,mse,psnr,ssim,worst_patch,worst_error\n".to_owned();
    for (sample, one) in found.iter().enumerate() {
        let name = images.name(sample).replace('"', "\"\"");
        let ssim = one.ssim.map_or(String::new(), |ssim| ssim.to_string());
        let (patch, error) = one.worst().unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "\"{name}\",{},{},{},{ssim},{patch},{error}",
            one.loss, one.mse, one.psnr
        );
    }
    text
}

fn report(global: &Global, images: &dyn Dataset, found: &[Quality], masks: usize) {
    let mean = |of: &dyn Fn(&Quality) -> f64| {
        found.iter().map(of).sum::<f64>() / found.len().max(1) as f64
    };
    let (loss, mse, psnr) = (mean(&|q| q.loss), mean(&|q| q.mse), mean(&|q| q.psnr));
    let ssim = found.iter().all(|one| one.ssim.is_some());
    let ssim = ssim.then(|| mean(&|q| q.ssim.unwrap_or(f64::NAN)));
    if global.json {
        let rows = found.iter().enumerate().map(|(sample, one)| {
            let worst = one.worst().map(|(patch, error)| json!({"patch": patch, "mse": error}));
            json!({
                "image": images.name(sample), "loss": one.loss, "mse": one.mse, "psnr": one.psnr, "ssim": one.ssim,
                "worst": worst,
            })
        });
        let rows: Vec<_> = rows.collect();
        let result = json!({
            "loss": loss, "mse": mse, "psnr": psnr, "ssim": ssim, "masks": masks, "images": rows,
        });
        outln!("{result:#}");
        return;
    }
    let ssim = ssim.map_or(String::new(), |ssim| format!(", SSIM {ssim:.4}"));
    outln!(
        "loss {loss:.5}, MSE {mse:.6}, PSNR {psnr:.2} dB{ssim}: means of {} images, {} masks each",
        found.len(),
        masks
    );
    let worst = |one: &Quality| one.worst().map_or(0.0, |(_, error)| error);
    let mut order: Vec<usize> = (0..found.len()).collect();
    order.sort_by(|&a, &b| worst(&found[b]).total_cmp(&worst(&found[a])));
    outln!("largest errors of a patch:");
    for &sample in order.iter().take(5) {
        outln!("  {:.5} {}", worst(&found[sample]), images.name(sample));
    }
}

/// `NUMBER-NAME.png`, brighter where the error is larger, black 0 and white the image's largest; and the errors as numbers.
fn write_map(
    folder: &Path,
    sample: usize,
    images: &dyn Dataset,
    config: &VitMaeConfig,
    found: &Quality,
) -> Result<()> {
    let (rows, columns) = config.grid();
    let errors: Vec<f32> =
        found.errors.iter().map(|error| error.map_or(f32::NAN, |error| error as f32)).collect();
    let most = found.worst().map_or(1.0, |(_, error)| error.max(f64::MIN_POSITIVE)) as f32;
    // The cast takes NaN to 0.
    let grey = errors.iter().map(|error| (255.0 * error / most).round() as u8).collect();
    let (height, width) = config.image_size;
    let map = Image::new(columns, rows, 1, grey)?;
    let map = resize(&map, (width, height), None, Filter::Bilinear)?;
    let name = images.name(sample);
    let stem: String = Path::new(&name).file_stem().unwrap_or_default().to_string_lossy().into();
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    let stem: String = stem.chars().map(letter).take(80).collect();
    let path = folder.join(format!("{sample:05}-{stem}.png"));
    write_file(&path, &encode_png(&map)?)?;
    write_file(&path.with_extension("npy"), &npy::bytes(&[rows, columns], &errors))
}
