//! `vitmae data`, and trainings on what it packs.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::setup::{Call, Workplace, picture, result_of, vitmae};

fn json(call: &Call) -> Value {
    serde_json::from_str(&call.stdout).unwrap_or_else(|_| panic!("no JSON: {}", call.stdout))
}

#[test]
fn bad_images_copies_and_classes_are_told() {
    let place = Workplace::new(1);
    let set = place.labelled();
    let call = Call::of(vitmae(&["data", "verify", &set.display().to_string()])).succeeded();
    let lines: Vec<&str> = call.stdout.lines().collect();
    assert_eq!(lines[0], "train: 8 images, sides of 20 to 24 pixels, 0 bad, 0 copies");
    assert_eq!(lines[1], "  2 classes of 4 to 4 images");
    // The same pictures are in both parts.
    assert_eq!(lines[2], "val: 8 images, sides of 20 to 24 pixels, 0 bad, 8 copies");
    fs::write(set.join("train/odd/9.png"), &picture(99)[..60]).unwrap();
    let call = Call::of(vitmae(&["data", "verify", &set.display().to_string(), "--json", "-q"]));
    assert_eq!((call.code, call.stderr.as_str()), (Some(3), ""));
    let found = json(&call);
    assert_eq!(found["train"]["bad"].as_array().unwrap().len(), 1);
    assert!(found["train"]["bad"][0]["path"].as_str().unwrap().ends_with("odd/9.png"));
    assert_eq!(found["train"]["classes"]["odd"], 5);
    assert_eq!(found["val"]["copies"].as_array().unwrap().len(), 8);
    Call::of(vitmae(&["data", "verify", &place.text("nowhere")])).failed(3, "cannot list");
}

#[test]
fn a_training_on_packed_images_is_that_on_the_images() {
    let place = Workplace::new(12);
    Call::of(place.pretrain("plain", &["-q"])).succeeded();
    let pack = |out: &str, more: &[&str]| {
        let mut command = vitmae(&["data", "pack", &place.text("images"), &place.text(out)]);
        command.args(more).args(["--json", "-q"]);
        command
    };
    let call = Call::of(pack("set.vmpack", &[])).succeeded();
    assert_eq!(json(&call)[0]["images"], 12);
    // The flag's last value counts.
    let data = ["-q", "--data-path", &place.text("set.vmpack")];
    Call::of(place.pretrain("packed", &data)).succeeded();
    assert!(result_of(&place.path("packed")) == result_of(&place.path("plain")));
    // Smaller images are other images, and the run says so.
    Call::of(pack("set.vmpack", &["--size", "16"])).succeeded();
    Call::of(place.pretrain("packed", &data)).failed(3, "was made with other settings: `data`");
    fs::write(place.path("images/x.png"), "no image").unwrap();
    Call::of(pack("other.vmpack", &[])).failed(3, "x.png` cannot be used");
    assert!(!place.path("other.vmpack").exists());
    let call = Call::of(pack("other.vmpack", &["--skip-bad"])).succeeded();
    assert_eq!(json(&call)[0]["left_out"].as_array().unwrap().len(), 1);
    Call::of(pack("images/1.png", &[])).failed(2, "a packed file ends in `.vmpack`");
}

#[test]
fn labelled_parts_are_packed_side_by_side() {
    let place = Workplace::new(12);
    let (set, model) = (place.labelled(), place.model().display().to_string());
    let packed = place.text("packed");
    let call = Call::of(vitmae(&["data", "pack", &set.display().to_string(), &packed])).succeeded();
    assert_eq!(call.stdout.lines().count(), 2);
    let accuracy = |data: &str| {
        let arguments = ["knn", "--model", &model, "--data-path", data, "--json", "-q", "--k", "3"];
        json(&Call::of(vitmae(&arguments)).succeeded())
    };
    assert_eq!(accuracy(&packed), accuracy(&set.display().to_string()));
}

#[test]
fn every_command_takes_sets_of_the_libraries() {
    let place = Workplace::new(12);
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/sets");
    let cifar = fixtures.join("cifar").display().to_string();
    let shards = fixtures.join("shards").display().to_string();
    let flags = ["-q", "--batch-size", "2", "--data-path"];
    let call = Call::of(place.pretrain("tar", &[&flags[..], &[&shards], &["--json"]].concat()));
    assert_eq!(json(&call.succeeded())["step"], 24);
    let call = Call::of(place.pretrain("cifar", &[&flags[..], &[&cifar], &["--json"]].concat()));
    // The part called `test` is what it is evaluated on.
    assert!(json(&call.succeeded())["val_loss"].as_f64().unwrap() > 0.0);
    let model = place.text("cifar");
    let arguments = ["linprobe", "--model", &model, "--data-path", &cifar, "--json", "-q"];
    assert_eq!(json(&Call::of(vitmae(&arguments)).succeeded())["test"], 1);
    let only = ["knn", "--model", &model, "--data-path", &shards];
    Call::of(vitmae(&only)).failed(3, "has no `train` and `val` inside");
}

#[test]
fn the_loader_is_measured() {
    let place = Workplace::new(12);
    let mut command = vitmae(&["data", "bench", &place.text("images"), "--seconds", "0.1"]);
    command.args(["--input-size", "32", "--workers", "2", "--json"]);
    let found = json(&Call::of(command).succeeded());
    assert!(found["images_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(found["workers"], 2);
}
