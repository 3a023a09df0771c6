//! Reconstructions under masks from files.

use std::fs;
use std::path::Path;

use serde_json::Value;
use vitmae_image::{Limits, decode};

use crate::setup::{Call, Workplace, result_of, vitmae};

/// An `.npy` file of version 1.
fn npy(path: &Path, descr: &str, shape: &str, data: &[u8]) {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = (header.len() as u16).to_le_bytes();
    let bytes = [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), data].concat();
    fs::write(path, bytes).unwrap();
}

#[test]
fn masks_from_files_are_those_that_are_used() {
    let place = Workplace::new(12);
    let model = place.model().display().to_string();
    let images = [place.text("images/1.png"), place.text("images/2.png")];
    let (mask, out) = (place.text("mask.npy"), place.text("sheet.png"));
    let reconstruct = |more: &[&str]| {
        let mut command = vitmae(&["reconstruct", &images[0], &images[1], "--model", &model]);
        command.args(["--out", &out, "--json", "--mask-file", &mask]).args(more);
        Call::of(command)
    };
    let sheet = |more: &[&str]| {
        let call = reconstruct(more).succeeded();
        let result: Value = serde_json::from_str(&call.stdout).unwrap();
        (result["images"].clone(), decode(&place.path("sheet.png"), &Limits::default()).unwrap())
    };
    // The first image loses its left half, the second its right one.
    let halves = [[1u8, 1, 0, 0].repeat(4), [0, 0, 1, 1].repeat(4)].concat();
    npy(Path::new(&mask), "|u1", "(2, 16)", &halves);
    let (found, flags) = sheet(&[]);
    assert_eq!((&found[0]["removed"], &found[1]["removed"]), (&8.into(), &8.into()));
    let pixel = |x: usize, y: usize| &flags.data[(y * flags.width + x) * 3..][..3];
    assert!((0..8).all(|x| pixel(20 + x, 2) == [128; 3] && pixel(28 + x, 20) == [128; 3]));
    assert!((0..8).any(|x| pixel(28 + x, 2) != [128; 3]) && pixel(20, 20) != [128; 3]);
    npy(Path::new(&mask), "|b1", "(2, 16)", &halves);
    assert_eq!(sheet(&[]).1, flags);
    // A mask of Hugging Face is floats; noise that keeps the same patches gives the same.
    let floats = |of: &dyn Fn(usize) -> f32| -> Vec<u8> {
        (0..32).flat_map(|i| of(i).to_le_bytes()).collect()
    };
    npy(Path::new(&mask), "<f4", "(2, 16)", &floats(&|i| f32::from(halves[i])));
    assert_eq!(sheet(&[]).1, flags);
    npy(Path::new(&mask), "<f4", "(2, 16)", &floats(&|i| f32::from(halves[i]) + i as f32 / 99.0));
    assert_eq!(sheet(&["--mask-ratio", "0.5"]).1, flags);
    assert_eq!(sheet(&[]).0[0]["removed"], 12);
    // One row serves all images.
    npy(Path::new(&mask), "|u1", "(16,)", &halves[..16]);
    let quality = vitmae(&[
        "quality",
        "--model",
        &model,
        "--data-path",
        &place.text("images"),
        "--mask-file",
        &mask,
        "--json",
        "-q",
    ]);
    let quality = Call::of(quality).succeeded();
    let result: Value = serde_json::from_str(&quality.stdout).unwrap();
    assert_eq!(result["masks"], 1);
    // The right half of no image was removed, so the worst patch lies in the left one.
    let images = result["images"].as_array().unwrap();
    assert!(images.iter().all(|row| row["worst"]["patch"].as_u64().unwrap() % 4 < 2), "{result}");
    let wrong = |descr: &str, shape: &str, data: &[u8], part: &str| {
        npy(Path::new(&mask), descr, shape, data);
        reconstruct(&[]).failed(3, part);
    };
    wrong("|u1", "(15,)", &halves[..15], "its shape is [15], expected [16] or [N, 16]");
    wrong("|u1", "(3, 16)", &[&halves[..], &halves[..16]].concat(), "it has 3 rows, expected 1 or");
    wrong("<i4", "(16,)", &[0; 64], "its type is `<i4`, expected bool, uint8, float32");
    wrong("|u1", "(16,)", &[1; 16], "it removes every patch");
    wrong("|u1", "(16,)", &[0; 16], "it removes no patch");
    let mut uneven = halves.clone();
    uneven[16] = 1;
    wrong("|u1", "(2, 16)", &uneven, "row 1 keeps 7 patches, expected 8 as the first row");
    wrong("<f4", "(16,)", &f32::NAN.to_le_bytes().repeat(16), "the noise at 0 is not a number");
    fs::remove_file(&mask).unwrap();
    reconstruct(&[]).failed(6, "mask.npy` cannot be used");
}

#[test]
fn a_model_is_trained_under_masks_from_a_file() {
    let place = Workplace::new(12);
    let mask = place.path("mask.npy");
    let halves = [[1u8, 1, 0, 0].repeat(4), [0, 0, 1, 1].repeat(4)].concat();
    npy(&mask, "|u1", "(2, 16)", &halves);
    let file = place.text("mask.npy");
    let run = |out: &str, more: &[&str]| {
        Call::of(place.pretrain(out, &[&["-q", "--mask-file", &file][..], more].concat()))
    };
    run("run", &[]).succeeded();
    let newest = result_of(&place.path("run"));
    let config: Value =
        serde_json::from_slice(&newest.iter().find(|file| file.0 == "config.json").unwrap().1)
            .unwrap();
    assert_eq!(config["mask_ratio"], 0.5);
    // Noise that keeps the same patches is the same run, and resumes it.
    let noise = halves.iter().enumerate().map(|(at, &half)| f32::from(half) + at as f32 / 99.0);
    npy(&mask, "<f4", "(2, 16)", &noise.flat_map(f32::to_le_bytes).collect::<Vec<u8>>());
    run("noise", &["--mask-ratio", "0.5"]).succeeded();
    assert!(result_of(&place.path("noise")) == newest);
    run("run", &["--mask-ratio", "0.5"]).succeeded();
    // Other masks are another run.
    npy(&mask, "|u1", "(16,)", &halves[..16]);
    run("run", &[]).failed(3, "was made with other settings: `masking`");
    run("one", &[]).succeeded();
    assert!(result_of(&place.path("one")) != newest);
    npy(&mask, "|u1", "(15,)", &halves[..15]);
    run("other", &[]).failed(3, "its shape is [15], expected [16] or [N, 16]");
    run("other", &["--masking", "block"]).failed(2, "cannot be used with");
    run("other", &["--mask-ratio-end", "0.9"]).failed(2, "cannot be used with");
}
