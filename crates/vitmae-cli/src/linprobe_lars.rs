//! `vitmae linprobe --optimizer lars`: the original's linear probe, trained on augmented images.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use vitmae_model::Head;
use vitmae_tensor::Device;
use vitmae_tensor::ops::Precision;
use vitmae_trainer::data::Dataset;
use vitmae_trainer::{Classes, Datasets, ProbeConfig, Resume, RunConfig, Team, train_probe};

use crate::features::encoder;
use crate::progress::Progress;
use crate::report::Reporter;
use crate::{Global, model_folder, signals};

/// Flags of `--optimizer lars` alone; the names are those of the original's `main_linprobe.py`.
#[derive(Args, Debug, Default, PartialEq)]
#[command(next_help_heading = "Options of --optimizer lars")]
pub struct LarsArgs {
    /// Where checkpoints, which are classifiers, and logs go [default: output_dir]
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Epochs in all [default: 90]
    #[arg(long)]
    epochs: Option<u64>,
    /// Epochs of warm-up [default: 10]
    #[arg(long)]
    warmup_epochs: Option<f64>,
    /// Batches of one update [default: 1]
    #[arg(long)]
    accum_iter: Option<usize>,
    /// Learning rate for 256 images an update [default: 0.1]
    #[arg(long)]
    blr: Option<f64>,
    /// Highest learning rate [default: blr x images of an update / 256]
    #[arg(long)]
    lr: Option<f64>,
    /// Learning rate at the end [default: 0]
    #[arg(long)]
    min_lr: Option<f64>,
    /// Weight decay [default: 0]
    #[arg(long)]
    weight_decay: Option<f64>,
    /// Smallest and largest share of an image that a crop covers [default: 0.08 1]
    #[arg(long, num_args = 2, value_names = ["MIN", "MAX"])]
    crop_scale: Option<Vec<f64>>,
    /// Mirror no images
    #[arg(long)]
    no_flip: bool,
    /// Seed of everything that is drawn [default: 0]
    #[arg(long)]
    seed: Option<u64>,
    /// Threads that read images [default: 2]
    #[arg(long, visible_alias = "num-workers")]
    workers: Option<usize>,
    /// auto (newest good checkpoint of the output folder, else new), never, or a checkpoint [default: auto]
    #[arg(long, value_name = "auto|never|DIR")]
    resume: Option<String>,
    /// Resume even though settings differ from the checkpoint's
    #[arg(long = "override")]
    override_settings: bool,
    /// Folder for TensorBoard's event files
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// Epochs between checkpoints [default: 1]
    #[arg(long)]
    save_every: Option<u64>,
    /// Updates between checkpoints, in place of epochs
    #[arg(long, value_name = "N")]
    save_every_steps: Option<u64>,
    /// Checkpoints that are kept [default: 3]
    #[arg(long)]
    keep_last: Option<usize>,
    /// Epochs between evaluations [default: 1]
    #[arg(long)]
    eval_every: Option<u64>,
}

/// What the flags that every probe has say.
pub struct Probed<'a> {
    /// The encoder.
    pub model: &'a Path,
    /// Images to train and to test on.
    pub images: (Arc<dyn Dataset>, Arc<dyn Dataset>),
    /// Classes of the training images.
    pub classes: Classes,
    /// Labels of the others.
    pub test_labels: Vec<usize>,
    /// What the classifier reads.
    pub head: Head,
    /// Images of a batch.
    pub batch_size: usize,
    /// Of the encoder's products.
    pub precision: Precision,
}

/// Runs the probe.
pub fn run(
    args: &LarsArgs,
    probed: Probed<'_>,
    global: &Global,
    device: &Device,
    team: &Team,
) -> Result<u8> {
    let (train, test) = probed.images.clone();
    let mut config = settings(args, probed)?;
    config.run.team = team.clone();
    let data = Datasets { train, evaluation: Some(test) };
    let mut progress = Progress::new(global.quiet);
    let stop = signals::watch()?;
    let mut reporter = Reporter::new(&config.run.output_dir);
    let summary = train_probe(&config, &data, device, &stop, &mut |event| {
        progress.show(&event);
        reporter.see(&event, &progress);
    })?;
    reporter.write(&progress);
    drop(progress);
    let accuracy = summary.evaluation.and_then(|found| found.accuracy);
    if global.json {
        let result = json!({
            "checkpoint": summary.checkpoint,
            "step": summary.step,
            "loss": summary.last_loss,
            "val_loss": summary.evaluation.map(|found| found.loss),
            "accuracy": accuracy,
            "stopped": summary.stopped,
        });
        println!("{result}");
    } else {
        if let Some(accuracy) = accuracy {
            println!("accuracy {:.2} %", 100.0 * accuracy);
        }
        println!("{}", summary.checkpoint.display());
    }
    Ok(summary.stopped.and_then(|code| u8::try_from(code).ok()).unwrap_or(0))
}

fn settings(args: &LarsArgs, probed: Probed<'_>) -> Result<ProbeConfig> {
    let folder = model_folder::resolve(probed.model)?;
    let model = encoder(&folder, &Device::cpu())?.config;
    let processor = model_folder::processor(&folder, &model)?;
    let output_dir = args.output_dir.clone().unwrap_or_else(|| "output_dir".into());
    let mut run = RunConfig::new(model, output_dir);
    (run.processor, run.start_from) = (processor, Some(folder));
    let mut config = ProbeConfig::new(run, probed.classes, probed.test_labels);
    config.head = probed.head;
    config.lars.weight_decay = args.weight_decay.unwrap_or(config.lars.weight_decay);
    let run = &mut config.run;
    (run.batch_size, run.precision) = (probed.batch_size, probed.precision);
    run.accumulation = args.accum_iter.unwrap_or(1);
    run.epochs = args.epochs.unwrap_or(run.epochs);
    run.warmup_epochs = args.warmup_epochs.unwrap_or(run.warmup_epochs);
    run.blr = args.blr.unwrap_or(run.blr);
    run.lr = args.lr;
    run.min_lr = args.min_lr.unwrap_or(run.min_lr);
    run.crop_scale = args.crop_scale.as_ref().map_or(run.crop_scale, |both| (both[0], both[1]));
    run.flip = !args.no_flip;
    run.seed = args.seed.unwrap_or(run.seed);
    run.workers = args.workers.unwrap_or(run.workers);
    run.resume = match args.resume.as_deref() {
        None | Some("auto" | "") => Resume::Auto,
        Some("never") => Resume::Never,
        Some(folder) => Resume::From(folder.into()),
    };
    run.override_settings = args.override_settings;
    run.log_dir.clone_from(&args.log_dir);
    run.save_every_epochs = args.save_every.unwrap_or(run.save_every_epochs);
    run.save_every_steps = args.save_every_steps;
    run.keep_last = args.keep_last.unwrap_or(run.keep_last);
    run.evaluate_every_epochs = args.eval_every.unwrap_or(run.evaluate_every_epochs);
    Ok(config)
}
