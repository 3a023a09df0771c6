//! Batch normalisation without scale and shift.
//!
//!   training     (x − mean) / √(variance + eps)      of the batch, the variance biased
//!   evaluation   the same with running values,  running ← 0.9 · running + 0.1 · the batch's, the variance unbiased
//!
//! Source: `torch.nn.BatchNorm1d(affine=False, eps=1e-6)`; arXiv:1502.03167.

use crate::TrainerError;

const EPS: f64 = 1e-6;
/// How much a batch counts in the running values.
const MOMENTUM: f64 = 0.1;

/// The running mean and variance of each feature.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm {
    /// `[D]`, at first 0.
    pub mean: Vec<f32>,
    /// `[D]`, at first 1.
    pub variance: Vec<f32>,
}

impl BatchNorm {
    /// Of `width` features.
    pub fn new(width: usize) -> Self {
        Self { mean: vec![0.0; width], variance: vec![1.0; width] }
    }

    /// Normalises a batch `[B, D]` by itself, in place, and lets the running values follow it.
    ///
    /// # Errors
    /// [`TrainerError::Probe`] for fewer than two rows, which have no variance.
    pub fn train(&mut self, features: &mut [f32]) -> Result<(), TrainerError> {
        let width = self.mean.len();
        let rows = features.len() / width.max(1);
        if rows < 2 {
            let what = "number of images in a batch, for the variance of its features,";
            return Err(TrainerError::Probe { what, found: rows, expected: 2 });
        }
        let (mut sums, mut squares) = (vec![0.0f64; width], vec![0.0f64; width]);
        for row in features.chunks_exact(width) {
            sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        }
        let mean: Vec<f64> = sums.iter().map(|sum| sum / rows as f64).collect();
        for row in features.chunks_exact(width) {
            for ((square, &x), mean) in squares.iter_mut().zip(row).zip(&mean) {
                *square += (f64::from(x) - mean).powi(2);
            }
        }
        let scale: Vec<f64> =
            squares.iter().map(|square| 1.0 / (square / rows as f64 + EPS).sqrt()).collect();
        for row in features.chunks_exact_mut(width) {
            for ((x, mean), scale) in row.iter_mut().zip(&mean).zip(&scale) {
                *x = ((f64::from(*x) - mean) * scale) as f32;
            }
        }
        let follow = |running: &mut [f32], found: &mut dyn Iterator<Item = f64>| {
            for (running, found) in running.iter_mut().zip(found) {
                *running = ((1.0 - MOMENTUM) * f64::from(*running) + MOMENTUM * found) as f32;
            }
        };
        follow(&mut self.mean, &mut mean.into_iter());
        let unbiased = squares.into_iter().map(|square| square / (rows - 1) as f64);
        follow(&mut self.variance, &mut { unbiased });
        Ok(())
    }

    /// The linear map that does to raw features what `weight: [C, D]` and `bias: [C]` do to normalised ones.
    pub fn folded(&self, weight: &[f32], bias: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let scale: Vec<f64> =
            self.variance.iter().map(|&v| 1.0 / (f64::from(v) + EPS).sqrt()).collect();
        let mut folded = Vec::with_capacity(weight.len());
        let mut shifted = Vec::with_capacity(bias.len());
        for (row, &bias) in weight.chunks_exact(scale.len()).zip(bias) {
            let mut shift = f64::from(bias);
            for ((&w, scale), &mean) in row.iter().zip(&scale).zip(&self.mean) {
                let w = f64::from(w) * scale;
                shift -= w * f64::from(mean);
                folded.push(w as f32);
            }
            shifted.push(shift as f32);
        }
        (folded, shifted)
    }
}
