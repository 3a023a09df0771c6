//! Row numbers on a device.

use std::sync::Arc;

use crate::{Device, TensorError, tensor};

/// A contiguous array of row numbers, such as `ids_keep: [B, K]`. Cloning shares the memory.
#[derive(Clone, Debug)]
pub struct Indices {
    device: Device,
    shape: Vec<usize>,
    values: Arc<[u32]>,
    largest: Option<u32>,
}

impl Indices {
    /// Row numbers in row-major order.
    ///
    /// # Errors
    /// [`TensorError::Length`] if their count is not that of the shape.
    pub fn from_slice(
        device: &Device,
        shape: &[usize],
        values: &[u32],
    ) -> Result<Self, TensorError> {
        tensor::check_length(shape, values.len())?;
        let (device, shape) = (device.clone(), shape.to_vec());
        Ok(Self { device, shape, values: values.into(), largest: values.iter().copied().max() })
    }

    /// The device that holds them.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The sides.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// A copy of the row numbers.
    pub fn to_vec(&self) -> Vec<u32> {
        self.values.to_vec()
    }

    pub(crate) fn as_slice(&self) -> &[u32] {
        &self.values
    }

    /// Checks that every number is below `limit`.
    pub(crate) fn expect_below(
        &self,
        op: &'static str,
        tensor: &'static str,
        limit: usize,
    ) -> Result<(), TensorError> {
        match self.largest {
            Some(largest) if largest as usize >= limit => {
                Err(TensorError::Index { op, tensor, found: largest.into(), limit })
            }
            _ => Ok(()),
        }
    }
}
