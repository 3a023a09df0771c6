//! Values on a device.

use std::fmt;

use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;
use cubecl::server::Handle;
use half::{bf16, f16};

use crate::{Client, KernelError};

/// How activations are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 32 bits, what parameters and statistics always are.
    F32,
    /// 16 bits, 11 of precision.
    F16,
    /// 16 bits, 8 of precision, the range of f32.
    BF16,
}

impl Dtype {
    /// Bytes of one value.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    /// The type as kernels take it.
    pub fn elem(self) -> ElemType {
        ElemType::Float(match self {
            Self::F32 => FloatKind::F32,
            Self::F16 => FloatKind::F16,
            Self::BF16 => FloatKind::BF16,
        })
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        })
    }
}

/// Fewest bytes of a buffer: a vector of four f32.
const SMALLEST: usize = 16;

/// Values on a device; a clone shares the memory.
#[derive(Clone, Debug)]
pub struct Array {
    /// The memory, or a part of it.
    pub handle: Handle,
    /// Number of values.
    pub len: usize,
    /// Their type.
    pub dtype: Dtype,
}

impl Array {
    /// Uninitialised values.
    pub fn empty(client: &Client, len: usize, dtype: Dtype) -> Self {
        // A buffer is bound although it may have no values, and must hold a vector of them then.
        let bytes = (len * dtype.size()).max(SMALLEST);
        Self { handle: client.empty(bytes), len, dtype }
    }

    /// A copy of `values` on the device.
    pub fn from_f32(client: &Client, values: &[f32]) -> Self {
        Self::from_f32_as(client, values, Dtype::F32)
    }

    /// A copy of `values` on the device, rounded to `dtype` (to nearest, ties to even).
    pub fn from_f32_as(client: &Client, values: &[f32], dtype: Dtype) -> Self {
        if values.is_empty() {
            return Self::empty(client, 0, dtype);
        }
        let handle = match dtype {
            Dtype::F32 => client.create_from_slice(f32::as_bytes(values)),
            Dtype::F16 => {
                let values: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
                client.create_from_slice(f16::as_bytes(&values))
            }
            Dtype::BF16 => {
                let values: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
                client.create_from_slice(bf16::as_bytes(&values))
            }
        };
        Self { handle, len: values.len(), dtype }
    }

    /// The values, once every launch that writes them is done.
    ///
    /// # Errors
    /// [`KernelError::Device`] if such a launch, or the transfer, failed.
    pub fn to_f32(&self, client: &Client) -> Result<Vec<f32>, KernelError> {
        if self.len == 0 {
            return Ok(Vec::new());
        }
        let bytes = client.read_one(self.handle.clone())?;
        let mut values: Vec<f32> = match self.dtype {
            Dtype::F32 => f32::from_bytes(&bytes).to_vec(),
            Dtype::F16 => f16::from_bytes(&bytes).iter().map(|v| v.to_f32()).collect(),
            Dtype::BF16 => bf16::from_bytes(&bytes).iter().map(|v| v.to_f32()).collect(),
        };
        values.truncate(self.len);
        Ok(values)
    }

    /// Waits until every launch that writes the values is done.
    ///
    /// # Errors
    /// [`KernelError::Device`] if such a launch failed.
    pub fn wait(&self, client: &Client) -> Result<(), KernelError> {
        Ok(cubecl::future::block_on(client.sync_buffers([&self.handle]))?)
    }

    /// The array as an argument of a launch.
    pub fn arg(&self) -> BufferArg {
        // SAFETY: the handle holds `len` values; kernels guard every index by lengths of their own.
        unsafe { BufferArg::from_raw_parts(self.handle.clone(), self.len) }
    }
}

/// Row numbers on a device; a clone shares the memory.
#[derive(Clone, Debug)]
pub struct Ids {
    /// The memory, or a part of it.
    pub handle: Handle,
    /// Number of ids.
    pub len: usize,
}

impl Ids {
    /// Uninitialised ids.
    pub fn empty(client: &Client, len: usize) -> Self {
        Self { handle: client.empty((len * size_of::<u32>()).max(SMALLEST)), len }
    }

    /// A copy of `ids` on the device.
    pub fn from_slice(client: &Client, ids: &[u32]) -> Self {
        if ids.is_empty() {
            return Self::empty(client, 0);
        }
        Self { handle: client.create_from_slice(u32::as_bytes(ids)), len: ids.len() }
    }

    /// The ids, once every launch that writes them is done.
    ///
    /// # Errors
    /// [`KernelError::Device`] if such a launch, or the transfer, failed.
    pub fn to_vec(&self, client: &Client) -> Result<Vec<u32>, KernelError> {
        if self.len == 0 {
            return Ok(Vec::new());
        }
        let bytes = client.read_one(self.handle.clone())?;
        Ok(u32::from_bytes(&bytes)[..self.len].to_vec())
    }

    /// The ids as an argument of a launch.
    pub fn arg(&self) -> BufferArg {
        // SAFETY: the handle holds `len` ids; kernels guard every index by lengths of their own.
        unsafe { BufferArg::from_raw_parts(self.handle.clone(), self.len) }
    }
}
