//! A linear probe on labelled digits: the encoder's features beside a random encoder's and raw
//! pixels, all with the same samples and the same classifier.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use vitmae_image::VitImageProcessor;
use vitmae_model::VitMaeForPreTraining;
use vitmae_tensor::{Device, Tensor};
use vitmae_trainer::linear_probe::{Labelled, linear_probe};

use super::assets::{self, Digit, TRAIN_DIGITS};
use crate::features::{Pool, pool};

/// Labelled digits that the classifier gets.
const TRAIN_SIZES: [usize; 3] = [100, 300, TRAIN_DIGITS];
/// Classes.
const CLASSES: usize = 10;
/// Digits that go through the encoder at once.
const BATCH: usize = 100;

/// Accuracies for one number of labelled digits.
pub struct Row {
    /// Labelled digits the classifier was trained on.
    pub train: usize,
    /// On the pre-trained encoder's features.
    pub model: f64,
    /// On those of the same encoder with its first, random weights.
    pub random: f64,
    /// On the digits' own 64 pixels.
    pub pixels: f64,
}

/// All accuracies.
pub struct ProbeTable {
    /// One row a number of labels, rising.
    pub rows: Vec<Row>,
    /// Test digits, the same in every row.
    pub test: usize,
}

/// Probes the pre-trained `model` and the untrained `random`.
pub fn table(
    model: &VitMaeForPreTraining,
    random: &VitMaeForPreTraining,
    device: &Device,
    processor: &VitImageProcessor,
) -> Result<ProbeTable> {
    let digits = assets::digits()?;
    let labels: Vec<usize> = digits.iter().map(|digit| digit.label).collect();
    let trained = features(model, device, processor, &digits)?;
    let untrained = features(random, device, processor, &digits)?;
    let raw: Vec<f32> =
        digits.iter().flat_map(|digit| &digit.image.data).map(|&x| f32::from(x)).collect();
    let accuracy = |features: &[f32], train: usize| -> Result<f64> {
        let width = features.len() / labels.len();
        let part = |from: usize, to: usize| Labelled {
            features: &features[from * width..to * width],
            labels: &labels[from..to],
        };
        let (train, test) = (part(0, train), part(TRAIN_DIGITS, labels.len()));
        Ok(linear_probe(train, test, CLASSES)?.accuracy)
    };
    let rows: Result<Vec<_>> = TRAIN_SIZES
        .into_iter()
        .map(|train| {
            let model = accuracy(&trained, train)?;
            let random = accuracy(&untrained, train)?;
            Ok(Row { train, model, random, pixels: accuracy(&raw, train)? })
        })
        .collect();
    Ok(ProbeTable { rows: rows?, test: labels.len() - TRAIN_DIGITS })
}

/// The mean patch token of every digit, `[N, D]`.
fn features(
    model: &VitMaeForPreTraining,
    device: &Device,
    processor: &VitImageProcessor,
    digits: &[Digit],
) -> Result<Vec<f32>> {
    let (height, width) = model.config.image_size;
    let mut all = Vec::new();
    for some in digits.chunks(BATCH) {
        let mut pixels = Vec::new();
        for digit in some {
            pixels.extend(processor.normalise(&assets::enlarged(digit, height)?)?);
        }
        let shape = [some.len(), model.config.num_channels, height, width];
        let pixels = Tensor::from_vec(device, &shape, pixels)?;
        let tokens = model.vit.encode(&pixels, false).context("cannot encode the digits")?;
        all.extend(pool(&tokens, Pool::Mean)?);
    }
    Ok(all)
}

impl Row {
    /// As JSON.
    pub fn to_json(&self) -> Value {
        json!({
            "train": self.train,
            "model": self.model,
            "random_encoder": self.random,
            "raw_pixels": self.pixels,
        })
    }
}
