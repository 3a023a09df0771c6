//! The original's linear probe: its steps as PyTorch makes them, exact resume, and the classifier that comes of it.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use vitmae_model::{Head, VitForImageClassification};
use vitmae_tensor::Device;
use vitmae_trainer::linear_probe::{ProbeGradient, ProbeHead};
use vitmae_trainer::{
    Datasets, Event, Lars, PROBE_FILE, ProbeConfig, RunConfig, StopFlag, Summary, Team,
    TrainerError, classify, train_probe,
};
use vitmae_weights::{LoadOptions, classifier_from_pretrained};

use crate::finetuning::{Stripes, bits, classes};
use crate::tiny;

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn assert_close(what: &str, found: &[f32], expected: &Value) {
    let expected = numbers(expected);
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    for (found, expected) in found.iter().zip(&expected) {
        let error = (found - expected).abs();
        assert!(error <= 3e-6 * size, "{what}: {found} is not {expected}");
    }
}

#[test]
fn steps_and_running_statistics_are_pytorchs() {
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/training/linear_probe.json");
    let fixture: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = fixture["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    for case in cases {
        let weight_decay = case["weight_decay"].as_f64().unwrap();
        let lars = Lars { weight_decay, ..Lars::default() };
        let mut head = ProbeHead::new(3, 5, 0);
        head.weight = numbers(&case["first"]);
        for step in case["steps"].as_array().unwrap() {
            let labels: Vec<usize> =
                numbers(&step["labels"]).iter().map(|&label| label as usize).collect();
            let mut gradient = ProbeGradient::default();
            let features = numbers(&step["features"]);
            let loss = head.accumulate(features, &labels, 1.0, &mut gradient).unwrap();
            head.update(gradient, &lars, step["lr"].as_f64().unwrap()).unwrap();
            assert!((loss - step["loss"].as_f64().unwrap()).abs() < 1e-6);
            assert_close("weight", &head.weight, &step["weight"]);
            assert_close("bias", &head.bias, &step["bias"]);
            assert_close("running mean", &head.norm.mean, &step["running_mean"]);
            assert_close("running variance", &head.norm.variance, &step["running_var"]);
        }
        // Folded into one linear map it scores as batch normalisation and the layer do.
        let (weight, bias) = head.norm.folded(&head.weight, &head.bias);
        let mut scores = Vec::new();
        for row in numbers(&case["evaluation"]["features"]).chunks(5) {
            for (weight, bias) in weight.chunks(5).zip(&bias) {
                scores.push(bias + row.iter().zip(weight).map(|(x, w)| x * w).sum::<f32>());
            }
        }
        assert_close("scores", &scores, &case["evaluation"]["scores"]);
    }
}

/// 26 images, batches of 4, 6 updates an epoch, 2 epochs, a checkpoint every 2 updates.
fn config(folder: &Path, start_from: &Path) -> ProbeConfig {
    let run = RunConfig::new(tiny::model(), folder.to_path_buf());
    let mut config = ProbeConfig::new(run, classes(26), classes(10).labels);
    let run = &mut config.run;
    run.start_from = Some(start_from.to_path_buf());
    (run.batch_size, run.epochs, run.lr, run.warmup_epochs) = (4, 2, Some(10.0), 0.5);
    (run.seed, run.save_every_steps) = (7, Some(2));
    config
}

fn try_run(
    config: &ProbeConfig,
    until: Option<u64>,
) -> Result<Summary<VitForImageClassification>, TrainerError> {
    let data = Datasets { train: Arc::new(Stripes(26)), evaluation: Some(Arc::new(Stripes(10))) };
    let stop = StopFlag::new();
    let handle = stop.clone();
    train_probe(config, &data, &Device::cpu(), &stop, &mut |event| {
        if let Event::Step(step) = &event
            && Some(step.step) == until
        {
            handle.set(130);
        }
    })
}

fn run(config: &ProbeConfig, until: Option<u64>) -> Summary<VitForImageClassification> {
    try_run(config, until).unwrap()
}

#[test]
fn a_probe_resumes_exactly_and_leaves_the_encoder_alone() {
    let [encoder, unbroken] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let start = tiny::run(&tiny::config(encoder.path()), None);
    for accumulation in [1, 2] {
        for head in [Head::Cls, Head::MeanFcNorm] {
            let with = |folder: &Path| {
                let mut config = ProbeConfig { head, ..config(folder, &start.checkpoint) };
                config.run.accumulation = accumulation;
                config
            };
            let folder = unbroken.path().join(format!("{head:?}{accumulation}"));
            let expected = run(&with(&folder), None);
            assert_eq!(expected.step, 12 / accumulation as u64);
            for (name, values) in bits(&expected.model) {
                let encoder = tiny::bits(&start.model);
                if let Some((_, from)) = encoder.iter().find(|(other, _)| *other == name) {
                    assert_eq!(from, &values, "{name}");
                }
            }
            let file = |folder: &Path| std::fs::read(folder.join(PROBE_FILE)).unwrap();
            for until in [1, 2, 3, 5] {
                let folder = tempfile::tempdir().unwrap();
                let stopped = run(&with(folder.path()), Some(until));
                assert_eq!((stopped.step, stopped.stopped), (until, Some(130)));
                assert_ne!(file(&stopped.checkpoint), file(&expected.checkpoint));
                let resumed = run(&with(folder.path()), None);
                assert_eq!(file(&resumed.checkpoint), file(&expected.checkpoint));
                assert_eq!(bits(&resumed.model), bits(&expected.model), "stop after {until}");
                assert_eq!(resumed.evaluation, expected.evaluation);
            }
        }
    }
}

#[test]
fn a_checkpoint_is_a_classifier_of_the_same_accuracy() {
    let [encoder, folder] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let start = tiny::run(&tiny::config(encoder.path()), None);
    for head in [Head::Cls, Head::MeanFcNorm] {
        let folder = folder.path().join(format!("{head:?}"));
        let mut config = ProbeConfig { head, ..config(&folder, &start.checkpoint) };
        (config.run.epochs, config.run.warmup_epochs) = (30, 3.0);
        config.run.save_every_steps = None;
        let summary = run(&config, None);
        let judged = summary.evaluation.unwrap();
        // By chance it is ln 2, 0.693.
        assert!(judged.loss < 0.65, "{head:?}: {judged:?}");
        let (model, report) = classifier_from_pretrained(
            &summary.checkpoint,
            head,
            &Device::cpu(),
            &LoadOptions::default(),
        )
        .unwrap();
        assert!(report.missing.is_empty() && report.unexpected.is_empty(), "{report:?}");
        assert_eq!(model.config.extra["id2label"]["1"], "along");
        let labels = classes(10).labels;
        let processor = &config.run.processor;
        let team = Team::default();
        let (loss, found) =
            classify(&model, &Stripes(10), Some(&labels), processor, 4, &team).unwrap();
        let hits = found.iter().zip(&labels).filter(|(a, b)| a == b).count();
        assert_eq!(Some(hits as f64 / 10.0), judged.accuracy);
        assert_eq!(loss, judged.loss);
    }
}

#[test]
fn wrong_settings_are_named_and_another_probe_does_not_resume() {
    let [encoder, folder] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let start = tiny::run(&tiny::config(encoder.path()), None);
    let good = config(folder.path(), &start.checkpoint);
    run(&good, Some(2));
    let error = |config: &ProbeConfig| try_run(config, None).err().unwrap().to_string();
    let lars = |lars: Lars| ProbeConfig { lars, ..good.clone() };
    let mut one = good.clone();
    one.run.batch_size = 1;
    for (config, message) in [
        (lars(Lars { momentum: 1.0, ..Lars::default() }), "`momentum` is 1, expected"),
        (lars(Lars { trust: -1.0, ..Lars::default() }), "`trust` is -1, expected"),
        (lars(Lars { weight_decay: f64::NAN, ..Lars::default() }), "`weight_decay` is NaN"),
        (one, "`batch_size` is 1, expected at least 2"),
    ] {
        let found = error(&config);
        assert!(found.starts_with(message), "{found}");
    }
    let found = error(&lars(Lars { trust: 0.01, ..Lars::default() }));
    assert!(found.contains("`task.trust` 0.001, now 0.01"), "{found}");
    let found = error(&ProbeConfig { head: Head::MeanFcNorm, ..good.clone() });
    assert!(found.contains("`task.linear_probe`"), "{found}");
}

#[test]
fn a_loss_that_is_no_number_ends_with_a_dump() {
    let [encoder, folder] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let start = tiny::run(&tiny::config(encoder.path()), None);
    let mut config = config(folder.path(), &start.checkpoint);
    config.run.processor.rescale_factor = 1e38;
    let Err(TrainerError::NonFinite { step, dump, checkpoint, .. }) = try_run(&config, None) else {
        panic!("the loss is finite")
    };
    assert_eq!(step, 1);
    assert!(dump.exists() && checkpoint.join(PROBE_FILE).exists());
}
