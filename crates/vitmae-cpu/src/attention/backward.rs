//! The backward pass of attention.

use super::{Head, Shape, for_each_head, rows};
use crate::dropout::Dropout;
use crate::gemm::{MatRef, Precision};
use crate::scratch;
use crate::values::{SharedValues, Values, ValuesMut};
use std::ops::Range;

/// The gradient of [`super::forward`], from its output and `lse`, with the same `precision` and
/// `dropout`.
///
///   delta_i = dout_i·out_i              dp_ij = keep_ij · (dout_i·v_j)
///   ds_ij = p_ij · (dp_ij − delta_i) / √head_dim
///   dv_j = Σ_i p_ij·keep_ij·dout_i      dq_i = Σ_j ds_ij·k_j      dk_j = Σ_i ds_ij·q_i
///
/// # Shapes
/// `dout, out: [B, N, D]`, `qkv: [B, N, 3D]`, `lse: [B, A, N]` → `dqkv: [B, N, 3D]`
///
/// # Panics
/// As [`forward`](super::forward).
#[allow(clippy::too_many_arguments, reason = "tensors of one operation")]
pub fn backward<'i, 'o>(
    precision: Precision,
    dout: impl Into<Values<'i>>,
    qkv: impl Into<Values<'i>>,
    out: impl Into<Values<'i>>,
    lse: &[f32],
    dropout: Option<&Dropout>,
    shape: Shape,
    dqkv: impl Into<ValuesMut<'o>>,
) {
    let (dout, qkv, out, dqkv) = (dout.into(), qkv.into(), out.into(), dqkv.into());
    assert_eq!(dout.len(), shape.len(), "attention: dout");
    assert_eq!(out.len(), shape.len(), "attention: out");
    assert_eq!(lse.len(), shape.rows(), "attention: lse");
    assert_eq!(dqkv.len(), 3 * shape.len(), "attention: dqkv");
    let dqkv = SharedValues::new(dqkv);
    for_each_head(precision, qkv, dropout, shape, |head| {
        backward_head(head, dout, out, lse, dqkv);
    });
}

fn backward_head(head: &Head, dout: Values, out: Values, lse: &[f32], dqkv: SharedValues) {
    let Shape { tokens, head_dim: d, .. } = head.shape;
    let Head { small, block, ld, width, .. } = *head;
    let kept = if head.dropout.is_some() { block * ld } else { 0 };
    let whole = [
        small.packed_len(d, tokens),
        small.packed_len(d, tokens),
        small.packed_len(tokens, d),
        tokens * width,
        tokens * width,
        small.scratch_len(block, d.max(tokens)).max(small.scratch_len(tokens, block)),
    ];
    let blocks = [
        block * d,
        block * d,
        small.packed_len(block, d),
        small.packed_len(block, d),
        block * width,
        block * ld,
        block * ld,
        block,
        kept,
        d,
    ];
    let mut memory = scratch::take(scratch::total(whole) + scratch::total(blocks));
    let (of_whole, of_blocks) = memory.split_at_mut(scratch::total(whole));
    let [keys_t, values_t, keys, dkeys, dvalues, packed] = scratch::split(of_whole, whole);
    let [queries, douts, queries_b, douts_b, dqueries, scores, dscores, delta, keep, one] =
        scratch::split(of_blocks, blocks);
    small.pack(&head.part(1).transposed(), keys_t);
    small.pack(&head.part(2).transposed(), values_t);
    small.pack(&head.part(1), keys);

    for block in head.blocks() {
        let (rows, first) = (block.len(), block.start);
        head.prefetch_next(block.clone());
        for ((i, row), delta) in block.clone().zip(douts.chunks_exact_mut(d)).zip(&mut *delta) {
            let at = head.output(i);
            row.copy_from_slice(dout.widened(at..at + d, one));
            *delta = rows::dot(row, out.widened(at..at + d, one));
        }
        let queries = head.queries(block.clone(), queries);
        let scores = head.scores(queries, keys_t, scores, packed);
        let dscores = &mut dscores[..rows * ld];
        let douts = MatRef::row_major(&douts[..rows * d], rows, d);
        small.multiply(douts, values_t, ld, dscores, false, packed);

        let keep = head.keep(block.clone(), keep);
        if let Some(keep) = keep {
            multiply(dscores, keep);
        }
        let lse = &lse[head.row(first)..][..rows];
        rows::gradients(scores, dscores, ld, head.scale, lse, &delta[..rows]);
        if let Some(keep) = keep {
            multiply(scores, keep);
        }

        let add = first > 0;
        small.pack(&douts, douts_b);
        let weights = MatRef::strided(&*scores, rows, tokens, ld, 1);
        small.multiply(weights.transposed(), douts_b, width, dvalues, add, packed);
        small.pack(&queries, queries_b);
        let gradients = MatRef::strided(&*dscores, rows, tokens, ld, 1);
        small.multiply(gradients.transposed(), queries_b, width, dkeys, add, packed);
        small.multiply(gradients, keys, width, dqueries, false, packed);
        write(head, block, 0, dqueries, dqkv, one);
    }
    write(head, 0..tokens, 1, dkeys, dqkv, one);
    write(head, 0..tokens, 2, dvalues, dqkv, one);
}

fn multiply(values: &mut [f32], factors: &[f32]) {
    values.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
}

/// Copies rows of a product to the gradient of q (0), k (1) or v (2), by way of `one` row if that is bf16.
fn write(
    head: &Head,
    range: Range<usize>,
    part: usize,
    product: &[f32],
    dqkv: SharedValues,
    one: &mut [f32],
) {
    let d = head.shape.head_dim;
    for (i, row) in range.zip(product.chunks_exact(head.width)) {
        // SAFETY: each task owns the columns of its head.
        unsafe { dqkv.write(head.packed(i, part), d, one, |out| out.copy_from_slice(&row[..d])) };
    }
}
