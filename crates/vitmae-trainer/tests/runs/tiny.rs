//! A model, a data set and a run small enough to repeat many times.

use std::path::Path;
use std::sync::Arc;

use vitmae_image::{Image, ImageError};
use vitmae_model::{VitMaeConfig, VitMaeForPreTraining};
use vitmae_tensor::Device;
use vitmae_trainer::data::Dataset;
use vitmae_trainer::{Datasets, Event, RunConfig, StopFlag, Summary, TrainerError, pretrain};

/// Two encoder blocks of width 16 on 16x16 pixels.
pub fn model() -> VitMaeConfig {
    VitMaeConfig {
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 32,
        decoder_hidden_size: 12,
        decoder_num_hidden_layers: 1,
        decoder_num_attention_heads: 3,
        decoder_intermediate_size: 24,
        image_size: (16, 16),
        patch_size: (4, 4),
        layer_norm_eps: 1e-6,
        ..VitMaeConfig::default()
    }
}

/// Pictures of coloured waves; those in `broken` cannot be read.
#[derive(Clone, Default)]
pub struct Waves {
    pub count: usize,
    pub broken: Vec<usize>,
}

impl Dataset for Waves {
    fn len(&self) -> usize {
        self.count
    }

    fn load(&self, index: usize) -> Result<Image, ImageError> {
        if self.broken.contains(&index) {
            return vitmae_image::decode(b"\xff\xd8\xff no image", &Default::default());
        }
        let wave = |at: usize| {
            let (x, y, c) = (at / 3 % 24, at / 72, at % 3);
            let phase = (x * (index % 5 + 1) + y * (index % 3 + 1) + 7 * c + index) as f64;
            (127.0 + 120.0 * (phase * 0.4).sin()) as u8
        };
        Image::new(24, 20, 3, (0..24 * 20 * 3).map(wave).collect())
    }

    fn name(&self, index: usize) -> String {
        format!("wave {index}")
    }

    fn fingerprint(&self) -> String {
        format!("{} waves", self.count)
    }
}

/// 13 images, batches of 4, 3 updates an epoch, 3 epochs: 9 updates, a checkpoint every 2.
pub fn config(folder: &Path) -> RunConfig {
    RunConfig {
        batch_size: 4,
        epochs: 3,
        lr: Some(3e-3),
        warmup_epochs: 1.0,
        seed: 7,
        save_every_steps: Some(2),
        ..RunConfig::new(model(), folder.to_path_buf())
    }
}

/// The images of [`config`], with four to evaluate on.
pub fn data() -> Datasets {
    let evaluation = Some(Arc::new(Waves { count: 4, broken: vec![] }) as Arc<dyn Dataset>);
    Datasets { train: Arc::new(Waves { count: 13, broken: vec![] }), evaluation }
}

/// Runs to the end, or to a stop after update `until`; events go to `watch` too.
pub fn run_watched(
    config: &RunConfig,
    data: &Datasets,
    until: Option<u64>,
    watch: &mut dyn FnMut(&Event<'_>),
) -> Result<Summary, TrainerError> {
    let stop = StopFlag::new();
    let handle = stop.clone();
    pretrain(config, data, &Device::cpu(), &stop, &mut |event| {
        if let Event::Step(step) = &event
            && Some(step.step) == until
        {
            handle.set(130);
        }
        watch(&event);
    })
}

/// [`run_watched`] without a watcher.
pub fn run(config: &RunConfig, until: Option<u64>) -> Summary {
    run_watched(config, &data(), until, &mut |_| {}).unwrap()
}

/// Every bit of every parameter.
pub fn bits(model: &VitMaeForPreTraining) -> Vec<(String, Vec<u32>)> {
    let all = model.parameters();
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    all.iter().map(|p| (p.name.clone(), bits(p.value.to_vec().unwrap()))).collect()
}
