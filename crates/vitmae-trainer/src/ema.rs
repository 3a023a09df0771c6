//! The exponential moving average of a model's weights.
//!
//!   ema ← decay · ema + (1 − decay) · w        after every update, from ema = w before the first
//!
//! Source: `ModelEmaV2` of timm, by name and rule only.

use vitmae_tensor::{Tensor, ops};

use crate::{Trainable, TrainerError};

/// A second model whose weights follow those of the one in training, on the same device.
#[derive(Clone, Debug)]
pub struct Ema<M> {
    /// The averaged model.
    pub model: M,
    /// Share of the average that an update keeps, in [0, 1).
    pub decay: f64,
}

impl<M: Trainable> Ema<M> {
    /// Starts as a copy of `model`.
    ///
    /// # Errors
    /// [`TrainerError::Setting`] if `decay` is outside its range.
    pub fn new(model: &M, decay: f64) -> Result<Ema<M>, TrainerError> {
        if !(0.0..1.0).contains(&decay) {
            let (key, found, expected) = ("model_ema_decay", decay.to_string(), RANGE);
            return Err(TrainerError::Setting { key, found, expected });
        }
        Ok(Ema { model: model.clone(), decay })
    }

    /// Moves the average towards `model`, unless `scale`, one value, is 0: the update then had no effect. Frozen parameters stay.
    ///
    /// # Errors
    /// [`TrainerError::Tensor`], which a model of the same sizes never gives.
    pub fn update(&mut self, model: &M, scale: &Tensor) -> Result<(), TrainerError> {
        let pairs = self.model.parameters_mut().into_iter().zip(model.parameters());
        let trained = pairs.filter(|(_, parameter)| parameter.trainable);
        let mut trained: Vec<_> = trained
            .map(|(average, parameter)| ops::EmaParameter {
                average: &mut average.value,
                value: &parameter.value,
            })
            .collect();
        Ok(ops::ema(&mut trained, scale, self.decay)?)
    }
}

pub(crate) const RANGE: &str = "from 0 to below 1";
