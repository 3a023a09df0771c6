//! The demo's model and training, tuned so that two cores with AVX2 need about four minutes.
//!
//! Tried on held-out photographs: three decoder blocks are worth more than a fourth encoder block; patches of
//! a tenth of the image more than of an eighth; small batches more than large ones of as many images; a higher
//! learning rate reconstructs a little better and makes worse features.

use std::path::Path;

use anyhow::Result;
use vitmae_image::{Filter, PerChannel, Size, VitImageProcessor};
use vitmae_model::VitMaeConfig;
use vitmae_trainer::{AdamWOptions, Resume, RunConfig};

use crate::exit::Usage;

/// Updates of the pre-training.
pub const STEPS: u64 = 1600;
/// Evaluations on the way, each after an equal part of the run.
const EVALUATIONS: u64 = 20;
/// Images of an update.
const BATCH: usize = 32;
/// One sample in this many is a digit, the others are crops of photographs.
pub const DIGIT_EVERY: usize = 4;
/// Side of the images in pixels.
const SIDE: usize = 80;
/// Highest learning rate.
const LR: f64 = 1.1e-3;

/// The settings of the whole run.
pub fn settings(out: &Path, seed: u64, steps: u64) -> Result<RunConfig, Usage> {
    if steps == 0 || !steps.is_multiple_of(EVALUATIONS) {
        let message = format!("`--steps` is {steps}, expected a multiple of {EVALUATIONS}");
        return Err(Usage(message));
    }
    let defaults = RunConfig::new(model(), out.join("training"));
    Ok(RunConfig {
        processor: processor(),
        crop_scale: (0.3, 1.0),
        batch_size: BATCH,
        epochs: EVALUATIONS,
        lr: Some(LR),
        min_lr: LR / 100.0,
        warmup_epochs: 1.0,
        adamw: AdamWOptions { weight_decay: 0.02, ..AdamWOptions::default() },
        clip_grad: Some(1.0),
        seed,
        save_every_epochs: EVALUATIONS / 2,
        keep_last: 1,
        resume: Resume::Never,
        ..defaults
    })
}

/// Samples of one of the run's parts.
pub fn samples(steps: u64) -> usize {
    (steps / EVALUATIONS) as usize * BATCH
}

/// Encoder and decoder, small enough for two cores.
fn model() -> VitMaeConfig {
    VitMaeConfig {
        hidden_size: 128,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        intermediate_size: 512,
        decoder_hidden_size: 96,
        decoder_num_hidden_layers: 3,
        decoder_num_attention_heads: 3,
        decoder_intermediate_size: 384,
        image_size: (SIDE, SIDE),
        patch_size: (8, 8),
        layer_norm_eps: 1e-6,
        ..VitMaeConfig::default()
    }
}

/// Colours from 0..=255 to −1..1.
fn processor() -> VitImageProcessor {
    VitImageProcessor {
        size: Size::Exact { height: SIDE, width: SIDE },
        resample: Filter::Bicubic,
        image_mean: PerChannel::Each(vec![0.5; 3]),
        image_std: PerChannel::Each(vec![0.5; 3]),
        do_convert_rgb: Some(true),
        ..VitImageProcessor::default()
    }
}
