//! What is saved, what is refused, and what is kept.

use std::fs;
use std::path::{Path, PathBuf};

use vitmae_tensor::Device;
use vitmae_trainer::checkpoint::{self, CheckpointStore, Flaw, Manifest};
use vitmae_trainer::{Event, Failure, Resume, RunConfig, TrainerError};
use vitmae_weights::{LoadOptions, from_pretrained};

use crate::tiny::{bits, config, data, run, run_watched};

fn checkpoints(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.starts_with("ckpt-"));
    names.sort();
    names
}

fn failure(config: &RunConfig) -> TrainerError {
    match run_watched(config, &data(), None, &mut |_| {}) {
        Ok(_) => panic!("the run should have failed"),
        Err(error) => error,
    }
}

#[test]
fn a_checkpoint_is_a_model_folder_and_old_ones_are_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let summary = run(&RunConfig { keep_last: 2, ..config(folder.path()) }, None);
    assert_eq!(checkpoints(folder.path()), ["ckpt-00000008", "ckpt-00000009"]);
    assert_eq!(summary.checkpoint, folder.path().join("ckpt-00000009"));
    let (model, _) =
        from_pretrained(&summary.checkpoint, &Device::cpu(), &LoadOptions::default()).unwrap();
    assert_eq!(bits(&model), bits(&summary.model));
    assert!(summary.checkpoint.join("preprocessor_config.json").exists());
    let manifest = Manifest::verify(&summary.checkpoint).unwrap();
    let names: Vec<_> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "config.json",
            "model.safetensors",
            "optimizer.safetensors",
            "preprocessor_config.json",
            "state.json"
        ]
    );
    assert_eq!(manifest.step, 9);
}

#[test]
fn one_flipped_byte_in_any_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = run(&config(folder.path()), Some(1)).checkpoint;
    let config = RunConfig { resume: Resume::From(checkpoint.clone()), ..config(folder.path()) };
    let mut tried = 0;
    for entry in fs::read_dir(&checkpoint).unwrap() {
        let path = entry.unwrap().path();
        let good = fs::read(&path).unwrap();
        for at in [0, good.len() / 3, good.len() / 2, good.len() - 2] {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, bad).unwrap();
            let error = failure(&config);
            let is_refused = matches!(error, TrainerError::Checkpoint { .. });
            // Inside the manifest's own run name or hash a flip is caught as well, or changes
            // nothing that resuming uses.
            let is_manifest = path.ends_with("MANIFEST.json");
            assert!(is_refused || is_manifest, "{} at {at}: {error}", path.display());
            assert_eq!(error.failure(), Failure::Input);
            tried += 1;
        }
        fs::write(&path, good).unwrap();
    }
    assert_eq!(tried, 24);
    assert_eq!(run_watched(&config, &data(), None, &mut |_| {}).unwrap().step, 9);
}

#[test]
fn a_damaged_newest_checkpoint_is_passed_over_with_a_warning() {
    let unbroken = tempfile::tempdir().unwrap();
    let expected = run(&config(unbroken.path()), None);
    type Damage = fn(&Path);
    type IsExpected = fn(&Flaw) -> bool;
    let damages: [(Damage, IsExpected); 4] = [
        (|c| fs::remove_file(c.join("MANIFEST.json")).unwrap(), |f| matches!(f, Flaw::NoManifest)),
        (
            |c| fs::write(c.join("MANIFEST.json"), "{").unwrap(),
            |f| matches!(f, Flaw::BadManifest { .. }),
        ),
        (|c| fs::remove_file(c.join("state.json")).unwrap(), |f| matches!(f, Flaw::Missing { .. })),
        (
            |c| fs::write(c.join("model.safetensors"), "").unwrap(),
            |f| matches!(f, Flaw::Length { .. }),
        ),
    ];
    for (damage, is_expected) in damages {
        let folder = tempfile::tempdir().unwrap();
        let newest = run(&config(folder.path()), Some(5)).checkpoint;
        damage(&newest);
        let (mut skipped, mut resumed) = (Vec::new(), None);
        let summary =
            run_watched(&config(folder.path()), &data(), None, &mut |event| match event {
                Event::CheckpointSkipped { folder, flaw } => {
                    assert!(is_expected(flaw), "{flaw}");
                    skipped.push(folder.to_path_buf());
                }
                Event::Resumed { step, .. } => resumed = Some(*step),
                _ => {}
            });
        assert_eq!((skipped, resumed), (vec![newest], Some(4)));
        assert_eq!(bits(&summary.unwrap().model), bits(&expected.model));
    }
}

#[test]
fn nothing_starts_over_where_every_checkpoint_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let only = run(&config(folder.path()), Some(1)).checkpoint;
    fs::remove_file(only.join("MANIFEST.json")).unwrap();
    let error = failure(&config(folder.path()));
    assert!(matches!(error, TrainerError::NoUsableCheckpoint { found: 1, .. }), "{error}");
    assert_eq!(checkpoints(folder.path()), ["ckpt-00000001"]);
}

#[test]
fn other_settings_are_refused_by_name_unless_overridden() {
    let folder = tempfile::tempdir().unwrap();
    run(&config(folder.path()), Some(3));
    let other = RunConfig { min_lr: 1e-4, ..config(folder.path()) };
    let message = failure(&other).to_string();
    assert!(message.contains("`min_lr` 0.0, now 0.0001"), "{message}");
    assert!(message.contains("--override"), "{message}");
    let overridden = RunConfig { override_settings: true, ..other };
    assert_eq!(run(&overridden, None).step, 9);
    // Where and how often to save, and the number of workers, are free.
    let folder = tempfile::tempdir().unwrap();
    run(&config(folder.path()), Some(3));
    let free = RunConfig { save_every_steps: Some(5), workers: 4, ..config(folder.path()) };
    assert_eq!(run(&free, None).step, 9);
}

#[test]
fn a_new_run_does_not_mix_with_an_old_one() {
    let folder = tempfile::tempdir().unwrap();
    run(&config(folder.path()), Some(2));
    let error = failure(&RunConfig { resume: Resume::Never, ..config(folder.path()) });
    assert!(matches!(error, TrainerError::OutputNotEmpty { .. }), "{error}");
    assert_eq!(error.failure(), Failure::Usage);
}

#[test]
fn a_second_process_in_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_path_buf();
    let mut second = None;
    run_watched(&config(&path), &data(), None, &mut |event| {
        if let Event::Step(step) = event
            && step.step == 1
        {
            second = Some(failure(&config(&path)));
        }
    })
    .unwrap();
    assert!(matches!(second, Some(TrainerError::OutputInUse { .. })));
}

#[test]
fn an_output_that_cannot_be_written_is_an_error_of_the_system() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let error = failure(&config(&file.join("run")));
    assert_eq!(error.failure(), Failure::Io);
    assert_eq!(error.to_string(), format!("cannot create `{}`", file.join("run").display()));
    assert_eq!(fs::read_to_string(&file).unwrap(), "in the way");
}

/// A folder with checkpoints of steps 2 and 4 by `run`.
fn store_with(folder: &Path, run: &str, steps: &[u64]) -> CheckpointStore {
    let store = CheckpointStore::new(folder, run);
    for &step in steps {
        store.save(step, "hash", |inside| fill(inside, run)).unwrap();
    }
    store
}

fn fill(folder: &Path, run: &str) -> Result<(), TrainerError> {
    let state = format!(
        "{{\"run\":\"{run}\",\"step\":1,\"epoch_loss\":0.0,\"epoch_updates\":0,\"identity\":null}}"
    );
    fs::write(folder.join("state.json"), state).unwrap();
    Ok(())
}

#[test]
fn rotation_touches_only_its_own_and_never_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    store_with(folder.path(), "other", &[100, 200]);
    let own = store_with(folder.path(), "own", &[2, 4, 6]);
    fs::create_dir(folder.path().join("ckpt-00000005")).unwrap(); // not a checkpoint
    fs::create_dir(folder.path().join("ckpt-notes")).unwrap();
    let removed = own.rotate(6, 1).unwrap();
    assert_eq!(removed.len(), 2);
    assert_eq!(
        checkpoints(folder.path()),
        ["ckpt-00000005", "ckpt-00000006", "ckpt-00000100", "ckpt-00000200", "ckpt-notes"]
    );
    own.rotate(6, 0).unwrap();
    assert!(folder.path().join("ckpt-00000006").exists());
}

#[test]
fn a_failed_save_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_with(folder.path(), "own", &[2]);
    let result = store.save(2, "hash", |inside| {
        fs::write(inside.join("half"), "x").unwrap();
        Err(TrainerError::WorkerLost)
    });
    assert!(result.is_err());
    assert_eq!(checkpoints(folder.path()), ["ckpt-00000002"]);
    assert_eq!(checkpoint::newest(folder.path()).unwrap().0.unwrap().manifest.step, 2);
    // The same step again keeps the folder that was there.
    store.save(2, "hash", |inside| fill(inside, "own")).unwrap();
    assert_eq!(checkpoints(folder.path()), ["ckpt-00000002", "ckpt-00000002.replaced-1"]);
}

#[test]
fn only_own_half_written_folders_are_swept() {
    let folder = tempfile::tempdir().unwrap();
    let half = |name: &str, run: &str| -> PathBuf {
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        fill(&path, run).unwrap();
        path
    };
    let own = half("ckpt-00000004.tmp-123", "own");
    let same = half("ckpt-00000004.tmp-128", "before");
    let state = fs::read_to_string(same.join("state.json")).unwrap();
    fs::write(same.join("state.json"), state.replace("null", "\"settings\"")).unwrap();
    let others = half("ckpt-00000004.tmp-124", "other");
    let notes = half("notes.tmp-1", "own");
    // One that was killed before its state was written is nobody's, but it may hold what somebody put there.
    let [empty, cut, kept] = ["125", "126", "127"].map(|process| {
        let path = folder.path().join(format!("ckpt-00000004.tmp-{process}"));
        fs::create_dir(&path).unwrap();
        path
    });
    fs::write(cut.join("state.json"), "{\"run\":\"o").unwrap();
    fs::write(kept.join("notes.txt"), "").unwrap();
    store_with(folder.path(), "own", &[2]).sweep(&"settings".into()).unwrap();
    assert!(!own.exists() && !same.exists() && !empty.exists() && !cut.exists() && kept.exists());
    assert!(others.exists() && notes.exists() && folder.path().join("ckpt-00000002").exists());
}
