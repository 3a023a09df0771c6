//! The exponential moving average of a model's weights.
//!
//!   ema ← decay · ema + (1 − decay) · w        after every update, from ema = w before the first
//!
//! Source: `ModelEmaV2` of timm, by name and rule only.

use rayon::prelude::*;
use vitmae_layers::Param;

use crate::{Trainable, TrainerError};

/// A second model whose weights follow those of the one in training.
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
    /// [`TrainerError::Setting`] if `decay` is outside its range, or `model` on a GPU: weights would cross to the host and
    /// back in every update.
    pub fn new(model: &M, decay: f64) -> Result<Ema<M>, TrainerError> {
        if !(0.0..1.0).contains(&decay) {
            let (key, found, expected) = ("model_ema_decay", decay.to_string(), RANGE);
            return Err(TrainerError::Setting { key, found, expected });
        }
        if !model.device().is_cpu() {
            let (key, found) = ("model_ema", format!("on for {}", model.device()));
            let expected = "off on a GPU, since averages of weights are made on the CPU alone";
            return Err(TrainerError::Setting { key, found, expected });
        }
        Ok(Ema { model: model.clone(), decay })
    }

    /// Moves the average towards `model`. Frozen parameters stay.
    ///
    /// # Errors
    /// [`TrainerError::Tensor`], which a model of the same sizes never gives.
    pub fn update(&mut self, model: &M) -> Result<(), TrainerError> {
        let decay = self.decay;
        let mut pairs: Vec<(&mut Param, &Param)> =
            self.model.parameters_mut().into_iter().zip(model.parameters()).collect();
        pairs.retain(|(_, parameter)| parameter.trainable);
        pairs.into_par_iter().try_for_each(|(average, parameter)| {
            let mut values = average.value.to_vec()?;
            for (value, w) in values.iter_mut().zip(parameter.value.to_vec()?) {
                // In f32 the factors would not add to 1, which a decay near 1 shows in the average.
                *value = (decay * f64::from(*value) + (1.0 - decay) * f64::from(w)) as f32;
            }
            average.set(&values)?;
            Ok(())
        })
    }
}

pub(crate) const RANGE: &str = "from 0 to below 1";
