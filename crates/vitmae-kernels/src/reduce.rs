//! Sums and means over rows, sums of two arrays, and how a cube sums what its units hold.
//!
//! Oracle: `vitmae_testing::reference::reduce`; CPU twin: `vitmae_cpu::reduce`.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use crate::{Array, Client, Dtype, launch};

/// Columns of a cube of a column sum: neighbouring units load neighbouring columns.
pub(crate) const COLUMNS: u32 = 32;
/// Rows that a cube of a column sum loads at once.
pub(crate) const LANES: u32 = 8;

/// Most parts of a column sum, so that their own sum stays short.
const PARTS: usize = 64;
/// Fewest rows of a part, unless there are fewer.
const PART: usize = 64;

/// How rows are shared among the cubes of a column sum; it depends on their number alone.
pub(crate) struct Parts {
    /// Number of parts, at least 1.
    pub(crate) count: usize,
    /// Rows of a part; the last one may have fewer.
    pub(crate) rows: usize,
}

impl Parts {
    /// The parts of `rows` rows.
    pub(crate) fn of(rows: usize) -> Self {
        let each = rows.div_ceil(rows.div_ceil(PART).clamp(1, PARTS)).max(1);
        Self { count: rows.div_ceil(each).max(1), rows: each }
    }
}

/// Cubes of [`COLUMNS`] × [`LANES`] units for `parts` of a matrix of `width` columns: tiles of columns are
/// numbered first, then parts.
pub(crate) fn tiles(client: &Client, parts: usize, width: usize) -> (CubeCount, CubeDim) {
    let cubes = parts * width.div_ceil(COLUMNS as usize);
    (launch::cubes(client, cubes), CubeDim::new_2d(COLUMNS, LANES))
}

/// Column sums: `out[d] = Σ_n x[n, d]`; `accumulate` adds them to what is there.
///
/// Two fixed stages: rows are split at places that depend on their number alone, each part is summed by
/// one cube, then the parts are.
///
/// # Shapes
/// `x: [N, D]`, `out: [D]` f32
///
/// # Panics
/// If `x` is not a whole number of rows, or `out` is not f32.
pub fn sum_rows(client: &Client, x: &Array, out: &Array, accumulate: bool) {
    if out.len == 0 {
        return;
    }
    assert!(x.len.is_multiple_of(out.len), "reduce: x is not rows of {}", out.len);
    sum_strided_rows(client, x, x.len / out.len, out.len, out, accumulate);
}

/// The same for `rows` rows that begin `stride` values apart.
pub(crate) fn sum_strided_rows(
    client: &Client,
    x: &Array,
    rows: usize,
    stride: usize,
    out: &Array,
    accumulate: bool,
) {
    assert_eq!(out.dtype, Dtype::F32, "reduce: out");
    let width = out.len;
    if width == 0 {
        return;
    }
    let parts = Parts::of(rows);
    if parts.count == 1 {
        return sum_parts(client, x, rows, stride, &parts, width, out, accumulate);
    }
    let partial = Array::empty(client, parts.count * width, Dtype::F32);
    sum_parts(client, x, rows, stride, &parts, width, &partial, false);
    let all = Parts { count: 1, rows: parts.count };
    sum_parts(client, &partial, parts.count, width, &all, width, out, accumulate);
}

/// One stage: `out[part] = Σ` over the rows of a part, `[parts, D]`.
#[allow(clippy::too_many_arguments, reason = "a matrix and how it is split")]
fn sum_parts(
    client: &Client,
    x: &Array,
    rows: usize,
    stride: usize,
    parts: &Parts,
    width: usize,
    out: &Array,
    accumulate: bool,
) {
    let (count, dim) = tiles(client, parts.count, width);
    // SAFETY: guarded by the number of rows, columns and parts.
    unsafe {
        sum_kernel::launch_unchecked(
            client,
            count,
            dim,
            x.arg(),
            out.arg(),
            rows as u32,
            stride as u32,
            width as u32,
            parts.count as u32,
            parts.rows as u32,
            accumulate,
            x.dtype.elem(),
        );
    }
}

/// `out = a + b`.
///
/// # Shapes
/// `a, b, out: [n]`
///
/// # Panics
/// If lengths or types differ.
pub fn add(client: &Client, a: &Array, b: &Array, out: &Array) {
    assert!(a.len == b.len && a.len == out.len, "reduce: add");
    assert!(a.dtype == b.dtype && a.dtype == out.dtype, "reduce: types");
    if out.len == 0 {
        return;
    }
    let vector = launch::vector_size(out.len);
    let (count, dim) = launch::elements(client, out.len / vector);
    // SAFETY: guarded by the number of vectors in `out`, which the others share.
    unsafe {
        add_kernel::launch_unchecked(
            client,
            count,
            dim,
            vector,
            a.arg(),
            b.arg(),
            out.arg(),
            (out.len / vector) as u32,
            out.dtype.elem(),
        );
    }
}

/// `out[b] = mean of x[b, first..]`.
///
/// # Shapes
/// `x: [B, N, D]`, `out: [B, D]`
///
/// # Panics
/// If a length does not fit, types differ or no token is left.
pub fn mean_tokens(
    client: &Client,
    x: &Array,
    tokens: usize,
    width: usize,
    first: usize,
    out: &Array,
) {
    check_tokens(x, out, tokens, width, first);
    if out.len == 0 {
        return;
    }
    let vector = launch::vector_size(width);
    let (count, dim) = launch::elements(client, out.len / vector);
    // SAFETY: guarded by the number of vectors in `out`.
    unsafe {
        mean_kernel::launch_unchecked(
            client,
            count,
            dim,
            vector,
            x.arg(),
            out.arg(),
            (out.len / vector) as u32,
            tokens as u32,
            first as u32,
            width / vector,
            out.dtype.elem(),
        );
    }
}

/// Backward of [`mean_tokens`]: `dx[b, n] = dout[b] / (N − first)` from `first` on, 0 before.
///
/// # Shapes
/// `dout: [B, D]`, `dx: [B, N, D]`
///
/// # Panics
/// As [`mean_tokens`].
pub fn mean_tokens_backward(
    client: &Client,
    dout: &Array,
    tokens: usize,
    width: usize,
    first: usize,
    dx: &Array,
) {
    check_tokens(dx, dout, tokens, width, first);
    if dx.len == 0 {
        return;
    }
    let vector = launch::vector_size(width);
    let (count, dim) = launch::elements(client, dx.len / vector);
    // SAFETY: guarded by the number of vectors in `dx`.
    unsafe {
        mean_backward_kernel::launch_unchecked(
            client,
            count,
            dim,
            vector,
            dout.arg(),
            dx.arg(),
            (dx.len / vector) as u32,
            tokens as u32,
            first as u32,
            width / vector,
            dx.dtype.elem(),
        );
    }
}

fn check_tokens(x: &Array, out: &Array, tokens: usize, width: usize, first: usize) {
    assert!(first < tokens && width > 0, "reduce: no token from {first} on");
    let fits = out.len.is_multiple_of(width) && x.len == out.len * tokens;
    assert!(fits && x.dtype == out.dtype, "reduce: mean of {tokens} tokens");
}

/// The sum of what the units of a 1-D cube hold, given to all of them. `units` is their number, a power of
/// two; every unit must call it, and the same number of times.
#[cube]
pub(crate) fn cube_sum(value: f32, #[comptime] units: u32) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(comptime!(units as usize));
    shared[UNIT_POS as usize] = value;
    sync_cube();
    let mut half = comptime!(units / 2).runtime();
    while half > 0 {
        if UNIT_POS < half {
            let other = shared[(UNIT_POS + half) as usize];
            shared[UNIT_POS as usize] += other;
        }
        sync_cube();
        half /= 2;
    }
    let total = shared[0];
    // The memory may be used again at once.
    sync_cube();
    total
}

/// The largest of what the units of a 1-D cube hold; as [`cube_sum`].
#[cube]
pub(crate) fn cube_max(value: f32, #[comptime] units: u32) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(comptime!(units as usize));
    shared[UNIT_POS as usize] = value;
    sync_cube();
    let mut half = comptime!(units / 2).runtime();
    while half > 0 {
        if UNIT_POS < half {
            let mine = shared[UNIT_POS as usize];
            let other = shared[(UNIT_POS + half) as usize];
            shared[UNIT_POS as usize] = select(other > mine, other, mine);
        }
        sync_cube();
        half /= 2;
    }
    let largest = shared[0];
    sync_cube();
    largest
}

/// In a cube of [`COLUMNS`] × [`LANES`] units the sum of a column's lanes, right for the unit of lane 0.
#[cube]
pub(crate) fn lane_sum(value: f32) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(comptime!((COLUMNS * LANES) as usize));
    shared[UNIT_POS as usize] = value;
    sync_cube();
    let mut half = comptime!(LANES / 2).runtime();
    while half > 0 {
        if UNIT_POS_Y < half {
            let other = shared[(UNIT_POS + half * COLUMNS) as usize];
            shared[UNIT_POS as usize] += other;
        }
        sync_cube();
        half /= 2;
    }
    shared[UNIT_POS_X as usize]
}

/// One cube sums its columns over the rows of its part.
#[cube(launch_unchecked)]
fn sum_kernel<F: Float>(
    x: &[F],
    out: &mut [f32],
    rows: u32,
    stride: u32,
    width: u32,
    parts: u32,
    per_part: u32,
    #[comptime] accumulate: bool,
    #[define(F)] _dtype: ElemType,
) {
    let tiles = width.div_ceil(COLUMNS);
    let part = CUBE_POS as u32 / tiles;
    let column = CUBE_POS as u32 % tiles * COLUMNS + UNIT_POS_X;
    let behind = (part + 1) * per_part;
    let end = select(behind < rows, behind, rows);
    let mut sum = 0.0f32;
    if column < width {
        let mut row = part * per_part + UNIT_POS_Y;
        while row < end {
            sum += f32::cast_from(x[row as usize * stride as usize + column as usize]);
            row += LANES;
        }
    }
    let mut total = lane_sum(sum);
    if UNIT_POS_Y == 0 && column < width && part < parts {
        let at = part as usize * width as usize + column as usize;
        if comptime!(accumulate) {
            total += out[at];
        }
        out[at] = total;
    }
}

/// One unit adds one vector.
#[cube(launch_unchecked)]
fn add_kernel<F: Float, N: Size>(
    a: &[Vector<F, N>],
    b: &[Vector<F, N>],
    out: &mut [Vector<F, N>],
    vectors: u32,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < vectors as usize {
        let sum = Vector::<f32, N>::cast_from(a[i]) + Vector::<f32, N>::cast_from(b[i]);
        out[i] = Vector::cast_from(sum);
    }
}

/// One unit averages one vector over the tokens of its image.
#[cube(launch_unchecked)]
fn mean_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    out: &mut [Vector<F, N>],
    vectors: u32,
    tokens: u32,
    first: u32,
    #[comptime] width: usize,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < vectors as usize {
        let start = i / width * tokens as usize;
        let mut sum = Vector::<f32, N>::new(0.0f32);
        for token in first as usize..tokens as usize {
            sum += Vector::<f32, N>::cast_from(x[(start + token) * width + i % width]);
        }
        let share = 1.0f32 / f32::cast_from(tokens - first);
        out[i] = Vector::cast_from(sum * Vector::new(share));
    }
}

/// One unit writes one vector.
#[cube(launch_unchecked)]
fn mean_backward_kernel<F: Float, N: Size>(
    dout: &[Vector<F, N>],
    dx: &mut [Vector<F, N>],
    vectors: u32,
    tokens: u32,
    first: u32,
    #[comptime] width: usize,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < vectors as usize {
        let row = i / width;
        let image = row / tokens as usize;
        let counts = row % tokens as usize >= first as usize;
        let share = select(counts, 1.0f32 / f32::cast_from(tokens - first), 0.0f32);
        let gradient = Vector::<f32, N>::cast_from(dout[image * width + i % width]);
        dx[i] = Vector::cast_from(gradient * Vector::new(share));
    }
}
