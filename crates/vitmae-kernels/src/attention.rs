//! Multi-head self-attention over packed rows q|k|v, forward and backward.
//!
//!   s_ij = q_i·k_j / √head_dim      lse_i = ln Σ_j exp(s_ij)      p_ij = exp(s_ij − lse_i)
//!   out_i = Σ_j p_ij · keep_ij · v_j
//!
//! A cube takes a tile of queries of one head through all tiles of keys, with a running maximum and sum, so
//! that no matrix of scores exists (FlashAttention, arXiv:2205.14135). Heads are read from the packed rows
//! and written to rows of the output without a transpose. Cubes are small, so that 50 tokens and twelve
//! heads already make 24 of them an image. f16 and bf16 go to matrix units where the device has them.
//!
//! Source: `eager_attention_forward` of transformers 4.57.6, `modeling_vit_mae.py`.
//! Oracle: `vitmae_testing::reference::attention`; CPU twin: `vitmae_cpu::attention`.

mod backward;
mod head;
mod matrix;
mod probabilities;
mod softmax;
mod tiles;

use cubecl::ir::ElemType;
use cubecl::prelude::Array as Registers;
use cubecl::prelude::*;

use crate::{Array, Capabilities, Client, Dropout, Dtype, KernelError, cube_count};
pub use backward::backward;
use head::{Head, Noise};
use matrix::Matrices;
pub use probabilities::probabilities;
use softmax::{largest_of_row, sum_of_row};
use tiles::{Four, Tiles, accumulate, lane, load_columns, load_rows, products, row, write, zeros};

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

    /// Cubes of a kernel in which each has `rows` rows of one head.
    fn cubes(&self, rows: usize) -> usize {
        self.batch * self.heads * self.tokens.div_ceil(rows)
    }

    /// What scores are multiplied by.
    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// Attention of every token to every token; `lse` is what [`backward()`] needs beside the output.
///
/// Probability (b, a, i, j) has the dropout index ((b·A + a)·N + i)·N + j.
///
/// # Shapes
/// `qkv: [B, N, 3D]` → `out: [B, N, D]`, `lse: [B, A, N]`
///
/// # Errors
/// [`KernelError::Refused`] if a head is too wide for the device's shared memory; nothing is launched then.
///
/// # Panics
/// If a length or a type does not fit.
pub fn forward(
    client: &Client,
    qkv: &Array,
    dropout: Option<&Dropout>,
    shape: Shape,
    out: &Array,
    lse: &Array,
) -> Result<(), KernelError> {
    assert_eq!(qkv.len, 3 * shape.len(), "attention: qkv");
    assert_eq!(out.len, shape.len(), "attention: out");
    assert_eq!(lse.len, shape.rows(), "attention: lse");
    assert_eq!(out.dtype, qkv.dtype, "attention: types of qkv and out");
    assert_eq!(lse.dtype, Dtype::F32, "attention: type of lse");
    if shape.len() == 0 {
        return Ok(());
    }
    let capabilities = Capabilities::of(client);
    if let Some(plan) = Matrices::choose(shape.head_dim, qkv.dtype, 1, &capabilities) {
        matrix::forward::forward(client, qkv, dropout, shape, out, lse, plan, &capabilities);
        return Ok(());
    }
    let tiles = Tiles::choose(shape.head_dim, 1, 1, &capabilities)?;
    // SAFETY: guarded by the number of cubes, tokens and the head's width.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            cube_count(shape.cubes(tiles.rows()), &capabilities),
            CubeDim::new_1d(tiles.units() as u32),
            tiles.vector,
            qkv.arg(),
            out.arg(),
            lse.arg(),
            shape.batch as u32,
            shape.tokens as u32,
            shape.heads as u32,
            tiles.fours() as u32,
            shape.scale(),
            Noise::arg(dropout),
            tiles,
            dropout.is_some(),
            qkv.dtype.elem(),
        );
    }
    Ok(())
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
    let width = comptime!(tiles.fours_per_unit());
    let mut queries = Shared::<[Four]>::new_slice(tiles.rows_len());
    let mut columns = Shared::<[Four]>::new_slice(tiles.columns_len());
    let mut weights = Shared::<[Four]>::new_slice(tiles.weights_len());
    let mut sums = Shared::<[f32]>::new_slice(tiles.sums_len());
    load_rows::<F, N>(
        qkv,
        head.packed(0usize),
        head.packed_stride(),
        head.first,
        tokens,
        &mut queries,
        tiles,
    );

    // The running maximum and sum of each row; the sum is that of this lane's columns alone.
    let mut largest = Registers::<f32>::new(per_unit);
    let mut sum = Registers::<f32>::new(per_unit);
    let mut scores = Registers::<f32>::new(4 * per_unit);
    let mut outputs = zeros(tiles);
    #[unroll]
    for i in 0..per_unit {
        largest[i] = f32::new(-1.0e30f32);
    }
    let mut first = 0usize.runtime();
    while first < tokens {
        sync_cube();
        let (keys, stride) = (head.packed(1usize), head.packed_stride());
        load_columns::<F, N>(qkv, keys, stride, first, tokens, &mut columns, tiles);
        sync_cube();
        products(&queries, &columns, &mut scores, fours, tiles);

        // The largest score so far, for every lane of the row.
        let key = first + 4 * lane;
        let mut of_tile = Registers::<f32>::new(per_unit);
        #[unroll]
        for i in 0..per_unit {
            let mut most = f32::new(-1.0e30f32);
            #[unroll]
            for j in 0..4 {
                scores[4 * i + j] *= scale;
                if key + j < tokens {
                    most = max(most, scores[4 * i + j]);
                }
            }
            of_tile[i] = most;
        }
        largest_of_row(&mut of_tile, &mut sums, tiles);

        #[unroll]
        for i in 0..per_unit {
            let most = max(largest[i], of_tile[i]);
            let shrink = (largest[i] - most).exp();
            largest[i] = most;
            sum[i] *= shrink;
            #[unroll]
            for c in 0..width {
                outputs[i * width + c] *= Four::new(shrink);
            }
            let mut weight = Four::new(0.0f32);
            #[unroll]
            for j in 0..4 {
                if key + j < tokens {
                    let p = (scores[4 * i + j] - most).exp();
                    sum[i] += p;
                    weight.insert(j, p);
                }
            }
            if comptime!(dropout) {
                weight *= noise.keep_four(head.row(head.first + row(i, tiles)), key, tokens);
            }
            weights[row(i, tiles) * tiles.weight_stride() + lane] = weight;
        }

        sync_cube();
        let values = head.packed(2usize);
        load_columns::<F, N>(qkv, values, stride, first, tokens, &mut columns, tiles);
        sync_cube();
        accumulate(&weights, &columns, &mut outputs, tiles);
        first += tiles.columns();
    }

    sum_of_row(&mut sum, &mut sums, tiles);
    #[unroll]
    for i in 0..per_unit {
        let token = head.first + row(i, tiles);
        if token < tokens {
            if lane == 0 {
                lse[head.row(token)] = largest[i] + sum[i].ln();
            }
            #[unroll]
            for c in 0..width {
                let column = lane + c * tiles.lanes;
                if column < tiles.fours() {
                    let value = outputs[i * width + c] / Four::new(sum[i]);
                    write::<F, N>(value, out, head.output(token), column, tiles);
                }
            }
        }
    }
}
