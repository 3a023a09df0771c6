//! The classifier beside a pre-training: it learns, it resumes, and the model does not notice it.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use vitmae_tensor::Device;
use vitmae_trainer::checkpoint::{ONLINE_PROBE_FILE, STATE_FILE};
use vitmae_trainer::{
    Datasets, Event, FinetuneConfig, RunConfig, StopFlag, Summary, Team, TrainerError, finetune,
    pretrain,
};

use crate::finetuning::{Stripes, classes};
use crate::tiny::{bits, config as tiny};
use crate::together::by;

/// 26 images of two classes, batches of 4, 6 updates an epoch, 3 epochs.
fn config(folder: &Path) -> RunConfig {
    RunConfig { online_probe: Some(classes(26)), ..tiny(folder) }
}

fn try_run(config: &RunConfig, until: Option<u64>) -> Result<Summary, TrainerError> {
    let data = Datasets { train: Arc::new(Stripes(26)), evaluation: None };
    let stop = StopFlag::new();
    let handle = stop.clone();
    pretrain(config, &data, &Device::cpu(), &stop, &mut |event| {
        if let Event::Step(step) = &event
            && Some(step.step) == until
        {
            handle.set(130);
        }
    })
}

fn run(config: &RunConfig, until: Option<u64>) -> Summary {
    try_run(config, until).unwrap()
}

fn file(summary: &Summary) -> Vec<u8> {
    std::fs::read(summary.checkpoint.join(ONLINE_PROBE_FILE)).unwrap()
}

/// The accuracies of a log, by epoch.
fn accuracies(folder: &Path) -> Vec<f64> {
    let log = std::fs::read_to_string(folder.join("log.txt")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|line| line["probe_accuracy"].as_f64()).collect()
}

#[test]
fn the_model_has_the_same_bits_with_and_without_and_the_probe_resumes() {
    let [plain, unbroken] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let clipped = |config: RunConfig| RunConfig { clip_grad: Some(0.1), ..config };
    let without = run(&clipped(tiny(plain.path())), None);
    assert!(!without.checkpoint.join(ONLINE_PROBE_FILE).exists());
    assert!(accuracies(plain.path()).is_empty());
    let expected = run(&clipped(config(unbroken.path())), None);
    assert_eq!(expected.step, 18);
    assert_eq!(bits(&expected.model), bits(&without.model));
    let read =
        |summary: &Summary, name: &str| std::fs::read(summary.checkpoint.join(name)).unwrap();
    for name in ["model.safetensors", "optimizer.safetensors"] {
        assert_eq!(read(&expected, name), read(&without, name));
    }
    let found = accuracies(unbroken.path());
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|share| (0.0..=1.0).contains(share)), "{found:?}");
    for until in [1, 4, 8, 17] {
        let folder = tempfile::tempdir().unwrap();
        let config = clipped(config(folder.path()));
        let stopped = run(&config, Some(until));
        assert_ne!(file(&stopped), file(&expected));
        let resumed = run(&config, None);
        assert_eq!(file(&resumed), file(&expected), "stop after {until}");
        assert_eq!(accuracies(folder.path()), found, "stop after {until}");
        let state = |summary: &Summary| {
            let mut state: Value = serde_json::from_slice(&read(summary, STATE_FILE)).unwrap();
            state["run"] = Value::Null;
            state
        };
        assert_eq!(state(&resumed), state(&expected));
    }
}

#[test]
fn it_learns_what_the_encoder_can_tell_apart() {
    let folder = tempfile::tempdir().unwrap();
    let config = RunConfig { epochs: 150, save_every_steps: Some(300), ..config(folder.path()) };
    run(&config, None);
    let found = accuracies(folder.path());
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&found[..20]), mean(&found[130..]));
    assert!(last > first + 0.1 && last > 0.7, "{first} to {last}");
}

#[test]
fn several_processes_learn_one_probe() {
    let [one, two] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    // The encoder stands still, so that both see the same features: what rounding does to it the probe would enlarge, since the
    // first steps of AdamW do not depend on the size of a gradient.
    let of = |folder: &Path, team: Team, accumulation| {
        let config = RunConfig { lr: Some(0.0), ..config(folder) };
        run(&RunConfig { team, accumulation, batch_size: 2, ..config }, None)
    };
    let expected = of(one.path(), Team::default(), 2);
    let found = by(2, |team| of(two.path(), team, 1));
    assert_eq!(bits(&found[0].model), bits(&found[1].model));
    assert_eq!(accuracies(two.path()), accuracies(one.path()));
    let values = |summary: &Summary| {
        let path = summary.checkpoint.join(ONLINE_PROBE_FILE);
        let mut file = vitmae_weights::SafetensorsFile::open(&path).unwrap();
        file.read_f32("weight").unwrap()
    };
    for (a, b) in values(&found[0]).iter().zip(&values(&expected)) {
        assert!((a - b).abs() < 2e-6, "{a} is not {b}");
    }
}

#[test]
fn a_run_with_it_is_another_run_and_fine_tuning_has_none() {
    let folder = tempfile::tempdir().unwrap();
    run(&config(folder.path()), Some(2));
    let error = try_run(&tiny(folder.path()), None).err().unwrap().to_string();
    assert!(error.contains("`online_probe` [\"across\",\"along\"], now null"), "{error}");
    let finetuning = FinetuneConfig::new(config(folder.path()), classes(26), vec![]);
    let data = Datasets { train: Arc::new(Stripes(26)), evaluation: None };
    let stop = StopFlag::new();
    let error = finetune(&finetuning, &data, &Device::cpu(), &stop, &mut |_| {}).err().unwrap();
    assert!(error.to_string().starts_with("`online_probe` is on, expected off"), "{error}");
}
