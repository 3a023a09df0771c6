//! A linear classifier that learns beside a pre-training from what the encoder makes of its visible patches.
//!
//! It reads the mean of the visible patch tokens and gives nothing back: the encoder's gradients do not know of it. Its weights begin at
//! 0 and follow AdamW with a rate of 0.001, betas (0.9, 0.999) and no decay. An image is counted before the update that
//! learns from it.

use std::collections::BTreeMap;
use std::path::Path;

use vitmae_model::ModelError;
use vitmae_tensor::ops::{self, Precision, Weight};
use vitmae_tensor::{Device, Tensor};
use vitmae_weights::{Dtype, SafetensorsFile, TensorToWrite, write_safetensors};

use crate::team::Pending;
use crate::{Team, TrainerError};

const RATE: f64 = 1e-3;
const BETAS: [f64; 2] = [0.9, 0.999];
const EPS: f64 = 1e-8;

/// The classifier and its optimizer's state.
#[derive(Clone)]
pub(crate) struct OnlineProbe {
    /// `[C, D]` and `[C]`.
    parameters: [Learned; 2],
    /// 0 once a loss or a norm of the pre-training was not finite, else 1.
    scale: Tensor,
    /// The mean of the visible tokens of the last batch, `[B, D]`.
    pub(crate) features: Option<Tensor>,
}

#[derive(Clone)]
struct Learned {
    value: Tensor,
    m: Tensor,
    v: Tensor,
    gradient: Option<Tensor>,
}

/// Scores of a batch, `[B, C]`, and what would have been right.
pub(crate) struct Scored {
    scores: Tensor,
    labels: Vec<usize>,
}

impl OnlineProbe {
    pub(crate) fn new(device: &Device, classes: usize, width: usize) -> Result<Self, TrainerError> {
        let learned = |shape: &[usize]| -> Result<Learned, TrainerError> {
            let zeros = || Tensor::zeros(device, shape);
            Ok(Learned { value: zeros()?, m: zeros()?, v: zeros()?, gradient: None })
        };
        let parameters = [learned(&[classes, width])?, learned(&[classes])?];
        let scale = Tensor::from_slice(device, &[], &[1.0])?;
        Ok(Self { parameters, scale, features: None })
    }

    /// Keeps what a batch's tokens `[B, 1 + K, D]` say.
    pub(crate) fn see(&mut self, tokens: &Tensor) -> Result<(), vitmae_tensor::TensorError> {
        self.features = Some(ops::mean_tokens(tokens, 1)?);
        Ok(())
    }

    /// Scores the batch that was seen last and adds the gradient of `share` times its mean cross entropy.
    pub(crate) fn accumulate(
        &mut self,
        labels: Vec<usize>,
        share: f64,
    ) -> Result<Option<Scored>, TrainerError> {
        let Some(x) = self.features.take() else { return Ok(None) };
        let [weight, bias] = &mut self.parameters;
        let factor = Weight { tensor: &weight.value, precision: Precision::F32, packed: None };
        let scores = ops::linear(&x, factor, Some(&bias.value), Precision::F32)?;
        let targets: Vec<i64> = labels.iter().map(|&label| label as i64).collect();
        let dscores = ops::cross_entropy_backward(&scores, &targets, 0.0, share as f32)?;
        let shape = weight.value.shape().to_vec();
        let slot = &mut weight.gradient;
        ops::linear_backward_weight(Precision::F32, &dscores, &x, &shape, slot)?;
        ops::linear_backward_bias(&dscores, &mut bias.gradient)?;
        Ok(Some(Scored { scores, labels }))
    }

    /// From now on nothing changes if `value` is not finite.
    pub(crate) fn watch(&mut self, value: &Tensor) -> Result<(), TrainerError> {
        Ok(ops::clip_scale(value, None, &mut self.scale)?)
    }

    /// Update `step`, from 1, of the gradients of all processes.
    pub(crate) fn update(&mut self, step: u64, team: &Team) -> Result<(), TrainerError> {
        for Learned { value, gradient, .. } in &mut self.parameters {
            let (Some(own), Some(others)) = (&gradient, team.others()) else { continue };
            let sum = Pending::start(others, own.to_vec()?).wait(value.len())?;
            *gradient = Some(Tensor::from_slice(value.device(), value.shape(), &sum)?);
        }
        let settings = ops::AdamW { lr: RATE, betas: BETAS, eps: EPS, weight_decay: 0.0, step };
        let taken = self.parameters.each_mut().map(|learned| learned.gradient.take());
        let pairs = self.parameters.iter_mut().zip(&taken);
        let mut updated: Vec<_> = pairs
            .filter_map(|(Learned { value, m, v, .. }, gradient)| {
                let gradient = gradient.as_ref()?;
                Some(ops::AdamWParameter { value, gradient, m, v, settings })
            })
            .collect();
        Ok(ops::adamw(&mut updated, &self.scale)?)
    }

    /// Lets what was not finite spoil its own update alone.
    pub(crate) fn forget(&mut self) -> Result<(), TrainerError> {
        self.scale = Tensor::from_slice(self.scale.device(), &[], &[1.0])?;
        Ok(())
    }

    /// Every value by name; moments as PyTorch names them.
    fn parts(&mut self) -> [(&'static str, &mut Tensor); 6] {
        let [weight, bias] = &mut self.parameters;
        [
            ("weight", &mut weight.value),
            ("exp_avg.weight", &mut weight.m),
            ("exp_avg_sq.weight", &mut weight.v),
            ("bias", &mut bias.value),
            ("exp_avg.bias", &mut bias.m),
            ("exp_avg_sq.bias", &mut bias.v),
        ]
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), TrainerError> {
        let mut copy = self.clone();
        let (mut tensors, mut values) = (Vec::new(), BTreeMap::new());
        for (name, part) in copy.parts() {
            let (name, shape) = (name.to_owned(), part.shape().to_vec());
            tensors.push(TensorToWrite { name: name.clone(), dtype: Dtype::F32, shape });
            values.insert(name, part.clone());
        }
        write_safetensors(path, &BTreeMap::new(), &tensors, |tensor| {
            Ok(values[&tensor.name].to_vec().map_err(ModelError::from)?)
        })?;
        Ok(())
    }

    /// Reads what [`write`](Self::write) wrote; the file says for how many classes.
    pub(crate) fn read(path: &Path, device: &Device, width: usize) -> Result<Self, TrainerError> {
        let mut file = SafetensorsFile::open(path)?;
        let wrong = |what: &str, found: String, expected: String| {
            let folder = path.parent().unwrap_or(path).to_path_buf();
            let what = format!("`{what}`");
            TrainerError::CheckpointContents { folder, what, found, expected }
        };
        let classes = file.get("bias").map_or(0, |info| info.shape.iter().product());
        let mut probe = Self::new(device, classes, width)?;
        for (name, part) in probe.parts() {
            let found = file.get(name).map(|info| info.shape.clone());
            if found.as_deref() != Some(part.shape()) {
                let found = found.map_or("missing".to_owned(), |shape| format!("{shape:?}"));
                return Err(wrong(name, found, format!("{:?}", part.shape())));
            }
            *part = Tensor::from_vec(device, part.shape(), file.read_f32(name)?)?;
        }
        Ok(probe)
    }
}

impl Scored {
    /// Images whose class has the highest score; waits for the device.
    pub(crate) fn hits(&self) -> Result<u64, TrainerError> {
        let scores = self.scores.to_vec()?;
        let rows = scores.chunks_exact(scores.len() / self.labels.len().max(1));
        let right = |&(row, &label): &(&[f32], &usize)| {
            let best = |best: usize, at: usize| if row[at] > row[best] { at } else { best };
            (0..row.len()).fold(0, best) == label
        };
        Ok(rows.zip(&self.labels).filter(right).count() as u64)
    }

    pub(crate) fn images(&self) -> u64 {
        self.labels.len() as u64
    }
}
