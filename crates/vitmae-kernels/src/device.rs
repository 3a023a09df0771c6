//! What a device can do, and how many cubes a launch starts.

use cubecl::ir::features::{MmaConfig, Plane, TypeUsage};
use cubecl::prelude::*;

use crate::{Client, Dtype};

/// What a device can do, as it says itself; nothing is assumed of a vendor.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// Most units of a cube.
    pub max_units: u32,
    /// Most bytes of shared memory of a cube.
    pub max_shared_bytes: usize,
    /// Units of a plane, if there are plane operations and every plane has the same size.
    pub plane: Option<u32>,
    /// Whether buffers may hold f16 and kernels compute with it.
    pub f16: bool,
    /// The same for bf16.
    pub bf16: bool,
    /// Whether what becomes bf16 is rounded to nearest; Vulkan leaves that open, and NVIDIA's truncates.
    pub rounds_bf16: bool,
    /// Products of small matrices by a plane.
    pub cmma: Vec<MmaConfig>,
    /// Most buffers of a kernel.
    pub max_bindings: u32,
    /// Most cubes of a launch in each dimension.
    pub max_cube_count: (u32, u32, u32),
    /// Cores, if kernels run on a CPU by threads: cubes then want as many units as there are cores.
    pub cpu_cores: Option<u32>,
}

impl Capabilities {
    /// Asks the device of `client`.
    pub fn of(client: &Client) -> Self {
        let properties = client.properties();
        let (features, hardware) = (&properties.features, &properties.hardware);
        let same_size = hardware.plane_size_min == hardware.plane_size_max;
        let has_planes = features.plane.contains(Plane::Ops) && same_size;
        let usable = |dtype: Dtype| {
            let usage = properties.type_usage(dtype.elem());
            usage.contains(TypeUsage::Buffer) && usage.contains(TypeUsage::Conversion)
        };
        Self {
            max_units: hardware.max_units_per_cube,
            max_shared_bytes: hardware.max_shared_memory_size,
            plane: has_planes.then_some(hardware.plane_size_max),
            f16: usable(Dtype::F16),
            bf16: usable(Dtype::BF16),
            rounds_bf16: !client.name().contains("wgpu"),
            cmma: features.matmul.cmma.iter().cloned().collect(),
            max_bindings: hardware.max_bindings,
            max_cube_count: hardware.max_cube_count,
            cpu_cores: hardware.num_cpu_cores,
        }
    }

    /// Whether kernels run on a CPU by threads.
    pub fn is_cpu(&self) -> bool {
        self.cpu_cores.is_some()
    }

    /// Whether arrays of `dtype` can be used.
    pub fn supports(&self, dtype: Dtype) -> bool {
        match dtype {
            Dtype::F32 => true,
            Dtype::F16 => self.f16,
            Dtype::BF16 => self.bf16,
        }
    }
}

/// At least `cubes` cubes, folded into two or three dimensions where one is too short.
///
/// Kernels number their cubes by `CUBE_POS` (or units by `ABSOLUTE_POS`) and stop at the end of their data,
/// because folding may start a few more.
///
/// # Panics
/// If the device cannot start that many.
pub fn cube_count(cubes: usize, capabilities: &Capabilities) -> CubeCount {
    let (x, y, z) = fold(cubes, capabilities.max_cube_count);
    CubeCount::Static(x, y, z)
}

/// The sides of [`cube_count`].
pub(crate) fn fold(cubes: usize, (max_x, max_y, max_z): (u32, u32, u32)) -> (u32, u32, u32) {
    let z = cubes.div_ceil(max_x as usize * max_y as usize).max(1);
    let y = cubes.div_ceil(z * max_x as usize).max(1);
    let x = cubes.div_ceil(z * y);
    assert!(z <= max_z as usize, "{cubes} cubes are more than the device can start");
    (x as u32, y as u32, z as u32)
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn cubes_fold_into_what_a_device_allows() {
        assert_eq!(fold(0, (9, 9, 9)), (0, 1, 1));
        assert_eq!(fold(7, (9, 9, 9)), (7, 1, 1));
        assert_eq!(fold(10, (9, 9, 9)), (5, 2, 1));
        for cubes in 1..729 {
            let (x, y, z) = fold(cubes, (9, 9, 9));
            let started = (x * y * z) as usize;
            // Rounding x up starts less than one more cube for each of its rows.
            let most = cubes + (y * z) as usize - 1;
            let fits = x <= 9 && y <= 9 && z <= 9;
            assert!(fits && (cubes..=most).contains(&started), "{cubes} cubes as {x}x{y}x{z}");
        }
    }

    #[test]
    #[should_panic(expected = "730 cubes are more than the device can start")]
    fn too_many_cubes_panic() {
        fold(730, (9, 9, 9));
    }
}
