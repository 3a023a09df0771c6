//! Choosing the device and the number of threads.

use anyhow::{Context, Result};
use vitmae_tensor::Device;

use crate::Global;
use crate::exit::Usage;

/// A device that this build or machine does not have.
#[derive(Debug)]
pub struct DeviceMissing {
    name: String,
}

impl std::fmt::Display for DeviceMissing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "device `{}` is not available: this build of vitmae has no GPU support\n\
             help: leave `--device` out, or pass `--device cpu`",
            self.name
        )
    }
}

impl std::error::Error for DeviceMissing {}

/// The device that was asked for, with the thread pool set up.
pub fn set_up(global: &Global) -> Result<Device> {
    let name = global.device.as_str();
    match name {
        "auto" | "cpu" => {}
        name if is_gpu(name) => return Err(DeviceMissing { name: name.to_owned() }.into()),
        _ => {
            let message = format!(
                "`--device` is `{name}`, expected auto, cpu, gpu, cuda, hip, metal, vulkan or wgpu"
            );
            return Err(Usage(message).into());
        }
    }
    if let Some(threads) = global.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.into())
            .build_global()
            .context("cannot start the threads")?;
    }
    Ok(Device::cpu())
}

/// Whether a name means some GPU, with or without a number: `cuda:1`.
fn is_gpu(name: &str) -> bool {
    let kind = name.split(':').next().unwrap_or_default();
    ["gpu", "cuda", "hip", "rocm", "metal", "mps", "vulkan", "wgpu"].contains(&kind)
}
