//! Layer normalisation over the last axis, forward and backward.
//!
//!   mean = Σx / D      rstd = 1 / √(Σ(x − mean)² / D + eps)      (biased variance)
//!   y    = (x − mean) · rstd · weight + bias
//!
//! A team of units shares a row: a plane where the device has planes and its registers hold the row, else
//! up to 256 units that add up in shared memory. A row of at most 32 values a unit is read once and kept.
//!
//! Source: `torch.nn.functional.layer_norm`; arXiv:1607.06450.
//! Oracle: `vitmae_testing::reference::layer_norm`; CPU twin: `vitmae_cpu::layer_norm`.

mod backward;

use cubecl::ir::ElemType;
use cubecl::prelude::Array as Registers;
use cubecl::prelude::*;

use crate::activation::{Activation, bias_activation};
use crate::team::{Team, team_sum};
use crate::{Array, Capabilities, Client, Dtype, cube_count};
pub use backward::backward;

/// Normalises each row of `x`; `mean` and `rstd` are kept for [`backward()`]. `y` may be of another type than `x`.
///
/// # Shapes
/// `x: [N, D]`, `weight, bias: [D]` → `y: [N, D]`, `mean, rstd: [N]`
///
/// # Panics
/// If a length or a type does not fit the others.
#[allow(clippy::too_many_arguments, reason = "the arguments of the CPU twin")]
pub fn forward(
    client: &Client,
    x: &Array,
    weight: &Array,
    bias: &Array,
    eps: f32,
    y: &Array,
    mean: &Array,
    rstd: &Array,
) {
    let (n, d) = check(x, weight, bias, y, mean, rstd);
    if n * d == 0 {
        return;
    }
    let capabilities = Capabilities::of(client);
    let team = Team::of_rows(d, &capabilities);
    // SAFETY: guarded by the number of rows and the width.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            cube_count(n.div_ceil(team.rows_per_cube()), &capabilities),
            CubeDim::new_1d(team.cube_units as u32),
            team.vector,
            x.arg(),
            weight.arg(),
            bias.arg(),
            y.arg(),
            mean.arg(),
            rstd.arg(),
            eps,
            n as u32,
            team,
            [x.dtype.elem(), y.dtype.elem()],
        );
    }
}

/// What comes to the rows of `x` before they are normalised ([`forward_residual`]).
#[derive(Clone, Copy, Debug)]
pub struct Residual<'a> {
    /// `[D]` f32, as the bias of the product that made `x`.
    pub shift: &'a Array,
    /// `[N, D]`, of the type of `x`.
    pub residual: &'a Array,
}

/// `sum = x + shift + residual` and [`forward()`] of it, in one pass where the device binds nine buffers and in
/// two elsewhere. What is normalised is the sum as it is stored, so that [`backward()`] of `sum` belongs to it.
///
/// # Shapes
/// `x, residual: [N, D]`, `shift, weight, bias: [D]` → `sum, y: [N, D]`, `mean, rstd: [N]`
///
/// # Panics
/// If a length or a type does not fit the others.
#[allow(clippy::too_many_arguments, reason = "the arguments of `forward`")]
pub fn forward_residual(
    client: &Client,
    x: &Array,
    Residual { shift, residual }: Residual,
    weight: &Array,
    bias: &Array,
    eps: f32,
    sum: &Array,
    y: &Array,
    mean: &Array,
    rstd: &Array,
) {
    let (n, d) = check(sum, weight, bias, y, mean, rstd);
    assert_eq!((x.len, x.dtype), (sum.len, sum.dtype), "layer_norm: x");
    assert_eq!((residual.len, residual.dtype), (x.len, x.dtype), "layer_norm: residual");
    assert_eq!((shift.len, shift.dtype), (d, Dtype::F32), "layer_norm: shift");
    if n * d == 0 {
        return;
    }
    let capabilities = Capabilities::of(client);
    if capabilities.max_bindings < 9 {
        bias_activation(client, x, Some(shift), Activation::Linear, Some(residual), None, sum);
        return forward(client, sum, weight, bias, eps, y, mean, rstd);
    }
    let team = Team::of_rows(d, &capabilities);
    // SAFETY: guarded by the number of rows and the width.
    unsafe {
        forward_residual_kernel::launch_unchecked(
            client,
            cube_count(n.div_ceil(team.rows_per_cube()), &capabilities),
            CubeDim::new_1d(team.cube_units as u32),
            team.vector,
            x.arg(),
            shift.arg(),
            residual.arg(),
            weight.arg(),
            bias.arg(),
            sum.arg(),
            y.arg(),
            mean.arg(),
            rstd.arg(),
            eps,
            n as u32,
            team,
            [x.dtype.elem(), y.dtype.elem()],
        );
    }
}

/// `(N, D)`, if everything fits.
fn check(
    x: &Array,
    weight: &Array,
    bias: &Array,
    y: &Array,
    mean: &Array,
    rstd: &Array,
) -> (usize, usize) {
    let (n, d) = (mean.len, weight.len);
    assert_eq!(x.len, n * d, "layer_norm: x");
    assert_eq!(bias.len, d, "layer_norm: bias");
    assert_eq!(y.len, n * d, "layer_norm: y");
    assert_eq!(rstd.len, n, "layer_norm: rstd");
    assert_f32(&[weight, bias, mean, rstd]);
    (n, d)
}

fn assert_f32(arrays: &[&Array]) {
    let all = arrays.iter().all(|array| array.dtype == Dtype::F32);
    assert!(all, "layer_norm: parameters, their gradients and statistics are f32");
}

/// One team normalises one row.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "buffers and sizes of a kernel")]
fn forward_kernel<F: Float, Y: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<f32, N>],
    bias: &[Vector<f32, N>],
    y: &mut [Vector<Y, N>],
    mean: &mut [f32],
    rstd: &mut [f32],
    eps: f32,
    rows: u32,
    #[comptime] team: Team,
    #[define(F, Y)] _dtypes: [ElemType; 2],
) {
    let lane = UNIT_POS as usize % team.units;
    let row = CUBE_POS * team.rows_per_cube() + UNIT_POS as usize / team.units;
    let live = row < rows as usize;
    let start = row * team.vectors;

    // The sum of the row; the row goes into registers.
    let mut kept = Registers::<Vector<f32, N>>::new(team.registers());
    let mut part = Vector::<f32, N>::new(0.0f32);
    if live {
        #[unroll(team.kept)]
        for k in 0..team.per_unit {
            let column = lane + k * team.units;
            if column < team.vectors {
                let value = Vector::<f32, N>::cast_from(x[start + column]);
                if comptime!(team.kept) {
                    kept[k] = value;
                }
                part += value;
            }
        }
    }
    normalise_row::<F, Y, N>(x, weight, bias, y, mean, rstd, eps, &kept, part, row, live, team);
}

/// The same for the sum of three, which is written too.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "buffers and sizes of a kernel")]
fn forward_residual_kernel<F: Float, Y: Float, N: Size>(
    x: &[Vector<F, N>],
    shift: &[Vector<f32, N>],
    residual: &[Vector<F, N>],
    weight: &[Vector<f32, N>],
    bias: &[Vector<f32, N>],
    sum: &mut [Vector<F, N>],
    y: &mut [Vector<Y, N>],
    mean: &mut [f32],
    rstd: &mut [f32],
    eps: f32,
    rows: u32,
    #[comptime] team: Team,
    #[define(F, Y)] _dtypes: [ElemType; 2],
) {
    let lane = UNIT_POS as usize % team.units;
    let row = CUBE_POS * team.rows_per_cube() + UNIT_POS as usize / team.units;
    let live = row < rows as usize;
    let start = row * team.vectors;

    let mut kept = Registers::<Vector<f32, N>>::new(team.registers());
    let mut part = Vector::<f32, N>::new(0.0f32);
    if live {
        #[unroll(team.kept)]
        for k in 0..team.per_unit {
            let column = lane + k * team.units;
            if column < team.vectors {
                let at = start + column;
                let added = Vector::<f32, N>::cast_from(residual[at]);
                let total = Vector::<f32, N>::cast_from(x[at]) + shift[column] + added;
                let stored = Vector::<F, N>::cast_from(total);
                sum[at] = stored;
                let value = Vector::<f32, N>::cast_from(stored);
                if comptime!(team.kept) {
                    kept[k] = value;
                }
                part += value;
            }
        }
    }
    normalise_row::<F, Y, N>(&*sum, weight, bias, y, mean, rstd, eps, &kept, part, row, live, team);
}

/// What follows once each unit has its part of the row in `kept`, or in `x` alone, and the part's sum.
#[cube]
#[allow(clippy::too_many_arguments, reason = "buffers and sizes of a kernel")]
fn normalise_row<F: Float, Y: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<f32, N>],
    bias: &[Vector<f32, N>],
    y: &mut [Vector<Y, N>],
    mean: &mut [f32],
    rstd: &mut [f32],
    eps: f32,
    kept: &Registers<Vector<f32, N>>,
    part: Vector<f32, N>,
    row: usize,
    live: bool,
    #[comptime] team: Team,
) {
    let lane = UNIT_POS as usize % team.units;
    let start = row * team.vectors;
    let width = team.width() as f32;
    let centre = team_sum(part.vector_sum(), team) / width;

    // The sum of squares around the mean.
    let centres = Vector::<f32, N>::new(centre);
    let mut squares = Vector::<f32, N>::new(0.0f32);
    if live {
        #[unroll(team.kept)]
        for k in 0..team.per_unit {
            let column = lane + k * team.units;
            if column < team.vectors {
                let value = if comptime!(team.kept) {
                    kept[k]
                } else {
                    Vector::<f32, N>::cast_from(x[start + column])
                };
                let difference = value - centres;
                squares += difference * difference;
            }
        }
    }
    let variance = team_sum(squares.vector_sum(), team) / width;
    let scale = 1.0f32 / (variance + eps).sqrt();

    if live {
        let scales = Vector::<f32, N>::new(scale);
        #[unroll(team.kept)]
        for k in 0..team.per_unit {
            let column = lane + k * team.units;
            if column < team.vectors {
                let value = if comptime!(team.kept) {
                    kept[k]
                } else {
                    Vector::<f32, N>::cast_from(x[start + column])
                };
                let normalised = (value - centres) * scales;
                y[start + column] =
                    Vector::<Y, N>::cast_from(normalised * weight[column] + bias[column]);
            }
        }
        if lane == 0 {
            mean[row] = centre;
            rstd[row] = scale;
        }
    }
}
