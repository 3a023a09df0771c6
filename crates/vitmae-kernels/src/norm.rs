//! Norms of gradients, and the factor that clips them or stops the update if something is not a number.
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
/// Most arrays of a launch, where the device binds enough buffers.
const TOGETHER: usize = 16;
/// The exponent's bits of an f32, all set in infinities and NaN.
const EXPONENT: u32 = 0x7f80_0000;

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

/// The same over several arrays, as for all gradients of a model. Arrays of one length and type share
/// launches of up to sixteen, as far as the device binds that many buffers; one more adds it all up.
///
/// # Panics
/// As [`sum_of_squares`].
pub fn sum_of_squares_of_all(client: &Client, arrays: &[&Array], sum: &Array) {
    sum_all(client, arrays, sum, false);
}

/// `norm = √Σ x²` over all arrays taken together, one value; NaN or infinite if a value is.
///
/// # Shapes
/// `norm: [1]` f32
///
/// # Panics
/// If `norm` is not one f32.
pub fn global_norm(client: &Client, arrays: &[&Array], norm: &Array) {
    sum_all(client, arrays, norm, true);
}

/// The factor of gradients whose norm is `value`: `min(1, longest / (value + 1e-6))`, or 1 without a
/// `longest`; 0 if `value` is not finite or if `scale` was 0, so that one bad value stops every update
/// after it.
///
/// # Shapes
/// `value, scale: [1]` f32
///
/// # Panics
/// If one of them is not one f32.
///
/// Source: `torch.nn.utils.clip_grad_norm_`.
pub fn clip_scale(client: &Client, value: &Array, longest: Option<f32>, scale: &Array) {
    for array in [value, scale] {
        assert_eq!((array.len, array.dtype), (1, Dtype::F32), "norm: clip_scale");
    }
    let (count, units) = launch::rows(client, 1);
    // SAFETY: one unit reads and writes one value of each.
    unsafe {
        clip_scale_kernel::launch_unchecked(
            client,
            count,
            units,
            value.arg(),
            scale.arg(),
            longest.unwrap_or_default(),
            longest.is_some(),
        );
    }
}

/// The sum of all squares, or its root.
fn sum_all(client: &Client, arrays: &[&Array], sum: &Array, root: bool) {
    assert_eq!((sum.len, sum.dtype), (1, Dtype::F32), "norm: sum");
    let parts = |x: &Array| x.len.div_ceil(PART).min(PARTS);
    let total: usize = arrays.iter().map(|x| parts(x)).sum();
    let partial = Array::empty(client, total, Dtype::F32);
    let alike = |a: &&Array, b: &&Array| (a.len, a.dtype) == (b.len, b.dtype);
    let together = launch::arrays_together(client, 1, 1).min(TOGETHER);
    let mut first = 0;
    for group in launch::groups(arrays, alike, together) {
        let (x, parts) = (group[0], parts(group[0]));
        if x.len == 0 {
            continue;
        }
        let vector = launch::vector_size(x.len);
        let vectors = x.len / vector;
        let (count, units) = launch::rows(client, parts * group.len());
        // SAFETY: guarded by the number of vectors, of parts and of arrays.
        unsafe {
            squares_kernel::launch_unchecked(
                client,
                count,
                units,
                vector,
                group.iter().map(|x| x.arg()).collect(),
                partial.arg(),
                vectors as u32,
                vectors.div_ceil(parts) as u32,
                first as u32,
                parts as u32,
                x.dtype.elem(),
            );
        }
        first += parts * group.len();
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
            root,
        );
    }
}

/// One cube sums one part of one array: units take turns, so that neighbours load neighbours.
#[cube(launch_unchecked)]
fn squares_kernel<F: Float, N: Size>(
    arrays: &Sequence<Box<[Vector<F, N>]>>,
    partial: &mut [f32],
    vectors: u32,
    per_part: u32,
    first: u32,
    parts: u32,
    #[define(F)] _dtype: ElemType,
) {
    let cube = CUBE_POS as u32;
    let (array, part) = (cube / parts, cube % parts);
    let behind = (part + 1) * per_part;
    let end = select(behind < vectors, behind, vectors);
    let mut sums = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for k in 0..arrays.len() {
        if array == k as u32 {
            let mut i = part * per_part + UNIT_POS;
            while i < end {
                let values = Vector::<f32, N>::cast_from(arrays[k][i as usize]);
                sums += values * values;
                i += ROW_UNITS;
            }
        }
    }
    let mut sum = 0.0f32;
    #[unroll]
    for lane in 0..N::value() {
        sum += sums.extract(lane);
    }
    let total = cube_sum(sum, ROW_UNITS);
    if UNIT_POS == 0 && array < arrays.len() as u32 {
        partial[(first + cube) as usize] = total;
    }
}

/// One cube adds all partial sums, and takes the root if asked.
#[cube(launch_unchecked)]
fn total_kernel(partial: &[f32], sum: &mut [f32], count: u32, #[comptime] root: bool) {
    let mut mine = 0.0f32;
    let mut i = UNIT_POS;
    while i < count {
        mine += partial[i as usize];
        i += ROW_UNITS;
    }
    let total = cube_sum(mine, ROW_UNITS);
    if ABSOLUTE_POS == 0 {
        sum[0] = if comptime!(root) { f32::sqrt(total) } else { total };
    }
}

/// One unit does it.
#[cube(launch_unchecked)]
fn clip_scale_kernel(value: &[f32], scale: &mut [f32], longest: f32, #[comptime] clips: bool) {
    if ABSOLUTE_POS == 0 {
        let value = value[0];
        // By its bits: shader compilers may take it that no value is NaN.
        let finite = (u32::reinterpret(value) & EXPONENT) != EXPONENT;
        if scale[0] != 0.0f32 && finite {
            scale[0] = if comptime!(clips) {
                f32::min(1.0f32, longest / (value + 1e-6f32))
            } else {
                1.0f32.runtime()
            };
        } else {
            scale[0] = 0.0f32;
        }
    }
}
