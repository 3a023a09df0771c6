//! `vitmae finetune` and `vitmae evaluate`: classifiers of labelled images.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::json;
use vitmae_model::{Head, VitForImageClassification, VitMaeConfig};
use vitmae_tensor::Device;
use vitmae_trainer::data::{Parts, open_parts};
use vitmae_trainer::{
    Classes, Confusion, Datasets, Event, FinetuneConfig, Mix, RunConfig, StopFlag, Team, classify,
    finetune,
};
use vitmae_weights::{LoadOptions, classifier_from_pretrained, inspect};

use crate::classify::{parts, print_confusion};
use crate::exit::{BadInput, Usage};
use crate::features::encoder;
use crate::precision::InferencePrecisionArgs;
use crate::progress::Progress;
use crate::run_args::RunArgs;
use crate::{Global, model_folder, presets, processes, training};

/// Example: vitmae finetune --finetune run --data-path digits --output-dir classifier --epochs 20
///
/// The flags are those of the original `main_finetune.py`, with `-` or `_`; those of transformers' `run_mae.py` that mean the
/// same are understood too.
#[derive(Args, Debug)]
pub struct FinetuneArgs {
    /// Settings by the name of a recipe (`vitmae recipes list`) or from a TOML file; other flags win
    #[arg(long, value_name = "NAME|FILE")]
    recipe: Option<String>,
    /// Labelled images with parts called `train` and `val` (or `test`): folders with a folder a class, tar shards, Parquet, CIFAR,
    /// IDX or packed files
    #[arg(long, alias = "train-dir", value_name = "PATH")]
    data_path: PathBuf,
    /// Pre-trained model: a folder, a file of weights, or the output folder of a training
    #[arg(long, value_name = "DIR", visible_alias = "init", conflicts_with = "model")]
    finetune: Option<PathBuf>,
    /// Model size for training from scratch: tiny, tiny-32, base, large, huge
    #[arg(long)]
    model: Option<String>,
    /// Side of the images in pixels; positions are resampled [default: the model's]
    #[arg(long)]
    input_size: Option<usize>,
    /// What the classifier reads
    #[arg(long, value_enum, default_value_t = HeadName::Mean)]
    head: HeadName,
    /// Train the last so many blocks and the classifier alone [default: everything]
    #[arg(long, value_name = "N")]
    last_blocks: Option<usize>,

    /// Factor of the learning rate from a layer to the one before it
    #[arg(long, default_value_t = 0.75)]
    layer_decay: f64,
    /// Share of branches that the last block drops; it rises from 0 in the first
    #[arg(long, default_value_t = 0.1)]
    drop_path: f64,
    /// Alpha of mixup, 0 for none
    #[arg(long, default_value_t = 0.0)]
    mixup: f64,
    /// Alpha of CutMix, 0 for none
    #[arg(long, default_value_t = 0.0)]
    cutmix: f64,
    /// Share of batches that are mixed
    #[arg(long, default_value_t = 1.0)]
    mixup_prob: f64,
    /// Share of mixed batches that CutMix takes, where both are on
    #[arg(long, default_value_t = 0.5)]
    mixup_switch_prob: f64,
    /// Smoothing of labels
    #[arg(long, default_value_t = 0.1)]
    smoothing: f64,
    /// Share of images in which a rectangle is erased
    #[arg(long, default_value_t = 0.25)]
    reprob: f64,
    /// RandAugment by timm's name, such as rand-m9-mstd0.5-inc1 (level 9 of 10), or none
    #[arg(long, value_name = "POLICY", default_value = "none")]
    aa: String,

    #[command(flatten)]
    run: RunArgs,
}

/// Example: vitmae evaluate --model classifier --data-path digits
#[derive(Args, Debug)]
pub struct EvaluateArgs {
    /// Classifier: a folder, a file of weights, or the output folder of a fine-tuning
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Labelled images; where there is a part called `val` (or `test`), that one
    #[arg(long, alias = "data_path", value_name = "PATH")]
    data_path: PathBuf,
    /// Images at once
    #[arg(long, default_value_t = 16)]
    batch_size: usize,
    #[command(flatten)]
    precision: InferencePrecisionArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum HeadName {
    /// The class token behind the last norm, as Hugging Face's class
    Cls,
    /// The mean of the patch tokens and a norm of its own, as the original
    Mean,
}

/// Runs `finetune`.
pub fn run(args: &FinetuneArgs, global: &Global, device: &Device, team: Team) -> Result<u8> {
    let progress = Progress::new(global.quiet);
    args.run.check(&team, &progress)?;
    let (train, test) = parts(&args.data_path)?;
    let classes = Classes::of(train.as_ref(), &args.data_path)?;
    let labels = classes.same_for(test.as_ref(), &args.data_path)?.labels;
    let mut config = settings(args, classes, labels)?;
    config.run.team = team;
    let data = Datasets { train, evaluation: Some(test) };
    let train = |stop: &StopFlag, on_event: &mut dyn FnMut(Event<'_>)| {
        finetune(&config, &data, device, stop, on_event)
    };
    training::run(&config.run, global, progress, train, |summary| {
        let (found, of_ema) = (summary.evaluation, summary.ema_evaluation);
        json!({
            "val_loss": found.map(|found| found.loss),
            "val_accuracy": found.and_then(|found| found.accuracy),
            "val_loss_ema": of_ema.map(|found| found.loss),
            "val_accuracy_ema": of_ema.and_then(|found| found.accuracy),
        })
    })
}

/// The run's settings; the model is read once for its sizes, which weights without a configuration only show then.
fn settings(args: &FinetuneArgs, classes: Classes, labels: Vec<usize>) -> Result<FinetuneConfig> {
    let start_from = args.finetune.as_deref().map(model_folder::resolve).transpose()?;
    let mut model: VitMaeConfig = match (&start_from, &args.model) {
        (Some(path), _) => encoder(path, &Device::cpu())?.config,
        (None, Some(name)) => presets::by_name(name)?,
        (None, None) => {
            let message = "`--finetune` names the model to start from; without one, `--model` says which size to train \
                           from scratch";
            return Err(Usage(message.to_owned()).into());
        }
    };
    if let Some(size) = args.input_size {
        model.image_size = (size, size);
    }
    let mut run = RunConfig::new(model, args.run.training.output_dir());
    if let Some(path) = &start_from {
        run.processor = model_folder::processor(path, &run.model)?;
    }
    let mut config = FinetuneConfig::new(run, classes, labels);
    config.head = match args.head {
        HeadName::Cls => Head::Cls,
        HeadName::Mean => Head::MeanFcNorm,
    };
    config.layer_decay = args.layer_decay;
    config.drop_path = args.drop_path;
    config.mix = Mix {
        mixup: args.mixup,
        cutmix: args.cutmix,
        probability: args.mixup_prob,
        switch: args.mixup_switch_prob,
        smoothing: args.smoothing,
    };
    config.erase = args.reprob;
    config.last_blocks = args.last_blocks;
    let run = &mut config.run;
    args.run.apply(run)?;
    run.start_from = start_from;
    run.rand_augment = match args.aa.as_str() {
        "none" | "" => None,
        name => Some(name.parse().map_err(|error: vitmae_image::ImageError| {
            Usage(format!("`--aa`: {error}\nhelp: `--aa none` leaves it out"))
        })?),
    };
    Ok(config)
}

/// The classifier of a folder, with the head that its weights tell.
pub fn classifier_of(folder: &Path, device: &Device) -> Result<VitForImageClassification> {
    let reads_mean = inspect(folder)?.tensors.iter().any(|t| t.name.starts_with("fc_norm."));
    let head = if reads_mean { Head::MeanFcNorm } else { Head::Cls };
    Ok(classifier_from_pretrained(folder, head, device, &LoadOptions::default())?.0)
}

/// Runs `evaluate`.
pub fn run_evaluate(
    args: &EvaluateArgs,
    global: &Global,
    device: &Device,
    team: &Team,
) -> Result<u8> {
    if args.batch_size == 0 {
        return Err(Usage("`--batch-size` must be at least 1".to_owned()).into());
    }
    let folder = model_folder::resolve(&args.model)?;
    let mut model = classifier_of(&folder, device)?;
    args.precision.prepare(&mut model, device)?;
    let Parts { train, evaluation } = open_parts(&args.data_path)?;
    let images = evaluation.unwrap_or(train);
    let names = class_names(&model.config)?;
    let mut sorted: Vec<(String, usize)> =
        names.iter().enumerate().map(|(label, name)| (name.clone(), label)).collect();
    sorted.sort();
    let (sorted, places): (Vec<String>, Vec<usize>) = sorted.into_iter().unzip();
    let known = Classes { names: sorted, labels: Vec::new() };
    let found = known.same_for(images.as_ref(), &args.data_path)?.labels;
    let labels: Vec<usize> = found.into_iter().map(|place| places[place]).collect();
    let processor = model_folder::processor(&folder, &model.config)?;
    let EvaluateArgs { batch_size, precision, .. } = args;
    let settings = || format!("{} {batch_size} {precision:?}", images.fingerprint());
    processes::check_same(team, &model.parameters(), settings)?;
    let (loss, predictions) =
        classify(&model, images.as_ref(), Some(&labels), &processor, *batch_size, team)?;
    if !team.leads() {
        return Ok(0);
    }
    let confusion = Confusion::new(names.len(), &labels, &predictions);
    print_confusion(global, &names, &confusion, &json!({"loss": loss}));
    Ok(0)
}

/// The names of a classifier's classes, by label.
fn class_names(config: &VitMaeConfig) -> Result<Vec<String>> {
    let names = config.extra.get("id2label").and_then(|names| names.as_object());
    let name = |label: usize| {
        names.and_then(|names| names.get(&label.to_string())?.as_str().map(str::to_owned))
    };
    (0..config.num_labels()).map(name).collect::<Option<Vec<String>>>().ok_or_else(|| {
        let message = "the model's `config.json` has no `id2label` that names its classes\nhelp: add one; the names are \
                       those of the folders";
        BadInput(message.to_owned()).into()
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn run_of(flags: &[&str]) -> RunConfig {
        let all = [&["vitmae", "finetune", "--data-path=set", "--model=tiny-32"], flags].concat();
        let crate::Command::Finetune(args) = crate::Cli::try_parse_from(all).unwrap().command
        else {
            unreachable!("the command is `finetune`")
        };
        let classes = Classes { names: vec!["a".into(), "b".into()], labels: vec![0, 1] };
        settings(&args, classes, vec![0, 1]).unwrap().run
    }

    #[test]
    fn defaults_are_those_of_fine_tuning() {
        let run = run_of(&[]);
        assert_eq!((run.epochs, run.warmup_epochs, run.min_lr), (50, 5.0, 1e-6));
        assert_eq!((run.adamw.betas, run.crop_scale), ([0.9, 0.999], (0.08, 1.0)));
        assert_eq!((run.save_every_epochs, run.batch_size, run.blr), (1, 64, 1e-3));
    }

    #[test]
    fn the_last_word_on_the_warm_up_counts() {
        let warm_up = |flags: &[&str]| run_of(flags).warmup_epochs;
        assert_eq!(warm_up(&["--warmup-epochs=3", "--warmup-ratio=0.1", "--epochs=20"]), 2.0);
        assert_eq!(warm_up(&["--warmup-ratio=0.1", "--warmup-epochs=3"]), 3.0);
    }
}
