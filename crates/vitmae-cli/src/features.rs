//! `vitmae features`: the encoder's vectors of images, without masking.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::json;
use vitmae_model::VitMaeModel;
use vitmae_tensor::{Device, Tensor};
use vitmae_trainer::Team;
use vitmae_trainer::features::{self, pooled};
use vitmae_weights::{Dtype, LoadOptions, TensorToWrite, write_safetensors};

use crate::exit::Usage;
use crate::output::write_file;
use crate::precision::InferencePrecisionArgs;
use crate::{Global, model_folder, npy, processes};

/// Images that go through the encoder at once.
const BATCH: usize = 16;

/// Example: vitmae features *.jpg --model run --out vectors.npy --pool mean
#[derive(Args, Debug)]
pub struct FeaturesArgs {
    /// JPEG, PNG or WebP files
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<PathBuf>,
    /// Model folder, `.safetensors` file, or the output folder of a training
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The file to write: `.npy`, or `.safetensors` with one tensor `features`
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Which vector stands for an image
    #[arg(long, value_enum, default_value_t = Pool::Cls)]
    pool: Pool,
    #[command(flatten)]
    precision: InferencePrecisionArgs,
}

/// How the tokens of an image become its vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pool {
    /// The CLS token, [N, D]
    Cls,
    /// The mean of the patch tokens, [N, D]
    Mean,
    /// Every token, [N, 1 + L, D], CLS first, patches in grid order
    None,
}

/// Runs the command.
pub fn run(args: &FeaturesArgs, global: &Global, device: &Device, team: &Team) -> Result<u8> {
    let ending = args.out.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    if !["npy", "safetensors"].contains(&ending) {
        let message = format!("`--out` ends in `.{ending}`, expected .npy or .safetensors");
        return Err(Usage(message).into());
    }
    let folder = model_folder::resolve(&args.model)?;
    let mut model = encoder(&folder, device)?;
    args.precision.prepare(&mut model, device)?;
    let config = model.config.clone();
    let processor = model_folder::processor(&folder, &config)?;
    let (count, tokens) = (args.images.len(), 1 + config.num_patches());
    let shape = match args.pool {
        Pool::None => vec![count, tokens, config.hidden_size],
        _ => vec![count, config.hidden_size],
    };
    let settings = || format!("{:?} {:?} {:?}", args.images, args.pool, args.precision);
    processes::check_same(team, &model.parameters(), settings)?;
    let (height, width) = config.image_size;
    let values = team.rows((count, shape[1..].iter().product()), BATCH, |places| -> Result<_> {
        let paths = &args.images[places];
        let mut pixels = Vec::new();
        for path in paths {
            pixels.extend(model_folder::pixels(path, &config, &processor)?);
        }
        let shape = [paths.len(), config.num_channels, height, width];
        let pixels = Tensor::from_vec(device, &shape, pixels)?;
        pool(&model.encode(&pixels, false)?, args.pool)
    })?;
    if !team.leads() {
        return Ok(0);
    }
    match ending {
        "npy" => write_file(&args.out, &npy::bytes(&shape, &values))?,
        _ => write_tensor(&args.out, &shape, values)?,
    }
    if global.json {
        let names: Vec<_> = args.images.iter().map(|path| path.display().to_string()).collect();
        outln!("{}", json!({"out": args.out, "shape": shape, "images": names}));
    } else {
        outln!("{} {shape:?}", args.out.display());
    }
    Ok(0)
}

/// The encoder of a model that may have a decoder too.
pub fn encoder(folder: &Path, device: &Device) -> Result<VitMaeModel> {
    let options =
        LoadOptions { allow_unexpected: vec!["decoder*".into()], ..LoadOptions::default() };
    let (model, _) = vitmae_weights::encoder_from_pretrained(folder, device, &options)?;
    Ok(model)
}

/// The vectors of a batch of tokens `[B, 1 + L, D]`, one after the other.
pub fn pool(tokens: &Tensor, pool: Pool) -> Result<Vec<f32>> {
    Ok(match pool {
        Pool::None => tokens.to_vec()?,
        Pool::Cls => pooled(tokens, features::Pool::Cls)?,
        Pool::Mean => pooled(tokens, features::Pool::Mean)?,
    })
}

fn write_tensor(path: &Path, shape: &[usize], values: Vec<f32>) -> Result<()> {
    let name = "features".to_owned();
    let tensor = TensorToWrite { name, dtype: Dtype::F32, shape: shape.to_vec() };
    write_safetensors(path, &BTreeMap::new(), &[tensor], |_| Ok(values.clone()))
        .with_context(|| format!("`{}` was not written", path.display()))
}
