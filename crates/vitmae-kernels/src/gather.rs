//! Rows of tokens chosen by index, and the scatter that is its adjoint.
//!
//!   y[b, k] = x[b, ids[b, k]]          dx[b, ids[b, k]] += dy[b, k]
//!
//! The adjoint has no atomics: each row of `dx` has one owner, who adds the rows that chose it in order.
//!
//! Oracle: `vitmae_testing::reference::gather`; CPU twin: `vitmae_cpu::gather`.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use crate::{Array, Client, Ids, launch};

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

/// `y[b, k] = x[b, ids[b, k]]`; an id that is not below `rows` gives zeros.
///
/// # Shapes
/// `x: [B, rows, D]`, `ids: [B, kept]` below `rows`, `y: [B, kept, D]`
///
/// # Panics
/// If a length does not fit or types differ.
pub fn forward(client: &Client, x: &Array, ids: &Ids, shape: Shape, y: &Array) {
    check(x, ids, y, shape);
    if y.len == 0 {
        return;
    }
    let vector = launch::vector_size(shape.width);
    let (count, dim) = launch::elements(client, y.len / vector);
    // SAFETY: guarded by the number of vectors in `y`, and ids by `rows`.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            count,
            dim,
            vector,
            x.arg(),
            ids.arg(),
            y.arg(),
            (y.len / vector) as u32,
            shape.rows as u32,
            shape.kept as u32,
            shape.width / vector,
            y.dtype.elem(),
        );
    }
}

/// The adjoint: rows that were not chosen get 0, rows chosen more than once get a sum.
///
/// # Shapes
/// `dy: [B, kept, D]`, `ids: [B, kept]` below `rows`, `dx: [B, rows, D]`
///
/// # Panics
/// If a length does not fit or types differ.
pub fn backward(client: &Client, dy: &Array, ids: &Ids, shape: Shape, dx: &Array) {
    check(dx, ids, dy, shape);
    if dx.len == 0 {
        return;
    }
    let chosen = Choices::of(client, ids, shape.batch, shape.rows, shape.kept);
    let vector = launch::vector_size(shape.width);
    let (count, dim) = launch::elements(client, dx.len / vector);
    // SAFETY: guarded by the number of vectors in `dx`, and links by `kept`.
    unsafe {
        backward_kernel::launch_unchecked(
            client,
            count,
            dim,
            vector,
            dy.arg(),
            chosen.first.arg(),
            chosen.next.arg(),
            dx.arg(),
            (dx.len / vector) as u32,
            shape.rows as u32,
            shape.kept as u32,
            shape.width / vector,
            dx.dtype.elem(),
        );
    }
}

fn check(all: &Array, ids: &Ids, chosen: &Array, shape: Shape) {
    let Shape { batch, rows, kept, width } = shape;
    assert_eq!(all.len, batch * rows * width, "gather: all rows");
    assert_eq!(ids.len, batch * kept, "gather: ids");
    assert_eq!(chosen.len, batch * kept * width, "gather: chosen rows");
    assert_eq!(all.dtype, chosen.dtype, "gather: types");
}

/// Which choices fell on each row, as linked lists: the owner of a row walks its own list and searches
/// nothing. Links ascend, and the end of a list is a number that is not below `kept`.
pub(crate) struct Choices {
    /// `[B, rows]`: the first k with `ids[b, k] = row`.
    pub(crate) first: Ids,
    /// `[B, kept]`: the next k with the same id.
    pub(crate) next: Ids,
}

impl Choices {
    /// The lists of `ids: [B, kept]`.
    pub(crate) fn of(client: &Client, ids: &Ids, batch: usize, rows: usize, kept: usize) -> Self {
        let lists = Self {
            first: Ids::empty(client, batch * rows),
            next: Ids::empty(client, batch * kept),
        };
        let links = batch * (rows + kept);
        if links == 0 {
            return lists;
        }
        let (count, dim) = launch::elements(client, links);
        // SAFETY: guarded by the number of links.
        unsafe {
            choices_kernel::launch_unchecked(
                client,
                count,
                dim,
                ids.arg(),
                lists.first.arg(),
                lists.next.arg(),
                links as u32,
                rows as u32,
                kept as u32,
            );
        }
        lists
    }
}

/// One unit finds one link, by looking through the ids behind it.
#[cube(launch_unchecked)]
fn choices_kernel(
    ids: &[u32],
    first: &mut [u32],
    next: &mut [u32],
    links: u32,
    rows: u32,
    kept: u32,
) {
    if ABSOLUTE_POS < links as usize {
        let link = ABSOLUTE_POS as u32;
        let image = link / (rows + kept);
        let place = link % (rows + kept);
        let start = image * kept;
        let of_row = place < rows;
        let mut wanted = place;
        let mut k = 0u32;
        if !of_row {
            wanted = ids[(start + place - rows) as usize];
            k = place - rows + 1;
        }
        let mut found = 0xffff_ffffu32;
        while k < kept {
            if ids[(start + k) as usize] == wanted {
                found = k;
                k = kept;
            } else {
                k += 1;
            }
        }
        if of_row {
            first[(image * rows + place) as usize] = found;
        } else {
            next[(start + place - rows) as usize] = found;
        }
    }
}

/// One unit copies one vector.
#[cube(launch_unchecked)]
fn forward_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    ids: &[u32],
    y: &mut [Vector<F, N>],
    vectors: u32,
    rows: u32,
    kept: u32,
    #[comptime] width: usize,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < vectors as usize {
        let choice = i / width;
        let image = choice / kept as usize;
        let id = ids[choice];
        let mut value = Vector::<F, N>::new(F::from_int(0));
        if id < rows {
            value = x[(image * rows as usize + id as usize) * width + i % width];
        }
        y[i] = value;
    }
}

/// One unit owns one vector of `dx`.
#[cube(launch_unchecked)]
fn backward_kernel<F: Float, N: Size>(
    dy: &[Vector<F, N>],
    first: &[u32],
    next: &[u32],
    dx: &mut [Vector<F, N>],
    vectors: u32,
    rows: u32,
    kept: u32,
    #[comptime] width: usize,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < vectors as usize {
        let row = i / width;
        let start = row / rows as usize * kept as usize;
        let mut sum = Vector::<f32, N>::new(0.0f32);
        let mut k = first[row];
        while k < kept {
            sum += Vector::<f32, N>::cast_from(dy[(start + k as usize) * width + i % width]);
            k = next[start + k as usize];
        }
        dx[i] = Vector::cast_from(sum);
    }
}
