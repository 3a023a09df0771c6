//! Sets as the libraries write them that people use: the images and classes are those of the folder.

use std::path::PathBuf;

use vitmae_trainer::data::{Dataset, open, open_parts};
use vitmae_trainer::{Classes, Datasets, RunConfig};

use crate::tiny::{bits, config, run_watched};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/sets").join(name)
}

/// Pixels and class of every image, by the image's own order.
fn contents(set: &dyn Dataset) -> Vec<(Vec<u8>, usize, String)> {
    let one = |index| {
        let image = set.load(index).unwrap();
        (image.data, image.width, set.class(index).unwrap())
    };
    (0..set.len()).map(one).collect()
}

/// Those of the folder, in the order of the images' names.
fn expected() -> Vec<(Vec<u8>, usize, String)> {
    let folder = open(&fixture("folder")).unwrap();
    let mut order: Vec<usize> = (0..folder.len()).collect();
    let name = |&index: &usize| folder.name(index).rsplit('/').next().map(str::to_owned);
    order.sort_by_key(name);
    let all = contents(folder.as_ref());
    order.into_iter().map(|index| all[index].clone()).collect()
}

#[test]
fn shards_of_webdataset_are_the_folder() {
    let set = open(&fixture("shards")).unwrap();
    assert_eq!(contents(set.as_ref()), expected());
    assert!(set.name(7).ends_with("set-0001.tar:07.png"), "{}", set.name(7));
    let classes = Classes::of(set.as_ref(), &fixture("shards")).unwrap();
    assert_eq!(classes.names, ["ant", "mole", "zebra"]);
    assert_eq!(classes.labels[..4], [2, 0, 1, 2]);
}

#[test]
#[cfg(feature = "parquet")]
fn files_of_datasets_are_the_folder() {
    let set = open(&fixture("set.parquet")).unwrap();
    assert_eq!(contents(set.as_ref()), expected());
    assert!(set.name(11).ends_with("set.parquet:row 11"), "{}", set.name(11));
    // Binary columns, texts as labels, Zstandard, and the hub's names of parts.
    let parts = open_parts(&fixture("parts")).unwrap();
    assert_eq!(contents(parts.train.as_ref()), expected());
    assert!(parts.train.name(9).ends_with("train-00001-of-00002.parquet:row 1"));
    assert_eq!(contents(parts.evaluation.unwrap().as_ref()), expected()[..2]);
    // In another order, and again.
    for index in [11, 0, 6, 11, 3] {
        assert_eq!(set.load(index).unwrap().data, expected()[index].0);
    }
}

#[test]
#[cfg(feature = "parquet")]
fn what_is_no_parquet_of_images_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let good = std::fs::read(fixture("set.parquet")).unwrap();
    std::fs::write(&path, &good[..good.len() - 9]).unwrap();
    let error = open(&path).err().unwrap().to_string();
    assert!(error.contains("a.parquet` cannot be used as Parquet file"), "{error}");
    // Images whose pages were damaged are bad samples, not the end.
    let mut bad = good.clone();
    bad[600..800].fill(0xff);
    std::fs::write(&path, bad).unwrap();
    let set = open(&path).unwrap();
    let good = (0..set.len()).filter(|&index| set.load(index).is_ok()).count();
    assert!((1..12).contains(&good), "{good}");
}

#[test]
fn the_forms_of_cifar_and_mnist_are_read() {
    let parts = open_parts(&fixture("cifar")).unwrap();
    assert_eq!((parts.train.len(), parts.evaluation.as_ref().unwrap().len()), (4, 1));
    let classes: Vec<_> = (0..4).map(|index| parts.train.class(index).unwrap()).collect();
    assert_eq!(classes, ["zebra", "ant", "mole", "zebra"]);
    let image = parts.train.load(3).unwrap();
    assert_eq!((image.width, image.height, image.channels), (32, 32, 3));
    let set = open(&fixture("idx")).unwrap();
    let image = set.load(2).unwrap();
    assert_eq!((image.width, image.height, image.channels), (4, 5, 1));
    assert_eq!([0, 1, 2].map(|index| set.class(index).unwrap()), ["7", "0", "10"]);
    let names = Classes::of(set.as_ref(), &fixture("idx")).unwrap().names;
    assert_eq!(names, ["0", "7", "10"]);
}

#[test]
fn a_run_does_not_depend_on_the_form_of_its_images() {
    // A packed copy has the folder's order, so the same seed draws the same batches.
    let place = tempfile::tempdir().unwrap();
    let folder = open(&fixture("folder")).unwrap();
    let path = place.path().join("set.vmpack");
    vitmae_trainer::data::pack(folder.as_ref(), &path, None, false, &mut |_| {}).unwrap();
    let weights = |train: std::sync::Arc<dyn Dataset>, out: &str| {
        let config = RunConfig { epochs: 2, ..config(&place.path().join(out)) };
        let data = Datasets { train, evaluation: None };
        bits(&run_watched(&config, &data, None, &mut |_| {}).unwrap().model)
    };
    assert!(weights(folder, "a") == weights(open(&path).unwrap(), "b"));
}
