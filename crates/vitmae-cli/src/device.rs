//! Choosing the device and the number of threads.

use anyhow::{Context, Result};
use vitmae_tensor::{Device, TensorError};

use crate::Global;
use crate::exit::Usage;

/// The device that was asked for, with the thread pool set up.
pub fn set_up(global: &Global) -> Result<Device> {
    if let Some(threads) = global.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.into())
            .build_global()
            .context("cannot start the threads")?;
    }
    match Device::open(&global.device) {
        Err(error @ TensorError::DeviceUnknown { .. }) => Err(Usage(error.to_string()).into()),
        device => Ok(device?),
    }
}
