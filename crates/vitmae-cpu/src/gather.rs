//! Rows of tokens chosen by index, and the scatter that is its adjoint.
//!
//!   y[b, k] = x[b, ids[b, k]]          dx[b, ids[b, k]] += dy[b, k]
//!
//! Oracle: `vitmae_testing::reference::gather`.

use rayon::prelude::*;
use std::ops::Add;

use crate::values::{Values, ValuesMut};

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
/// `x: [B, rows, D]`, `ids: [B, kept]` below `rows`, `y: [B, kept, D]`, of one type
///
/// # Panics
/// If a length, an index or a type does not fit.
pub fn forward<'x, 'y>(
    x: impl Into<Values<'x>>,
    ids: &[u32],
    shape: Shape,
    y: impl Into<ValuesMut<'y>>,
) {
    let (x, y) = (x.into(), y.into());
    check(x.len(), ids, y.len(), shape);
    match (x, y) {
        (Values::F32(x), ValuesMut::F32(y)) => choose(x, ids, shape, y),
        (Values::Bf16(x), ValuesMut::Bf16(y)) => choose(x, ids, shape, y),
        _ => panic!("gather: x and y of two types"),
    }
}

fn choose<T: Copy + Send + Sync>(x: &[T], ids: &[u32], shape: Shape, y: &mut [T]) {
    let Shape { rows, kept, width, .. } = shape;
    y.par_chunks_mut((kept * width).max(1)).enumerate().for_each(|(image, y)| {
        let x = &x[image * rows * width..][..rows * width];
        let ids = &ids[image * kept..][..kept];
        for (y, &id) in y.chunks_exact_mut(width).zip(ids) {
            y.copy_from_slice(&x[id as usize * width..][..width]);
        }
    });
}

/// The adjoint: rows that were not chosen get 0, rows chosen more than once get a sum, in bf16 rounded at every term.
///
/// # Shapes
/// `dy: [B, kept, D]`, `ids: [B, kept]` below `rows`, `dx: [B, rows, D]`, of one type
///
/// # Panics
/// If a length, an index or a type does not fit.
pub fn backward<'y, 'x>(
    dy: impl Into<Values<'y>>,
    ids: &[u32],
    shape: Shape,
    dx: impl Into<ValuesMut<'x>>,
) {
    let (dy, dx) = (dy.into(), dx.into());
    check(dx.len(), ids, dy.len(), shape);
    match (dy, dx) {
        (Values::F32(dy), ValuesMut::F32(dx)) => scatter(dy, ids, shape, dx),
        (Values::Bf16(dy), ValuesMut::Bf16(dx)) => scatter(dy, ids, shape, dx),
        _ => panic!("gather: dy and dx of two types"),
    }
}

fn scatter<T: Copy + Default + Add<Output = T> + Send + Sync>(
    dy: &[T],
    ids: &[u32],
    shape: Shape,
    dx: &mut [T],
) {
    let Shape { rows, kept, width, .. } = shape;
    dx.par_chunks_mut((rows * width).max(1)).enumerate().for_each(|(image, dx)| {
        dx.fill(T::default());
        let dy = &dy[image * kept * width..][..kept * width];
        let ids = &ids[image * kept..][..kept];
        for (dy, &id) in dy.chunks_exact(width.max(1)).zip(ids) {
            let dx = &mut dx[id as usize * width..][..width];
            dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx = *dx + *dy);
        }
    });
}

fn check(all: usize, ids: &[u32], chosen: usize, shape: Shape) {
    let Shape { batch, rows, kept, width } = shape;
    assert_eq!(all, batch * rows * width, "gather: all rows");
    assert_eq!(ids.len(), batch * kept, "gather: ids");
    assert_eq!(chosen, batch * kept * width, "gather: chosen rows");
    assert!(ids.iter().all(|&id| (id as usize) < rows), "gather: an index");
}
