//! The forward pass on matrix units.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{
    ALIGNMENT, COLUMNS, Matrices, SCORE_STRIDE, VECTOR, WEIGHT_STRIDE, accumulate, column, load,
    no_outputs, products, row, write,
};
use crate::attention::Shape;
use crate::attention::head::{Head, Noise};
use crate::attention::tiles::Four;
use crate::{Array, Capabilities, Client, Dropout, cube_count};

/// [`crate::attention::forward`] after its checks.
#[allow(clippy::too_many_arguments, reason = "the arguments of the operation and its plan")]
pub(in crate::attention) fn forward(
    client: &Client,
    qkv: &Array,
    dropout: Option<&Dropout>,
    shape: Shape,
    out: &Array,
    lse: &Array,
    plan: Matrices,
    capabilities: &Capabilities,
) {
    // SAFETY: guarded by the number of cubes, tokens and the head's width.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            cube_count(shape.cubes(plan.rows()), capabilities),
            CubeDim::new_1d(plan.units() as u32),
            VECTOR,
            qkv.arg(),
            out.arg(),
            lse.arg(),
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

/// One cube computes one tile of queries of one head.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "buffers and sizes of a kernel")]
fn forward_kernel<F: Float, N: Size>(
    qkv: &[Vector<F, N>],
    out: &mut [Vector<F, N>],
    lse: &mut [f32],
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
    let mut queries = Shared::<[Vector<F, N>]>::new_aligned_slice(
        comptime!(plan.rows() * plan.stride()),
        ALIGNMENT,
    );
    let columns_len = comptime!(COLUMNS * plan.stride());
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
    load::<F, N>(qkv, q, stride, head.first, tokens, &mut queries, plan.rows(), plan);

    // The largest score of this unit's row.
    let (row, column) = (row(plan), column(plan));
    let mut largest = f32::new(-1.0e30f32);
    let mut first = 0usize.runtime();
    while first < tokens {
        sync_cube();
        load::<F, N>(qkv, k, stride, first, tokens, &mut keys, COLUMNS, plan);
        sync_cube();
        products::<F, N>(&queries, &keys, &mut scores, plan);
        sync_cube();
        #[unroll]
        for i in 0..plan.per_unit() {
            let key = first + (column + i) * VECTOR;
            let score = scores[row * SCORE_STRIDE + column + i];
            #[unroll]
            for j in 0..VECTOR {
                if key + j < tokens {
                    largest = max(largest, score.extract(j) * scale);
                }
            }
        }
        first += COLUMNS;
    }
    #[unroll]
    for bit in 4..comptime!(plan.plane.ilog2()) {
        largest = max(largest, plane_shuffle_xor(largest, comptime!(1u32 << bit)));
    }

    // The outputs, and the sum of the row.
    let outputs = no_outputs(plan);
    let mut sum = f32::new(0.0f32);
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
            let key = first + (column + i) * VECTOR;
            let score = scores[row * SCORE_STRIDE + column + i];
            let mut weight = Four::new(0.0f32);
            #[unroll]
            for j in 0..VECTOR {
                if key + j < tokens {
                    let p = (score.extract(j) * scale - largest).exp();
                    sum += p;
                    weight.insert(j, p);
                }
            }
            if comptime!(dropout) {
                weight *= noise.keep_four(head.row(head.first + row), key, tokens);
            }
            weights[row * WEIGHT_STRIDE + column + i] = Vector::<F, N>::cast_from(weight);
        }
        sync_cube();
        accumulate::<F, N>(&weights, &values, &outputs, plan);
        first += COLUMNS;
    }
    #[unroll]
    for bit in 4..comptime!(plan.plane.ilog2()) {
        sum += plane_shuffle_xor(sum, comptime!(1u32 << bit));
    }

    let token = head.first + row;
    if token < tokens && column == 0 {
        lse[head.row(token)] = largest + sum.ln();
    }
    let (start, stride) = (head.output(0usize), head.output_stride());
    let factor = 1.0f32 / sum;
    write::<F, N>(&outputs, factor, &mut scores, out, start, stride, &head, tokens, plan);
}
