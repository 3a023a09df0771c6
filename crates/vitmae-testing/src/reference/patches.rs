//! The two flattenings of an image into patches, which differ and must not be exchanged.
//!
//! - Targets and predictions are **pixel-major, channel last**: element `(a·PW + b)·C + c`.
//! - The patch embedding is a convolution, **channel first**: element `(c·PH + a)·PW + b`.
//!
//! Patches are rectangles PH × PW; patch (i, j) has index `i·(W/PW) + j`.
//!
//! Source: `patchify` and `ViTMAEPatchEmbeddings` of transformers 4.57.6, `modeling_vit_mae.py`.

/// Sizes of a batch of images cut into patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// B.
    pub batch: usize,
    /// C.
    pub channels: usize,
    /// H, a multiple of `patch_height`.
    pub height: usize,
    /// W, a multiple of `patch_width`.
    pub width: usize,
    /// PH.
    pub patch_height: usize,
    /// PW.
    pub patch_width: usize,
}

impl Shape {
    /// Rows and columns of the grid of patches.
    pub fn grid(&self) -> (usize, usize) {
        assert_eq!(self.height % self.patch_height, 0, "height");
        assert_eq!(self.width % self.patch_width, 0, "width");
        (self.height / self.patch_height, self.width / self.patch_width)
    }

    /// L.
    pub fn num_patches(&self) -> usize {
        self.grid().0 * self.grid().1
    }

    /// Length of one flattened patch, PH·PW·C.
    pub fn patch_dim(&self) -> usize {
        self.patch_height * self.patch_width * self.channels
    }

    /// Number of pixel values, B·C·H·W.
    pub fn len(&self) -> usize {
        self.batch * self.channels * self.height * self.width
    }

    /// True when there is no pixel at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `visit(pixel, patch, a, b, c)` for every pixel value: its flat index in `[B, C, H, W]`,
    /// the flat index of its patch in `[B, L]`, its row and column in the patch, and its channel.
    fn for_each(&self, mut visit: impl FnMut(usize, usize, usize, usize, usize)) {
        let (_, columns) = self.grid();
        for batch in 0..self.batch {
            for c in 0..self.channels {
                for y in 0..self.height {
                    for x in 0..self.width {
                        let pixel =
                            ((batch * self.channels + c) * self.height + y) * self.width + x;
                        let patch = y / self.patch_height * columns + x / self.patch_width;
                        let patch = batch * self.num_patches() + patch;
                        visit(pixel, patch, y % self.patch_height, x % self.patch_width, c);
                    }
                }
            }
        }
    }

    fn channel_last(&self, a: usize, b: usize, c: usize) -> usize {
        (a * self.patch_width + b) * self.channels + c
    }

    fn channel_first(&self, a: usize, b: usize, c: usize) -> usize {
        (c * self.patch_height + a) * self.patch_width + b
    }
}

/// `[B, C, H, W]` → `[B, L, PH·PW·C]`, channel last.
pub fn patchify(pixels: &[f64], shape: Shape) -> Vec<f64> {
    assert_eq!(pixels.len(), shape.len(), "pixels");
    let mut patches = vec![f64::NAN; pixels.len()];
    shape.for_each(|pixel, patch, a, b, c| {
        patches[patch * shape.patch_dim() + shape.channel_last(a, b, c)] = pixels[pixel];
    });
    patches
}

/// The inverse of [`patchify`], and its adjoint.
pub fn unpatchify(patches: &[f64], shape: Shape) -> Vec<f64> {
    assert_eq!(patches.len(), shape.len(), "patches");
    let mut pixels = vec![f64::NAN; patches.len()];
    shape.for_each(|pixel, patch, a, b, c| {
        pixels[pixel] = patches[patch * shape.patch_dim() + shape.channel_last(a, b, c)];
    });
    pixels
}

/// `[B, C, H, W]` → `[B, L, C·PH·PW]`, channel first: the rows that the embedding multiplies.
pub fn im2col(pixels: &[f64], shape: Shape) -> Vec<f64> {
    assert_eq!(pixels.len(), shape.len(), "pixels");
    let mut rows = vec![f64::NAN; pixels.len()];
    shape.for_each(|pixel, patch, a, b, c| {
        rows[patch * shape.patch_dim() + shape.channel_first(a, b, c)] = pixels[pixel];
    });
    rows
}

/// The inverse of [`im2col`], and its adjoint.
pub fn col2im(rows: &[f64], shape: Shape) -> Vec<f64> {
    assert_eq!(rows.len(), shape.len(), "rows");
    let mut pixels = vec![f64::NAN; rows.len()];
    shape.for_each(|pixel, patch, a, b, c| {
        pixels[pixel] = rows[patch * shape.patch_dim() + shape.channel_first(a, b, c)];
    });
    pixels
}

/// Gradients of [`patch_embedding`].
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingGradients {
    /// `[B, C, H, W]`.
    pub dpixels: Vec<f64>,
    /// `[D, C, PH, PW]`.
    pub dweight: Vec<f64>,
    /// `[D]`.
    pub dbias: Vec<f64>,
}

/// The convolution with stride = kernel: `pixels`, `weight: [D, C, PH, PW]`, `bias: [D]` → `[B, L, D]`.
pub fn patch_embedding(pixels: &[f64], weight: &[f64], bias: &[f64], shape: Shape) -> Vec<f64> {
    let d = bias.len();
    assert_eq!(weight.len(), d * shape.patch_dim(), "weight");
    let mut out: Vec<f64> = bias.repeat(shape.batch * shape.num_patches());
    shape.for_each(|pixel, patch, a, b, c| {
        for o in 0..d {
            out[patch * d + o] +=
                pixels[pixel] * weight[o * shape.patch_dim() + shape.channel_first(a, b, c)];
        }
    });
    out
}

/// Gradients of [`patch_embedding`] for `dy: [B, L, D]`.
pub fn patch_embedding_backward(
    dy: &[f64],
    pixels: &[f64],
    weight: &[f64],
    shape: Shape,
) -> EmbeddingGradients {
    let d = weight.len() / shape.patch_dim();
    assert_eq!(dy.len(), shape.batch * shape.num_patches() * d, "dy");
    let mut dpixels = vec![0.0; pixels.len()];
    let mut dweight = vec![0.0; weight.len()];
    let mut dbias = vec![0.0; d];
    shape.for_each(|pixel, patch, a, b, c| {
        for o in 0..d {
            let at = o * shape.patch_dim() + shape.channel_first(a, b, c);
            dpixels[pixel] += dy[patch * d + o] * weight[at];
            dweight[at] += dy[patch * d + o] * pixels[pixel];
        }
    });
    for row in dy.chunks(d) {
        for o in 0..d {
            dbias[o] += row[o];
        }
    }
    EmbeddingGradients { dpixels, dweight, dbias }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::{Tolerance, assert_close};
    use crate::draws::Draws;
    use crate::gradient_check::{assert_gradient, dot};
    use crate::reference::linear;

    fn some_shape(draws: &mut Draws) -> Shape {
        let (patch_height, patch_width) = (draws.integer(1..=3), draws.integer(1..=3));
        Shape {
            batch: draws.integer(1..=2),
            channels: draws.integer(1..=3),
            height: patch_height * draws.integer(1..=3),
            width: patch_width * draws.integer(1..=3),
            patch_height,
            patch_width,
        }
    }

    #[test]
    fn patchify_equals_transformers() {
        let shape =
            Shape { batch: 1, channels: 2, height: 4, width: 4, patch_height: 2, patch_width: 2 };
        let pixels: Vec<f64> = (0..32).map(f64::from).collect();
        let found = patchify(&pixels, shape);
        let expected = [0., 16., 1., 17., 4., 20., 5., 21., 2., 18., 3., 19., 6., 22., 7., 23.];
        assert_close("patches 0 and 1", &found[..16], &expected, Tolerance::EXACT);
        let expected = [0., 1., 4., 5., 16., 17., 20., 21.];
        assert_close("im2col", &im2col(&pixels, shape)[..8], &expected, Tolerance::EXACT);
    }

    #[test]
    fn the_inverses_invert() {
        let mut draws = Draws::new(7);
        for _ in 0..20 {
            let shape = some_shape(&mut draws);
            let pixels = draws.vec(shape.len());
            assert_eq!(unpatchify(&patchify(&pixels, shape), shape), pixels);
            assert_eq!(col2im(&im2col(&pixels, shape), shape), pixels);
        }
    }

    #[test]
    fn the_embedding_is_a_linear_map_of_the_channel_first_rows() {
        let mut draws = Draws::new(8);
        for _ in 0..20 {
            let shape = some_shape(&mut draws);
            let d = draws.integer(1..=4);
            let (pixels, bias) = (draws.vec(shape.len()), draws.vec(d));
            let weight = draws.vec(d * shape.patch_dim());
            let rows = linear::Shape {
                rows: shape.batch * shape.num_patches(),
                inputs: shape.patch_dim(),
                outputs: d,
            };
            let epilogue = linear::Epilogue { bias: Some(&bias), ..Default::default() };
            let expected = linear::forward(&im2col(&pixels, shape), &weight, epilogue, rows).y;
            let found = patch_embedding(&pixels, &weight, &bias, shape);
            assert_close("embedding", &found, &expected, Tolerance::new(1e-14, 1e-14));
        }
    }

    #[test]
    fn backward_is_the_gradient_of_forward() {
        let mut draws = Draws::new(9);
        for _ in 0..20 {
            let shape = some_shape(&mut draws);
            let d = draws.integer(1..=3);
            let (pixels, bias) = (draws.vec(shape.len()), draws.vec(d));
            let weight = draws.vec(d * shape.patch_dim());
            let dy = draws.vec(shape.batch * shape.num_patches() * d);
            let f = |p: &[f64], w: &[f64], b: &[f64]| dot(&patch_embedding(p, w, b, shape), &dy);
            let g = patch_embedding_backward(&dy, &pixels, &weight, shape);
            assert_gradient("dpixels", |p| f(p, &weight, &bias), &pixels, &g.dpixels);
            assert_gradient("dweight", |w| f(&pixels, w, &bias), &weight, &g.dweight);
            assert_gradient("dbias", |b| f(&pixels, &weight, b), &bias, &g.dbias);
            let dpatches = draws.vec(shape.len());
            let patched = |p: &[f64]| dot(&patchify(p, shape), &dpatches);
            assert_gradient("patchify", patched, &pixels, &unpatchify(&dpatches, shape));
            let columns = |p: &[f64]| dot(&im2col(p, shape), &dpatches);
            assert_gradient("im2col", columns, &pixels, &col2im(&dpatches, shape));
        }
    }
}
