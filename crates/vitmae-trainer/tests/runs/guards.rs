//! A loss that is no number stops the run before it spoils the weights.

use std::fs;

use vitmae_trainer::{Failure, RunConfig, TrainerError};

use crate::tiny::{config, data, run, run_watched};

#[test]
fn a_diverging_run_stops_with_a_dump_and_keeps_its_checkpoint() {
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
    let TrainerError::NonFinite { step, dump, .. } = &error else { panic!("{error}") };
    assert!(*step > 2);
    let text = fs::read_to_string(dump).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["step"], *step);
    assert_eq!(report["samples"].as_array().unwrap().len(), 4);
    assert_eq!(report["seed"], 7);
    assert_eq!(fs::read(good.join("model.safetensors")).unwrap(), before);
}
