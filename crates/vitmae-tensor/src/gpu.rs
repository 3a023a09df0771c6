//! GPUs through CubeCL: which there are, and how one is opened.

use std::fmt;

use vitmae_kernels::cubecl;
use vitmae_kernels::cubecl::device::{DeviceUnavailable, WgpuDeviceKind};
use vitmae_kernels::{Capabilities, Client, KernelError};

use crate::TensorError;

/// A GPU with its queue.
#[derive(Clone)]
pub(crate) struct Gpu {
    /// The name by which it was opened.
    pub(crate) name: String,
    device: cubecl::Device,
    pub(crate) client: Client,
}

impl PartialEq for Gpu {
    fn eq(&self, other: &Self) -> bool {
        self.device == other.device
    }
}

impl Eq for Gpu {}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu").field("name", &self.name).field("device", &self.device).finish()
    }
}

/// What a GPU says of itself.
#[derive(Clone, Debug)]
pub struct GpuInfo {
    /// The name by which it was opened.
    pub name: String,
    /// Backend and compiler.
    pub backend: String,
    /// What kernels may count on.
    pub capabilities: Capabilities,
}

impl Gpu {
    /// The first real GPU of the backends in this build.
    pub(crate) fn best() -> Option<Self> {
        ["cuda", "hip", "metal", "wgpu"].iter().find_map(|kind| Self::open(kind, kind, 0).ok())
    }

    /// The GPU number `index` of a backend.
    pub(crate) fn open(name: &str, kind: &str, index: usize) -> Result<Self, TensorError> {
        use cubecl::Device;
        let missing = |why: String| TensorError::DeviceMissing {
            name: name.to_owned(),
            why,
            remedy: remedy(kind),
        };
        let device = match kind {
            "gpu" => Device::cuda(index)
                .or_else(|_| Device::rocm(index))
                .or_else(|_| real(index, Device::metal_msl))
                .or_else(|_| real(index, Device::wgpu)),
            "cuda" => Device::cuda(index),
            "hip" => Device::rocm(index),
            "metal" => real(index, Device::metal_msl),
            "vulkan" => real(index, Device::vulkan),
            "lavapipe" => Device::vulkan(WgpuDeviceKind::Cpu),
            _ => real(index, Device::wgpu),
        };
        let device = device.map_err(|error| missing(error.to_string()))?;
        // Backends panic when a driver that is there does not start.
        let client = std::panic::catch_unwind(|| device.client());
        let client = client.map_err(|_| missing("its driver does not start".to_owned()))?;
        Ok(Self { name: name.to_owned(), device, client })
    }

    fn info(&self) -> GpuInfo {
        GpuInfo {
            name: self.name.clone(),
            backend: self.client.name().to_owned(),
            capabilities: Capabilities::of(&self.client),
        }
    }
}

impl crate::Device {
    /// A failure of this device.
    pub(crate) fn failed(&self, error: KernelError) -> TensorError {
        TensorError::DeviceFailed { device: self.to_string(), message: error.to_string() }
    }

    /// What the GPU says of itself; none for the CPU.
    pub fn gpu_info(&self) -> Option<GpuInfo> {
        self.gpu().map(Gpu::info)
    }
}

/// GPU number `index` of an API, software left out.
fn real(
    index: usize,
    open: impl Fn(WgpuDeviceKind) -> Result<cubecl::Device, DeviceUnavailable>,
) -> Result<cubecl::Device, DeviceUnavailable> {
    open(WgpuDeviceKind::DiscreteGpu(index))
        .or_else(|_| open(WgpuDeviceKind::IntegratedGpu(index)))
        .or_else(|_| open(WgpuDeviceKind::VirtualGpu(index)))
}

/// What to do when a backend finds no device.
fn remedy(kind: &str) -> String {
    match kind {
        "lavapipe" => {
            "build with `--features wgpu` and install Mesa's software Vulkan (Debian: mesa-vulkan-drivers, libvulkan1)"
                .to_owned()
        }
        "cuda" | "hip" | "metal" | "vulkan" => format!(
            "build with `--features {kind}` and check the driver, or pass `--device cpu`"
        ),
        _ => "build with `--features wgpu` and check the GPU's driver, or pass `--device cpu`".to_owned(),
    }
}
