//! A whole run through the trainer on the GPU beside the CPU: the demo's model, its data made ahead of time,
//! losses read late, a stop before a bad update.

use std::path::Path;
use std::sync::Arc;

use super::device::device;
use vitmae_image::{Image, ImageError};
use vitmae_model::VitMaeConfig;
use vitmae_tensor::Device;
use vitmae_tensor::ops::Precision;
use vitmae_trainer::data::Dataset;
use vitmae_trainer::{
    Datasets, Event, Resume, RunConfig, StopFlag, Summary, TrainerError, pretrain,
};

/// Updates of a run: a look at the losses every four, and one at the end.
const STEPS: usize = 6;
/// Images of an update.
const BATCH: usize = 4;
/// Side of the images.
const SIDE: usize = 80;

/// The model of `vitmae demo`.
fn config(folder: &Path) -> RunConfig {
    let model = VitMaeConfig {
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
    };
    RunConfig {
        batch_size: BATCH,
        epochs: 1,
        lr: Some(1e-3),
        warmup_epochs: 0.0,
        clip_grad: Some(1.0),
        sync_every: 4,
        resume: Resume::Never,
        ..RunConfig::new(model, folder.to_path_buf())
    }
}

/// Coloured waves.
struct Waves;

impl Dataset for Waves {
    fn len(&self) -> usize {
        STEPS * BATCH
    }

    fn load(&self, index: usize) -> Result<Image, ImageError> {
        let wave = |at: usize| {
            let (x, y, c) = (at / 3 % 96, at / 288, at % 3);
            let phase = (x * (index % 5 + 1) + y * (index % 3 + 1) + 7 * c + index) as f64;
            (127.0 + 120.0 * (phase * 0.1).sin()) as u8
        };
        Image::new(96, 96, 3, (0..96 * 96 * 3).map(wave).collect())
    }

    fn name(&self, index: usize) -> String {
        format!("wave {index}")
    }

    fn fingerprint(&self) -> String {
        "waves".to_owned()
    }
}

/// The losses and gradient norms of a run.
fn run(config: &RunConfig, device: &Device) -> (Vec<[f64; 2]>, Result<Summary, TrainerError>) {
    let data = Datasets { train: Arc::new(Waves), evaluation: None };
    let mut steps = Vec::new();
    let result = pretrain(config, &data, device, &StopFlag::new(), &mut |event| {
        if let Event::Step(step) = &event {
            steps.push([step.loss, step.gradient_norm]);
        }
    });
    (steps, result)
}

#[test]
fn the_demos_model_trains_as_on_the_cpu() {
    trains_as_on_the_cpu(Precision::F32, [1e-4, 1e-3]);
}

/// In bf16 the last bits of a sum decide to which side a value is rounded, and a GPU rounds what it stores too.
#[test]
fn the_demos_model_trains_in_bf16_as_on_the_cpu() {
    trains_as_on_the_cpu(Precision::Bf16, [2e-3, 2e-2]);
}

/// The difference of losses, and of gradients' norms as a share of them, is at most `[loss, norm]`.
fn trains_as_on_the_cpu(precision: Precision, [of_loss, of_norm]: [f64; 2]) {
    let on = |device: &Device| {
        let folder = tempfile::tempdir().expect("a folder");
        let config = RunConfig { precision, model_ema: Some(0.9), ..config(folder.path()) };
        let (steps, summary) = run(&config, device);
        let summary = summary.unwrap_or_else(|error| panic!("{error}"));
        for file in ["model.safetensors", "ema/model.safetensors"] {
            assert!(summary.checkpoint.join(file).is_file(), "{file}");
        }
        assert_eq!(steps.len(), STEPS);
        steps
    };
    for (step, (gpu, cpu)) in on(&device()).iter().zip(on(&Device::cpu())).enumerate() {
        let [loss, norm] = [0, 1].map(|i| (gpu[i] - cpu[i]).abs());
        assert!(loss <= of_loss, "loss of update {step}: {} and {}", gpu[0], cpu[0]);
        assert!(norm <= of_norm * cpu[1], "norm of update {step}: {} and {}", gpu[1], cpu[1]);
    }
}

#[test]
fn a_diverging_run_stops_at_the_same_update_as_on_the_cpu() {
    let on = |device: &Device| {
        let folder = tempfile::tempdir().expect("a folder");
        let config = RunConfig { lr: Some(1e38), ..config(folder.path()) };
        let error = run(&config, device).1.err().expect("it diverges");
        let TrainerError::NonFinite { step, dump, .. } = &error else { panic!("{error}") };
        let dump = std::fs::read_to_string(dump).expect("a dump");
        let dump: serde_json::Value = serde_json::from_str(&dump).expect("JSON");
        (*step, dump["samples"].clone(), dump["first_bad_parameter"].clone())
    };
    assert_eq!(on(&device()), on(&Device::cpu()));
}
