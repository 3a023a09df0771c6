//! GPU APIs and the hardware behind them: what such a device says of itself, and its compiler.

use cubecl::ir::features::{AtomicUsage, EnumSet, Plane, TypeUsage};
use cubecl::ir::{
    AddressType, ContiguousElements, DeviceIdentity, DeviceProperties, ElemType, FloatKind,
    HardwareProperties, IntKind, MemoryDeviceProperties, MmaProperties, TargetProperties, Type,
    UIntKind,
};
use cubecl::prelude::*;
use cubecl::{Compiler, WgpuCompilationOptions, cmma::MatrixLayout, define_kernel};
use cubecl_common::profile::TimingMethod;
use cubecl_cpp::shared::{
    Architecture, CompilationOptions, CppCompiler, register_mma_features, register_wmma_features,
};
use cubecl_cpp::{cuda, hip, metal, register_supported_types, target};
use cubecl_spirv::SpirvCompiler;
use cubecl_wgpu::WgslCompiler;

/// What a compiler gives.
pub(crate) enum Source {
    Text(String),
    /// SPIR-V.
    Words(Vec<u32>),
}

impl Source {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Words(words) => words.len() * 4,
        }
    }
}

/// A kernel as a target has it.
pub(crate) struct Built {
    pub(crate) source: Source,
    /// Units of a cube.
    pub(crate) units: u32,
    /// Bytes of shared memory of a cube, where the compiler says so.
    pub(crate) shared: Option<usize>,
}

/// A GPU API with the hardware behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// CUDA C++ for an architecture with matrix units.
    Cuda(u32),
    /// HIP C++ for AMD's RDNA3, planes of 32.
    HipRdna3,
    /// HIP C++ for AMD's CDNA2, planes of 64.
    HipCdna2,
    /// Metal's language for Apple's processors.
    Metal,
    /// SPIR-V for Vulkan, with or without plane operations.
    SpirV { planes: bool },
    /// WGSL, with or without plane operations.
    Wgsl { planes: bool },
}

impl Target {
    pub(crate) fn all() -> [Self; 9] {
        [
            Self::Cuda(80),
            Self::Cuda(90),
            Self::HipRdna3,
            Self::HipCdna2,
            Self::Metal,
            Self::SpirV { planes: true },
            Self::SpirV { planes: false },
            Self::Wgsl { planes: true },
            Self::Wgsl { planes: false },
        ]
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cuda(80) => "cuda-sm80",
            Self::Cuda(_) => "cuda-sm90",
            Self::HipRdna3 => "hip-rdna3",
            Self::HipCdna2 => "hip-cdna2",
            Self::Metal => "metal",
            Self::SpirV { planes: true } => "spirv-plane",
            Self::SpirV { planes: false } => "spirv",
            Self::Wgsl { planes: true } => "wgsl-plane",
            Self::Wgsl { planes: false } => "wgsl",
        }
    }

    pub(crate) fn index(self) -> u16 {
        Self::all().iter().position(|&target| target == self).unwrap_or(0) as u16
    }

    /// Compiles a kernel.
    pub(crate) fn compile(self, kernel: &dyn CubeKernel) -> Result<Built, String> {
        let definition = define_kernel(kernel).map_err(|error| error.to_string())?;
        let units = definition.settings.cube_dim.num_elems();
        let compiled = match self {
            Self::Cuda(version) => {
                let mut options = CompilationOptions::default();
                options.supports_features.fast_math = true;
                options.supports_features.dp4a = true;
                options.supports_features.grid_constants = true;
                options.supports_features.fast_tanh = true;
                options.supports_features.clusters = version >= 90;
                options.supports_features.elect_sync = version >= 90;
                let mut compiler = CppCompiler::<target::Cuda>::default();
                compiler.compile(definition, &options).map(text)
            }
            Self::HipRdna3 | Self::HipCdna2 => {
                let arch = self.amd();
                let options = CompilationOptions {
                    warp_size: arch.warp_size() as usize,
                    amd_wmma: arch.wmma_generation(),
                    ..Default::default()
                };
                let mut compiler = CppCompiler::<target::Hip>::default();
                compiler.compile(definition, &options).map(text)
            }
            Self::Metal => {
                let mut compiler = CppCompiler::<target::Metal>::default();
                let options = CompilationOptions::default();
                compiler.compile(definition, &options).map(text)
            }
            Self::SpirV { .. } => {
                let mut options = WgpuCompilationOptions {
                    supports_u64: true,
                    supports_vulkan_compiler: true,
                    ..Default::default()
                };
                options.vulkan.max_spirv_version = (1, 6);
                options.vulkan.max_vector_size = 4;
                options.vulkan.push_constant_size = 128;
                options.vulkan.supports_uniform_standard_layout = true;
                // Without it, CubeCL 0.11.3 declares shared memory as a pointer to a pointer.
                options.vulkan.supports_explicit_smem = true;
                let mut compiler = SpirvCompiler;
                let compiled = compiler.compile(definition, &options);
                compiled.map(|c| (Source::Words(c.assembled_module), Some(c.shared_size)))
            }
            Self::Wgsl { .. } => {
                let options = WgpuCompilationOptions::default();
                let compiled = WgslCompiler.compile(definition, &options);
                compiled.map(|c| (Source::Text(c.to_string()), None))
            }
        };
        let (source, shared) = compiled.map_err(|error| error.to_string())?;
        Ok(Built { source, units, shared })
    }

    fn amd(self) -> hip::arch::AMDArchitecture {
        match self {
            Self::HipCdna2 => hip::arch::AMDArchitecture::GFX90A,
            _ => hip::arch::AMDArchitecture::GFX11,
        }
    }

    /// Most buffers of a launch: the smallest number that WebGPU guarantees, less the one for sizes; what
    /// Vulkan has where it has more; the runtimes' own numbers.
    pub(crate) fn max_bindings(self) -> u32 {
        match self {
            Self::Wgsl { .. } => 7,
            Self::SpirV { .. } | Self::Metal => 30,
            _ => 1024,
        }
    }

    /// What a device of this kind says of itself; after the runtimes of CubeCL.
    pub(crate) fn properties(self) -> (DeviceProperties, TargetProperties) {
        let plane = if self == Self::HipCdna2 { 64 } else { 32 };
        let webgpu = matches!(self, Self::Wgsl { .. });
        let units = if webgpu { 256 } else { 1024 };
        let hardware = HardwareProperties {
            load_width: 128,
            vector_register_count: None,
            plane_size_min: plane,
            plane_size_max: plane,
            max_bindings: self.max_bindings(),
            max_shared_memory_size: if webgpu { 16 * 1024 } else { 48 * 1024 },
            max_cube_count: (65535, 65535, 65535),
            max_units_per_cube: units,
            max_cube_dim: (units, units, 64),
            num_streaming_multiprocessors: Some(64),
            num_cpu_cores: None,
            last_level_cache_size: None,
            num_tensor_cores: matches!(self, Self::Cuda(_)).then_some(4),
            min_tensor_cores_dim: matches!(self, Self::Cuda(_)).then_some(8),
            max_vector_size: if webgpu { 4 } else { 16 },
            cube_mma_reserved_shared_memory: 0,
        };
        let mut properties = DeviceProperties::new(
            Default::default(),
            MemoryDeviceProperties::new(1 << 32, 256),
            hardware,
            TimingMethod::System,
            DeviceIdentity {
                name: self.name().to_owned(),
                fingerprint: self.name().to_owned(),
                physical: None,
            },
        );
        let mut mma = MmaProperties::default();
        match self {
            Self::Cuda(version) => {
                let arch = cuda::arch::CudaArchitecture { version, tensor_cores: true };
                let cmma = cuda::mma::CudaCmmaCompiler::Cpp.supported_cmma_combinations(&arch);
                register_supported_types(&mut properties);
                register_wmma_features(cmma, &mut properties);
                register_mma_features(cuda::supported_mma_combinations(&arch), &mut properties);
                mma = nvidia();
            }
            Self::HipRdna3 | Self::HipCdna2 => {
                let arch = self.amd();
                let cmma = hip::mma::HipCmmaCompiler::RocWmma.supported_cmma_combinations(&arch);
                register_supported_types(&mut properties);
                properties.hardware.min_tensor_cores_dim = (!cmma.is_empty()).then_some(16);
                register_wmma_features(cmma, &mut properties);
            }
            Self::Metal => {
                register_supported_types(&mut properties);
                let arch = metal::arch::MetalArchitecture::Metal3;
                let cmma = metal::supported_cmma_combinations_metal(&arch);
                properties.hardware.min_tensor_cores_dim = Some(8);
                register_wmma_features(cmma, &mut properties);
            }
            Self::SpirV { .. } | Self::Wgsl { .. } => portable_types(&mut properties),
        }
        let features = &mut properties.features;
        if !matches!(self, Self::SpirV { planes: false } | Self::Wgsl { planes: false }) {
            features.plane = Plane::Ops | Plane::NonUniformControlFlow;
        }
        if !webgpu {
            features.plane |= EnumSet::from(Plane::Sync);
            features.device_memory_scope = true;
            features.alignment = true;
        }
        (properties, TargetProperties { mma })
    }
}

fn text(kernel: cubecl_cpp::ComputeKernel) -> (Source, Option<usize>) {
    (Source::Text(kernel.source), Some(kernel.shared_memory_size))
}

/// How operands of matrix instructions lie in registers.
fn nvidia() -> MmaProperties {
    MmaProperties {
        register_size_bits: 32,
        const_plane_size: 32,
        register_layout_a: MatrixLayout::RowMajor,
        register_layout_b: MatrixLayout::ColMajor,
        register_layout_acc: MatrixLayout::RowMajor,
        register_duplication_a: 1,
        register_duplication_b: 1,
        register_duplication_acc: 1,
        contiguous_elements: ContiguousElements::new(cuda::mma::manual::contiguous_elements_cuda),
    }
}

/// The types of Vulkan and WebGPU, with their f16 extensions.
fn portable_types(properties: &mut DeviceProperties) {
    properties.register_address_type(AddressType::U32);
    let types = [
        ElemType::Index,
        ElemType::UInt(UIntKind::U32),
        ElemType::Int(IntKind::I32),
        ElemType::Float(FloatKind::F32),
        ElemType::Float(FloatKind::F16),
        ElemType::Bool,
    ];
    for kind in types {
        properties.register_type_usage(kind, TypeUsage::all());
    }
    for kind in [ElemType::UInt(UIntKind::U32), ElemType::Int(IntKind::I32)] {
        properties.register_atomic_type_usage(Type::atomic(kind), AtomicUsage::all());
    }
}
