//! The two flattenings of an image into patches, which differ and must not be exchanged.
//!
//! - Targets and predictions are **pixel-major, channel last**: element `(a·PW + b)·C + c`.
//! - The patch embedding is a convolution, **channel first**: element `(c·PH + a)·PW + b`.
//!
//! Patches are rectangles PH × PW; patch (i, j) has index `i·(W/PW) + j`.
//!
//! Source: `patchify` and `ViTMAEPatchEmbeddings` of transformers 4.57.6.
//! Oracle: `vitmae_testing::reference::patches`.

use rayon::prelude::*;

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

    /// Calls `visit(offset in the image, channel, row in the patch)` for the first pixel of each run
    /// of PW pixels of a patch.
    fn runs(&self, patch: usize, mut visit: impl FnMut(usize, usize, usize)) {
        let columns = self.grid().1;
        let (top, left) = (patch / columns * self.patch_height, patch % columns * self.patch_width);
        for channel in 0..self.channels {
            for row in 0..self.patch_height {
                let offset = (channel * self.height + top + row) * self.width + left;
                visit(offset, channel, row);
            }
        }
    }

    fn image_len(&self) -> usize {
        self.channels * self.height * self.width
    }
}

/// Pixels as target rows, channel last.
///
/// # Shapes
/// `pixels: [B, C, H, W]`, `patches: [B, L, PH·PW·C]`
///
/// # Panics
/// If a length does not fit.
pub fn patchify(pixels: &[f32], shape: Shape, patches: &mut [f32]) {
    assert_eq!(pixels.len(), shape.len(), "patches: pixels");
    assert_eq!(patches.len(), shape.len(), "patches: patches");
    let (count, channels, width) = (shape.num_patches(), shape.channels, shape.patch_width);
    patches.par_chunks_mut(shape.patch_dim().max(1)).enumerate().for_each(|(index, patch)| {
        let image = &pixels[index / count * shape.image_len()..][..shape.image_len()];
        shape.runs(index % count, |offset, channel, row| {
            let run = &image[offset..offset + width];
            let places = patch[row * width * channels + channel..].iter_mut().step_by(channels);
            places.zip(run).for_each(|(place, pixel)| *place = *pixel);
        });
    });
}

/// The inverse of [`patchify`].
///
/// # Shapes
/// `patches: [B, L, PH·PW·C]`, `pixels: [B, C, H, W]`
///
/// # Panics
/// If a length does not fit.
pub fn unpatchify(patches: &[f32], shape: Shape, pixels: &mut [f32]) {
    assert_eq!(pixels.len(), shape.len(), "patches: pixels");
    assert_eq!(patches.len(), shape.len(), "patches: patches");
    let (dim, channels, width) = (shape.patch_dim(), shape.channels, shape.patch_width);
    let images = pixels.par_chunks_mut(shape.image_len().max(1));
    images.zip(patches.par_chunks(shape.image_len().max(1))).for_each(|(image, patches)| {
        for (index, patch) in patches.chunks_exact(dim).enumerate() {
            shape.runs(index, |offset, channel, row| {
                let run = &mut image[offset..offset + width];
                let values = patch[row * width * channels + channel..].iter().step_by(channels);
                run.iter_mut().zip(values).for_each(|(pixel, value)| *pixel = *value);
            });
        }
    });
}

/// The patches named by `ids` as rows for the patch embedding, channel first.
///
/// # Shapes
/// `pixels: [B, C, H, W]`, `ids: [B, K]` below L, `rows: [B, K, C·PH·PW]`
///
/// # Panics
/// If a length or an index does not fit.
pub fn im2col(pixels: &[f32], ids: &[u32], shape: Shape, rows: &mut [f32]) {
    assert_eq!(pixels.len(), shape.len(), "patches: pixels");
    assert_eq!(rows.len(), ids.len() * shape.patch_dim(), "patches: rows");
    assert!(ids.iter().all(|&id| (id as usize) < shape.num_patches()), "patches: an index");
    if ids.is_empty() {
        return;
    }
    assert!(ids.len().is_multiple_of(shape.batch), "patches: ids");
    let (kept, width) = (ids.len() / shape.batch, shape.patch_width);
    rows.par_chunks_mut(shape.patch_dim()).enumerate().for_each(|(index, out)| {
        let image = &pixels[index / kept * shape.image_len()..][..shape.image_len()];
        shape.runs(ids[index] as usize, |offset, channel, row| {
            let place = (channel * shape.patch_height + row) * width;
            out[place..place + width].copy_from_slice(&image[offset..offset + width]);
        });
    });
}
