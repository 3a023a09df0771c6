//! A named array that training changes.

use vitmae_tensor::{Tensor, TensorError};

/// A parameter: its value, and its gradient while there is one.
#[derive(Clone, Debug)]
pub struct Param {
    /// Its name in the model, such as `vit.blocks.0.norm1.weight`.
    pub name: String,
    /// Its value.
    pub value: Tensor,
    /// The gradient gathered since it was last cleared, in the value's shape.
    pub grad: Option<Tensor>,
    /// Whether training changes it; a frozen one gathers no gradient.
    pub trainable: bool,
}

/// Makes a parameter from its name and shape: how a model is built.
pub type MakeParam<'a, E> = dyn FnMut(String, &[usize]) -> Result<Param, E> + 'a;

/// Told of parameters to whose gradients the backward pass under way adds nothing more, such as to send them to other
/// processes at once.
pub type GradientsDone<'a> = dyn FnMut(&[&Param]) -> Result<(), TensorError> + 'a;

impl Param {
    /// A trainable parameter without a gradient.
    pub fn new(name: impl Into<String>, value: Tensor) -> Self {
        Self { name: name.into(), value, grad: None, trainable: true }
    }

    /// Excludes it from training.
    pub fn frozen(self) -> Self {
        Self { trainable: false, ..self }
    }

    /// Replaces the value.
    ///
    /// # Errors
    /// [`TensorError::Length`] if the number of values differs.
    pub fn set(&mut self, values: &[f32]) -> Result<(), TensorError> {
        self.value.set(values)
    }
}
