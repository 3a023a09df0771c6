//! Gradients summed over the processes of a [`Team`] while the backward pass goes on.
//!
//! The model tells which gradients are final; they leave as one bucket at once, and come back before the update.

use std::collections::HashMap;

use vitmae_layers::Param;
use vitmae_tensor::{Tensor, TensorError};

use crate::team::Pending;
use crate::{Team, TrainerError};

/// Sums under way.
#[derive(Default)]
pub(crate) struct GradientSums {
    pub(crate) team: Team,
    /// Whether the backward pass under way is the last of its update, the one after which gradients are final.
    pub(crate) last_batch: bool,
    buckets: Vec<Bucket>,
}

struct Bucket {
    /// Names and lengths of its parameters, in order.
    parameters: Vec<(String, usize)>,
    sum: Pending,
}

impl GradientSums {
    pub(crate) fn new(team: Team) -> GradientSums {
        GradientSums { team, ..GradientSums::default() }
    }

    /// Sends the gradients of `parameters` on their way, if they are final. One that nothing reached counts as 0.
    pub(crate) fn start(&mut self, parameters: &[&Param]) -> Result<(), TensorError> {
        let Some(others) = self.team.others().filter(|_| self.last_batch) else { return Ok(()) };
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for parameter in parameters.iter().filter(|parameter| parameter.trainable) {
            let length = parameter.value.len();
            match &parameter.grad {
                Some(gradient) => values.extend(gradient.to_vec()?),
                None => values.resize(values.len() + length, 0.0),
            }
            names.push((parameter.name.clone(), length));
        }
        if !names.is_empty() {
            self.buckets.push(Bucket { parameters: names, sum: Pending::start(others, values) });
        }
        Ok(())
    }

    /// Waits for every sum and puts it in the place of the gradient.
    pub(crate) fn finish(&mut self, parameters: Vec<&mut Param>) -> Result<(), TrainerError> {
        self.last_batch = false;
        if self.buckets.is_empty() {
            return Ok(());
        }
        let mut by_name: HashMap<String, &mut Param> =
            parameters.into_iter().map(|parameter| (parameter.name.clone(), parameter)).collect();
        for Bucket { parameters, sum } in self.buckets.drain(..) {
            let sum = sum.wait(parameters.iter().map(|(_, length)| length).sum())?;
            let mut rest = sum.as_slice();
            for (name, length) in parameters {
                let (values, behind) = rest.split_at(length);
                rest = behind;
                let Some(parameter) = by_name.get_mut(&name) else { continue };
                let value = &parameter.value;
                let gradient = Tensor::from_slice(value.device(), value.shape(), values)?;
                parameter.grad = Some(gradient);
            }
        }
        Ok(())
    }
}

impl Clone for GradientSums {
    /// For the same team; sums under way stay with the original.
    fn clone(&self) -> GradientSums {
        GradientSums::new(self.team.clone())
    }
}
