//! `vitmae demo`: the whole way in a few minutes, on pictures that come with the program.
//!
//! Pre-trains a small model on photographs and digits without labels, reconstructs photographs it
//! never saw, compares with two simple ways of filling in, probes the encoder on labelled digits,
//! and writes a page about it. Every number is computed in the run that prints it.

pub mod assets;
mod baselines;
mod dataset;
mod probe;
mod recipe;
mod reconstructions;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use vitmae_image::Image;
use vitmae_model::VitMaeForPreTraining;
use vitmae_tensor::Device;
use vitmae_trainer::{Datasets, Event, RunConfig, pretrain};
use vitmae_weights::folder::PREPROCESSOR_FILE;
use vitmae_weights::save_pretrained;

use crate::chart::{self, Panel, smooth};
use crate::output::write_file;
use crate::progress::Progress;
use crate::{Global, signals};
use dataset::{DemoSet, Views};
use probe::ProbeTable;
use reconstructions::HeldOut;

/// Example: vitmae demo --out somewhere
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Folder for the results; its `training` folder is replaced
    #[arg(long, value_name = "DIR", default_value = "vitmae-demo")]
    out: PathBuf,
    /// Seed of weights, crops and masks
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Updates of the pre-training, a multiple of 20
    #[arg(long, default_value_t = recipe::STEPS)]
    steps: u64,
}

/// Everything the demo found out.
pub struct Findings {
    /// Updates made.
    pub steps: u64,
    /// Seconds of pre-training.
    pub seconds: f64,
    /// Images seen in pre-training.
    pub images: u64,
    /// Numbers in the model.
    pub parameters: u64,
    /// Errors on held-out photographs.
    pub held_out: HeldOut,
    /// Probe accuracies.
    pub probes: ProbeTable,
}

/// Runs the command.
pub fn run(args: &DemoArgs, global: &Global, device: &Device) -> Result<u8> {
    let start = Instant::now();
    let mut progress = Progress::new(global.quiet);
    let config = recipe::settings(&args.out, args.seed, args.steps)?;
    let views = reconstructions::views()?;
    let data = data(&config, &views, recipe::samples(args.steps))?;
    start_afresh(&config.output_dir)?;

    progress.line(&format!(
        "pre-training a small ViTMAE on {} photographs and {} unlabelled digits …",
        assets::train_photo_count(),
        assets::TRAIN_DIGITS
    ));
    let (mut losses, mut evaluations) = (Vec::new(), Vec::new());
    let stop = signals::watch()?;
    let training = Instant::now();
    let summary = pretrain(&config, &data, device, &stop, &mut |event| {
        match &event {
            Event::Step(step) => losses.push((step.step as f64, step.loss)),
            Event::Evaluated { step, loss, .. } => evaluations.push((*step as f64, *loss)),
            _ => {}
        }
        progress.show(&event);
    })?;
    let seconds = training.elapsed().as_secs_f64();
    drop(progress);
    if let Some(code) = summary.stopped {
        return Ok(u8::try_from(code).unwrap_or(1));
    }

    let progress = Progress::new(global.quiet);
    progress.line("reconstructing photographs it never saw …");
    let held_out = reconstructions::measure(&summary.model, device, &views, &config.processor)?;
    progress.line("probing the encoder on labelled digits …");
    let random = VitMaeForPreTraining::new(config.model.clone(), device, args.seed)?;
    let probes = probe::table(&summary.model, &random, device, &config.processor)?;
    let findings = Findings {
        steps: summary.step,
        seconds,
        images: summary.step * config.effective_batch() as u64,
        parameters: config.model.parameter_count().total(),
        held_out,
        probes,
    };
    let curves = vec![
        ("training (smoothed)".to_owned(), smooth(&losses)),
        ("held-out photographs".to_owned(), evaluations),
    ];
    let panel = Panel { title: "loss on removed patches".to_owned(), curves };
    write_results(&args.out, &config, &summary.model, &panel, &findings)?;
    print(args, global, &findings, start.elapsed().as_secs_f64());
    Ok(0)
}

fn data(config: &RunConfig, views: &[Image], samples: usize) -> Result<Datasets> {
    let side = config.model.image_size.0;
    let digits = assets::digits()?;
    let digits: Result<Vec<_>> =
        digits[..assets::TRAIN_DIGITS].iter().map(|digit| assets::enlarged(digit, side)).collect();
    let photos = assets::train_photos()?;
    let set = DemoSet::new(photos, digits?, recipe::DIGIT_EVERY, samples, config.seed);
    let evaluation = Some(Arc::new(Views(views.to_vec())) as Arc<_>);
    Ok(Datasets { train: Arc::new(set), evaluation })
}

/// Removes the training folder of an earlier demo, which is known by its log.
fn start_afresh(folder: &Path) -> Result<()> {
    if folder.join("log.txt").exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove `{}`", folder.display()))?;
    }
    Ok(())
}

fn write_results(
    out: &Path,
    config: &RunConfig,
    model: &VitMaeForPreTraining,
    loss: &Panel,
    findings: &Findings,
) -> Result<()> {
    let folder = out.join("model");
    save_pretrained(model, &folder)?;
    write_file(&folder.join(PREPROCESSOR_FILE), config.processor.to_json().as_bytes())?;
    let svg = chart::svg(std::slice::from_ref(loss))?;
    let picture = findings.held_out.picture(&config.model, &config.processor)?;
    write_file(&out.join("reconstructions.png"), &picture)?;
    write_file(&out.join("loss.svg"), svg.as_bytes())?;
    let page = report::page(config, findings, &picture, &svg);
    write_file(&out.join("report.html"), page.as_bytes())
}

fn print(args: &DemoArgs, global: &Global, findings: &Findings, seconds: f64) {
    let mse = &findings.held_out.mse;
    if global.json {
        let probes: Vec<_> = findings.probes.rows.iter().map(probe::Row::to_json).collect();
        let result = json!({
            "out": args.out,
            "steps": findings.steps,
            "seconds": seconds,
            "pretrain_seconds": findings.seconds,
            "masked_mse": {
                "unit": "squared difference of colour values in 0..1",
                "model": mse.model,
                "interpolation": mse.interpolation,
                "mean_colour": mse.mean_colour,
            },
            "probe": probes,
        });
        outln!("{result}");
        return;
    }
    outln!("masked-patch MSE on held-out photographs (colour values in 0..1):");
    outln!("  this model                         {:.5}", mse.model);
    outln!("  interpolation from visible pixels  {:.5}", mse.interpolation);
    outln!(
        "  mean colour of the image           {:.5}  ({:.1} times the model's)",
        mse.mean_colour,
        mse.mean_colour / mse.model
    );
    outln!("linear probe on {} test digits:", findings.probes.test);
    outln!(
        "  {:>16}  {:>10}  {:>14}  {:>10}",
        "training digits",
        "this model",
        "random encoder",
        "raw pixels"
    );
    for row in &findings.probes.rows {
        outln!(
            "  {:>16}  {:>9.1}%  {:>13.1}%  {:>9.1}%",
            row.train,
            100.0 * row.model,
            100.0 * row.random,
            100.0 * row.pixels
        );
    }
    outln!("{}", args.out.join("report.html").display());
    if !global.quiet {
        errln!("{seconds:.0} s in all; open the page above in a browser");
    }
}
