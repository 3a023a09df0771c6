//! The backward pass of layer normalisation: one kernel for `dx`, two for the sums over rows.

use cubecl::ir::ElemType;
use cubecl::prelude::Array as Registers;
use cubecl::prelude::*;

use super::assert_f32;
use crate::team::{Team, team_sum, vector_size};
use crate::{Array, Capabilities, Client, Dtype, cube_count};

/// Chunks of rows with sums of their own, at most.
const CHUNKS: usize = 64;
/// Fewest rows of a chunk.
const CHUNK_ROWS: usize = 32;
/// Columns, in vectors, and rows that a cube of the first stage has in hand at once.
const TILE: (usize, usize) = (32, 8);
/// Units of a cube of the second stage.
const UNITS: u32 = 64;

/// The gradient of [`super::forward`]; `residual` is the gradient that went around the norm.
///
///   x̂ = (x − mean)·rstd     g = dy ⊙ weight     dx = residual + rstd·(g − mean(g) − x̂·mean(g ⊙ x̂))
///   dweight = Σ_rows dy ⊙ x̂                      dbias = Σ_rows dy
///
/// `accumulate` adds to `dweight` and `dbias`; `dx` is overwritten. `dy` may be of another type than `x`. Sums over rows have two fixed stages:
/// chunks of rows, then the chunks in order.
///
/// # Shapes
/// `dy, x, residual: [N, D]`, `weight: [D]`, `mean, rstd: [N]` → `dx: [N, D]`, `dweight, dbias: [D]`
///
/// # Panics
/// If a length or a type does not fit the others.
#[allow(clippy::too_many_arguments, reason = "the arguments of the CPU twin")]
pub fn backward(
    client: &Client,
    dy: &Array,
    x: &Array,
    weight: &Array,
    mean: &Array,
    rstd: &Array,
    residual: Option<&Array>,
    dx: &Array,
    dweight: &Array,
    dbias: &Array,
    accumulate: bool,
) {
    let (n, d) = (mean.len, weight.len);
    assert_eq!(x.len, n * d, "layer_norm: x");
    assert_eq!(dy.len, n * d, "layer_norm: dy");
    assert_eq!(rstd.len, n, "layer_norm: rstd");
    assert!(residual.is_none_or(|r| r.len == n * d), "layer_norm: residual");
    assert_eq!(dx.len, n * d, "layer_norm: dx");
    assert_eq!((dweight.len, dbias.len), (d, d), "layer_norm: dweight, dbias");
    let same_type = |array: &Array| array.dtype == x.dtype;
    assert!(same_type(dx), "layer_norm: types of x and dx");
    assert!(residual.is_none_or(same_type), "layer_norm: type of residual");
    assert_f32(&[weight, mean, rstd, dweight, dbias]);
    if d == 0 {
        return;
    }
    let capabilities = Capabilities::of(client);
    let chunk = CHUNK_ROWS.max(n.div_ceil(CHUNKS));
    let chunks = n.div_ceil(chunk);
    let partial = Array::empty(client, chunks * 2 * d, Dtype::F32);
    if n > 0 {
        let team = Team::of_rows(d, &capabilities);
        // SAFETY: guarded by the number of rows and the width; an absent residual is not read.
        unsafe {
            dx_kernel::launch_unchecked(
                client,
                cube_count(n.div_ceil(team.rows_per_cube()), &capabilities),
                CubeDim::new_1d(team.cube_units as u32),
                team.vector,
                dy.arg(),
                x.arg(),
                weight.arg(),
                mean.arg(),
                rstd.arg(),
                residual.unwrap_or(x).arg(),
                dx.arg(),
                n as u32,
                team,
                residual.is_some(),
                [dy.dtype.elem(), x.dtype.elem()],
            );
        }
        let vector = vector_size(d);
        let tile = if capabilities.is_cpu() { (1, 1) } else { TILE };
        let cubes = chunks * (d / vector).div_ceil(tile.0);
        // SAFETY: guarded by the number of rows and the width.
        unsafe {
            chunk_kernel::launch_unchecked(
                client,
                cube_count(cubes, &capabilities),
                CubeDim::new_1d((tile.0 * tile.1) as u32),
                vector,
                dy.arg(),
                x.arg(),
                mean.arg(),
                rstd.arg(),
                partial.arg(),
                n as u32,
                chunk as u32,
                chunks as u32,
                d / vector,
                tile,
                [dy.dtype.elem(), x.dtype.elem()],
            );
        }
    }
    // SAFETY: guarded by the width.
    unsafe {
        columns_kernel::launch_unchecked(
            client,
            cube_count(d.div_ceil(UNITS as usize), &capabilities),
            CubeDim::new_1d(UNITS),
            partial.arg(),
            dweight.arg(),
            dbias.arg(),
            chunks as u32,
            d as u32,
            accumulate,
        );
    }
}

/// One team computes one row of `dx`.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "buffers and sizes of a kernel")]
fn dx_kernel<Y: Float, F: Float, N: Size>(
    dy: &[Vector<Y, N>],
    x: &[Vector<F, N>],
    weight: &[Vector<f32, N>],
    mean: &[f32],
    rstd: &[f32],
    residual: &[Vector<F, N>],
    dx: &mut [Vector<F, N>],
    rows: u32,
    #[comptime] team: Team,
    #[comptime] has_residual: bool,
    #[define(Y, F)] _dtypes: [ElemType; 2],
) {
    let lane = UNIT_POS as usize % team.units;
    let row = CUBE_POS * team.rows_per_cube() + UNIT_POS as usize / team.units;
    let live = row < rows as usize;
    let start = row * team.vectors;
    let width = team.width() as f32;

    // Sums of g and of g·x̂; both go into registers.
    let mut centre = 0.0f32;
    let mut scale = 0.0f32;
    let mut kept_g = Registers::<Vector<f32, N>>::new(team.registers());
    let mut kept_x = Registers::<Vector<f32, N>>::new(team.registers());
    let mut sum_g = Vector::<f32, N>::new(0.0f32);
    let mut sum_gx = Vector::<f32, N>::new(0.0f32);
    if live {
        centre = mean[row];
        scale = rstd[row];
        #[unroll(team.kept)]
        for k in 0..team.per_unit {
            let column = lane + k * team.units;
            if column < team.vectors {
                let g = Vector::<f32, N>::cast_from(dy[start + column]) * weight[column];
                let normalised = normalise::<F, N>(x[start + column], centre, scale);
                if comptime!(team.kept) {
                    kept_g[k] = g;
                    kept_x[k] = normalised;
                }
                sum_g += g;
                sum_gx += g * normalised;
            }
        }
    }
    let mean_g = team_sum(sum_g.vector_sum(), team) / width;
    let mean_gx = team_sum(sum_gx.vector_sum(), team) / width;

    if live {
        let (mean_g, mean_gx) = (Vector::<f32, N>::new(mean_g), Vector::<f32, N>::new(mean_gx));
        let scales = Vector::<f32, N>::new(scale);
        #[unroll(team.kept)]
        for k in 0..team.per_unit {
            let column = lane + k * team.units;
            if column < team.vectors {
                let at = start + column;
                let g = if comptime!(team.kept) {
                    kept_g[k]
                } else {
                    Vector::<f32, N>::cast_from(dy[at]) * weight[column]
                };
                let normalised = if comptime!(team.kept) {
                    kept_x[k]
                } else {
                    normalise::<F, N>(x[at], centre, scale)
                };
                let mut gradient = scales * (g - mean_g - normalised * mean_gx);
                if comptime!(has_residual) {
                    gradient += Vector::<f32, N>::cast_from(residual[at]);
                }
                dx[at] = Vector::<F, N>::cast_from(gradient);
            }
        }
    }
}

/// x̂ = (x − mean)·rstd.
#[cube]
fn normalise<F: Float, N: Size>(x: Vector<F, N>, mean: f32, rstd: f32) -> Vector<f32, N> {
    (Vector::<f32, N>::cast_from(x) - Vector::<f32, N>::new(mean)) * Vector::<f32, N>::new(rstd)
}

/// One cube sums one chunk of rows of one tile of columns: `partial: [chunks, 2, D]` holds Σ dy ⊙ x̂ and
/// Σ dy. A unit walks down a column with the stride of the tile's rows; the first row of units adds up.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "buffers and sizes of a kernel")]
fn chunk_kernel<Y: Float, F: Float, N: Size>(
    dy: &[Vector<Y, N>],
    x: &[Vector<F, N>],
    mean: &[f32],
    rstd: &[f32],
    partial: &mut [Vector<f32, N>],
    rows: u32,
    chunk: u32,
    chunks: u32,
    #[comptime] vectors: usize,
    #[comptime] tile: (usize, usize),
    #[define(Y, F)] _dtypes: [ElemType; 2],
) {
    let (tile_columns, tile_rows) = comptime!(tile);
    let tiles = comptime!(vectors.div_ceil(tile_columns));
    let unit = UNIT_POS as usize;
    let which = CUBE_POS / tiles;
    let column = CUBE_POS % tiles * tile_columns + unit % tile_columns;
    let live = column < vectors && which < chunks as usize;

    let mut dweight = Vector::<f32, N>::new(0.0f32);
    let mut dbias = Vector::<f32, N>::new(0.0f32);
    if live {
        let mut row = which * chunk as usize + unit / tile_columns;
        let end = min((which + 1) * chunk as usize, rows as usize);
        while row < end {
            let gradient = Vector::<f32, N>::cast_from(dy[row * vectors + column]);
            let normalised = normalise::<F, N>(x[row * vectors + column], mean[row], rstd[row]);
            dweight += gradient * normalised;
            dbias += gradient;
            row += tile_rows;
        }
    }

    let mut sums = Shared::<[Vector<f32, N>]>::new_slice(2 * tile_columns * tile_rows);
    let half = comptime!(tile_columns * tile_rows);
    sums[unit] = dweight;
    sums[half + unit] = dbias;
    sync_cube();
    if live && unit < tile_columns {
        #[unroll]
        for k in 1..tile_rows {
            dweight += sums[unit + k * tile_columns];
            dbias += sums[half + unit + k * tile_columns];
        }
        partial[which * 2 * vectors + column] = dweight;
        partial[(which * 2 + 1) * vectors + column] = dbias;
    }
}

/// One unit adds up the chunks of one column.
#[cube(launch_unchecked)]
fn columns_kernel(
    partial: &[f32],
    dweight: &mut [f32],
    dbias: &mut [f32],
    chunks: u32,
    width: u32,
    #[comptime] accumulate: bool,
) {
    let column = ABSOLUTE_POS;
    let width = width as usize;
    if column < width {
        let mut weight = 0.0f32;
        let mut bias = 0.0f32;
        for chunk in 0..chunks as usize {
            weight += partial[chunk * 2 * width + column];
            bias += partial[(chunk * 2 + 1) * width + column];
        }
        if comptime!(accumulate) {
            weight += dweight[column];
            bias += dbias[column];
        }
        dweight[column] = weight;
        dbias[column] = bias;
    }
}
