//! Bicubic resampling of a table of positions to another grid.

use vitmae_cpu::interpolation as cpu;
pub use vitmae_cpu::interpolation::Kernel as BicubicKernel;
#[cfg(feature = "gpu")]
use vitmae_kernels::interpolation as gpu;

use crate::tensor::into_slot;
use crate::{Tensor, TensorError};

/// The table on the grid `to`; the sequence alone is resampled with grids `(1, L)`.
///
/// # Shapes
/// `table: [h₀·w₀, D]` on `from = (h₀, w₀)` → `[h·w, D]` on `to = (h, w)`
///
/// # Errors
/// [`TensorError::Shape`] if the table has not `h₀·w₀` rows.
///
/// Source: `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)` and
/// `tf.image.resize(method="bicubic")`.
pub fn interpolation(
    table: &Tensor,
    from: (usize, usize),
    to: (usize, usize),
    kernel: BicubicKernel,
) -> Result<Tensor, TensorError> {
    let [_, width] = table.dims("interpolation", "table")?;
    table.expect("interpolation", "table", &[from.0 * from.1, width])?;
    #[cfg(feature = "gpu")]
    if let Some(client) = table.device().client() {
        let out = Tensor::empty(table.device(), &[to.0 * to.1, width])?;
        gpu::forward(client, table.array(), from, to, width, of_kernels(kernel), out.array());
        return Ok(out);
    }
    Tensor::written(table.device(), &[to.0 * to.1, width], |out| {
        cpu::forward(table.as_slice(), from, to, width, kernel, out);
    })
}

/// `dtable: [h₀·w₀, D]` for `dout: [h·w, D]`.
///
/// # Errors
/// [`TensorError::Shape`] if `dout` has not `h·w` rows.
pub fn interpolation_backward(
    dout: &Tensor,
    from: (usize, usize),
    to: (usize, usize),
    kernel: BicubicKernel,
) -> Result<Tensor, TensorError> {
    const OP: &str = "interpolation_backward";
    let [_, width] = dout.dims(OP, "dout")?;
    dout.expect(OP, "dout", &[to.0 * to.1, width])?;
    #[cfg(feature = "gpu")]
    if let Some(client) = dout.device().client() {
        let dtable = Tensor::empty(dout.device(), &[from.0 * from.1, width])?;
        let kernel = of_kernels(kernel);
        gpu::backward(client, dout.array(), from, to, width, kernel, dtable.array(), false);
        return Ok(dtable);
    }
    let mut slot = None;
    into_slot(&mut slot, dout.device(), &[from.0 * from.1, width], |dtable, add| {
        cpu::backward(dout.as_slice(), from, to, width, kernel, dtable, add);
    })?;
    slot.ok_or(TensorError::TooLarge { shape: vec![from.0, from.1, width] })
}

#[cfg(feature = "gpu")]
fn of_kernels(kernel: BicubicKernel) -> gpu::Kernel {
    match kernel {
        BicubicKernel::Torch => gpu::Kernel::Torch,
        BicubicKernel::Tf => gpu::Kernel::Tf,
    }
}
