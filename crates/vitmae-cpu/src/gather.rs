//! Rows of tokens chosen by index, and the scatter that is its adjoint.
//!
//!   y[b, k] = x[b, ids[b, k]]          dx[b, ids[b, k]] += dy[b, k]
//!
//! Oracle: `vitmae_testing::reference::gather`.

use rayon::prelude::*;

/// Sizes of a gather.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// B
    pub batch: usize,
    /// Rows to choose from in each image.
    pub rows: usize,
    /// Rows chosen in each image.
    pub kept: usize,
    /// D
    pub width: usize,
}

/// # Shapes
/// `x: [B, rows, D]`, `ids: [B, kept]` below `rows`, `y: [B, kept, D]`
///
/// # Panics
/// If a length or an index does not fit.
pub fn forward(x: &[f32], ids: &[u32], shape: Shape, y: &mut [f32]) {
    let Shape { rows, kept, width, .. } = shape;
    check(x, ids, y, shape);
    y.par_chunks_mut((kept * width).max(1)).enumerate().for_each(|(image, y)| {
        let x = &x[image * rows * width..][..rows * width];
        let ids = &ids[image * kept..][..kept];
        for (y, &id) in y.chunks_exact_mut(width).zip(ids) {
            y.copy_from_slice(&x[id as usize * width..][..width]);
        }
    });
}

/// The adjoint: rows that were not chosen get 0, rows chosen more than once get a sum.
///
/// # Shapes
/// `dy: [B, kept, D]`, `ids: [B, kept]` below `rows`, `dx: [B, rows, D]`
///
/// # Panics
/// If a length or an index does not fit.
pub fn backward(dy: &[f32], ids: &[u32], shape: Shape, dx: &mut [f32]) {
    let Shape { rows, kept, width, .. } = shape;
    check(dx, ids, dy, shape);
    dx.par_chunks_mut((rows * width).max(1)).enumerate().for_each(|(image, dx)| {
        dx.fill(0.0);
        let dy = &dy[image * kept * width..][..kept * width];
        let ids = &ids[image * kept..][..kept];
        for (dy, &id) in dy.chunks_exact(width.max(1)).zip(ids) {
            let dx = &mut dx[id as usize * width..][..width];
            dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx += dy);
        }
    });
}

fn check(all: &[f32], ids: &[u32], chosen: &[f32], shape: Shape) {
    let Shape { batch, rows, kept, width } = shape;
    assert_eq!(all.len(), batch * rows * width, "gather: all rows");
    assert_eq!(ids.len(), batch * kept, "gather: ids");
    assert_eq!(chosen.len(), batch * kept * width, "gather: chosen rows");
    assert!(ids.iter().all(|&id| (id as usize) < rows), "gather: an index");
}
