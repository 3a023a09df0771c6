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
use crate::attention::tiles::Four;
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
        Shared::<[Four]>::new_aligned_slice(comptime!(plan.rows() * SCORE_STRIDE), ALIGNMENT);
    let mut weights = Shared::<[Vector<F, N>]>::new_aligned_slice(
        comptime!(plan.rows() * WEIGHT_STRIDE),
        ALIGNMENT,
    );
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
    let mut p = Registers::<Four>::new(plan.per_unit());
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
        for i in 0..plan.per_unit() {
            let score = scores[row * SCORE_STRIDE + column + i];
            let mut value = Four::empty();
            #[unroll]
            for j in 0..VECTOR {
                value.insert(j, (score.extract(j) * scale - row_lse).exp());
            }
            p[i] = value;
        }
        sync_cube();
        products::<F, N>(&gradients, &values, &mut scores, plan);
        sync_cube();
        #[unroll]
        for i in 0..plan.per_unit() {
            let key = first + (column + i) * VECTOR;
            // The noise first: it needs many registers for a moment.
            let mut gradient = Four::new(1.0f32);
            if comptime!(dropout) {
                gradient = noise.keep_four(head.row(token), key, tokens);
            }
            gradient *= scores[row * SCORE_STRIDE + column + i];
            let mut weight = Four::new(0.0f32);
            #[unroll]
            for j in 0..VECTOR {
                if key + j < tokens {
                    weight.insert(j, p[i].extract(j) * (gradient.extract(j) - row_delta));
                }
            }
            weights[row * WEIGHT_STRIDE + column + i] = Vector::<F, N>::cast_from(weight);
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
        Shared::<[Four]>::new_aligned_slice(comptime!(plan.rows() * SCORE_STRIDE), ALIGNMENT);
    let mut weights = Shared::<[Vector<F, N>]>::new_aligned_slice(
        comptime!(plan.rows() * WEIGHT_STRIDE),
        ALIGNMENT,
    );
    let stride = head.packed_stride();
    let (q, k, v) = (head.packed(0usize), head.packed(1usize), head.packed(2usize));
    let (g, g_stride) = (head.output(0usize), head.output_stride());
    load::<F, N>(qkv, k, stride, head.first, tokens, &mut keys, plan.rows(), plan);
    load::<F, N>(qkv, v, stride, head.first, tokens, &mut values, plan.rows(), plan);

    let (row, column) = (row(plan), column(plan));
    let token = head.first + row;
    let mut p = Registers::<Four>::new(plan.per_unit());
    let mut keep = Registers::<Four>::new(plan.per_unit());
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
        for i in 0..plan.per_unit() {
            let query = first + (column + i) * VECTOR;
            let score = scores[row * SCORE_STRIDE + column + i];
            let mut probability = Four::new(0.0f32);
            let mut scales = Four::new(1.0f32);
            #[unroll]
            for j in 0..VECTOR {
                // Rows of no key stay zero: their scores say nothing about the size of an exponential.
                if query + j < tokens && token < tokens {
                    let at = head.row(query + j);
                    probability.insert(j, (score.extract(j) * scale - lse[at]).exp());
                    if comptime!(dropout) {
                        scales.insert(j, noise.keep(at, token, tokens));
                    }
                }
            }
            p[i] = probability;
            keep[i] = scales;
            weights[row * WEIGHT_STRIDE + column + i] =
                Vector::<F, N>::cast_from(probability * scales);
        }
        sync_cube();

        // dv, and dp from the gradients of the outputs.
        products::<F, N>(&values, &gradients, &mut scores, plan);
        accumulate::<F, N>(&weights, &gradients, &dvalues, plan);
        sync_cube();
        #[unroll]
        for i in 0..plan.per_unit() {
            let query = first + (column + i) * VECTOR;
            let gradient = scores[row * SCORE_STRIDE + column + i] * keep[i];
            let mut weight = Four::new(0.0f32);
            #[unroll]
            for j in 0..VECTOR {
                if query + j < tokens && token < tokens {
                    let difference = gradient.extract(j) - delta[head.row(query + j)];
                    weight.insert(j, p[i].extract(j) * difference);
                }
            }
            weights[row * WEIGHT_STRIDE + column + i] = Vector::<F, N>::cast_from(weight);
        }
        sync_cube();
        accumulate::<F, N>(&weights, &queries, &dkeys, plan);
        first += COLUMNS;
    }
    write::<F, N>(&dkeys, scale, &mut scores, dqkv, k, stride, &head, tokens, plan);
    write::<F, N>(&dvalues, 1.0f32, &mut scores, dqkv, v, stride, &head, tokens, plan);
}
