//! Multi-head self-attention over packed rows q|k|v, forward and backward.
//!
//!   s_ij = q_i·k_j / √head_dim      lse_i = ln Σ_j exp(s_ij)      p_ij = exp(s_ij − lse_i)
//!   out_i = Σ_j p_ij · keep_ij · v_j
//!
//! One task is one head of one image. Its keys and values are packed once, then blocks of query rows
//! run through scores, exact softmax and values, so that only rows × N scores exist at a time. The
//! forward pass keeps `lse` alone; the backward pass computes the probabilities from it again, as in
//! FlashAttention (arXiv:2205.14135), but without blocks of keys, which N ≤ 1025 does not need.
//!
//! Source: `eager_attention_forward` of transformers 4.57.6, `modeling_vit_mae.py`.
//! Oracle: `vitmae_testing::reference::attention`.

mod backward;
mod rows;

use crate::dropout::Dropout;
use crate::gemm::{MatRef, Precision, Small};
use crate::parallel::{self, SharedMut};
use crate::scratch;
use crate::simd;
use crate::values::{SharedValues, Values, ValuesMut};
pub use backward::backward;
use std::ops::Range;

/// Scores of a block of query rows: they stay in the first-level cache.
const BLOCK: usize = 8192;
/// Fewest tiles of query rows in a block: the backward pass sums over its rows in one go.
const BLOCK_TILES: usize = 4;
/// Query rows of a block, about, where operands are packed: the second-level cache holds their scores.
const PACKED_BLOCK: usize = 128;

/// Sizes of an attention; the width D is `heads · head_dim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// B.
    pub batch: usize,
    /// N.
    pub tokens: usize,
    /// A.
    pub heads: usize,
    /// Width of one head.
    pub head_dim: usize,
}

impl Shape {
    /// D = `heads · head_dim`.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Length of the output, B·N·D.
    fn len(&self) -> usize {
        self.batch * self.tokens * self.width()
    }

    /// Number of rows of probabilities, B·A·N.
    fn rows(&self) -> usize {
        self.batch * self.heads * self.tokens
    }
}

/// Attention of every token to every token; `lse` is what [`backward()`] needs beside the output.
///
/// With [`Precision::Bf16`] the factors of every product are rounded, and may be bf16 in memory; scores, softmax and sums
/// are f32.
///
/// Probability (b, a, i, j) has the dropout index ((b·A + a)·N + i)·N + j.
///
/// # Shapes
/// `qkv: [B, N, 3D]` → `out: [B, N, D]`, `lse: [B, A, N]`
///
/// # Panics
/// If a length does not fit `shape`, or if `qkv` is bf16 with another precision.
pub fn forward<'i, 'o>(
    precision: Precision,
    qkv: impl Into<Values<'i>>,
    dropout: Option<&Dropout>,
    shape: Shape,
    out: impl Into<ValuesMut<'o>>,
    lse: &mut [f32],
) {
    let out = out.into();
    assert_eq!(out.len(), shape.len(), "attention: out");
    assert_eq!(lse.len(), shape.rows(), "attention: lse");
    let (out, lse) = (SharedValues::new(out), SharedMut::new(lse));
    for_each_head(precision, qkv.into(), dropout, shape, |head| forward_head(head, out, lse));
}

/// The probabilities of [`forward`] in the same precision, before dropout, for display and analysis.
///
/// # Shapes
/// `qkv: [B, N, 3D]`, `lse: [B, A, N]` → `probabilities: [B, A, N, N]`
///
/// # Panics
/// As [`forward`].
pub fn probabilities<'i>(
    precision: Precision,
    qkv: impl Into<Values<'i>>,
    lse: &[f32],
    shape: Shape,
    probabilities: &mut [f32],
) {
    let tokens = shape.tokens;
    assert_eq!(lse.len(), shape.rows(), "attention: lse");
    assert_eq!(probabilities.len(), shape.rows() * tokens, "attention: probabilities");
    let out = SharedMut::new(probabilities);
    for_each_head(precision, qkv.into(), None, shape, |head| {
        let Head { small, block, ld, .. } = *head;
        let d = shape.head_dim;
        let lens =
            [small.packed_len(d, tokens), block * d, block * ld, small.scratch_len(block, d)];
        let mut memory = scratch::take(scratch::total(lens));
        let [keys, queries, scores, packed] = scratch::split(&mut memory, lens);
        small.pack(&head.part(1).transposed(), keys);
        for block in head.blocks() {
            let queries = head.queries(block.clone(), queries);
            let scores = head.scores(queries, keys, scores, packed);
            rows::probabilities(scores, head.ld, head.scale, &lse[head.row(block.start)..]);
            for (i, scores) in block.zip(scores.chunks_exact(head.ld)) {
                // SAFETY: each task owns the rows of its head.
                let out = unsafe { out.slice(head.row(i) * tokens, tokens) };
                out.copy_from_slice(&scores[..tokens]);
            }
        }
    });
}

/// Runs `task` for every head of every image.
fn for_each_head(
    precision: Precision,
    qkv: Values,
    dropout: Option<&Dropout>,
    shape: Shape,
    task: impl Fn(&Head) + Sync + Send,
) {
    assert_eq!(qkv.len(), 3 * shape.len(), "attention: qkv");
    let fits = precision == Precision::Bf16 || matches!(qkv, Values::F32(_));
    assert!(fits, "attention: qkv in bf16 for {precision:?}");
    if shape.len() > 0 {
        let small = Small::of(precision);
        let heads = shape.batch * shape.heads;
        parallel::for_each(heads, |index| task(&Head::new(small, qkv, dropout, shape, index)));
    }
}

fn forward_head(head: &Head, out: SharedValues, lse: SharedMut) {
    let Shape { tokens, head_dim, .. } = head.shape;
    let Head { small, block, ld, width, .. } = *head;
    let kept = if head.dropout.is_some() { block * ld } else { 0 };
    let lens = [
        small.packed_len(head_dim, tokens),
        small.packed_len(tokens, head_dim),
        block * head_dim,
        block * ld,
        block * width,
        block,
        kept,
        small.scratch_len(block, head_dim.max(tokens)),
        out.buffer_len(head_dim),
    ];
    let mut memory = scratch::take(scratch::total(lens));
    let [keys, values, queries, scores, product, inverse, keep, packed, row] =
        scratch::split(&mut memory, lens);
    small.pack(&head.part(1).transposed(), keys);
    small.pack(&head.part(2), values);

    for block in head.blocks() {
        head.prefetch_next(block.clone());
        let queries = head.queries(block.clone(), queries);
        let scores = head.scores(queries, keys, scores, packed);
        let inverse = &mut inverse[..block.len()];
        // SAFETY: each task owns the rows of its head.
        let lse = unsafe { lse.slice(head.row(block.start), block.len()) };
        rows::softmax(scores, ld, tokens, head.scale, inverse, lse);
        if let Some(keep) = head.keep(block.clone(), keep) {
            scores.iter_mut().zip(keep).for_each(|(score, keep)| *score *= *keep);
        }

        let weights = MatRef::strided(&*scores, block.len(), tokens, ld, 1);
        small.multiply(weights, values, width, product, false, packed);
        for ((i, product), inverse) in block.zip(product.chunks_exact(width)).zip(inverse) {
            let fill = |out: &mut [f32]| {
                out.iter_mut().zip(product).for_each(|(out, product)| *out = product * *inverse);
            };
            // SAFETY: each task owns the columns of its head.
            unsafe { out.write(head.output(i), head_dim, row, fill) };
        }
    }
}

/// One head of one image, and how its work is cut.
struct Head<'a> {
    small: Small,
    qkv: Values<'a>,
    dropout: Option<&'a Dropout>,
    shape: Shape,
    /// b·A + a.
    index: usize,
    scale: f32,
    /// Query rows of a block, a multiple of the rows of a tile.
    block: usize,
    /// N, rounded up to the columns of a tile: the stride of rows of scores.
    ld: usize,
    /// `head_dim`, rounded up to the columns of a tile: the stride of products.
    width: usize,
}

impl<'a> Head<'a> {
    fn new(
        small: Small,
        qkv: Values<'a>,
        dropout: Option<&'a Dropout>,
        shape: Shape,
        index: usize,
    ) -> Self {
        let scale = 1.0 / (shape.head_dim as f32).sqrt();
        let (mr, nr) = (small.mr(), small.nr());
        let ld = shape.tokens.next_multiple_of(nr);
        let width = shape.head_dim.next_multiple_of(nr);
        let tiles = if small.packs_a() { PACKED_BLOCK / mr } else { BLOCK / ld / mr };
        let block = (tiles.max(BLOCK_TILES) * mr).min(shape.tokens.next_multiple_of(mr));
        Self { small, qkv, dropout, shape, index, scale, block, ld, width }
    }

    /// The blocks of query rows.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (block, tokens) = (self.block, self.shape.tokens);
        (0..tokens).step_by(block).map(move |i| i..(i + block).min(tokens))
    }

    /// Index of row `i` in `lse`.
    fn row(&self, i: usize) -> usize {
        self.index * self.shape.tokens + i
    }

    /// Where row `i` of this head starts in a matrix `[B, N, D]`.
    fn output(&self, i: usize) -> usize {
        let (b, a) = (self.index / self.shape.heads, self.index % self.shape.heads);
        (b * self.shape.tokens + i) * self.shape.width() + a * self.shape.head_dim
    }

    /// Where row `i` of q (0), k (1) or v (2) of this head starts in a matrix `[B, N, 3D]`.
    fn packed(&self, i: usize, part: usize) -> usize {
        let (b, a) = (self.index / self.shape.heads, self.index % self.shape.heads);
        let width = self.shape.width();
        (b * self.shape.tokens + i) * 3 * width + part * width + a * self.shape.head_dim
    }

    /// q (0), k (1) or v (2) as a matrix `[N, head_dim]`.
    fn part(&self, part: usize) -> MatRef<'a> {
        self.rows(0..self.shape.tokens, part)
    }

    /// Some rows of it.
    fn rows(&self, rows: Range<usize>, part: usize) -> MatRef<'a> {
        let qkv = self.qkv.range(self.packed(rows.start, part)..self.qkv.len());
        MatRef::strided(qkv, rows.len(), self.shape.head_dim, 3 * self.shape.width(), 1)
    }

    /// Asks for a block of rows of the next head, which the same thread most likely computes next: its
    /// short rows lie too far apart for the hardware to see a pattern.
    fn prefetch_next(&self, block: Range<usize>) {
        let d = self.shape.head_dim;
        if self.index + 1 < self.shape.batch * self.shape.heads {
            let next = Head { index: self.index + 1, ..*self };
            for i in block {
                for part in 0..3 {
                    let at = next.packed(i, part);
                    match self.qkv {
                        Values::F32(qkv) => simd::prefetch(&qkv[at..at + d]),
                        Values::Bf16(qkv) => simd::prefetch(&qkv[at..at + d]),
                    }
                }
            }
        }
    }

    /// A block of `q`; in f32 by way of `queries`, since tiles read it as it lies.
    fn queries<'s>(&self, block: Range<usize>, queries: &'s mut [f32]) -> MatRef<'s>
    where
        'a: 's,
    {
        let d = self.shape.head_dim;
        let Values::F32(qkv) = self.qkv else { return self.rows(block, 0) };
        for (i, query) in block.clone().zip(queries.chunks_exact_mut(d)) {
            query.copy_from_slice(&qkv[self.packed(i, 0)..][..d]);
        }
        MatRef::row_major(&queries[..block.len() * d], block.len(), d)
    }

    /// Multiplies a block of `q` with the packed `keys`.
    fn scores<'s>(
        &self,
        queries: MatRef,
        keys: &[f32],
        scores: &'s mut [f32],
        packed: &mut [f32],
    ) -> &'s mut [f32] {
        let scores = &mut scores[..queries.rows() * self.ld];
        self.small.multiply(queries, keys, self.ld, scores, false, packed);
        scores
    }

    /// Fills `keep` with the dropout scales of a block, in the layout of the scores.
    fn keep<'s>(&self, block: Range<usize>, keep: &'s mut [f32]) -> Option<&'s [f32]> {
        let tokens = self.shape.tokens;
        let dropout = self.dropout?;
        let keep = &mut keep[..block.len() * self.ld];
        for (i, keep) in block.zip(keep.chunks_exact_mut(self.ld)) {
            let (keep, padding) = keep.split_at_mut(tokens);
            dropout.keep_scales((self.row(i) * tokens) as u64, keep);
            padding.fill(0.0);
        }
        Some(keep)
    }
}
