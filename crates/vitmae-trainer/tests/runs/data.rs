//! Batches, bad images and their policies.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;

use vitmae_trainer::data::{BatchMaker, MaskRatio, MaskStrategy, OnBadSample, Prefetch};
use vitmae_trainer::{Datasets, Event, Failure, RunConfig, TrainerError};

use crate::tiny::{Waves, config, run_watched};

fn maker(count: usize, broken: &[usize], on_bad: OnBadSample) -> Arc<BatchMaker> {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    Arc::new(BatchMaker {
        dataset: Arc::new(Waves { count, broken: broken.to_vec() }),
        plan: config.plan(count),
        augmentation: config.augmentation(),
        channels: 3,
        grid: (4, 4),
        masking: (MaskRatio::constant(0.75), MaskStrategy::Random),
        seed: 3,
        on_bad,
    })
}

#[test]
fn prefetching_hands_out_the_batches_of_the_maker_in_order() {
    let maker = maker(13, &[], OnBadSample::Replace);
    for workers in [1, 2, 3, 7] {
        let mut prefetch = Prefetch::start(Arc::clone(&maker), 2..11, workers).unwrap();
        for number in 2..11 {
            let batch = prefetch.next_batch().unwrap().unwrap();
            assert_eq!(batch, maker.make(number).unwrap(), "{workers} workers");
        }
        assert!(prefetch.next_batch().is_none());
    }
    // Dropping early ends the threads.
    drop(Prefetch::start(maker, 0..1_000_000, 3).unwrap());
}

#[test]
fn an_epoch_shows_each_image_once_and_epochs_differ() {
    let maker = maker(12, &[], OnBadSample::Replace);
    let epoch = |number: u64| -> Vec<u64> {
        (3 * number..3 * number + 3).flat_map(|batch| maker.make(batch).unwrap().samples).collect()
    };
    assert_eq!(epoch(0).iter().collect::<HashSet<_>>().len(), 12);
    assert_ne!(epoch(0), epoch(1));
    let batch = maker.make(0).unwrap();
    assert_eq!((batch.pixels.len(), batch.noise.len()), (4 * 3 * 256, 4 * 16));
    assert_eq!(batch.epoch, 0);
    assert_eq!(maker.make(3).unwrap().epoch, 1);
}

#[test]
fn a_bad_image_is_replaced_skipped_or_an_error() {
    let good = maker(13, &[], OnBadSample::Replace);
    let victim = good.make(0).unwrap().samples[1] as usize;
    let replaced = maker(13, &[victim], OnBadSample::Replace).make(0).unwrap();
    assert_eq!(replaced.samples.len(), 4);
    assert!(!replaced.samples.contains(&(victim as u64)));
    assert_eq!(replaced.bad.len(), 1);
    assert_eq!(replaced.bad[0].path, format!("wave {victim}"));
    assert_eq!(replaced, maker(13, &[victim], OnBadSample::Replace).make(0).unwrap());
    // The others are what they were.
    assert_eq!(replaced.pixels[..768], good.make(0).unwrap().pixels[..768]);
    assert_eq!(replaced.noise, good.make(0).unwrap().noise);

    let skipped = maker(13, &[victim], OnBadSample::Skip).make(0).unwrap();
    assert_eq!((skipped.samples.len(), skipped.noise.len()), (3, 3 * 16));
    let error = maker(13, &[victim], OnBadSample::Error).make(0).unwrap_err();
    assert!(error.to_string().starts_with(&format!("`wave {victim}` cannot be used")), "{error}");

    let all: Vec<usize> = (0..13).collect();
    for policy in [OnBadSample::Replace, OnBadSample::Skip] {
        let error = maker(13, &all, policy).make(0).unwrap_err();
        assert!(matches!(error, TrainerError::NoSubstitute { .. }), "{error}");
    }
}

#[test]
fn bad_images_are_listed_once_and_too_many_end_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let data = |broken: Vec<usize>| Datasets {
        train: Arc::new(Waves { count: 13, broken }),
        evaluation: None,
    };
    let mut reported = Vec::new();
    let config = config(folder.path());
    run_watched(&config, &data(vec![2, 5]), None, &mut |event| {
        if let Event::BadSample(bad) = event {
            reported.push(bad.sample);
        }
    })
    .unwrap();
    reported.sort_unstable();
    assert_eq!(reported, [2, 5]);
    let list = fs::read_to_string(folder.path().join("bad_samples.jsonl")).unwrap();
    assert_eq!(list.lines().count(), 2);

    let folder = tempfile::tempdir().unwrap();
    let config = crate::tiny::config(folder.path());
    let error = run_watched(&config, &data((0..12).collect()), None, &mut |_| {}).err().unwrap();
    let is_expected = matches!(
        error,
        TrainerError::TooManyBadSamples { found: 11, limit: 10, .. }
            | TrainerError::NoSubstitute { .. }
    );
    assert!(is_expected, "{error}");
    assert_eq!(error.failure(), Failure::Input);
}

#[test]
fn too_few_images_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let config = RunConfig { accumulation: 4, ..config(folder.path()) };
    let error = run_watched(&config, &crate::tiny::data(), None, &mut |_| {}).err().unwrap();
    assert_eq!(
        error.to_string(),
        "13 images are fewer than one update of 16 (4 a batch x 4)\nhelp: pass `--batch-size 3` \
         or less, or more images"
    );
}
