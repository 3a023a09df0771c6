//! Row numbers on a device.

use std::sync::Arc;

use crate::{Device, TensorError, tensor};

/// A contiguous array of row numbers, such as `ids_keep: [B, K]`. Cloning shares the memory; the CPU always
/// has a copy, to check their range.
#[derive(Clone, Debug)]
pub struct Indices {
    device: Device,
    shape: Vec<usize>,
    values: Arc<[u32]>,
    largest: Option<u32>,
    #[cfg(feature = "gpu")]
    on_gpu: Option<vitmae_kernels::Ids>,
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
        Ok(Self {
            device: device.clone(),
            shape: shape.to_vec(),
            values: values.into(),
            largest: values.iter().copied().max(),
            #[cfg(feature = "gpu")]
            on_gpu: device.client().map(|client| vitmae_kernels::Ids::from_slice(client, values)),
        })
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

    /// The copy on the GPU.
    #[cfg(feature = "gpu")]
    pub(crate) fn ids(&self) -> &vitmae_kernels::Ids {
        match &self.on_gpu {
            Some(ids) => ids,
            None => unreachable!("operations check that their arguments share a device"),
        }
    }

    /// Checks that they are on the device of `tensor`.
    pub(crate) fn expect_beside(
        &self,
        op: &'static str,
        tensor: &crate::Tensor,
    ) -> Result<(), TensorError> {
        if &self.device == tensor.device() {
            return Ok(());
        }
        let (first, second) = (tensor.device().to_string(), self.device.to_string());
        Err(TensorError::Devices { op, first, second })
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
