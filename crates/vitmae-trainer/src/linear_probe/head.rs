//! What the original's linear probe trains: batch normalisation and a linear layer, on features that nothing changes.

use std::collections::BTreeMap;
use std::path::Path;

use vitmae_cpu::random::Stream;
use vitmae_tensor::ops::{self, Precision, Weight};
use vitmae_tensor::{Device, Tensor};
use vitmae_weights::{Dtype, SafetensorsFile, TensorToWrite, write_safetensors};

use super::BatchNorm;
use crate::{Lars, TrainerError};

/// Standard deviation of the first weights.
const DEVIATION: f64 = 0.01;

/// A linear classifier in training. It is computed on the CPU: beside the encoder it costs nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeHead {
    /// Normalises the features.
    pub norm: BatchNorm,
    /// `[C, D]`
    pub weight: Vec<f32>,
    /// `[C]`
    pub bias: Vec<f32>,
    weight_velocity: Vec<f32>,
    bias_velocity: Vec<f32>,
}

/// The gradient of some batches.
#[derive(Debug, Default)]
pub struct ProbeGradient {
    weight: Option<Tensor>,
    bias: Option<Tensor>,
}

impl ProbeHead {
    /// First weights, drawn by `seed`, for features of `width` numbers.
    pub fn new(classes: usize, width: usize, seed: u64) -> Self {
        let stream = Stream::new(seed, "linear probe", 0, 0);
        let count = classes * width;
        let weight = (0..count as u64).map(|i| (DEVIATION * stream.normal(i)) as f32).collect();
        Self {
            norm: BatchNorm::new(width),
            weight,
            bias: vec![0.0; classes],
            weight_velocity: vec![0.0; count],
            bias_velocity: vec![0.0; classes],
        }
    }

    /// Normalises the features of a batch, `[B, D]`, and adds the gradient of `share` times its mean cross entropy; returns the
    /// mean.
    ///
    /// # Errors
    /// [`TrainerError::Probe`] for one image alone, [`TrainerError::Tensor`] if a length or a label does not fit.
    pub fn accumulate(
        &mut self,
        mut features: Vec<f32>,
        labels: &[usize],
        share: f64,
        gradient: &mut ProbeGradient,
    ) -> Result<f64, TrainerError> {
        self.norm.train(&mut features)?;
        let (cpu, shape) = (Device::cpu(), self.shape());
        let x = Tensor::from_vec(&cpu, &[labels.len(), shape[1]], features)?;
        let weight = Tensor::from_slice(&cpu, &shape, &self.weight)?;
        let bias = Tensor::from_slice(&cpu, &shape[..1], &self.bias)?;
        let weight = Weight { tensor: &weight, precision: Precision::F32, packed: None };
        let logits = ops::linear(&x, weight, Some(&bias), Precision::F32)?;
        let labels: Vec<i64> = labels.iter().map(|&label| label as i64).collect();
        let loss = ops::cross_entropy(&logits, &labels, 0.0)?.item()?;
        let dlogits = ops::cross_entropy_backward(&logits, &labels, 0.0, share as f32)?;
        let (dweight, dbias) = (&mut gradient.weight, &mut gradient.bias);
        ops::linear_backward_weight(Precision::F32, &dlogits, &x, &shape, dweight)?;
        ops::linear_backward_bias(&dlogits, dbias)?;
        Ok(f64::from(loss))
    }

    /// Updates from what was accumulated; returns the norm of the gradient.
    ///
    /// # Errors
    /// [`TrainerError::Tensor`], which a gradient of this head never gives.
    pub fn update(
        &mut self,
        gradient: ProbeGradient,
        lars: &Lars,
        lr: f64,
    ) -> Result<f64, TrainerError> {
        let (Some(dweight), Some(dbias)) = (gradient.weight, gradient.bias) else { return Ok(0.0) };
        let (dweight, dbias) = (dweight.to_vec()?, dbias.to_vec()?);
        let squares: f64 = dweight.iter().chain(&dbias).map(|&g| f64::from(g).powi(2)).sum();
        lars.step_matrix(&mut self.weight, &dweight, &mut self.weight_velocity, lr);
        lars.step_vector(&mut self.bias, &dbias, &mut self.bias_velocity, lr);
        Ok(squares.sqrt())
    }

    /// `[C, D]`
    fn shape(&self) -> [usize; 2] {
        [self.bias.len(), self.norm.mean.len()]
    }

    /// Everything that training needs to go on, by name and shape.
    fn parts(&mut self) -> [(&'static str, Vec<usize>, &mut Vec<f32>); 6] {
        let [classes, width] = self.shape();
        [
            ("weight", vec![classes, width], &mut self.weight),
            ("bias", vec![classes], &mut self.bias),
            ("weight.velocity", vec![classes, width], &mut self.weight_velocity),
            ("bias.velocity", vec![classes], &mut self.bias_velocity),
            ("norm.running_mean", vec![width], &mut self.norm.mean),
            ("norm.running_var", vec![width], &mut self.norm.variance),
        ]
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), TrainerError> {
        let mut copy = self.clone();
        let (mut tensors, mut values) = (Vec::new(), BTreeMap::new());
        for (name, shape, part) in copy.parts() {
            let name = name.to_owned();
            values.insert(name.clone(), std::mem::take(part));
            tensors.push(TensorToWrite { name, dtype: Dtype::F32, shape });
        }
        write_safetensors(path, &BTreeMap::new(), &tensors, |tensor| {
            Ok(values.remove(&tensor.name).unwrap_or_default())
        })?;
        Ok(())
    }

    pub(crate) fn read(path: &Path, classes: usize, width: usize) -> Result<Self, TrainerError> {
        let mut head = Self::new(classes, width, 0);
        let mut file = SafetensorsFile::open(path)?;
        for (name, shape, part) in head.parts() {
            let found = file.get(name).map(|info| info.shape.clone());
            if found.as_ref() != Some(&shape) {
                let found = found.map_or("missing".to_owned(), |shape| format!("{shape:?}"));
                let folder = path.parent().unwrap_or(path).to_path_buf();
                let (what, expected) = (format!("`{name}`"), format!("{shape:?}"));
                return Err(TrainerError::CheckpointContents { folder, what, found, expected });
            }
            *part = file.read_f32(name)?;
        }
        Ok(head)
    }
}
