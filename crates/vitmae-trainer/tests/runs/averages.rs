//! Averages of weights: their rule, exact resume, and that the training itself does not notice.

use std::path::Path;

use vitmae_model::{Masking, VitMaeForPreTraining};
use vitmae_tensor::{Device, Tensor};
use vitmae_trainer::{AdamWOptions, Ema, RunConfig, Team, TrainState, checkpoint};
use vitmae_weights::{LoadOptions, from_pretrained};

use crate::tiny::{bits, config as tiny, data, model, run, run_watched};
use crate::together::by;

fn config(folder: &Path) -> RunConfig {
    RunConfig { model_ema: Some(0.75), ..tiny(folder) }
}

/// The averaged model of a checkpoint, as every command loads it.
fn average(checkpoint: &Path) -> Vec<(String, Vec<u32>)> {
    let folder = checkpoint.join(checkpoint::EMA_FOLDER);
    let (model, report) =
        from_pretrained(&folder, &Device::cpu(), &LoadOptions::default()).unwrap();
    assert!(report.missing.is_empty() && report.unexpected.is_empty(), "{report:?}");
    bits(&model)
}

fn values(model: &VitMaeForPreTraining) -> Vec<f32> {
    model.parameters().iter().flat_map(|p| p.value.to_vec().unwrap()).collect()
}

/// A state with an average of decay 0.9, two images and their masks.
fn setting() -> (TrainState, Tensor, Masking) {
    let network = VitMaeForPreTraining::new(model(), &Device::cpu(), 3).unwrap();
    let mut state = TrainState::new(network, AdamWOptions::default()).unwrap();
    state.ema = Some(Ema::new(&state.model, 0.9).unwrap());
    let pixels = (0..2 * 768).map(|i| (i as f32 * 0.37).sin()).collect();
    let pixels = Tensor::from_vec(&Device::cpu(), &[2, 3, 16, 16], pixels).unwrap();
    let noise: Vec<f64> = (0..32).map(|i| f64::from(i * 7 % 32) / 32.0).collect();
    (state, pixels, Masking::from_noise(&noise, 2, 16, 0.75).unwrap())
}

#[test]
fn the_average_is_the_formulas() {
    let (mut state, pixels, masking) = setting();
    let first = values(&state.model);
    let mut expected: Vec<f64> = first.iter().map(|&w| f64::from(w)).collect();
    for _ in 0..5 {
        state.train_step(&pixels, &masking, 1e-2).unwrap();
        for (average, w) in expected.iter_mut().zip(values(&state.model)) {
            *average = 0.9 * *average + 0.1 * f64::from(w);
        }
    }
    let found = values(&state.ema.as_ref().unwrap().model);
    let moved = found.iter().zip(&first).filter(|(a, b)| a != b).count();
    assert!(moved > found.len() / 2, "{moved} of {}", found.len());
    for (found, expected) in found.iter().zip(&expected) {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= 1e-6 * expected.abs() + 1e-9, "{found} is not {expected}");
    }
}

#[test]
fn it_resumes_exactly_and_changes_no_weight() {
    let [plain, unbroken] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let without = run(&tiny(plain.path()), None);
    assert!(!without.checkpoint.join(checkpoint::EMA_FOLDER).exists());
    let expected = run(&config(unbroken.path()), None);
    assert_eq!(bits(&expected.model), bits(&without.model));
    assert_ne!(average(&expected.checkpoint), bits(&expected.model));
    let judged = expected.ema_evaluation.unwrap();
    assert_ne!(judged, expected.evaluation.unwrap());
    let log = std::fs::read_to_string(unbroken.path().join("log.txt")).unwrap();
    assert_eq!(log.matches("\"val_loss_ema\"").count(), 3, "{log}");
    for until in [1, 2, 5, 8] {
        let folder = tempfile::tempdir().unwrap();
        run(&config(folder.path()), Some(until));
        let resumed = run(&config(folder.path()), None);
        assert_eq!(bits(&resumed.model), bits(&expected.model));
        assert_eq!(average(&resumed.checkpoint), average(&expected.checkpoint), "{until}");
        assert_eq!(resumed.ema_evaluation, expected.ema_evaluation);
    }
}

#[test]
fn a_damaged_average_is_found_and_another_decay_is_another_run() {
    let folder = tempfile::tempdir().unwrap();
    let last = run(&config(folder.path()), Some(4)).checkpoint;
    let other = RunConfig { model_ema: Some(0.5), ..config(folder.path()) };
    let error = run_watched(&other, &data(), None, &mut |_| {}).err().unwrap().to_string();
    assert!(error.contains("`model_ema` 0.75, now 0.5"), "{error}");
    // Those who insist go on with, and those who do not want it without.
    let none = RunConfig { model_ema: None, override_settings: true, ..config(folder.path()) };
    let without = run(&none, Some(6));
    assert!(!without.checkpoint.join(checkpoint::EMA_FOLDER).exists());
    assert_eq!(without.step, 6);

    let weights = last.join(checkpoint::EMA_FOLDER).join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let flaw = checkpoint::open(&last).unwrap_err();
    let cause = std::error::Error::source(&flaw).unwrap().to_string();
    assert!(cause.contains("`ema/model.safetensors`"), "{cause}");
}

#[test]
fn an_update_without_effect_leaves_it_as_it_is() {
    let (mut state, pixels, masking) = setting();
    state.train_step(&pixels, &masking, 1e-2).unwrap();
    let before = values(&state.ema.as_ref().unwrap().model);
    let white = Tensor::from_vec(&Device::cpu(), &[2, 3, 16, 16], vec![1e36; 2 * 768]).unwrap();
    assert!(!state.train_step(&white, &masking, 1e-2).unwrap().item().unwrap().is_finite());
    assert_eq!(values(&state.ema.as_ref().unwrap().model), before);
}

#[test]
fn every_process_has_the_same_average() {
    let [one, two] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let run = |folder: &Path, team: Team, accumulation| {
        run(&RunConfig { team, accumulation, batch_size: 2, ..config(folder) }, None)
    };
    let expected = run(one.path(), Team::default(), 2);
    let found = by(2, |team| run(two.path(), team, 1));
    let losses = |all: &[vitmae_trainer::Summary]| -> Vec<f64> {
        all.iter().map(|summary| summary.ema_evaluation.unwrap().loss).collect()
    };
    let (alone, together) = (losses(&[expected])[0], losses(&found));
    assert_eq!(together[0], together[1]);
    assert!((alone - together[0]).abs() < 1e-6 * alone, "{alone} is not {}", together[0]);
}
