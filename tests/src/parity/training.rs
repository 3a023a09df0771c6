//! Optimizer steps.

use anyhow::{Result, bail};
use vitmae_model::Masking;
use vitmae_tensor::{Device, Tensor};
use vitmae_testing::cases::{Case, Optimizer, Schedule};
use vitmae_trainer::schedule::WarmupCosine;
use vitmae_trainer::{AdamWOptions, TrainState};

use super::{Outputs, model, put_by_stored_names};

pub(super) fn run(
    case: &Case,
    device: &Device,
    optimizer: &Optimizer,
    schedule: &Schedule,
) -> Result<Outputs> {
    let Optimizer { betas, eps, weight_decay, .. } = *optimizer;
    let (network, ratio) = model::load(case, device)?;
    let mut state = TrainState::new(
        network,
        AdamWOptions { betas, eps, weight_decay, ..AdamWOptions::default() },
    )?;
    let schedule = WarmupCosine {
        lr: schedule.lr,
        min_lr: schedule.min_lr,
        warmup: schedule.warmup_steps as f64,
        total: schedule.total_steps as f64,
    };
    let (shape, pixels) = case.tensors.f32s("input.pixel_values")?;
    let (noise_shape, noise) = case.tensors.f64s("input.noise")?;
    let (&[steps, batch, ..], &[noise_steps, _, patches]) = (shape, noise_shape) else {
        bail!("inputs have shapes {shape:?} and {noise_shape:?}");
    };
    if shape.len() != 5 || noise_steps != steps {
        bail!("inputs have shapes {shape:?} and {noise_shape:?}");
    }
    let mut losses = Vec::new();
    for step in 0..steps {
        let count = pixels.len() / steps;
        let pixels = Tensor::from_slice(device, &shape[1..], &pixels[step * count..][..count])?;
        let noise = &noise[step * batch * patches..][..batch * patches];
        let masking = Masking::from_noise(noise, batch, patches, ratio)?;
        losses.push(state.train_step(&pixels, &masking, schedule.at(step as f64))?.item()?);
    }
    let mut outputs = Outputs::default();
    outputs.put_f32("losses", &[steps], losses);
    let parameters = state.model.parameters();
    let parameters = parameters.iter().map(|param| (param.name.as_str(), &param.value));
    put_by_stored_names(&mut outputs, "param", parameters)?;
    Ok(outputs)
}
