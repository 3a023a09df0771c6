//! `vitmae pretrain`: the original's flags, images in, checkpoints out.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::json;
use vitmae_image::VitImageProcessor;
use vitmae_model::VitMaeConfig;
use vitmae_tensor::Device;
use vitmae_tensor::ops::Distance;
use vitmae_trainer::data::{MaskStrategy, Parts, open, open_parts};
use vitmae_trainer::{Classes, Datasets, Event, RunConfig, StopFlag, Team, pretrain};
use vitmae_weights::folder::read_json_text;

use crate::exit::{BadInput, Usage};
use crate::progress::Progress;
use crate::run_args::RunArgs;
use crate::{Global, mask_file, presets, training};

/// Example: vitmae pretrain --data-path photos --output-dir run --model tiny --epochs 100
///
/// The flags are those of the original `main_pretrain.py`, with `-` or `_`; those of transformers' `run_mae.py` that mean
/// the same are understood too.
#[derive(Args, Debug)]
pub struct PretrainArgs {
    /// Settings by the name of a recipe (`vitmae recipes list`) or from a TOML file; other flags win
    #[arg(long, value_name = "NAME|FILE")]
    recipe: Option<String>,
    /// Images: a folder of them, flat or nested, tar shards, Parquet, CIFAR, IDX or packed files; where there are parts called
    /// `train` and `val`, these
    #[arg(long, alias = "train-dir", value_name = "PATH")]
    data_path: PathBuf,
    /// Images for evaluation under fixed masks
    #[arg(long, alias = "validation-dir", value_name = "PATH")]
    val_path: Option<PathBuf>,

    /// Model size: tiny, tiny-32, base, large, huge or the original's names
    #[arg(long, default_value = "mae_vit_base_patch16", conflicts_with = "config")]
    model: String,
    /// Model sizes from a Hugging Face `config.json`
    #[arg(long, alias = "config-name", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Model folder to start from, with its weights and its config
    #[arg(long, alias = "model-name-or-path", value_name = "DIR", conflicts_with_all = ["config", "model"])]
    init: Option<PathBuf>,
    /// Side of the images in pixels [default: the model's]
    #[arg(long, conflicts_with = "init")]
    input_size: Option<usize>,
    /// Share of patches that are removed [default: the model's, 0.75]
    #[arg(long)]
    mask_ratio: Option<f64>,
    /// Share of patches that are removed in the last update: it changes along a line [default: it stays]
    #[arg(long, value_name = "RATIO")]
    mask_ratio_end: Option<f64>,
    /// How removed patches lie to each other
    #[arg(long, value_enum, default_value_t = MaskName::Random)]
    masking: MaskName,
    /// Masks as an `.npy` file, one row or several, a number for each patch: bool or uint8 with 1 = removed, or noise as floats. Of
    /// several one is drawn for each image in each epoch; all remove the same share
    #[arg(long, value_name = "FILE", conflicts_with_all = ["masking", "mask_ratio_end"])]
    mask_file: Option<PathBuf>,
    /// Predict each patch normalised by its own mean and variance
    #[arg(long)]
    norm_pix_loss: bool,
    /// How predictions are compared with removed patches; a model's files do not record it
    #[arg(long, value_enum, default_value_t = LossName::Mse)]
    loss: LossName,
    /// Epochs between pictures of eight reconstructions, in `sheets` of the output folder [default: none]
    #[arg(long, value_name = "N")]
    sheet_every: Option<u64>,

    /// Let a linear classifier of the training images' classes learn beside, without touching the model
    #[arg(long)]
    online_probe: bool,

    #[command(flatten)]
    run: RunArgs,
}

/// See [`MaskStrategy`].
#[derive(Clone, Copy, Debug, ValueEnum)]
enum MaskName {
    /// Independently
    Random,
    /// In rectangles
    Block,
    /// Evenly, one of four kept at 0.75
    Grid,
}

/// See [`Distance`].
#[derive(Clone, Copy, Debug, ValueEnum)]
enum LossName {
    /// By the mean of squares, the original's
    Mse,
    /// By the mean of absolute values
    L1,
}

/// Runs the command.
pub fn run(args: &PretrainArgs, global: &Global, device: &Device, team: Team) -> Result<u8> {
    let progress = Progress::new(global.quiet);
    args.run.check(&team, &progress)?;
    let data = datasets(args)?;
    let classes = args.online_probe.then(|| Classes::of(data.train.as_ref(), &args.data_path));
    let config = RunConfig { team, online_probe: classes.transpose()?, ..settings(args)? };
    if config.warmup_epochs > config.epochs as f64 {
        progress.line(&format!(
            "warning: the warm-up of {} epochs is longer than the run of {}, which never reaches \
             its learning rate; pass a smaller `--warmup-epochs`",
            config.warmup_epochs, config.epochs
        ));
    }
    let train = |stop: &StopFlag, on_event: &mut dyn FnMut(Event<'_>)| {
        pretrain(&config, &data, device, stop, on_event)
    };
    training::run(&config, global, progress, train, |summary| {
        json!({
            "val_loss": summary.evaluation.map(|found| found.loss),
            "val_loss_ema": summary.ema_evaluation.map(|found| found.loss),
        })
    })
}

/// The images to train on and, if there are some, to evaluate on.
fn datasets(args: &PretrainArgs) -> Result<Datasets> {
    let Parts { train, evaluation } = open_parts(&args.data_path)?;
    let evaluation = match &args.val_path {
        Some(path) => Some(open(path)?),
        None => evaluation,
    };
    Ok(Datasets { train, evaluation })
}

fn settings(args: &PretrainArgs) -> Result<RunConfig> {
    let (mut model, processor) = model(args)?;
    if let Some(size) = args.input_size {
        model.image_size = (size, size);
    }
    if let Some(ratio) = args.mask_ratio.filter(|ratio| !(*ratio > 0.0 && *ratio < 1.0)) {
        let message = format!("`--mask-ratio` is {ratio}, expected above 0 and below 1");
        return Err(Usage(message).into());
    }
    model.mask_ratio = args.mask_ratio.unwrap_or(model.mask_ratio);
    model.norm_pix_loss |= args.norm_pix_loss;
    let given = args.mask_file.as_deref();
    let given = given.map(|path| mask_file::read(path, &model, args.mask_ratio)).transpose()?;
    if let Some(masks) = &given {
        model.mask_ratio = mask_file::ratio_of(&masks[0]);
    }
    let mut config = RunConfig::new(model, args.run.training.output_dir());
    args.run.apply(&mut config)?;
    config.start_from = args.init.clone();
    config.processor = processor.unwrap_or(config.processor);
    config.mask_strategy = match (given, args.masking) {
        (Some(masks), _) => MaskStrategy::Given(Arc::new(masks)),
        (None, MaskName::Random) => MaskStrategy::Random,
        (None, MaskName::Block) => MaskStrategy::Block,
        (None, MaskName::Grid) => MaskStrategy::Grid,
    };
    config.distance = match args.loss {
        LossName::Mse => Distance::Squared,
        LossName::L1 => Distance::Absolute,
    };
    config.mask_ratio_end = args.mask_ratio_end;
    config.sheet_every_epochs = args.sheet_every;
    Ok(config)
}

/// The model's sizes, and its processor if it comes from a folder that has one.
fn model(args: &PretrainArgs) -> Result<(VitMaeConfig, Option<VitImageProcessor>)> {
    if let Some(folder) = &args.init {
        let folder = vitmae_weights::ModelFolder::find(folder)?;
        let processor = folder.read_preprocessor_text()?;
        let processor = processor.map(|text| VitImageProcessor::from_json(&text)).transpose()?;
        return Ok((folder.read_config()?, processor));
    }
    let Some(path) = &args.config else { return Ok((presets::by_name(&args.model)?, None)) };
    let text = read_json_text(path)?;
    let text = text.ok_or_else(|| BadInput(format!("there is no file `{}`", path.display())))?;
    let config = VitMaeConfig::from_json(&text)
        .map_err(vitmae_weights::WeightsError::from)
        .with_context(|| format!("`{}` cannot be used", path.display()))?;
    Ok((config, None))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    fn parsed(flags: &[&str]) -> PretrainArgs {
        let all = [&["vitmae", "pretrain"], flags].concat();
        match crate::Cli::try_parse_from(all).unwrap().command {
            crate::Command::Pretrain(args) => *args,
            _ => unreachable!("the command is `pretrain`"),
        }
    }

    #[test]
    fn the_arguments_of_run_mae_mean_the_same() {
        let args = parsed(&[
            "--train-dir=photos",
            "--validation-dir=val",
            "--per-device-train-batch-size=8",
            "--num-train-epochs=800",
            "--gradient-accumulation-steps=4",
            "--base-learning-rate=1.5e-4",
            "--weight-decay=0.1",
            "--warmup-ratio=0.05",
            "--mask-ratio=0.6",
            "--norm-pix-loss",
            "--max-grad-norm=1",
            "--save-total-limit=2",
            "--dataloader-num-workers=3",
            "--do-train",
            "--lr-scheduler-type=cosine",
        ]);
        args.run.check(&Team::default(), &Progress::new(true)).unwrap();
        assert_eq!(args.data_path, Path::new("photos"));
        assert_eq!(args.val_path.as_deref(), Some(Path::new("val")));
        let found = settings(&args).unwrap();
        assert_eq!((found.batch_size, found.epochs, found.accumulation), (8, 800, 4));
        assert_eq!((found.blr, found.warmup_epochs, found.adamw.weight_decay), (1.5e-4, 40.0, 0.1));
        assert_eq!((found.model.mask_ratio, found.model.norm_pix_loss), (0.6, true));
        assert_eq!((found.clip_grad, found.keep_last, found.workers), (Some(1.0), 2, 3));
        let args = parsed(&["--train-dir=a", "--learning-rate=0.1", "--model-name-or-path=b"]);
        assert_eq!(args.init, Some(PathBuf::from("b")));
    }

    #[test]
    fn arguments_that_mean_something_else_are_refused() {
        for flag in [
            "--lr-scheduler-type=linear",
            "--dataset-name=cifar10",
            "--train-val-split=0.1",
            "--warmup-steps=9",
            "--fp16",
        ] {
            let args = parsed(&["--train-dir=a", flag]);
            let error =
                args.run.check(&Team::default(), &Progress::new(true)).unwrap_err().to_string();
            let name = flag.split('=').next().unwrap();
            assert!(error.starts_with(&format!("`{name}`")), "{error}");
        }
        let error = settings(&parsed(&["--train-dir=a", "--warmup-ratio=2"])).unwrap_err();
        assert_eq!(error.to_string(), "`--warmup-ratio` is 2, expected from 0 to 1");
    }
}
