//! The two flattenings of an image into patches, which differ and must not be exchanged.
//!
//! - Targets and predictions are **pixel-major, channel last**: element `(a·PW + b)·C + c`.
//! - The patch embedding is a convolution, **channel first**: element `(c·PH + a)·PW + b`.
//!
//! Patches are rectangles PH × PW; patch (i, j) has index `i·(W/PW) + j`.
//!
//! Source: `patchify` and `ViTMAEPatchEmbeddings` of transformers 4.57.6.
//! Oracle: `vitmae_testing::reference::patches`; CPU twin: `vitmae_cpu::patches`.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use crate::{Array, Client, Ids, launch};

/// Sizes of a batch of images and of their patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// B
    pub batch: usize,
    /// C
    pub channels: usize,
    /// H in pixels, a multiple of PH.
    pub height: usize,
    /// W in pixels, a multiple of PW.
    pub width: usize,
    /// PH
    pub patch_height: usize,
    /// PW
    pub patch_width: usize,
}

impl Shape {
    /// (rows, columns) of patches.
    pub fn grid(&self) -> (usize, usize) {
        (self.height / self.patch_height, self.width / self.patch_width)
    }

    /// L
    pub fn num_patches(&self) -> usize {
        self.grid().0 * self.grid().1
    }

    /// Numbers in a patch: PH·PW·C.
    pub fn patch_dim(&self) -> usize {
        self.patch_height * self.patch_width * self.channels
    }

    /// Numbers in the batch.
    pub fn len(&self) -> usize {
        self.batch * self.channels * self.height * self.width
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn tiling(&self) -> Tiling {
        Tiling {
            channels: self.channels,
            patch_height: self.patch_height,
            patch_width: self.patch_width,
        }
    }
}

/// What kernels are compiled for; the sizes of the images are arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tiling {
    channels: usize,
    patch_height: usize,
    patch_width: usize,
}

/// Pixels as target rows, channel last.
///
/// # Shapes
/// `pixels: [B, C, H, W]`, `patches: [B, L, PH·PW·C]`
///
/// # Panics
/// If a length does not fit or types differ.
pub fn patchify(client: &Client, pixels: &Array, shape: Shape, patches: &Array) {
    reorder(client, pixels, shape, true, patches);
}

/// The inverse of [`patchify`].
///
/// # Shapes
/// `patches: [B, L, PH·PW·C]`, `pixels: [B, C, H, W]`
///
/// # Panics
/// If a length does not fit or types differ.
pub fn unpatchify(client: &Client, patches: &Array, shape: Shape, pixels: &Array) {
    reorder(client, patches, shape, false, pixels);
}

fn reorder(client: &Client, from: &Array, shape: Shape, to_patches: bool, to: &Array) {
    assert_eq!(from.len, shape.len(), "patches: input");
    assert_eq!(to.len, shape.len(), "patches: output");
    assert_eq!(from.dtype, to.dtype, "patches: types");
    if shape.is_empty() {
        return;
    }
    let (count, dim) = launch::elements(client, to.len);
    // SAFETY: guarded by the number of pixels; the order is a permutation of them.
    unsafe {
        reorder_kernel::launch_unchecked(
            client,
            count,
            dim,
            from.arg(),
            to.arg(),
            to.len as u32,
            shape.height as u32,
            shape.width as u32,
            shape.tiling(),
            to_patches,
            to.dtype.elem(),
        );
    }
}

/// The patches named by `ids` as rows for the patch embedding, channel first; an id that is not below L
/// gives a row of zeros. `pixels` and `rows` may differ in type.
///
/// # Shapes
/// `pixels: [B, C, H, W]`, `ids: [B, K]` below L, `rows: [B, K, C·PH·PW]`
///
/// # Panics
/// If a length does not fit.
pub fn im2col(client: &Client, pixels: &Array, ids: &Ids, shape: Shape, rows: &Array) {
    assert_eq!(pixels.len, shape.len(), "patches: pixels");
    assert_eq!(rows.len, ids.len * shape.patch_dim(), "patches: rows");
    if rows.len == 0 {
        return;
    }
    assert!(ids.len.is_multiple_of(shape.batch), "patches: ids");
    let (count, dim) = launch::elements(client, rows.len);
    // SAFETY: guarded by the length of `rows`, and ids by L.
    unsafe {
        im2col_kernel::launch_unchecked(
            client,
            count,
            dim,
            pixels.arg(),
            ids.arg(),
            rows.arg(),
            rows.len as u32,
            (ids.len / shape.batch) as u32,
            shape.height as u32,
            shape.width as u32,
            shape.tiling(),
            pixels.dtype.elem(),
            rows.dtype.elem(),
        );
    }
}

/// Where pixel (a, b) of channel c of a patch lies in the batch.
#[cube]
fn pixel_at(
    image: usize,
    patch: usize,
    channel: usize,
    a: usize,
    b: usize,
    height: usize,
    width: usize,
    #[comptime] tiling: Tiling,
) -> usize {
    let (patch_height, patch_width) = comptime!((tiling.patch_height, tiling.patch_width));
    let columns = width / patch_width;
    let y = patch / columns * patch_height + a;
    let x = patch % columns * patch_width + b;
    ((image * comptime!(tiling.channels) + channel) * height + y) * width + x
}

/// One unit moves one value; neighbours are neighbours in the patch.
#[cube(launch_unchecked)]
fn reorder_kernel<F: Float>(
    from: &[F],
    to: &mut [F],
    len: u32,
    height: u32,
    width: u32,
    #[comptime] tiling: Tiling,
    #[comptime] to_patches: bool,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < len as usize {
        let (channels, patch_height, patch_width) =
            comptime!((tiling.channels, tiling.patch_height, tiling.patch_width));
        let (height, width) = (height as usize, width as usize);
        let count = height / patch_height * (width / patch_width);
        let channel = i % channels;
        let b = i / channels % patch_width;
        let a = i / comptime!(channels * patch_width) % patch_height;
        let patch = i / comptime!(channels * patch_width * patch_height);
        let pixel = pixel_at(patch / count, patch % count, channel, a, b, height, width, tiling);
        if comptime!(to_patches) {
            to[i] = from[pixel];
        } else {
            to[pixel] = from[i];
        }
    }
}

/// One unit writes one value; neighbours are neighbours in the image.
#[cube(launch_unchecked)]
fn im2col_kernel<I: Float, O: Float>(
    pixels: &[I],
    ids: &[u32],
    rows: &mut [O],
    len: u32,
    kept: u32,
    height: u32,
    width: u32,
    #[comptime] tiling: Tiling,
    #[define(I)] _from: ElemType,
    #[define(O)] _to: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < len as usize {
        let (channels, patch_height, patch_width) =
            comptime!((tiling.channels, tiling.patch_height, tiling.patch_width));
        let (height, width) = (height as usize, width as usize);
        let count = height / patch_height * (width / patch_width);
        let b = i % patch_width;
        let a = i / patch_width % patch_height;
        let channel = i / comptime!(patch_width * patch_height) % channels;
        let row = i / comptime!(patch_width * patch_height * channels);
        let patch = ids[row] as usize;
        let mut value = 0.0f32;
        if patch < count {
            let image = row / kept as usize;
            let pixel = pixel_at(image, patch, channel, a, b, height, width, tiling);
            value = f32::cast_from(pixels[pixel]);
        }
        rows[i] = O::cast_from(value);
    }
}
