//! GPUs through CubeCL: which there are, and how one is opened.

use std::fmt;

use vitmae_kernels::cubecl::device::{MetalDevice, WgpuDeviceKind};
use vitmae_kernels::cubecl::{self, future};
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
        ["cuda", "hip", "metal", "gpu"].iter().find_map(|kind| Self::open(kind, kind, 0).ok())
    }

    /// The GPU number `index` of a backend.
    pub(crate) fn open(name: &str, kind: &str, index: usize) -> Result<Self, TensorError> {
        let device = match kind {
            "cuda" => cubecl::Device::cuda(index),
            "hip" => cubecl::Device::rocm(index),
            "metal" => cubecl::Device::metal(MetalDevice::DefaultDevice)
                .or_else(|_| cubecl::Device::wgpu(WgpuDeviceKind::DiscreteGpu(index)))
                .or_else(|_| cubecl::Device::wgpu(WgpuDeviceKind::IntegratedGpu(index))),
            "vulkan" => cubecl::Device::vulkan(WgpuDeviceKind::DiscreteGpu(index))
                .or_else(|_| cubecl::Device::vulkan(WgpuDeviceKind::IntegratedGpu(index)))
                .or_else(|_| cubecl::Device::vulkan(WgpuDeviceKind::VirtualGpu(index))),
            "lavapipe" => cubecl::Device::vulkan(WgpuDeviceKind::Cpu),
            _ => cubecl::Device::wgpu(WgpuDeviceKind::DiscreteGpu(index))
                .or_else(|_| cubecl::Device::wgpu(WgpuDeviceKind::IntegratedGpu(index)))
                .or_else(|_| cubecl::Device::wgpu(WgpuDeviceKind::VirtualGpu(index))),
        };
        let device = device.map_err(|error| TensorError::DeviceMissing {
            name: name.to_owned(),
            why: error.to_string(),
            remedy: remedy(kind),
        })?;
        let client = device.client();
        Ok(Self { name: name.to_owned(), device, client })
    }

    /// Waits for the queue.
    pub(crate) fn synchronize(&self) -> Result<(), TensorError> {
        let done = future::block_on(self.client.sync());
        done.map_err(|error| self.failed(KernelError::from(error)))
    }

    /// A failure of this device.
    pub(crate) fn failed(&self, error: KernelError) -> TensorError {
        TensorError::DeviceFailed { device: self.name.clone(), message: error.to_string() }
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
    /// What the GPU says of itself; none for the CPU.
    pub fn gpu_info(&self) -> Option<GpuInfo> {
        self.gpu().map(Gpu::info)
    }
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
        _ => "check the driver of the GPU, or pass `--device cpu`".to_owned(),
    }
}
