//! Parity cases: folders that hold a model, inputs and the reference's outputs.
//!
//! A case is a folder with `case.json` (read strictly: an unknown field is an error), the files it names
//! and `tensors.safetensors` with `input.*` and `expected.*`. [`case_folders`] lists a folder's cases,
//! [`Case::read`] reads one. Running a case is the business of `vitmae-tests`; it should walk
//! [`Case::expected`], so that no expected tensor can be overlooked.

mod error;
mod fields;
pub mod formula;
mod tensors;

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::close::Tolerance;
pub use error::CaseError;
use fields::Fields;
pub use tensors::{Tensor, Tensors, Values};

/// What a case runs; the tensors of each kind are those of the format's table.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// The masked autoencoder, forward.
    Pretraining,
    /// The masked autoencoder, forward and backward.
    Gradients,
    /// Optimizer steps.
    Training {
        /// The optimizer.
        optimizer: Optimizer,
        /// Learning rate by step.
        schedule: Schedule,
    },
    /// The bare encoder.
    Encoder,
    /// The classifier.
    Classification {
        /// How it reads the encoder.
        head: Head,
    },
    /// The image processor.
    Processor {
        /// File name of the image, inside the folder.
        image: String,
    },
    /// Masking alone.
    Masking {
        /// Share of removed patches.
        mask_ratio: f64,
    },
    /// The masked autoencoder with weights and inputs by formula.
    PretrainingHash {
        /// B.
        batch: usize,
    },
}

/// Whose arithmetic the reference used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Numerics {
    /// PyTorch.
    #[default]
    Torch,
    /// TensorFlow.
    Tf,
}

/// How the weights lie on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// L1, transformers 4.x.
    Hf,
    /// L2, the bare encoder.
    HfBare,
    /// L4, saved by transformers 5.x.
    Hf5,
    /// L3, transformers 5.x in memory.
    #[serde(rename = "hf5-memory")]
    Hf5Memory,
    /// `pytorch_model.bin`.
    Bin,
    /// L5, the original `.pth`.
    Fb,
    /// L6, TensorFlow h5.
    TfH5,
    /// L7, TensorFlow safetensors.
    TfSafetensors,
}

/// How position tables follow another grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// HF's: the decoder along the flattened sequence.
    #[default]
    Hf1d,
    /// Both tables in two dimensions.
    Grid2d,
}

/// How a classifier reads the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Head {
    /// The class token.
    Cls,
    /// The mean of the patch tokens, then `fc_norm`.
    MeanFcNorm,
}

/// AdamW of a training case.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// Always AdamW.
    pub name: OptimizerName,
    /// β₁ and β₂.
    pub betas: [f64; 2],
    /// Added outside the root.
    pub eps: f64,
    /// Decoupled decay.
    pub weight_decay: f64,
    /// Which parameters do not decay.
    pub decay_rule: DecayRule,
}

/// The optimizers of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// `torch.optim.AdamW`.
    Adamw,
}

/// The decay rules of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum DecayRule {
    /// Tensors of one dimension and biases do not decay.
    #[serde(rename = "1d-and-bias-exempt")]
    OneDimensionAndBiasExempt,
}

/// Learning rate of a training case.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Always warm-up and half a cosine.
    pub kind: ScheduleKind,
    /// Peak.
    pub lr: f64,
    /// Floor.
    pub min_lr: f64,
    /// Steps of the linear rise.
    pub warmup_steps: u64,
    /// Steps in all.
    pub total_steps: u64,
}

impl Schedule {
    /// The learning rate of `step`, counted from 0.
    ///
    /// `lr·s/warmup` below the warm-up, else `min + (lr − min)·½(1 + cos(π(s − warmup)/(total − warmup)))`.
    pub fn learning_rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.lr * step as f64 / self.warmup_steps as f64;
        }
        let done = (step - self.warmup_steps) as f64;
        let share = done / (self.total_steps as f64 - self.warmup_steps as f64);
        let cosine = (std::f64::consts::PI * share).cos();
        self.min_lr + (self.lr - self.min_lr) * 0.5 * (1.0 + cosine)
    }
}

/// The schedules of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Linear warm-up, then half a cosine.
    WarmupCosine,
}

/// One case, read and checked; nothing has run yet.
#[derive(Debug, Clone)]
pub struct Case {
    /// The folder's own name.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    /// What to run.
    pub kind: Kind,
    /// Whose arithmetic.
    pub numerics: Numerics,
    /// Layout of the weights; `None` for kinds without weights.
    pub layout: Option<Layout>,
    /// File name of the weights; `None` for kinds without weights.
    pub weights: Option<String>,
    /// `Some` when position tables are to be resampled to the image.
    pub interpolation: Option<Interpolation>,
    /// The case's own tolerance; exact for `masking` when none is given.
    pub tolerance: Tolerance,
    /// Inputs and expected outputs.
    pub tensors: Tensors,
}

impl Case {
    /// Reads `case.json` and `tensors.safetensors` of a folder.
    ///
    /// # Errors
    /// [`CaseError`] names the file and the field or tensor at fault.
    pub fn read(folder: &Path) -> Result<Self, CaseError> {
        let path = folder.join("case.json");
        let text =
            std::fs::read(&path).map_err(|source| CaseError::Io { path: path.clone(), source })?;
        let fields: Fields = serde_json::from_slice(&text)
            .map_err(|source| CaseError::Json { path: path.clone(), source })?;
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let mut case = fields.check(path)?;
        case.name = name.unwrap_or_else(|| folder.display().to_string());
        case.folder = folder.to_owned();
        case.tensors = Tensors::read(&folder.join("tensors.safetensors"))?;
        Ok(case)
    }

    /// The weights file; `None` for kinds without weights.
    pub fn weights_path(&self) -> Option<PathBuf> {
        self.weights.as_ref().map(|name| self.folder.join(name))
    }

    /// The model's `config.json`.
    pub fn config_path(&self) -> PathBuf {
        self.folder.join("config.json")
    }

    /// The `preprocessor_config.json`, if the case has one.
    pub fn preprocessor_path(&self) -> Option<PathBuf> {
        Some(self.folder.join("preprocessor_config.json")).filter(|path| path.is_file())
    }

    /// Every expected tensor, its name without `expected.`, in the order of names.
    pub fn expected(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().filter_map(|(name, t)| Some((name.strip_prefix("expected.")?, t)))
    }
}

/// The case folders directly under `dir`, by name, or `dir` itself if it is one.
///
/// # Errors
/// [`CaseError::Io`] if `dir` cannot be listed, [`CaseError::NoCases`] if it holds none.
pub fn case_folders(dir: &Path) -> Result<Vec<PathBuf>, CaseError> {
    if dir.join("case.json").is_file() {
        return Ok(vec![dir.to_owned()]);
    }
    let io = |source| CaseError::Io { path: dir.to_owned(), source };
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.join("case.json").is_file() {
            folders.push(path);
        }
    }
    folders.sort();
    if folders.is_empty() {
        return Err(CaseError::NoCases { path: dir.to_owned() });
    }
    Ok(folders)
}

#[cfg(test)]
mod tests;
