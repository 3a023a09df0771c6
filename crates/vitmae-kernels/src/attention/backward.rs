//! The backward pass of attention: a kernel for delta, one for dq and one for dk and dv.

use cubecl::ir::ElemType;
use cubecl::prelude::Array as Registers;
use cubecl::prelude::*;

use super::Shape;
use super::head::{Head, Noise};
use super::matrix::{self, Matrices};
use super::tiles::{
    Four, Tiles, accumulate, lane, load_columns, load_rows, products, row, write, zeros,
};
use crate::team::{Team, team_sum};
use crate::{Array, Capabilities, Client, Dropout, Dtype, KernelError, cube_count};

/// The gradient of [`super::forward`], from its output and `lse`, with the same `dropout`.
///
///   delta_i = dout_i·out_i              dp_ij = keep_ij · (dout_i·v_j)
///   ds_ij = p_ij · (dp_ij − delta_i) / √head_dim
///   dv_j = Σ_i p_ij·keep_ij·dout_i      dq_i = Σ_j ds_ij·k_j      dk_j = Σ_i ds_ij·q_i
///
/// Scores are computed again: once by the cubes that own queries, for dq, and once by those that own keys,
/// for dk and dv. Each value has one owner, so that sums have one order.
///
/// # Shapes
/// `dout, out: [B, N, D]`, `qkv: [B, N, 3D]`, `lse: [B, A, N]` → `dqkv: [B, N, 3D]`
///
/// # Errors
/// [`KernelError::Refused`] if a head is too wide for the device's shared memory; nothing is launched then.
///
/// # Panics
/// If a length or a type does not fit.
#[allow(clippy::too_many_arguments, reason = "the arguments of the CPU twin")]
pub fn backward(
    client: &Client,
    dout: &Array,
    qkv: &Array,
    out: &Array,
    lse: &Array,
    dropout: Option<&Dropout>,
    shape: Shape,
    dqkv: &Array,
) -> Result<(), KernelError> {
    assert_eq!(dout.len, shape.len(), "attention: dout");
    assert_eq!(qkv.len, 3 * shape.len(), "attention: qkv");
    assert_eq!(out.len, shape.len(), "attention: out");
    assert_eq!(lse.len, shape.rows(), "attention: lse");
    assert_eq!(dqkv.len, 3 * shape.len(), "attention: dqkv");
    let types = [dout.dtype, out.dtype, dqkv.dtype];
    assert_eq!(types, [qkv.dtype; 3], "attention: types of dout, out and dqkv");
    assert_eq!(lse.dtype, Dtype::F32, "attention: type of lse");
    if shape.len() == 0 {
        return Ok(());
    }
    let capabilities = Capabilities::of(client);
    let matrices = Matrices::choose(shape.head_dim, qkv.dtype, 2, &capabilities);
    let tiles = Tiles::choose(shape.head_dim, 2, 1, &capabilities);
    let tiles = if matrices.is_none() { Some(tiles?) } else { None };
    let delta = Array::empty(client, shape.rows(), Dtype::F32);
    let (batch, tokens, heads) = (shape.batch as u32, shape.tokens as u32, shape.heads as u32);
    let team = Team::of_short_rows(shape.head_dim, &capabilities);
    // SAFETY: guarded by the number of rows and the head's width.
    unsafe {
        delta_kernel::launch_unchecked(
            client,
            cube_count(shape.rows().div_ceil(team.rows_per_cube()), &capabilities),
            CubeDim::new_1d(team.cube_units as u32),
            team.vector,
            dout.arg(),
            out.arg(),
            delta.arg(),
            shape.rows() as u32,
            tokens,
            heads,
            team,
            qkv.dtype.elem(),
        );
    }
    if let Some(plan) = matrices {
        matrix::backward::backward(
            client,
            dout,
            qkv,
            lse,
            &delta,
            dropout,
            shape,
            dqkv,
            plan,
            &capabilities,
        );
    }
    let Some(tiles) = tiles else { return Ok(()) };
    let cubes = cube_count(shape.cubes(tiles.rows()), &capabilities);
    let fours = tiles.fours() as u32;
    let units = CubeDim::new_1d(tiles.units() as u32);
    // SAFETY: guarded by the number of cubes, tokens and the head's width.
    unsafe {
        queries_kernel::launch_unchecked(
            client,
            cubes.clone(),
            units,
            tiles.vector,
            dout.arg(),
            qkv.arg(),
            lse.arg(),
            delta.arg(),
            dqkv.arg(),
            batch,
            tokens,
            heads,
            fours,
            shape.scale(),
            Noise::arg(dropout),
            tiles,
            dropout.is_some(),
            qkv.dtype.elem(),
        );
        keys_kernel::launch_unchecked(
            client,
            cubes,
            units,
            tiles.vector,
            dout.arg(),
            qkv.arg(),
            lse.arg(),
            delta.arg(),
            dqkv.arg(),
            batch,
            tokens,
            heads,
            fours,
            shape.scale(),
            Noise::arg(dropout),
            tiles,
            dropout.is_some(),
            qkv.dtype.elem(),
        );
    }
    Ok(())
}

/// One team computes delta of one row of one head: `dout, out: [B, N, A, head_dim]` → `delta: [B, A, N]`.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "buffers and sizes of a kernel")]
fn delta_kernel<F: Float, N: Size>(
    dout: &[Vector<F, N>],
    out: &[Vector<F, N>],
    delta: &mut [f32],
    rows: u32,
    tokens: u32,
    heads: u32,
    #[comptime] team: Team,
    #[define(F)] _dtype: ElemType,
) {
    let lane = UNIT_POS as usize % team.units;
    let row = CUBE_POS * team.rows_per_cube() + UNIT_POS as usize / team.units;
    let live = row < rows as usize;

    let mut sum = Vector::<f32, N>::new(0.0f32);
    if live {
        let mut column = lane;
        while column < team.vectors {
            let at = row * team.vectors + column;
            sum += Vector::<f32, N>::cast_from(dout[at]) * Vector::<f32, N>::cast_from(out[at]);
            column += team.units;
        }
    }
    let sum = team_sum(sum.vector_sum(), team);
    if live && lane == 0 {
        let (tokens, heads) = (tokens as usize, heads as usize);
        let (image, token, head) = (row / heads / tokens, row / heads % tokens, row % heads);
        delta[(image * heads + head) * tokens + token] = sum;
    }
}

/// One cube computes dq of one tile of queries of one head.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "buffers and sizes of a kernel")]
fn queries_kernel<F: Float, N: Size>(
    dout: &[Vector<F, N>],
    qkv: &[Vector<F, N>],
    lse: &[f32],
    delta: &[f32],
    dqkv: &mut [Vector<F, N>],
    batch: u32,
    tokens: u32,
    heads: u32,
    fours: u32,
    scale: f32,
    noise: Noise,
    #[comptime] tiles: Tiles,
    #[comptime] dropout: bool,
    #[define(F)] _dtype: ElemType,
) {
    let (tokens, fours) = (tokens as usize, fours as usize);
    let head = Head::of_cube(batch as usize, tokens, heads as usize, tiles.rows(), tiles.vectors());
    if !head.live {
        terminate!();
    }
    let lane = lane(tiles);
    let per_unit = comptime!(tiles.per_unit);
    let mut queries = Shared::<[Four]>::new_slice(tiles.rows_len());
    let mut gradients = Shared::<[Four]>::new_slice(tiles.rows_len());
    let mut columns = Shared::<[Four]>::new_slice(tiles.columns_len());
    let mut weights = Shared::<[Four]>::new_slice(tiles.weights_len());
    let stride = head.packed_stride();
    load_rows::<F, N>(qkv, head.packed(0usize), stride, head.first, tokens, &mut queries, tiles);
    load_rows::<F, N>(
        dout,
        head.output(0usize),
        head.output_stride(),
        head.first,
        tokens,
        &mut gradients,
        tiles,
    );
    let mut row_lse = Registers::<f32>::new(per_unit);
    let mut row_delta = Registers::<f32>::new(per_unit);
    #[unroll]
    for i in 0..per_unit {
        let token = head.first + row(i, tiles);
        if token < tokens {
            row_lse[i] = lse[head.row(token)];
            row_delta[i] = delta[head.row(token)];
        }
    }

    let mut dp = Registers::<f32>::new(4 * per_unit);
    let mut scores = Registers::<f32>::new(4 * per_unit);
    let mut outputs = zeros(tiles);
    let mut first = 0usize.runtime();
    while first < tokens {
        sync_cube();
        load_columns::<F, N>(qkv, head.packed(2usize), stride, first, tokens, &mut columns, tiles);
        sync_cube();
        products(&gradients, &columns, &mut dp, fours, tiles);
        sync_cube();
        load_columns::<F, N>(qkv, head.packed(1usize), stride, first, tokens, &mut columns, tiles);
        sync_cube();
        products(&queries, &columns, &mut scores, fours, tiles);

        let key = first + 4 * lane;
        #[unroll]
        for i in 0..per_unit {
            let token = head.first + row(i, tiles);
            let mut weight = Four::new(0.0f32);
            #[unroll]
            for j in 0..4 {
                if key + j < tokens {
                    let p = (scores[4 * i + j] * scale - row_lse[i]).exp() * scale;
                    weight.insert(j, p);
                }
            }
            let mut gradient = Four::empty();
            #[unroll]
            for j in 0..4 {
                gradient.insert(j, dp[4 * i + j]);
            }
            if comptime!(dropout) {
                gradient *= noise.keep_four(head.row(token), key, tokens);
            }
            weight *= gradient - Four::new(row_delta[i]);
            weights[row(i, tiles) * tiles.weight_stride() + lane] = weight;
        }
        sync_cube();
        accumulate(&weights, &columns, &mut outputs, tiles);
        first += tiles.columns();
    }
    write_rows::<F, N>(&outputs, dqkv, head.packed(0usize), &head, tokens, tiles);
}

/// One cube computes dk and dv of one tile of keys of one head. The columns are queries here.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "buffers and sizes of a kernel")]
fn keys_kernel<F: Float, N: Size>(
    dout: &[Vector<F, N>],
    qkv: &[Vector<F, N>],
    lse: &[f32],
    delta: &[f32],
    dqkv: &mut [Vector<F, N>],
    batch: u32,
    tokens: u32,
    heads: u32,
    fours: u32,
    scale: f32,
    noise: Noise,
    #[comptime] tiles: Tiles,
    #[comptime] dropout: bool,
    #[define(F)] _dtype: ElemType,
) {
    let (tokens, fours) = (tokens as usize, fours as usize);
    let head = Head::of_cube(batch as usize, tokens, heads as usize, tiles.rows(), tiles.vectors());
    if !head.live {
        terminate!();
    }
    let lane = lane(tiles);
    let per_unit = comptime!(tiles.per_unit);
    let mut keys = Shared::<[Four]>::new_slice(tiles.rows_len());
    let mut values = Shared::<[Four]>::new_slice(tiles.rows_len());
    let mut columns = Shared::<[Four]>::new_slice(tiles.columns_len());
    let mut weights = Shared::<[Four]>::new_slice(tiles.weights_len());
    let stride = head.packed_stride();
    let queries = head.packed(0usize);
    let (gradients, gradient_stride) = (head.output(0usize), head.output_stride());
    load_rows::<F, N>(qkv, head.packed(1usize), stride, head.first, tokens, &mut keys, tiles);
    load_rows::<F, N>(qkv, head.packed(2usize), stride, head.first, tokens, &mut values, tiles);

    let mut p = Registers::<f32>::new(4 * per_unit);
    let mut dp = Registers::<f32>::new(4 * per_unit);
    let mut keep = Registers::<f32>::new(4 * per_unit);
    let mut dkeys = zeros(tiles);
    let mut dvalues = zeros(tiles);
    let mut first = 0usize.runtime();
    while first < tokens {
        // Probabilities from the queries.
        sync_cube();
        load_columns::<F, N>(qkv, queries, stride, first, tokens, &mut columns, tiles);
        sync_cube();
        products(&keys, &columns, &mut p, fours, tiles);
        let query = first + 4 * lane;
        let mut column_delta = Four::new(0.0f32);
        #[unroll]
        for j in 0..4 {
            if query + j < tokens {
                let at = head.row(query + j);
                let column_lse = lse[at];
                column_delta.insert(j, delta[at]);
                #[unroll]
                for i in 0..per_unit {
                    p[4 * i + j] = (p[4 * i + j] * scale - column_lse).exp();
                    if comptime!(dropout) {
                        keep[4 * i + j] = noise.keep(at, head.first + row(i, tiles), tokens);
                    }
                }
            } else {
                #[unroll]
                for i in 0..per_unit {
                    p[4 * i + j] = 0.0f32;
                }
            }
        }
        #[unroll]
        for i in 0..per_unit {
            let mut weight = Four::new(0.0f32);
            #[unroll]
            for j in 0..4 {
                let kept =
                    if comptime!(dropout) { p[4 * i + j] * keep[4 * i + j] } else { p[4 * i + j] };
                weight.insert(j, kept);
            }
            weights[row(i, tiles) * tiles.weight_stride() + lane] = weight;
        }

        // dv, and dp from the gradients of the outputs.
        sync_cube();
        load_columns::<F, N>(dout, gradients, gradient_stride, first, tokens, &mut columns, tiles);
        sync_cube();
        products(&values, &columns, &mut dp, fours, tiles);
        accumulate(&weights, &columns, &mut dvalues, tiles);

        // dk from the queries again.
        sync_cube();
        load_columns::<F, N>(qkv, queries, stride, first, tokens, &mut columns, tiles);
        #[unroll]
        for i in 0..per_unit {
            let mut weight = Four::new(0.0f32);
            #[unroll]
            for j in 0..4 {
                let mut gradient = dp[4 * i + j];
                if comptime!(dropout) {
                    gradient *= keep[4 * i + j];
                }
                weight.insert(j, p[4 * i + j] * (gradient - column_delta.extract(j)) * scale);
            }
            weights[row(i, tiles) * tiles.weight_stride() + lane] = weight;
        }
        sync_cube();
        accumulate(&weights, &columns, &mut dkeys, tiles);
        first += tiles.columns();
    }
    write_rows::<F, N>(&dkeys, dqkv, head.packed(1usize), &head, tokens, tiles);
    write_rows::<F, N>(&dvalues, dqkv, head.packed(2usize), &head, tokens, tiles);
}

/// Writes the rows of a cube to a part of `[B, N, 3D]`.
#[cube]
fn write_rows<F: Float, N: Size>(
    outputs: &Registers<Four>,
    to: &mut [Vector<F, N>],
    start: usize,
    head: &Head,
    tokens: usize,
    #[comptime] tiles: Tiles,
) {
    let width = comptime!(tiles.fours_per_unit());
    #[unroll]
    for i in 0..tiles.per_unit {
        let token = head.first + row(i, tiles);
        if token < tokens {
            #[unroll]
            for c in 0..width {
                let column = lane(tiles) + c * tiles.lanes;
                if column < tiles.fours() {
                    let at = start + token * head.packed_stride();
                    write::<F, N>(outputs[i * width + c], to, at, column, tiles);
                }
            }
        }
    }
}
