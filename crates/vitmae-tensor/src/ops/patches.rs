//! The two flattenings of an image into patches, which differ and must not be exchanged.
//!
//! - Targets and predictions are **pixel-major, channel last**: element `(a·PW + b)·C + c`.
//! - The patch embedding is a convolution, **channel first**: element `(c·PH + a)·PW + b`.

use vitmae_cpu::patches::{self as cpu, Shape};
#[cfg(feature = "gpu")]
use vitmae_kernels::patches as gpu;

use crate::{Indices, Tensor, TensorError};

/// Pixels as target rows.
///
/// # Shapes
/// `pixels: [B, C, H, W]`, `patch = (PH, PW)` → `[B, L, PH·PW·C]`
///
/// # Errors
/// [`TensorError::NotDivisible`] if the image is not a whole number of patches.
///
/// Source: `patchify` of transformers 4.57.6.
pub fn patchify(pixels: &Tensor, patch: (usize, usize)) -> Result<Tensor, TensorError> {
    let shape = shape_of("patchify", pixels, patch)?;
    let out = [shape.batch, shape.num_patches(), shape.patch_dim()];
    #[cfg(feature = "gpu")]
    if let Some(client) = pixels.device().client() {
        let out = Tensor::empty(pixels.device(), &out)?;
        gpu::patchify(client, pixels.array(), of_kernels(shape), out.array());
        return Ok(out);
    }
    Tensor::written(pixels.device(), &out, |out| cpu::patchify(pixels.as_slice(), shape, out))
}

/// The inverse of [`patchify`] for images of `C` channels and `size = (H, W)`.
///
/// # Shapes
/// `patches: [B, L, PH·PW·C]` → `[B, C, H, W]`
///
/// # Errors
/// [`TensorError::Shape`] if the patches do not make up the image.
pub fn unpatchify(
    patches: &Tensor,
    patch: (usize, usize),
    channels: usize,
    size: (usize, usize),
) -> Result<Tensor, TensorError> {
    let [batch, ..] = patches.dims::<3>("unpatchify", "patches")?;
    let image = [batch, channels, size.0, size.1];
    let shape = sizes("unpatchify", image, patch)?;
    patches.expect("unpatchify", "patches", &[batch, shape.num_patches(), shape.patch_dim()])?;
    #[cfg(feature = "gpu")]
    if let Some(client) = patches.device().client() {
        let out = Tensor::empty(patches.device(), &image)?;
        gpu::unpatchify(client, patches.array(), of_kernels(shape), out.array());
        return Ok(out);
    }
    Tensor::written(patches.device(), &image, |out| cpu::unpatchify(patches.as_slice(), shape, out))
}

/// The patches named by `ids` as rows for the patch embedding.
///
/// # Shapes
/// `pixels: [B, C, H, W]`, `ids: [B, K]` below L → `[B, K, C·PH·PW]`
///
/// # Errors
/// [`TensorError::NotDivisible`], [`TensorError::Shape`] or [`TensorError::Index`] if an argument does
/// not fit.
pub fn im2col(
    pixels: &Tensor,
    ids: &Indices,
    patch: (usize, usize),
) -> Result<Tensor, TensorError> {
    const OP: &str = "im2col";
    let shape = shape_of(OP, pixels, patch)?;
    let &[batch, kept] = ids.shape() else {
        let (actual, tensor) = (ids.shape().to_vec(), "ids");
        return Err(TensorError::Rank { op: OP, tensor, actual, expected: 2 });
    };
    if batch != shape.batch {
        let (actual, expected) = (ids.shape().to_vec(), vec![shape.batch, kept]);
        return Err(TensorError::Shape { op: OP, tensor: "ids", actual, expected });
    }
    ids.expect_below(OP, "ids", shape.num_patches())?;
    ids.expect_beside(OP, pixels)?;
    #[cfg(feature = "gpu")]
    if let Some(client) = pixels.device().client() {
        let rows = Tensor::empty(pixels.device(), &[batch, kept, shape.patch_dim()])?;
        gpu::im2col(client, pixels.array(), ids.ids(), of_kernels(shape), rows.array());
        return Ok(rows);
    }
    Tensor::written(pixels.device(), &[batch, kept, shape.patch_dim()], |rows| {
        cpu::im2col(pixels.as_slice(), ids.as_slice(), shape, rows);
    })
}

fn shape_of(
    op: &'static str,
    pixels: &Tensor,
    patch: (usize, usize),
) -> Result<Shape, TensorError> {
    sizes(op, pixels.dims(op, "pixels")?, patch)
}

fn sizes(
    op: &'static str,
    [batch, channels, height, width]: [usize; 4],
    (patch_height, patch_width): (usize, usize),
) -> Result<Shape, TensorError> {
    for (what, found, divisor) in
        [("image height", height, patch_height), ("image width", width, patch_width)]
    {
        if divisor == 0 || !found.is_multiple_of(divisor) {
            return Err(TensorError::NotDivisible { op, what, found, divisor });
        }
    }
    Ok(Shape { batch, channels, height, width, patch_height, patch_width })
}

#[cfg(feature = "gpu")]
fn of_kernels(shape: Shape) -> gpu::Shape {
    let Shape { batch, channels, height, width, patch_height, patch_width } = shape;
    gpu::Shape { batch, channels, height, width, patch_height, patch_width }
}
