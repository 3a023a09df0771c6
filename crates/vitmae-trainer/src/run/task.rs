//! What differs between one kind of training and another.

use std::path::Path;

use serde_json::Value;
use vitmae_image::Image;
use vitmae_tensor::{Device, Tensor};

use super::RunConfig;
use crate::data::{Batch, Dataset};
use crate::{TrainState, Trainable, TrainerError};

/// What an evaluation found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Mean loss.
    pub loss: f64,
    /// Share of images whose class was found, for a classifier.
    pub accuracy: Option<f64>,
}

/// What a run trains.
pub(crate) trait Task {
    /// The model.
    type Model: Trainable;
    /// What the model needs beside a batch's pixels.
    type Input;

    /// The model of update 0.
    fn first_model(&self, run: &RunConfig, device: &Device) -> Result<Self::Model, TrainerError>;
    /// The model of a checkpoint.
    fn load(&self, folder: &Path, device: &Device) -> Result<Self::Model, TrainerError>;
    /// Makes what the model needs, and may change the pixels.
    fn prepare(&self, run: &RunConfig, batch: &mut Batch) -> Result<Self::Input, TrainerError>;
    /// Adds the gradient of `weight` times the loss of a batch; returns the loss.
    fn accumulate(
        &self,
        state: &mut TrainState<Self::Model>,
        pixels: &Tensor,
        input: &Self::Input,
        weight: f64,
        draws: (u64, u64),
    ) -> Result<Tensor, TrainerError>;
    /// Judges the model on images.
    fn evaluate(
        &self,
        run: &RunConfig,
        model: &Self::Model,
        dataset: &dyn Dataset,
    ) -> Result<Evaluation, TrainerError>;
    /// Draws what the model makes of some images, for a model that makes pictures.
    fn sheet(
        &self,
        _run: &RunConfig,
        _model: &Self::Model,
        _images: &dyn Dataset,
    ) -> Result<Option<Image>, TrainerError> {
        Ok(None)
    }
    /// Settings of its own that decide the result; none by default.
    fn identity(&self) -> Option<Value> {
        None
    }
    /// As [`TrainState::drop_path`].
    fn drop_path(&self) -> f64 {
        0.0
    }
}
