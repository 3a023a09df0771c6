//! A loss that is no number never spoils the weights, and a run goes on as its policy says.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use vitmae_image::{Image, ImageError};
use vitmae_trainer::data::Dataset;
use vitmae_trainer::{Datasets, Event, Failure, NanPolicy, Resume, RunConfig, TrainerError};

use crate::tiny::{bits, config, data, run, run_watched};

#[test]
fn a_diverging_run_stops_with_a_dump_that_repeats_it_and_keeps_its_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let good = run(&config(folder.path()), Some(2)).checkpoint;
    let before = fs::read(good.join("model.safetensors")).unwrap();
    let config = RunConfig {
        lr: Some(1e30),
        warmup_epochs: 0.0,
        override_settings: true,
        ..config(folder.path())
    };
    let error = run_watched(&config, &data(), None, &mut |_| {}).err().unwrap();
    assert_eq!(error.failure(), Failure::NonFinite);
    let TrainerError::NonFinite { step, dump, checkpoint, .. } = &error else { panic!("{error}") };
    assert!(*step > 2);
    let text = fs::read_to_string(dump).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["step"], *step);
    assert_eq!(report["samples"].as_array().unwrap().len(), 4);
    assert_eq!(report["seed"], 7);
    assert_eq!(fs::read(good.join("model.safetensors")).unwrap(), before);
    // From the checkpoint beside the report the same update comes out again, and it is the first.
    let again = RunConfig {
        resume: Resume::From(checkpoint.clone()),
        override_settings: false,
        output_dir: folder.path().join("again"),
        ..config
    };
    let mut steps = 0;
    let repeated = run_watched(&again, &data(), None, &mut |event| {
        steps += u64::from(matches!(event, Event::Step(_)));
    });
    let repeated = repeated.err().unwrap();
    let TrainerError::NonFinite { step: second, dump, .. } = &repeated else { panic!() };
    assert_eq!((steps, second), (0, step));
    let repeated: Value = serde_json::from_str(&fs::read_to_string(dump).unwrap()).unwrap();
    for key in ["loss", "gradient_norm", "samples", "first_bad_gradient"] {
        assert_eq!(repeated[key], report[key], "{key}");
    }
}

/// Black images, of which some are white.
pub struct Flashes {
    count: usize,
    white: Vec<usize>,
}

impl Dataset for Flashes {
    fn len(&self) -> usize {
        self.count
    }
    fn load(&self, index: usize) -> Result<Image, ImageError> {
        let value = if self.white.contains(&index) { 255 } else { 0 };
        Image::new(16, 16, 3, vec![value; 16 * 16 * 3])
    }
    fn name(&self, index: usize) -> String {
        format!("flash {index}")
    }
    fn fingerprint(&self) -> String {
        format!("{} flashes {:?}", self.count, self.white)
    }
}

/// 12 images, batches of 4, so that each epoch of 3 updates sees every image once.
pub fn flashes(white: &[usize]) -> Datasets {
    let train = Arc::new(Flashes { count: 12, white: white.to_vec() });
    Datasets { train, evaluation: None }
}

/// White is so large a number here that the loss is not finite.
pub fn blinding(folder: &Path, nan_policy: NanPolicy) -> RunConfig {
    let mut config = RunConfig { nan_policy, save_every_steps: Some(1), ..config(folder) };
    config.processor.rescale_factor = 1e36;
    config.keep_last = 100;
    config
}

fn lines(folder: &Path, kind: &str) -> Vec<Value> {
    let log = fs::read_to_string(folder.join("log.txt")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["kind"] == kind).collect()
}

#[test]
fn a_skipped_update_changes_nothing_and_the_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let config = blinding(folder.path(), NanPolicy::Skip);
    let mut skipped = Vec::new();
    let summary = run_watched(&config, &flashes(&[5]), None, &mut |event| {
        if let Event::Skipped { step, loss, .. } = event {
            assert!(!loss.is_finite());
            skipped.push(*step);
        }
    });
    let summary = summary.unwrap();
    assert_eq!((summary.step, skipped.len()), (9, 3)); // once an epoch
    let weights = |step: u64| {
        fs::read(folder.path().join(format!("ckpt-{step:08}/model.safetensors"))).unwrap()
    };
    for step in 2..=9 {
        assert_eq!(weights(step) == weights(step - 1), skipped.contains(&step), "{step}");
    }
    let logged = lines(folder.path(), "skipped");
    assert_eq!(logged.len(), 3);
    assert!(logged[0]["images"].as_array().unwrap().contains(&"flash 5".into()));
    // Stopped in between, it ends with the same weights.
    let other = tempfile::tempdir().unwrap();
    let config = RunConfig { output_dir: other.path().into(), ..config };
    run_watched(&config, &flashes(&[5]), Some(4), &mut |_| {}).unwrap();
    let resumed = run_watched(&config, &flashes(&[5]), None, &mut |_| {}).unwrap();
    assert!(bits(&resumed.model) == bits(&summary.model));
}

#[test]
fn ten_skips_in_a_row_are_enough() {
    let folder = tempfile::tempdir().unwrap();
    let config = RunConfig { epochs: 5, ..blinding(folder.path(), NanPolicy::Skip) };
    let all: Vec<usize> = (0..12).collect();
    let mut skips = 0;
    let error = run_watched(&config, &flashes(&all), None, &mut |event| {
        skips += u32::from(matches!(event, Event::Skipped { .. }));
    });
    let error = error.err().unwrap();
    assert!(matches!(error, TrainerError::NonFinite { step: 11, .. }), "{error}");
    assert_eq!(skips, 10);
}

#[test]
fn a_run_rolls_back_to_its_checkpoint_and_passes_the_images_over() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        RunConfig { save_every_steps: Some(2), ..blinding(folder.path(), NanPolicy::Rollback) };
    // An image that the first epoch sees in its last update, behind a checkpoint.
    let mut backs = Vec::new();
    let (mut white, mut summary) = (0, None);
    for candidate in 0..12 {
        let _ = fs::remove_dir_all(folder.path());
        backs.clear();
        white = candidate;
        let done = run_watched(&config, &flashes(&[white]), None, &mut |event| {
            if let Event::RolledBack { failed, step, .. } = event {
                backs.push((*failed, *step));
            }
        });
        match done {
            Ok(done) if backs.first() == Some(&(3, 2)) => summary = Some(done),
            Ok(_) => continue,
            // Without a checkpoint there is nothing to go back to.
            Err(error) => {
                let early = matches!(error, TrainerError::NonFinite { step: 1 | 2, .. });
                assert!(early && backs.is_empty(), "{error}");
                continue;
            }
        }
        break;
    }
    let summary = summary.unwrap();
    assert_eq!(summary.step, 9);
    let passed_over: u64 = backs.iter().map(|(failed, step)| failed - step).sum();
    let state = fs::read_to_string(summary.checkpoint.join("state.json")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["passed_over"], passed_over);
    let logged = lines(folder.path(), "rollback");
    let logged: Vec<_> =
        logged.iter().map(|l| (l["failed"].as_u64(), l["step"].as_u64())).collect();
    let told: Vec<_> = backs.iter().map(|&(failed, step)| (Some(failed), Some(step))).collect();
    assert_eq!(logged, told);
    // Stopped after it went back, it ends with the same weights.
    for until in [2, 3, 5] {
        let other = tempfile::tempdir().unwrap();
        let config = RunConfig { output_dir: other.path().into(), ..config.clone() };
        run_watched(&config, &flashes(&[white]), Some(until), &mut |_| {}).unwrap();
        let resumed = run_watched(&config, &flashes(&[white]), None, &mut |_| {}).unwrap();
        assert!(bits(&resumed.model) == bits(&summary.model), "{until}");
    }
}

#[test]
fn going_back_to_one_checkpoint_ends_after_three_times() {
    let folder = tempfile::tempdir().unwrap();
    let config = blinding(folder.path(), NanPolicy::Rollback);
    run_watched(&config, &flashes(&[]), Some(2), &mut |_| {}).unwrap();
    let config = RunConfig { override_settings: true, ..config };
    let all: Vec<usize> = (0..12).collect();
    let mut backs = 0;
    let error = run_watched(&config, &flashes(&all), None, &mut |event| {
        backs += u32::from(matches!(event, Event::RolledBack { step: 2, failed: 3, .. }));
    });
    let error = error.err().unwrap();
    assert!(matches!(error, TrainerError::NonFinite { step: 3, .. }), "{error}");
    assert_eq!(backs, 3);
}
