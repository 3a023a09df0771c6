//! The backward pass on matrix units, after delta.

use cubecl::ir::ElemType;
use cubecl::prelude::Array as Registers;
use cubecl::prelude::*;

use super::{
    ALIGNMENT, COLUMNS, Matrices, SCORE_STRIDE, VECTOR, WEIGHT_STRIDE, accumulate, column, load,
    no_outputs, products, row, write,
};
use crate::attention::Shape;
use crate::attention::head::{Head, Noise};
use crate::{Array, Capabilities, Client, Dropout, cube_count};

/// [`crate::attention::backward`] after its checks and delta.
#[allow(clippy::too_many_arguments, reason = "the arguments of the operation and its plan")]
pub(in crate::attention) fn backward(
    client: &Client,
    dout: &Array,
    qkv: &Array,
    lse: &Array,
    delta: &Array,
    dropout: Option<&Dropout>,
    shape: Shape,
    dqkv: &Array,
    plan: Matrices,
    capabilities: &Capabilities,
) {
    let cubes = cube_count(shape.cubes(plan.rows()), capabilities);
    let units = CubeDim::new_1d(plan.units() as u32);
    for keys in [false, true] {
        // SAFETY: guarded by the number of cubes, tokens and the head's width.
        unsafe {
            let launch =
                if keys { keys_kernel::launch_unchecked } else { queries_kernel::launch_unchecked };
            launch(
                client,
                cubes.clone(),
                units,
                VECTOR,
                dout.arg(),
                qkv.arg(),
                lse.arg(),
                delta.arg(),
                dqkv.arg(),
                shape.batch as u32,
                shape.tokens as u32,
                shape.heads as u32,
                shape.scale(),
                Noise::arg(dropout),
                plan,
                dropout.is_some(),
                qkv.dtype.elem(),
            );
        }
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
    scale: f32,
    noise: Noise,
    #[comptime] plan: Matrices,
    #[comptime] dropout: bool,
    #[define(F)] _dtype: ElemType,
) {
    let tokens = tokens as usize;
    let head = Head::of_cube(batch as usize, tokens, heads as usize, plan.rows(), plan.vectors());
    if !head.live {
        terminate!();
    }
    let rows_len = comptime!(plan.rows() * plan.stride());
    let columns_len = comptime!(COLUMNS * plan.stride());
    let mut queries = Shared::<[Vector<F, N>]>::new_aligned_slice(rows_len, ALIGNMENT);
    let mut gradients = Shared::<[Vector<F, N>]>::new_aligned_slice(rows_len, ALIGNMENT);
    let mut keys = Shared::<[Vector<F, N>]>::new_aligned_slice(columns_len, ALIGNMENT);
    let mut values = Shared::<[Vector<F, N>]>::new_aligned_slice(columns_len, ALIGNMENT);
    let mut scores =
        Shared::<[f32]>::new_aligned_slice(comptime!(plan.rows() * SCORE_STRIDE), ALIGNMENT);
    let mut weights =
        Shared::<[F]>::new_aligned_slice(comptime!(plan.rows() * WEIGHT_STRIDE), ALIGNMENT);
    let stride = head.packed_stride();
    let (q, k, v) = (head.packed(0usize), head.packed(1usize), head.packed(2usize));
    let (g, g_stride) = (head.output(0usize), head.output_stride());
    load::<F, N>(qkv, q, stride, head.first, tokens, &mut queries, plan.rows(), plan);
    load::<F, N>(dout, g, g_stride, head.first, tokens, &mut gradients, plan.rows(), plan);

    let (row, column) = (row(plan), column(plan));
    let token = head.first + row;
    let mut row_lse = f32::new(0.0f32);
    let mut row_delta = f32::new(0.0f32);
    if token < tokens {
        row_lse = lse[head.row(token)];
        row_delta = delta[head.row(token)];
    }
    let mut p = Registers::<f32>::new(plan.per_unit());
    let outputs = no_outputs(plan);
    let mut first = 0usize.runtime();
    while first < tokens {
        sync_cube();
        load::<F, N>(qkv, k, stride, first, tokens, &mut keys, COLUMNS, plan);
        load::<F, N>(qkv, v, stride, first, tokens, &mut values, COLUMNS, plan);
        sync_cube();
        products::<F, N>(&queries, &keys, &mut scores, plan);
        sync_cube();
        #[unroll]
        for j in 0..plan.per_unit() {
            p[j] = (scores[row * SCORE_STRIDE + column + j] * scale - row_lse).exp();
        }
        sync_cube();
        products::<F, N>(&gradients, &values, &mut scores, plan);
        sync_cube();
        #[unroll]
        for j in 0..plan.per_unit() {
            let key = first + column + j;
            let mut weight = f32::new(0.0f32);
            if key < tokens {
                let mut gradient = scores[row * SCORE_STRIDE + column + j];
                if comptime!(dropout) {
                    gradient *= noise.keep(head.row(token), key, tokens);
                }
                weight = p[j] * (gradient - row_delta);
            }
            weights[row * WEIGHT_STRIDE + column + j] = F::cast_from(weight);
        }
        sync_cube();
        accumulate::<F, N>(&weights, &keys, &outputs, plan);
        first += COLUMNS;
    }
    // The scale comes last, so that small weights do not vanish in f16.
    write::<F, N>(&outputs, scale, &mut scores, dqkv, q, stride, &head, tokens, plan);
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
    scale: f32,
    noise: Noise,
    #[comptime] plan: Matrices,
    #[comptime] dropout: bool,
    #[define(F)] _dtype: ElemType,
) {
    let tokens = tokens as usize;
    let head = Head::of_cube(batch as usize, tokens, heads as usize, plan.rows(), plan.vectors());
    if !head.live {
        terminate!();
    }
    let rows_len = comptime!(plan.rows() * plan.stride());
    let columns_len = comptime!(COLUMNS * plan.stride());
    let mut keys = Shared::<[Vector<F, N>]>::new_aligned_slice(rows_len, ALIGNMENT);
    let mut values = Shared::<[Vector<F, N>]>::new_aligned_slice(rows_len, ALIGNMENT);
    let mut queries = Shared::<[Vector<F, N>]>::new_aligned_slice(columns_len, ALIGNMENT);
    let mut gradients = Shared::<[Vector<F, N>]>::new_aligned_slice(columns_len, ALIGNMENT);
    let mut scores =
        Shared::<[f32]>::new_aligned_slice(comptime!(plan.rows() * SCORE_STRIDE), ALIGNMENT);
    let mut weights =
        Shared::<[F]>::new_aligned_slice(comptime!(plan.rows() * WEIGHT_STRIDE), ALIGNMENT);
    let stride = head.packed_stride();
    let (q, k, v) = (head.packed(0usize), head.packed(1usize), head.packed(2usize));
    let (g, g_stride) = (head.output(0usize), head.output_stride());
    load::<F, N>(qkv, k, stride, head.first, tokens, &mut keys, plan.rows(), plan);
    load::<F, N>(qkv, v, stride, head.first, tokens, &mut values, plan.rows(), plan);

    let (row, column) = (row(plan), column(plan));
    let token = head.first + row;
    let mut p = Registers::<f32>::new(plan.per_unit());
    let mut keep = Registers::<f32>::new(plan.per_unit());
    let dkeys = no_outputs(plan);
    let dvalues = no_outputs(plan);
    let mut first = 0usize.runtime();
    while first < tokens {
        // Probabilities from the queries.
        sync_cube();
        load::<F, N>(qkv, q, stride, first, tokens, &mut queries, COLUMNS, plan);
        load::<F, N>(dout, g, g_stride, first, tokens, &mut gradients, COLUMNS, plan);
        sync_cube();
        products::<F, N>(&keys, &queries, &mut scores, plan);
        sync_cube();
        #[unroll]
        for j in 0..plan.per_unit() {
            let query = first + column + j;
            p[j] = 0.0f32;
            keep[j] = 1.0f32;
            // Rows of no key stay zero: their scores say nothing about the size of an exponential.
            if query < tokens && token < tokens {
                let at = head.row(query);
                p[j] = (scores[row * SCORE_STRIDE + column + j] * scale - lse[at]).exp();
                if comptime!(dropout) {
                    keep[j] = noise.keep(at, token, tokens);
                }
            }
            weights[row * WEIGHT_STRIDE + column + j] = F::cast_from(p[j] * keep[j]);
        }
        sync_cube();

        // dv, and dp from the gradients of the outputs.
        products::<F, N>(&values, &gradients, &mut scores, plan);
        accumulate::<F, N>(&weights, &gradients, &dvalues, plan);
        sync_cube();
        #[unroll]
        for j in 0..plan.per_unit() {
            let query = first + column + j;
            let mut weight = f32::new(0.0f32);
            if query < tokens && token < tokens {
                let gradient = scores[row * SCORE_STRIDE + column + j] * keep[j];
                weight = p[j] * (gradient - delta[head.row(query)]);
            }
            weights[row * WEIGHT_STRIDE + column + j] = F::cast_from(weight);
        }
        sync_cube();
        accumulate::<F, N>(&weights, &queries, &dkeys, plan);
        first += COLUMNS;
    }
    write::<F, N>(&dkeys, scale, &mut scores, dqkv, k, stride, &head, tokens, plan);
    write::<F, N>(&dvalues, 1.0f32, &mut scores, dqkv, v, stride, &head, tokens, plan);
}
