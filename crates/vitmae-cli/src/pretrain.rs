//! `vitmae pretrain`: the original's flags, a folder of images in, checkpoints out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::json;
use vitmae_image::VitImageProcessor;
use vitmae_model::VitMaeConfig;
use vitmae_tensor::Device;
use vitmae_trainer::data::{Dataset, ImageFolder, MaskStrategy, OnBadSample};
use vitmae_trainer::{Datasets, Resume, RunConfig, Team, pretrain};
use vitmae_weights::folder::read_json_text;

use crate::exit::{BadInput, Usage};
use crate::precision::PrecisionArgs;
use crate::progress::Progress;
use crate::report::Reporter;
use crate::{Global, presets, processes, signals};

/// Example: vitmae pretrain --data-path photos --output-dir run --model tiny --epochs 100
///
/// The flags are those of the original `main_pretrain.py`, with `-` or `_`; those of transformers' `run_mae.py` that mean
/// the same are understood too.
#[derive(Args, Debug)]
pub struct PretrainArgs {
    /// Settings by the name of a recipe (`vitmae recipes list`) or from a TOML file; other flags win
    #[arg(long, value_name = "NAME|FILE")]
    recipe: Option<String>,
    /// Folder of images, flat or nested; with a folder `train` inside, that one, and `val` beside it
    /// for evaluation
    #[arg(long, alias = "train-dir", value_name = "DIR")]
    data_path: PathBuf,
    /// Folder of images for evaluation under fixed masks
    #[arg(long, alias = "validation-dir", value_name = "DIR")]
    val_path: Option<PathBuf>,
    /// Where checkpoints and logs go
    #[arg(long, value_name = "DIR", default_value = "output_dir")]
    output_dir: PathBuf,

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
    /// How removed patches lie to each other
    #[arg(long, value_enum, default_value_t = MaskName::Random)]
    masking: MaskName,
    /// Predict each patch normalised by its own mean and variance
    #[arg(long)]
    norm_pix_loss: bool,

    #[command(flatten)]
    precision: PrecisionArgs,
    /// Compute blocks again in the backward pass: less memory, a third more time, the same results
    #[arg(long)]
    recompute: bool,
    /// Images of one batch in one process
    #[arg(long, alias = "per-device-train-batch-size", default_value_t = 64)]
    batch_size: usize,
    /// Epochs in all
    #[arg(long, alias = "num-train-epochs", default_value_t = 400)]
    epochs: u64,
    /// Batches of one update
    #[arg(long, alias = "gradient-accumulation-steps", default_value_t = 1)]
    accum_iter: usize,
    /// Learning rate for 256 images an update
    #[arg(long, alias = "base-learning-rate", default_value_t = 1e-3)]
    blr: f64,
    /// Highest learning rate [default: blr x images of an update / 256]
    #[arg(long, alias = "learning-rate")]
    lr: Option<f64>,
    /// Learning rate at the end
    #[arg(long, default_value_t = 0.0)]
    min_lr: f64,
    /// Epochs of warm-up
    #[arg(long, default_value_t = 40.0)]
    warmup_epochs: f64,
    /// Warm-up as a share of all epochs, as in `run_mae.py`
    #[arg(long, conflicts_with = "warmup_epochs")]
    warmup_ratio: Option<f64>,
    /// Weight decay; biases and norms are exempt
    #[arg(long, default_value_t = 0.05)]
    weight_decay: f64,
    /// AdamW's betas
    #[arg(long, num_args = 2, value_names = ["B1", "B2"], default_values_t = [0.9, 0.95])]
    betas: Vec<f64>,
    /// Scale gradients down to this global norm [default: never]
    #[arg(long, alias = "max-grad-norm", value_name = "NORM")]
    clip_grad: Option<f64>,
    /// Smallest and largest share of an image that a crop covers
    #[arg(long, num_args = 2, value_names = ["MIN", "MAX"], default_values_t = [0.2, 1.0])]
    crop_scale: Vec<f64>,
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Threads that read images; the order does not depend on it
    #[arg(
        long,
        visible_alias = "num-workers",
        alias = "dataloader-num-workers",
        default_value_t = 2
    )]
    workers: usize,
    /// What to do about an image that cannot be read
    #[arg(long, value_enum, default_value_t = OnBad::Replace)]
    on_bad_sample: OnBad,
    /// Stop above this share of bad images; 10 are always tolerated
    #[arg(long, default_value_t = 0.001)]
    max_bad_fraction: f64,

    /// auto (newest good checkpoint of the output folder, else new), never, or a checkpoint
    #[arg(
        long,
        alias = "resume-from-checkpoint",
        value_name = "auto|never|DIR",
        default_value = "auto"
    )]
    resume: String,
    /// Resume even though settings differ from the checkpoint's
    #[arg(long = "override")]
    override_settings: bool,
    /// Folder for TensorBoard's event files
    #[arg(long, alias = "logging-dir", value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// Epochs between checkpoints
    #[arg(long, default_value_t = 20)]
    save_every: u64,
    /// Updates between checkpoints, in place of epochs
    #[arg(long, value_name = "N")]
    save_every_steps: Option<u64>,
    /// Checkpoints of this run that are kept
    #[arg(long, alias = "save-total-limit", default_value_t = 3)]
    keep_last: usize,
    /// Epochs between evaluations
    #[arg(long, default_value_t = 1)]
    eval_every: u64,
    /// Updates that a GPU makes before their losses are read back and checked
    #[arg(long, value_name = "N", default_value_t = 10)]
    sync_every: usize,

    #[command(flatten)]
    original: OriginalFlags,
}

/// Flags of the original that mean nothing here; they are accepted and reported.
#[derive(Args, Debug)]
struct OriginalFlags {
    #[arg(long, hide = true)]
    start_epoch: Option<u64>,
    #[arg(long, hide = true)]
    pin_mem: bool,
    #[arg(long, hide = true)]
    no_pin_mem: bool,
    #[arg(long, hide = true)]
    world_size: Option<usize>,
    #[arg(long, hide = true)]
    dist_url: Option<String>,
    #[arg(long, hide = true)]
    do_train: bool,
    #[arg(long, hide = true)]
    do_eval: bool,
    #[arg(long, hide = true)]
    lr_scheduler_type: Option<String>,
    #[arg(long, hide = true)]
    dataset_name: Option<String>,
    #[arg(long, hide = true)]
    train_val_split: Option<f64>,
    #[arg(long, hide = true)]
    warmup_steps: Option<u64>,
    #[arg(long, hide = true)]
    fp16: bool,
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

/// See [`OnBadSample`].
#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnBad {
    /// Stop the run
    Error,
    /// Leave it out of its batch
    Skip,
    /// Put another image in its place, chosen by the seed
    Replace,
}

/// Runs the command.
pub fn run(args: &PretrainArgs, global: &Global, device: &Device, team: Team) -> Result<u8> {
    let mut progress = Progress::new(global.quiet);
    args.original.report(&progress)?;
    processes::check_world_size(args.original.world_size, &team)?;
    let data = datasets(args)?;
    let config = RunConfig { precision: args.precision.get(), team, ..settings(args)? };
    if config.warmup_epochs > config.epochs as f64 {
        progress.line(&format!(
            "warning: the warm-up of {} epochs is longer than the run of {}, which never reaches \
             its learning rate; pass a smaller `--warmup-epochs`",
            config.warmup_epochs, config.epochs
        ));
    }
    let stop = signals::watch()?;
    let mut reporter = Reporter::new(&config.output_dir);
    let summary = pretrain(&config, &data, device, &stop, &mut |event| {
        progress.show(&event);
        reporter.see(&event, &progress);
    })?;
    if config.team.leads() {
        reporter.write(&progress);
    }
    drop(progress);
    if !config.team.leads() {
        return Ok(summary.stopped.and_then(|code| u8::try_from(code).ok()).unwrap_or(0));
    }
    if global.json {
        let result = json!({
            "checkpoint": summary.checkpoint,
            "step": summary.step,
            "loss": summary.last_loss,
            "val_loss": summary.evaluation.map(|found| found.loss),
            "stopped": summary.stopped,
        });
        println!("{result}");
    } else {
        println!("{}", summary.checkpoint.display());
    }
    Ok(summary.stopped.and_then(|code| u8::try_from(code).ok()).unwrap_or(0))
}

/// The folders of images, as the original lays them out or as they are.
fn datasets(args: &PretrainArgs) -> Result<Datasets> {
    let inside = |name: &str| Some(args.data_path.join(name)).filter(|path| path.is_dir());
    let train = inside("train");
    let validation = match (&args.val_path, &train) {
        (Some(path), _) => Some(path.clone()),
        (None, Some(_)) => inside("val"),
        (None, None) => None,
    };
    let open = |path: &Path| -> Result<Arc<dyn Dataset>> { Ok(Arc::new(ImageFolder::open(path)?)) };
    let train = open(train.as_ref().unwrap_or(&args.data_path))?;
    Ok(Datasets { train, evaluation: validation.as_deref().map(open).transpose()? })
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
    if let Some(ratio) = args.warmup_ratio.filter(|ratio| !(0.0..=1.0).contains(ratio)) {
        return Err(Usage(format!("`--warmup-ratio` is {ratio}, expected from 0 to 1")).into());
    }
    model.mask_ratio = args.mask_ratio.unwrap_or(model.mask_ratio);
    model.norm_pix_loss |= args.norm_pix_loss;
    let defaults = RunConfig::new(model, args.output_dir.clone());
    let pair = |values: &[f64]| (values[0], values[1]);
    let mut adamw = defaults.adamw;
    adamw.weight_decay = args.weight_decay;
    adamw.betas = pair(&args.betas).into();
    Ok(RunConfig {
        start_from: args.init.clone(),
        processor: processor.unwrap_or_else(|| defaults.processor.clone()),
        recompute: args.recompute,
        mask_strategy: match args.masking {
            MaskName::Random => MaskStrategy::Random,
            MaskName::Block => MaskStrategy::Block,
            MaskName::Grid => MaskStrategy::Grid,
        },
        crop_scale: pair(&args.crop_scale),
        batch_size: args.batch_size,
        accumulation: args.accum_iter,
        epochs: args.epochs,
        blr: args.blr,
        lr: args.lr,
        min_lr: args.min_lr,
        warmup_epochs: args.warmup_ratio.map_or(args.warmup_epochs, |r| r * args.epochs as f64),
        adamw,
        clip_grad: args.clip_grad,
        seed: args.seed,
        workers: args.workers,
        on_bad_sample: match args.on_bad_sample {
            OnBad::Error => OnBadSample::Error,
            OnBad::Skip => OnBadSample::Skip,
            OnBad::Replace => OnBadSample::Replace,
        },
        max_bad_fraction: args.max_bad_fraction,
        log_dir: args.log_dir.clone(),
        save_every_epochs: args.save_every,
        save_every_steps: args.save_every_steps,
        keep_last: args.keep_last,
        evaluate_every_epochs: args.eval_every,
        sync_every: args.sync_every,
        resume: match args.resume.as_str() {
            "auto" | "" => Resume::Auto,
            "never" => Resume::Never,
            folder => Resume::From(folder.into()),
        },
        override_settings: args.override_settings,
        ..defaults
    })
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

impl OriginalFlags {
    fn report(&self, progress: &Progress) -> Result<()> {
        if self.start_epoch.is_some_and(|epoch| epoch > 0) {
            let message = "`--start-epoch` is not needed: `--resume` knows its step".to_owned();
            return Err(Usage(message).into());
        }
        let scheduler = self.lr_scheduler_type.as_deref().filter(|name| *name != "cosine");
        let refused = [
            (
                scheduler.is_some(),
                "`--lr-scheduler-type` can only be `cosine`: the schedule is warm-up and cosine",
            ),
            (
                self.dataset_name.is_some(),
                "`--dataset-name` fetches data, which this program does not do\nhelp: `--train-dir` names a folder of images",
            ),
            (
                self.train_val_split.is_some(),
                "`--train-val-split` is not possible: nothing is split\nhelp: `--validation-dir` names the images to evaluate on",
            ),
            (
                self.warmup_steps.is_some(),
                "`--warmup-steps` is not known\nhelp: `--warmup-epochs` counts epochs, `--warmup-ratio` is a share of the run",
            ),
            (self.fp16, "`--fp16` is not possible\nhelp: `--precision bf16`"),
        ];
        if let Some((_, message)) = refused.into_iter().find(|(given, _)| *given) {
            return Err(Usage(message.to_owned()).into());
        }
        let given = [
            ("--do-train", self.do_train),
            ("--do-eval", self.do_eval),
            ("--pin-mem", self.pin_mem),
            ("--no-pin-mem", self.no_pin_mem),
            ("--dist-url", self.dist_url.is_some()),
        ];
        for (flag, _) in given.into_iter().filter(|(_, given)| *given) {
            progress.line(&format!("note: `{flag}` has no effect"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
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
        args.original.report(&Progress::new(true)).unwrap();
        assert_eq!(args.data_path, Path::new("photos"));
        assert_eq!(args.val_path.as_deref(), Some(Path::new("val")));
        let found = settings(&args).unwrap();
        assert_eq!((found.batch_size, found.epochs, found.accumulation), (8, 800, 4));
        assert_eq!((found.blr, found.warmup_epochs, found.adamw.weight_decay), (1.5e-4, 40.0, 0.1));
        assert_eq!((found.model.mask_ratio, found.model.norm_pix_loss), (0.6, true));
        assert_eq!((found.clip_grad, found.keep_last, found.workers), (Some(1.0), 2, 3));
        let args = parsed(&["--train-dir=a", "--learning-rate=0.1", "--model-name-or-path=b"]);
        assert_eq!((args.lr, args.init), (Some(0.1), Some(PathBuf::from("b"))));
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
            let error = args.original.report(&Progress::new(true)).unwrap_err().to_string();
            let name = flag.split('=').next().unwrap();
            assert!(error.starts_with(&format!("`{name}`")), "{error}");
        }
        let error = settings(&parsed(&["--train-dir=a", "--warmup-ratio=2"])).unwrap_err();
        assert_eq!(error.to_string(), "`--warmup-ratio` is 2, expected from 0 to 1");
    }
}
