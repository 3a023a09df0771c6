//! The models that a run can train.

use vitmae_layers::Param;
use vitmae_model::{VitForImageClassification, VitMaeForPreTraining};
use vitmae_tensor::Device;
use vitmae_tensor::ops::Precision;
use vitmae_weights::Pretrained;

/// A model with parameters that carry gradients.
pub trait Trainable: Pretrained + Clone + Send + 'static {
    /// Where its parameters are.
    fn device(&self) -> &Device;
    /// As [`Pretrained::parameters`], to be changed.
    fn parameters_mut(&mut self) -> Vec<&mut Param>;
    /// Of its matrix products.
    fn set_precision(&mut self, precision: Precision);

    /// Clears every gradient.
    fn zero_grad(&mut self) {
        self.parameters_mut().into_iter().for_each(|parameter| parameter.grad = None);
    }
}

impl Trainable for VitMaeForPreTraining {
    fn device(&self) -> &Device {
        self.device()
    }
    fn parameters_mut(&mut self) -> Vec<&mut Param> {
        self.parameters_mut()
    }
    fn set_precision(&mut self, precision: Precision) {
        self.set_precision(precision);
    }
}

impl Trainable for VitForImageClassification {
    fn device(&self) -> &Device {
        self.vit.device()
    }
    fn parameters_mut(&mut self) -> Vec<&mut Param> {
        self.parameters_mut()
    }
    fn set_precision(&mut self, precision: Precision) {
        self.set_precision(precision);
    }
}
