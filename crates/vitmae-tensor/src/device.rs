//! Where tensors live and operations run.

use std::fmt;

use crate::TensorError;

/// A place with memory and arithmetic: the CPU, or a GPU if the build has a backend for it.
///
/// A value, not a type parameter: layers, model and trainer are written once for every device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Cpu,
    #[cfg(feature = "gpu")]
    Gpu(crate::gpu::Gpu),
}

impl Device {
    /// This machine's CPU, all threads of the current Rayon pool.
    pub fn cpu() -> Self {
        Self(Kind::Cpu)
    }

    /// The best device of this build and machine: a real GPU if there is one and the build has a backend for
    /// it, else the CPU. A software rasteriser is taken only by its name.
    pub fn auto() -> Self {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = crate::gpu::Gpu::best() {
            return Self(Kind::Gpu(gpu));
        }
        Self::cpu()
    }

    /// The device called `name`: one of [`Device::NAMES`], those of GPUs with a number if it is not the first
    /// (`cuda:1`).
    ///
    /// # Errors
    /// [`TensorError::DeviceUnknown`] for another name, [`TensorError::DeviceMissing`] if this build or this
    /// machine does not have it.
    pub fn open(name: &str) -> Result<Self, TensorError> {
        let (kind, number) = match name.split_once(':') {
            Some((kind, number)) => (kind, number.parse::<usize>().ok()),
            None => (name, Some(0)),
        };
        // There is one CPU, one software rasteriser and one best device.
        let numbered = name == kind || !["auto", "cpu", "lavapipe"].contains(&kind);
        let (Some(index), true) = (number, numbered && Self::NAMES.contains(&kind)) else {
            return Err(TensorError::DeviceUnknown { name: name.to_owned() });
        };
        match kind {
            "cpu" => Ok(Self::cpu()),
            "auto" => Ok(Self::auto()),
            kind => Self::open_gpu(name, kind, index),
        }
    }

    /// What [`Device::open`] knows.
    pub const NAMES: [&str; 9] =
        ["auto", "cpu", "gpu", "wgpu", "vulkan", "cuda", "hip", "metal", "lavapipe"];

    #[cfg(feature = "gpu")]
    fn open_gpu(name: &str, kind: &str, index: usize) -> Result<Self, TensorError> {
        crate::gpu::Gpu::open(name, kind, index).map(|gpu| Self(Kind::Gpu(gpu)))
    }

    #[cfg(not(feature = "gpu"))]
    fn open_gpu(name: &str, kind: &str, _index: usize) -> Result<Self, TensorError> {
        // `metal` and `vulkan` are faster, but `wgpu` runs on every GPU.
        let feature =
            if ["cuda", "hip", "metal", "vulkan"].contains(&kind) { kind } else { "wgpu" };
        Err(TensorError::DeviceMissing {
            name: name.to_owned(),
            why: "this build has no GPU backend".to_owned(),
            remedy: format!("build with `cargo build --release --features {feature}`"),
        })
    }

    /// Whether this is the CPU.
    pub fn is_cpu(&self) -> bool {
        matches!(self.0, Kind::Cpu)
    }

    #[cfg(feature = "gpu")]
    pub(crate) fn gpu(&self) -> Option<&crate::gpu::Gpu> {
        match &self.0 {
            Kind::Cpu => None,
            Kind::Gpu(gpu) => Some(gpu),
        }
    }

    /// The GPU's client of CubeCL, to launch kernels of one's own; none for the CPU.
    #[cfg(feature = "gpu")]
    pub fn client(&self) -> Option<&vitmae_kernels::Client> {
        self.gpu().map(|gpu| &gpu.client)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Cpu => f.write_str("cpu"),
            #[cfg(feature = "gpu")]
            Kind::Gpu(gpu) => f.write_str(&gpu.name),
        }
    }
}
