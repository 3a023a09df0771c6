//! The same settings and images always give the same bits.

use std::fs;
use std::path::Path;

use vitmae_model::{Masking, VitMaeForPreTraining};
use vitmae_tensor::{Device, Tensor};
use vitmae_trainer::{AdamWOptions, RunConfig, TrainState};

use crate::tiny::{bits, config, model, run};

fn file(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join(name)).unwrap()
}

#[test]
fn a_run_stopped_after_any_update_and_resumed_equals_the_unbroken_one() {
    let unbroken = tempfile::tempdir().unwrap();
    let expected = run(&config(unbroken.path()), None);
    assert_eq!((expected.step, expected.stopped), (9, None));
    for until in 1..9 {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let stopped = run(&config, Some(until));
        assert_eq!((stopped.step, stopped.stopped), (until, Some(130)));
        assert_ne!(bits(&stopped.model), bits(&expected.model), "stop after {until}");
        let resumed = run(&config, None);
        assert_eq!((resumed.step, resumed.stopped), (9, None));
        assert_eq!(bits(&resumed.model), bits(&expected.model), "stop after {until}");
        assert_eq!(resumed.last_loss, expected.last_loss);
        assert_eq!(resumed.evaluation, expected.evaluation);
        // The optimizer as well, and the model as the file holds it.
        for name in ["optimizer.safetensors", "model.safetensors", "config.json"] {
            assert_eq!(
                file(&resumed.checkpoint, name),
                file(&expected.checkpoint, name),
                "{name} after a stop at {until}"
            );
        }
        // The mean loss of an epoch goes on through the stop.
        let epochs = |folder: &Path| -> Vec<String> {
            let log = fs::read_to_string(folder.join("log.txt")).unwrap();
            log.lines().filter(|l| l.contains("\"epoch\",\"train_lr")).map(String::from).collect()
        };
        assert_eq!(epochs(folder.path()), epochs(unbroken.path()));
        assert_eq!(epochs(folder.path()).len(), 3);
    }
}

#[test]
fn stopping_again_and_again_changes_nothing() {
    let unbroken = tempfile::tempdir().unwrap();
    let expected = run(&config(unbroken.path()), None);
    let folder = tempfile::tempdir().unwrap();
    for until in 1..9 {
        run(&config(folder.path()), Some(until));
    }
    assert_eq!(bits(&run(&config(folder.path()), None).model), bits(&expected.model));
    // A finished run has nothing left to do and keeps its checkpoint.
    let again = run(&config(folder.path()), None);
    assert_eq!((again.step, again.last_loss), (9, None));
    assert_eq!(bits(&again.model), bits(&expected.model));
}

#[test]
fn another_way_of_masking_is_another_run() {
    use vitmae_trainer::data::MaskStrategy;
    let random = tempfile::tempdir().unwrap();
    let expected = run(&config(random.path()), None);
    let rows = (0..3).map(|first| (0..16).map(|at| (at + first) % 4 < 3).collect());
    let given = MaskStrategy::Given(std::sync::Arc::new(rows.collect()));
    for mask_strategy in [MaskStrategy::Block, MaskStrategy::Grid, given] {
        let whole = tempfile::tempdir().unwrap();
        let whole = RunConfig { mask_strategy: mask_strategy.clone(), ..config(whole.path()) };
        let unbroken = run(&whole, None);
        let folder = tempfile::tempdir().unwrap();
        let config = RunConfig { mask_strategy, ..config(folder.path()) };
        let stopped = run(&config, Some(4));
        assert_eq!(stopped.step, 4);
        let found = run(&config, None);
        assert_ne!(bits(&found.model), bits(&expected.model));
        assert_eq!(bits(&found.model), bits(&unbroken.model));
        let other = RunConfig { mask_strategy: MaskStrategy::Random, ..config.clone() };
        let error = crate::tiny::run_watched(&other, &crate::tiny::data(), None, &mut |_| {});
        let message = error.err().unwrap().to_string();
        assert!(message.contains("`masking`"), "{message}");
    }
}

#[test]
fn a_changing_mask_ratio_goes_on_where_it_was() {
    let [whole, parts, plain] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let changing =
        |folder: &std::path::Path| RunConfig { mask_ratio_end: Some(0.35), ..config(folder) };
    let expected = run(&changing(whole.path()), None);
    assert_eq!(run(&changing(parts.path()), Some(5)).step, 5);
    let found = run(&changing(parts.path()), None);
    assert_eq!(bits(&found.model), bits(&expected.model));
    assert_ne!(bits(&run(&config(plain.path()), None).model), bits(&expected.model));
    let log = fs::read_to_string(whole.path().join("log.txt")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let ratios: Vec<_> = lines.filter_map(|line| line["mask_ratio"].as_f64()).collect();
    assert_eq!(ratios.len(), 9);
    for (update, ratio) in ratios.into_iter().enumerate() {
        assert!((ratio - (0.75 - 0.05 * update as f64)).abs() < 1e-12, "{update}: {ratio}");
    }
    assert!(!fs::read_to_string(plain.path().join("log.txt")).unwrap().contains("mask_ratio\""));
    let other = RunConfig { mask_ratio_end: Some(0.4), ..config(whole.path()) };
    let error = crate::tiny::run_watched(&other, &crate::tiny::data(), None, &mut |_| {});
    let message = error.err().unwrap().to_string();
    assert!(message.contains("`mask_ratio_end` 0.35, now 0.4"), "{message}");
}

#[test]
fn absolute_errors_are_another_run_with_another_evaluation() {
    use vitmae_tensor::ops::Distance;
    let [squared, absolute] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let expected = run(&config(squared.path()), None);
    let config = RunConfig { distance: Distance::Absolute, ..config(absolute.path()) };
    assert_eq!(run(&config, Some(4)).step, 4);
    let other = RunConfig { distance: Distance::Squared, ..config.clone() };
    let error = crate::tiny::run_watched(&other, &crate::tiny::data(), None, &mut |_| {});
    let message = error.err().unwrap().to_string();
    assert!(message.contains("`loss` \"l1\", now null"), "{message}");
    let found = run(&config, None);
    assert_ne!(bits(&found.model), bits(&expected.model));
    // The mean of absolute values is at most the root of that of squares.
    let [l1, mse] = [&found, &expected].map(|summary| summary.evaluation.unwrap().loss);
    assert!((l1 - mse).abs() > 0.01 && l1 < (2.0 * mse).sqrt(), "{l1} {mse}");
}

#[test]
fn threads_and_workers_change_no_bit() {
    let mut all = Vec::new();
    for (threads, workers) in [(1, 1), (2, 2), (3, 3), (8, 1), (1, 5)] {
        let folder = tempfile::tempdir().unwrap();
        let config = RunConfig { workers, ..config(folder.path()) };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let summary = pool.install(|| run(&config, None));
        all.push((bits(&summary.model), summary.evaluation));
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn the_seed_matters_and_training_learns() {
    let losses = |seed| {
        let folder = tempfile::tempdir().unwrap();
        let summary = run(&RunConfig { seed, epochs: 40, ..config(folder.path()) }, None);
        let log = fs::read_to_string(folder.path().join("log.txt")).unwrap();
        let evaluations: Vec<f64> = log
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .filter_map(|line| line["val_loss"].as_f64())
            .collect();
        assert_eq!(evaluations.len(), 40);
        assert_eq!(evaluations.last().copied(), summary.evaluation.map(|found| found.loss));
        evaluations
    };
    let one = losses(1);
    assert_ne!(one, losses(2));
    // The waves' own variance, before resizing, is 0.95 of the first loss.
    assert!(one[39] < 0.9 * one[0], "{} to {}", one[0], one[39]);
}

/// A state, pixels of 8 images and their masks.
fn setting() -> (TrainState, Vec<f32>, Vec<f64>) {
    let network = VitMaeForPreTraining::new(model(), &Device::cpu(), 3).unwrap();
    let state = TrainState::new(network, AdamWOptions::default()).unwrap();
    let stream = vitmae_cpu::random::Stream::new(5, "test", 0, 0);
    let pixels = (0..8 * 3 * 256).map(|i| stream.normal(i) as f32).collect();
    let noise = (0..8 * 16).map(|i| stream.uniform(100_000 + i)).collect();
    (state, pixels, noise)
}

#[test]
fn accumulating_small_batches_equals_one_large_batch() {
    let (state, pixels, noise) = setting();
    let gradients = |parts: usize| {
        let mut state = state.clone();
        let size = 8 / parts;
        for part in 0..parts {
            let some = &pixels[part * size * 768..][..size * 768];
            let some = Tensor::from_slice(&Device::cpu(), &[size, 3, 16, 16], some).unwrap();
            let noise = &noise[part * size * 16..][..size * 16];
            let masking = Masking::from_noise(noise, size, 16, 0.75).unwrap();
            state.accumulate(&some, &masking, 1.0 / parts as f64, (0, 0)).unwrap();
        }
        let norm = f64::from(state.gradient_norm().unwrap().item().unwrap());
        let all = state.model.parameters();
        let values: Vec<f32> =
            all.iter().filter_map(|p| Some(p.grad.as_ref()?.to_vec().unwrap())).flatten().collect();
        let squares: f64 = values.iter().map(|&g| f64::from(g) * f64::from(g)).sum();
        assert!((norm / squares.sqrt() - 1.0).abs() < 1e-5, "{norm} {}", squares.sqrt());
        (values, norm)
    };
    let (one, norm) = gradients(1);
    assert!(norm > 1e-3);
    for parts in [2, 4, 8] {
        let (many, _) = gradients(parts);
        assert_eq!(one.len(), many.len());
        let worst = one.iter().zip(&many).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(f64::from(worst) < 1e-6 * norm.max(1.0), "{parts} parts: {worst}");
    }
}

#[test]
fn clipping_scales_the_whole_gradient() {
    let (state, pixels, noise) = setting();
    let pixels = Tensor::from_vec(&Device::cpu(), &[8, 3, 16, 16], pixels).unwrap();
    let masking = Masking::from_noise(&noise, 8, 16, 0.75).unwrap();
    let after = |clip: Option<f64>| {
        let mut state = state.clone();
        state.accumulate(&pixels, &masking, 1.0, (0, 0)).unwrap();
        let update = state.update(1e-2, clip).unwrap();
        let moments: Vec<f32> = state
            .optimizer
            .moments()
            .iter()
            .flatten()
            .flat_map(|m| m.m.to_vec().unwrap())
            .collect();
        (f64::from(update.gradient_norm.item().unwrap()), moments)
    };
    let (norm, free) = after(None);
    assert_eq!(after(Some(norm * 2.0)).1, free);
    let (reported, clipped) = after(Some(norm / 10.0));
    assert_eq!(reported, norm); // the norm before clipping
    for (clipped, free) in clipped.iter().zip(&free) {
        assert!((clipped - free / 10.0).abs() <= 1e-5 * free.abs() + 1e-12);
    }
}
