//! `vitmae data bench`: the loader alone, without a model behind it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use vitmae_model::VitMaeConfig;
use vitmae_trainer::RunConfig;
use vitmae_trainer::data::{BatchMaker, MaskRatio, Prefetch, open_parts};

use crate::Global;

/// Example: vitmae data bench photos --workers 1
///
/// Reads, decodes, crops, mirrors and normalises as pre-training does, over and over until the time is up.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Images of any known kind
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Threads that read images
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
    /// Side of the crops in pixels
    #[arg(long, default_value_t = 224)]
    input_size: usize,
    /// Images of a batch
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// Seconds to measure
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

/// Runs the command.
pub fn run(args: &BenchArgs, global: &Global) -> Result<u8> {
    let set = open_parts(&args.path)?.train;
    let model =
        VitMaeConfig { image_size: (args.input_size, args.input_size), ..VitMaeConfig::default() };
    let config = RunConfig {
        batch_size: usize::from(args.batch_size).min(set.len()),
        ..RunConfig::new(model, PathBuf::new())
    };
    let maker = BatchMaker {
        plan: config.plan(set.len()),
        dataset: set,
        augmentation: config.augmentation(),
        channels: config.model.num_channels,
        grid: config.model.grid(),
        masking: (MaskRatio::constant(config.model.mask_ratio), config.mask_strategy.clone()),
        seed: config.seed,
        on_bad: config.on_bad_sample,
    };
    let workers = usize::from(args.workers);
    let mut prefetch = Prefetch::start(Arc::new(maker), 0.., workers)?;
    let mut next = || -> Result<usize> {
        let batch = prefetch.next_batch().context("there are no more batches")??;
        Ok(batch.samples.len())
    };
    // The first batches find an empty pipeline and files that nobody has read yet.
    for _ in 0..2 * workers {
        next()?;
    }
    let (start, limit) = (Instant::now(), Duration::from_secs_f64(args.seconds.max(0.01)));
    let mut images = 0;
    while start.elapsed() < limit {
        images += next()?;
    }
    let speed = images as f64 / start.elapsed().as_secs_f64();
    if global.json {
        outln!("{}", json!({"images_per_second": speed, "workers": workers, "images": images}));
    } else {
        outln!("{speed:.1} images a second by {workers} workers");
    }
    Ok(0)
}
