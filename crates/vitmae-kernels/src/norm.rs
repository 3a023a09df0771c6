//! Sums of squares, for the norm that clips gradients and for the search for values that are not numbers.
//!
//! Sums are f32: a NaN or an infinity among the values, or squares beyond the range of f32, show in the
//! sum.
//!
//! Oracle: `vitmae_testing::reference::norm`; CPU twin: `vitmae_cpu::norm`.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use crate::launch::ROW_UNITS;
use crate::reduce::cube_sum;
use crate::{Array, Client, Dtype, launch};

/// Values that a cube sums, while the sums of all cubes are not too many.
const PART: usize = 16 * 1024;
/// Most cubes of one array.
const PARTS: usize = 1024;

/// `sum = Σ x²`, one value; NaN or infinite if a value is.
///
/// # Shapes
/// `x: [n]`, `sum: [1]` f32
///
/// # Panics
/// If `sum` is not one f32.
pub fn sum_of_squares(client: &Client, x: &Array, sum: &Array) {
    sum_of_squares_of_all(client, &[x], sum);
}

/// The same over several arrays, as for all gradients of a model: a launch for each, and one more.
///
/// # Panics
/// As [`sum_of_squares`].
pub fn sum_of_squares_of_all(client: &Client, arrays: &[&Array], sum: &Array) {
    assert_eq!((sum.len, sum.dtype), (1, Dtype::F32), "norm: sum");
    let parts: Vec<usize> = arrays.iter().map(|x| x.len.div_ceil(PART).min(PARTS)).collect();
    let total: usize = parts.iter().sum();
    let partial = Array::empty(client, total, Dtype::F32);
    let mut first = 0;
    for (x, parts) in arrays.iter().zip(parts).filter(|(x, _)| x.len > 0) {
        let vector = launch::vector_size(x.len);
        let vectors = x.len / vector;
        let (count, units) = launch::rows(client, parts);
        // SAFETY: guarded by the number of vectors and of parts.
        unsafe {
            squares_kernel::launch_unchecked(
                client,
                count,
                units,
                vector,
                x.arg(),
                partial.arg(),
                vectors as u32,
                vectors.div_ceil(parts) as u32,
                first as u32,
                parts as u32,
                x.dtype.elem(),
            );
        }
        first += parts;
    }
    let (count, units) = launch::rows(client, 1);
    // SAFETY: guarded by the number of partial sums; one cube writes one value.
    unsafe {
        total_kernel::launch_unchecked(
            client,
            count,
            units,
            partial.arg(),
            sum.arg(),
            total as u32,
        );
    }
}

/// One cube sums one part: units take turns, so that neighbours load neighbours.
#[cube(launch_unchecked)]
fn squares_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    partial: &mut [f32],
    vectors: u32,
    per_part: u32,
    first: u32,
    parts: u32,
    #[define(F)] _dtype: ElemType,
) {
    let part = CUBE_POS as u32;
    let behind = (part + 1) * per_part;
    let end = select(behind < vectors, behind, vectors);
    let mut sums = Vector::<f32, N>::new(0.0f32);
    let mut i = part * per_part + UNIT_POS;
    while i < end {
        let values = Vector::<f32, N>::cast_from(x[i as usize]);
        sums += values * values;
        i += ROW_UNITS;
    }
    let mut sum = 0.0f32;
    #[unroll]
    for lane in 0..N::value() {
        sum += sums.extract(lane);
    }
    let total = cube_sum(sum, ROW_UNITS);
    if UNIT_POS == 0 && part < parts {
        partial[(first + part) as usize] = total;
    }
}

/// One cube adds all partial sums.
#[cube(launch_unchecked)]
fn total_kernel(partial: &[f32], sum: &mut [f32], count: u32) {
    let mut mine = 0.0f32;
    let mut i = UNIT_POS;
    while i < count {
        mine += partial[i as usize];
        i += ROW_UNITS;
    }
    let total = cube_sum(mine, ROW_UNITS);
    if ABSOLUTE_POS == 0 {
        sum[0] = total;
    }
}
