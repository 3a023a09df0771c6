//! From images without labels to classes, on the labelled digits that come with the program.

use std::fs;
use std::path::Path;

use serde_json::Value;
use vitmae_image::{Crop, Limits, crop, decode, encode_png};

use crate::setup::{Call, Workplace, vitmae};

/// Digits to train on and to judge by.
const PARTS: [(&str, std::ops::Range<usize>); 2] = [("train", 0..600), ("val", 600..800)];
const SIDE: usize = 8;
/// Share of digits that each way must find.
const LEAST: f64 = 0.25;

/// Cuts the sheet of digits into a folder a class.
fn write_digits(folder: &Path) {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/digits");
    let sheet = decode(&assets.join("digits.png"), &Limits::default()).unwrap();
    let labels = fs::read_to_string(assets.join("labels.txt")).unwrap();
    let (labels, columns) = (labels.trim().as_bytes(), sheet.width / SIDE);
    for (part, digits) in PARTS {
        for index in digits {
            let (top, left) = (index / columns * SIDE, index % columns * SIDE);
            let digit = crop(&sheet, Crop { left, top, width: SIDE, height: SIDE }).unwrap();
            let class = folder.join(part).join(char::from(labels[index]).to_string());
            fs::create_dir_all(&class).unwrap();
            let png = encode_png(&digit.to_rgb()).unwrap();
            fs::write(class.join(format!("{index:04}.png")), png).unwrap();
        }
    }
}

fn json(mut command: std::process::Command) -> Value {
    command.args(["--json", "-q"]);
    serde_json::from_str(&Call::of(command).succeeded().stdout).unwrap()
}

#[test]
fn digits_are_pre_trained_on_probed_and_classified() {
    let place = Workplace::new(1);
    write_digits(&place.path("digits"));
    let (digits, run) = (place.text("digits"), place.text("run"));
    let recipe =
        "--epochs 20 --batch-size 32 --lr 2e-3 --warmup-epochs 2 --no-flip --crop-scale 0.6 1";
    let mut pretrain = place.pretrain("run", &["--data-path", &digits]);
    pretrain.args(recipe.split_whitespace());
    let trained = json(pretrain);
    let log = fs::read_to_string(place.path("run/log.txt")).unwrap();
    let mut lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let first = lines.find(|line| line["kind"] == "evaluation").unwrap();
    let ratio = trained["val_loss"].as_f64().unwrap() / first["val_loss"].as_f64().unwrap();
    assert!(ratio < 0.9, "{first} {trained}");
    let command = |words: &str| {
        let mut command = vitmae(&words.split_whitespace().collect::<Vec<_>>());
        command.args(["--data-path", &digits]);
        command
    };
    let of_model = |words: &str| {
        let mut command = command(words);
        command.args(["--model", &run, "--pool", "mean"]);
        json(command)
    };
    let share = |found: &Value, key: &str| found[key].as_f64().unwrap();
    // Each digit by chance: 0.1. The model is of width 16.
    let (knn, linear) = (of_model("knn --k 5"), of_model("linprobe --recipe linprobe-small"));
    assert!(share(&knn, "accuracy") > LEAST, "{knn}");
    assert!(share(&linear, "accuracy") > LEAST, "{linear}");
    // Crops of the size of the central part that is judged; small digits fill their image.
    let probe = format!(
        "--output-dir {} --epochs 200 --warmup-epochs 5 --batch-size 600 --lr 20",
        place.text("probe")
    );
    let probed =
        of_model(&format!("linprobe --optimizer lars {probe} --no-flip --crop-scale 0.7 0.8"));
    assert!(share(&probed, "accuracy") > LEAST, "{probed}");
    let mut finetune =
        command(&format!("finetune --finetune {run} --mixup 0.2 --reprob 0 {recipe}"));
    finetune.args(["--output-dir", &place.text("classifier"), "--layer-decay", "0.9"]);
    let tuned = json(finetune);
    assert!(share(&tuned, "val_accuracy") > LEAST, "{tuned}");
    let judged = json(command(&format!("evaluate --model {}", place.text("classifier"))));
    assert_eq!(judged["accuracy"], tuned["val_accuracy"]);
    assert_eq!(judged["per_class"].as_object().unwrap().len(), 10);
}
