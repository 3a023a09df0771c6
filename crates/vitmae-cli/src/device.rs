//! Choosing the device and the number of threads.

use anyhow::{Context, Result};
use vitmae_tensor::{Device, TensorError};

use crate::Global;
use crate::exit::Usage;

/// Starts the threads that compute.
pub fn set_up_threads(global: &Global) -> Result<()> {
    if let Some(threads) = global.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.into())
            .build_global()
            .context("cannot start the threads")?;
    }
    Ok(())
}

/// The device that was asked for.
pub fn open(global: &Global) -> Result<Device> {
    match Device::open(&global.device) {
        Err(error @ TensorError::DeviceUnknown { .. }) => Err(Usage(error.to_string()).into()),
        device => Ok(device?),
    }
}
