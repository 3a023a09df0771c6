//! Fine-tuning: exact resume, what is trained, and that it learns.

use std::path::Path;
use std::sync::Arc;

use vitmae_image::{Image, ImageError};
use vitmae_model::{ForwardOptions, Head, Masking, VitForImageClassification, VitMaeModel};
use vitmae_tensor::{Device, Tensor};
use vitmae_trainer::data::Dataset;
use vitmae_trainer::{
    Classes, Datasets, Event, FinetuneConfig, Mix, RunConfig, StopFlag, Summary, finetune, pretrain,
};
use vitmae_weights::{LoadOptions, classifier_from_pretrained, save_pretrained};

use crate::tiny;

/// Stripes: across in images of even number, along in the others, in colours and places that mean nothing.
pub struct Stripes(pub usize);

impl Dataset for Stripes {
    fn len(&self) -> usize {
        self.0
    }

    fn load(&self, index: usize) -> Result<Image, ImageError> {
        let value = |at: usize| {
            let (x, y, c) = (at / 3 % 20, at / 60, at % 3);
            let place = if index.is_multiple_of(2) { y } else { x };
            let phase = place as f64 * 1.2 + index as f64 * 0.7;
            (127.0 + (60 + 20 * c + index % 7 * 5) as f64 * phase.sin()).min(255.0) as u8
        };
        Image::new(20, 20, 3, (0..20 * 20 * 3).map(value).collect())
    }

    fn name(&self, index: usize) -> String {
        format!("stripes {index}")
    }

    fn fingerprint(&self) -> String {
        format!("{} stripes", self.0)
    }
}

pub fn classes(count: usize) -> Classes {
    let names = ["across", "along"].map(str::to_owned).into();
    Classes { names, labels: (0..count).map(|index| index % 2).collect() }
}

/// 26 images, batches of 4, 6 updates an epoch, 2 epochs, a checkpoint every 2 updates; everything that draws is on.
fn config(folder: &Path) -> FinetuneConfig {
    let run = RunConfig::new(tiny::model(), folder.to_path_buf());
    let mut config = FinetuneConfig::new(run, classes(26), classes(10).labels);
    config.mix = Mix { mixup: 0.8, cutmix: 1.0, ..Mix::default() };
    (config.drop_path, config.erase) = (0.2, 0.5);
    let run = &mut config.run;
    (run.batch_size, run.epochs, run.lr, run.warmup_epochs) = (4, 2, Some(3e-3), 0.5);
    (run.seed, run.save_every_steps) = (7, Some(2));
    run.rand_augment = "rand-m9-mstd0.5-inc1".parse().ok();
    assert!(run.rand_augment.is_some());
    config
}

fn run(config: &FinetuneConfig, until: Option<u64>) -> Summary<VitForImageClassification> {
    let data = Datasets { train: Arc::new(Stripes(26)), evaluation: Some(Arc::new(Stripes(10))) };
    let (stop, mut steps) = (StopFlag::new(), 0);
    let handle = stop.clone();
    finetune(config, &data, &Device::cpu(), &stop, &mut |event| {
        if let Event::Step(step) = &event {
            steps += 1;
            if Some(step.step) == until {
                handle.set(130);
            }
        }
    })
    .unwrap()
}

pub fn bits(model: &VitForImageClassification) -> Vec<(String, Vec<u32>)> {
    let all = model.parameters();
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    all.iter().map(|p| (p.name.clone(), bits(p.value.to_vec().unwrap()))).collect()
}

#[test]
fn a_fine_tuning_stopped_and_resumed_equals_the_unbroken_one() {
    let unbroken = tempfile::tempdir().unwrap();
    let expected = run(&config(unbroken.path()), None);
    assert_eq!(expected.step, 12);
    for until in [1, 3, 6, 11] {
        let folder = tempfile::tempdir().unwrap();
        let stopped = run(&config(folder.path()), Some(until));
        assert_eq!((stopped.step, stopped.stopped), (until, Some(130)));
        let resumed = run(&config(folder.path()), None);
        assert_eq!(bits(&resumed.model), bits(&expected.model), "stop after {until}");
        assert_eq!(resumed.evaluation, expected.evaluation);
    }
}

#[test]
fn a_checkpoint_is_a_classifier_with_its_classes() {
    for head in [Head::Cls, Head::MeanFcNorm] {
        let folder = tempfile::tempdir().unwrap();
        let summary = run(&FinetuneConfig { head, ..config(folder.path()) }, None);
        let options = LoadOptions::default();
        let (model, report) =
            classifier_from_pretrained(&summary.checkpoint, head, &Device::cpu(), &options)
                .unwrap();
        assert!(report.missing.is_empty() && report.unexpected.is_empty(), "{report:?}");
        assert_eq!(bits(&model), bits(&summary.model));
        assert_eq!(model.config.extra["id2label"]["1"], "along");
        assert_eq!(model.config.extra["label2id"]["across"], 0);
    }
}

#[test]
fn it_starts_from_the_encoder_and_trains_what_it_should() {
    let pretrained = tempfile::tempdir().unwrap();
    let start = tiny::run(&tiny::config(pretrained.path()), None);
    let first = |last_blocks: Option<usize>, lr: f64| {
        let folder = tempfile::tempdir().unwrap();
        let mut config = FinetuneConfig { last_blocks, ..config(folder.path()) };
        config.run.start_from = Some(start.checkpoint.clone());
        config.run.lr = Some(lr);
        config.run.adamw.weight_decay = 0.0;
        config.run.min_lr = 0.0;
        bits(&run(&config, None).model)
    };
    let encoder: Vec<(String, Vec<u32>)> = tiny::bits(&start.model);
    // Without a learning rate everything stays: the encoder's weights are those of the checkpoint.
    let still = first(None, 0.0);
    for (name, values) in still.iter().filter(|(name, _)| name.starts_with("vit.")) {
        let from = encoder.iter().find(|(other, _)| other == name).expect(name);
        assert_eq!(&from.1, values, "{name}");
    }
    let moved = |after: &[(String, Vec<u32>)]| -> Vec<String> {
        let pairs = after.iter().zip(&still);
        pairs.filter(|(a, b)| a.1 != b.1).map(|(a, _)| a.0.clone()).collect()
    };
    assert_eq!(moved(&first(None, 3e-3)).len(), still.len());
    let of_last = moved(&first(Some(1), 3e-3));
    assert!(of_last.iter().all(|n| !n.starts_with("vit.") || n.starts_with("vit.blocks.1.")));
    assert_eq!(of_last.len(), 12 + 4, "{of_last:?}");
    assert_eq!(moved(&first(Some(0), 3e-3)).len(), 4);
}

#[test]
fn images_may_be_of_another_size_than_the_encoders() {
    let folder = tempfile::tempdir().unwrap();
    let (device, options) = (Device::cpu(), LoadOptions::default());
    let encoder = VitMaeModel::new(tiny::model(), &device, 3).unwrap();
    save_pretrained(&encoder, &folder.path().join("encoder")).unwrap();

    let mut config = config(&folder.path().join("run"));
    (config.head, config.drop_path) = (Head::Cls, 0.0);
    config.run.model.image_size = (24, 32);
    (config.run.start_from, config.run.lr) = (Some(folder.path().join("encoder")), Some(0.0));
    let checkpoint = run(&config, Some(1)).checkpoint;
    let (model, _) = classifier_from_pretrained(&checkpoint, Head::Cls, &device, &options).unwrap();
    assert_eq!(model.config.image_size, (24, 32));
    assert_eq!(model.vit.position_embeddings.value.shape(), [1, 1 + 6 * 8, 16]);

    // At a learning rate of 0 it still is the encoder, which resamples its positions in each forward pass.
    let pixels = (0..3 * 24 * 32).map(|at| (at as f32 * 0.37).sin()).collect();
    let pixels = Tensor::from_vec(&device, &[1, 3, 24, 32], pixels).unwrap();
    let all = Masking::none(1, 48);
    let tokens = |model: &VitMaeModel, interpolate_pos_encoding| {
        let options = ForwardOptions { interpolate_pos_encoding, ..ForwardOptions::default() };
        let output = model.forward(&pixels, &all, &options).unwrap();
        output.last_hidden_state.to_vec().unwrap()
    };
    assert_eq!(tokens(&model.vit, false), tokens(&encoder, true));
    // It resumes at its size.
    assert_eq!(run(&config, None).step, 12);
}

#[test]
fn it_learns_to_tell_classes_apart() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.mix = Mix::default();
    (config.layer_decay, config.erase) = (1.0, 0.1);
    (config.run.epochs, config.run.warmup_epochs) = (30, 2.0);
    let found = run(&config, None).evaluation.expect("an evaluation");
    assert!(found.accuracy.unwrap() >= 0.9, "{found:?}");
    assert!(found.loss < 0.5, "{found:?}");
}

#[test]
fn another_recipe_does_not_resume_and_wrong_settings_are_named() {
    let folder = tempfile::tempdir().unwrap();
    run(&config(folder.path()), Some(2));
    let data = Datasets { train: Arc::new(Stripes(26)), evaluation: None };
    let error = |config: &FinetuneConfig| {
        let stop = StopFlag::new();
        finetune(config, &data, &Device::cpu(), &stop, &mut |_| {}).err().unwrap().to_string()
    };
    let other = FinetuneConfig { layer_decay: 0.5, ..config(folder.path()) };
    let message = error(&other);
    assert!(message.contains("`task.layer_decay` 0.75, now 0.5"), "{message}");
    // A pre-training does not go on from a fine-tuning's checkpoint.
    let pretraining = tiny::config(folder.path());
    let result = pretrain(&pretraining, &data, &Device::cpu(), &StopFlag::new(), &mut |_| {});
    assert!(result.is_err());
    for (config, key) in [
        (FinetuneConfig { drop_path: 1.0, ..config(folder.path()) }, "drop_path"),
        (FinetuneConfig { layer_decay: 0.0, ..config(folder.path()) }, "layer_decay"),
        (FinetuneConfig { erase: 1.5, ..config(folder.path()) }, "reprob"),
        (FinetuneConfig { last_blocks: Some(3), ..config(folder.path()) }, "last_blocks"),
    ] {
        let message = error(&config);
        assert!(message.starts_with(&format!("`{key}` is ")), "{message}");
    }
}

#[test]
fn several_processes_are_one_that_accumulates_in_all_that_is_drawn() {
    use crate::together::{assert_same_weights, by};
    use vitmae_trainer::Team;
    let [one, two] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let run = |folder: &Path, team: Team, accumulation| {
        let mut config = config(folder);
        (config.run.team, config.run.accumulation) = (team, accumulation);
        run(&config, None)
    };
    let expected = run(one.path(), Team::default(), 2);
    let found = by(2, |team| run(two.path(), team, 1));
    for found in &found {
        assert_eq!(found.step, 6);
        assert_same_weights(&found.model.parameters(), &expected.model.parameters());
    }
    assert_eq!(bits(&found[0].model), bits(&found[1].model));
    let [a, b] = [&found[0], &expected].map(|summary| summary.evaluation.unwrap());
    assert_eq!(a.accuracy, b.accuracy);
    assert!((a.loss - b.loss).abs() < 1e-6 * b.loss, "{} is not {}", a.loss, b.loss);
}
