//! What is dropped in one block in one step.

use vitmae_tensor::ops::{self, Dropout, Stream};
use vitmae_tensor::{Tensor, TensorError};

/// What is dropped of a branch before it joins the residual; nothing by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct BranchDropout {
    /// Single values.
    pub values: Option<Dropout>,
    /// The whole branch of an image: drop path, or stochastic depth.
    pub path: Option<Dropout>,
}

impl BranchDropout {
    /// Whether nothing is dropped.
    pub(crate) fn is_none(&self) -> bool {
        self.values.is_none() && self.path.is_none()
    }

    /// `residual + dropped(branch)`.
    pub(crate) fn join(&self, branch: &Tensor, residual: &Tensor) -> Result<Tensor, TensorError> {
        match (&self.values, &self.path) {
            (None, None) => ops::add(branch, residual),
            (Some(values), None) => ops::dropout(branch, Some(residual), values),
            (None, Some(path)) => ops::drop_path(branch, Some(residual), path),
            (Some(values), Some(path)) => {
                ops::drop_path(&ops::dropout(branch, None, values)?, Some(residual), path)
            }
        }
    }

    /// The gradient of the branch.
    pub(crate) fn backward(&self, dy: &Tensor) -> Result<Tensor, TensorError> {
        let dy = match &self.path {
            Some(path) => ops::drop_path_backward(dy, path)?,
            None => dy.clone(),
        };
        match &self.values {
            Some(values) => ops::dropout_backward(&dy, values),
            None => Ok(dy),
        }
    }
}

/// The dropout of one block in one step; none by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct BlockDropout {
    /// Of the attention probabilities.
    pub probabilities: Option<Dropout>,
    /// After the attention's projection.
    pub projection: BranchDropout,
    /// After the perceptron.
    pub mlp: BranchDropout,
}

/// Shares of what is dropped, each in [0, 1).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DropRates {
    /// Of the values of both branches.
    pub hidden: f32,
    /// Of the attention probabilities.
    pub probabilities: f32,
    /// Of whole branches.
    pub path: f32,
}

impl BlockDropout {
    /// Independent noise for each place of block `index` in the stack `stack`, a function of `seed`;
    /// nothing where a rate is 0.
    pub fn new(seed: u64, stack: &str, index: usize, rates: DropRates) -> Self {
        let at = |rate: f32, place: u64| {
            let stream = Stream::new(seed, stack, index as u64, place);
            (rate > 0.0).then_some(Dropout { rate, stream })
        };
        let DropRates { hidden, probabilities, path } = rates;
        Self {
            probabilities: at(probabilities, 0),
            projection: BranchDropout { values: at(hidden, 1), path: at(path, 3) },
            mlp: BranchDropout { values: at(hidden, 2), path: at(path, 4) },
        }
    }
}
