//! `vitmae linprobe --optimizer lars`: the original's linear probe, trained on augmented images.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use serde_json::json;
use vitmae_model::Head;
use vitmae_tensor::Device;
use vitmae_tensor::ops::Precision;
use vitmae_trainer::data::Dataset;
use vitmae_trainer::{
    Classes, Datasets, Event, ProbeConfig, RunConfig, StopFlag, Team, train_probe,
};

use crate::features::encoder;
use crate::progress::Progress;
use crate::run_args::TrainingArgs;
use crate::{Global, model_folder, training};

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
    args: &TrainingArgs,
    probed: Probed<'_>,
    global: &Global,
    device: &Device,
    team: &Team,
) -> Result<u8> {
    let (train, test) = probed.images.clone();
    let mut config = settings(args, probed)?;
    config.run.team = team.clone();
    let data = Datasets { train, evaluation: Some(test) };
    let train = |stop: &StopFlag, on_event: &mut dyn FnMut(Event<'_>)| {
        train_probe(&config, &data, device, stop, on_event)
    };
    training::run(&config.run, global, Progress::new(global.quiet), train, |summary| {
        json!({
            "val_loss": summary.evaluation.map(|found| found.loss),
            "accuracy": summary.evaluation.and_then(|found| found.accuracy),
        })
    })
}

fn settings(args: &TrainingArgs, probed: Probed<'_>) -> Result<ProbeConfig> {
    let folder = model_folder::resolve(probed.model)?;
    let model = encoder(&folder, &Device::cpu())?.config;
    let processor = model_folder::processor(&folder, &model)?;
    let mut run = RunConfig::new(model, args.output_dir());
    (run.processor, run.start_from) = (processor, Some(folder));
    let mut config = ProbeConfig::new(run, probed.classes, probed.test_labels);
    config.head = probed.head;
    config.lars.weight_decay = args.weight_decay.unwrap_or(config.lars.weight_decay);
    (config.run.batch_size, config.run.precision) = (probed.batch_size, probed.precision);
    args.apply(&mut config.run)?;
    Ok(config)
}
