//! A model in training: accumulate gradients of batches, then update once.
//!
//! This is the level for a training loop of one's own; it takes pixels and masks as they are and
//! draws nothing but the seed of dropout, a function of the update's number.

use vitmae_cpu::random::Stream;
use vitmae_model::{Masking, TrainOptions, VitMaeForPreTraining};
use vitmae_tensor::{Tensor, ops};

use crate::{AdamW, AdamWOptions, TrainerError};

/// Model, optimizer and the number of updates made.
#[derive(Clone)]
pub struct TrainState {
    /// The model; between [`accumulate`](Self::accumulate) and [`update`](Self::update) its
    /// parameters carry gradients.
    pub model: VitMaeForPreTraining,
    /// The optimizer.
    pub optimizer: AdamW,
    step: u64,
}

/// What one update did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Updates made, this one included.
    pub step: u64,
    /// Global norm of the gradient before clipping.
    pub gradient_norm: f64,
}

impl TrainState {
    /// Starts at update 0.
    ///
    /// # Errors
    /// Those of [`AdamW::new`].
    pub fn new(
        model: VitMaeForPreTraining,
        options: AdamWOptions,
    ) -> Result<TrainState, TrainerError> {
        let optimizer = AdamW::new(&model.parameters(), options)?;
        Ok(TrainState { model, optimizer, step: 0 })
    }

    pub(crate) fn resumed(model: VitMaeForPreTraining, optimizer: AdamW, step: u64) -> TrainState {
        TrainState { model, optimizer, step }
    }

    /// Updates made.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Adds the gradient of `weight` times the loss of one batch; returns the loss itself.
    ///
    /// For n batches an update, `weight` is 1 / n. `seed` and `batch` decide dropout alone.
    ///
    /// # Shapes
    /// `pixels: [B, C, H, W]`, masking of the same B.
    ///
    /// # Errors
    /// [`TrainerError::Model`] if shapes do not fit.
    pub fn accumulate(
        &mut self,
        pixels: &Tensor,
        masking: &Masking,
        weight: f64,
        (seed, batch): (u64, u64),
    ) -> Result<f32, TrainerError> {
        let dropout_seed = Stream::new(seed, "dropout", batch, 0).bits(0);
        let loss_scale = weight as f32;
        let options = TrainOptions { loss_scale, dropout_seed, ..TrainOptions::default() };
        Ok(self.model.forward_backward(pixels, masking, &options)?.item()?)
    }

    /// Global norm of the accumulated gradient: the root of the sum of all squares.
    ///
    /// # Errors
    /// [`TrainerError::Tensor`].
    pub fn gradient_norm(&self) -> Result<f64, TrainerError> {
        let parameters = self.model.parameters();
        let trainable = parameters.iter().filter(|parameter| parameter.trainable);
        let gradients: Vec<&Tensor> =
            trainable.filter_map(|parameter| parameter.grad.as_ref()).collect();
        Ok(ops::global_norm(&gradients)?)
    }

    /// Updates the parameters from the accumulated gradient, scaled down to norm `clip` if longer,
    /// and clears it.
    ///
    /// # Errors
    /// [`TrainerError::Tensor`].
    pub fn update(&mut self, lr: f64, clip: Option<f64>) -> Result<Update, TrainerError> {
        let gradient_norm = self.gradient_norm()?;
        self.update_by(lr, clip, gradient_norm)
    }

    /// As [`update`](Self::update), with the norm that [`gradient_norm`](Self::gradient_norm) gave.
    pub(crate) fn update_by(
        &mut self,
        lr: f64,
        clip: Option<f64>,
        gradient_norm: f64,
    ) -> Result<Update, TrainerError> {
        // The small number is torch's `clip_grad_norm_`.
        let scale = clip.map_or(1.0, |clip| (clip / (gradient_norm + 1e-6)).min(1.0));
        self.optimizer.step(self.model.parameters_mut(), lr, scale)?;
        self.model.zero_grad();
        self.step += 1;
        Ok(Update { step: self.step, gradient_norm })
    }

    /// One batch, one update; returns the loss before it.
    ///
    /// # Errors
    /// As [`accumulate`](Self::accumulate) and [`update`](Self::update).
    pub fn train_step(
        &mut self,
        pixels: &Tensor,
        masking: &Masking,
        lr: f64,
    ) -> Result<f32, TrainerError> {
        let loss = self.accumulate(pixels, masking, 1.0, (0, self.step))?;
        self.update(lr, None)?;
        Ok(loss)
    }
}
