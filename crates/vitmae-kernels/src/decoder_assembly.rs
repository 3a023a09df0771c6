//! The decoder's input: visible tokens back at their places, the mask token everywhere else.
//!
//!   r = ids_restore[b, l]
//!   out[b, 0]     = visible[b, 0] + positions[0]
//!   out[b, 1 + l] = (visible[b, 1 + r] if r < K else mask_token) + positions[1 + l]
//!
//! Source: `ViTMAEDecoder.forward` of transformers 4.57.6.
//! Oracle: `vitmae_testing::reference::decoder_assembly`; CPU twin: `vitmae_cpu::decoder_assembly`.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use crate::reduce::{self, COLUMNS, LANES, lane_sum};
use crate::{Array, Client, Dtype, Ids, launch};

/// Sizes of an assembly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// B
    pub batch: usize,
    /// L
    pub patches: usize,
    /// K
    pub kept: usize,
    /// E
    pub width: usize,
}

/// The decoder's input.
///
/// # Shapes
/// `visible: [B, 1 + K, E]`, `mask_token: [E]` and `positions: [1 + L, E]` f32, `ids_restore: [B, L]`,
/// `out: [B, 1 + L, E]`
///
/// # Panics
/// If a length or a type does not fit.
pub fn forward(
    client: &Client,
    visible: &Array,
    mask_token: &Array,
    positions: &Array,
    ids_restore: &Ids,
    shape: Shape,
    out: &Array,
) {
    let Shape { patches, kept, width, .. } = shape;
    check_visible(visible, shape);
    check_mask_token(mask_token, shape);
    check_positions(positions, shape);
    check_gradient(out, Some(ids_restore), shape);
    assert_eq!(visible.dtype, out.dtype, "decoder_assembly: types");
    if out.len == 0 {
        return;
    }
    let vector = launch::vector_size(width);
    let (count, dim) = launch::elements(client, out.len / vector);
    // SAFETY: guarded by the number of vectors in `out`, and ids by K.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            count,
            dim,
            vector,
            visible.arg(),
            mask_token.arg(),
            positions.arg(),
            ids_restore.arg(),
            out.arg(),
            (out.len / vector) as u32,
            patches as u32,
            kept as u32,
            width / vector,
            out.dtype.elem(),
        );
    }
}

/// `dvisible[b, 0] = dout[b, 0]`, `dvisible[b, 1 + r] = dout[b, 1 + l]` where `r = ids_restore[b, l]`
/// is below K.
///
/// # Shapes
/// `dout: [B, 1 + L, E]`, `ids_restore: [B, L]`, a permutation of `0..L` in each image, so that every value
/// has one writer; `dvisible: [B, 1 + K, E]`
///
/// # Panics
/// If a length does not fit or types differ.
pub fn backward_visible(
    client: &Client,
    dout: &Array,
    ids_restore: &Ids,
    shape: Shape,
    dvisible: &Array,
) {
    let Shape { patches, kept, width, .. } = shape;
    check_gradient(dout, Some(ids_restore), shape);
    check_visible(dvisible, shape);
    assert_eq!(dout.dtype, dvisible.dtype, "decoder_assembly: types");
    if dout.len == 0 {
        return;
    }
    let vector = launch::vector_size(width);
    let (count, dim) = launch::elements(client, dout.len / vector);
    // SAFETY: guarded by the number of vectors in `dout`, and ids by K.
    unsafe {
        backward_visible_kernel::launch_unchecked(
            client,
            count,
            dim,
            vector,
            dout.arg(),
            ids_restore.arg(),
            dvisible.arg(),
            (dout.len / vector) as u32,
            patches as u32,
            kept as u32,
            width / vector,
            dout.dtype.elem(),
        );
    }
}

/// The sum of `dout` over every removed patch; `accumulate` adds it to what is there.
///
/// # Shapes
/// `dout: [B, 1 + L, E]`, `ids_restore: [B, L]`, `dmask_token: [E]` f32
///
/// # Panics
/// If a length or a type does not fit.
pub fn backward_mask_token(
    client: &Client,
    dout: &Array,
    ids_restore: &Ids,
    shape: Shape,
    dmask_token: &Array,
    accumulate: bool,
) {
    let Shape { batch, patches, kept, width } = shape;
    check_gradient(dout, Some(ids_restore), shape);
    check_mask_token(dmask_token, shape);
    if width == 0 {
        return;
    }
    let parts = reduce::Parts::of(batch * patches);
    let partial = Array::empty(client, parts.count * width, Dtype::F32);
    let (count, dim) = reduce::tiles(client, parts.count, width);
    // SAFETY: guarded by the number of rows, columns and parts.
    unsafe {
        backward_mask_token_kernel::launch_unchecked(
            client,
            count,
            dim,
            dout.arg(),
            ids_restore.arg(),
            partial.arg(),
            (batch * patches) as u32,
            width as u32,
            parts.count as u32,
            parts.rows as u32,
            patches as u32,
            kept as u32,
            dout.dtype.elem(),
        );
    }
    reduce::sum_rows(client, &partial, dmask_token, accumulate);
}

/// `dpositions = Σ_b dout[b]`; `accumulate` adds it to what is there.
///
/// # Shapes
/// `dout: [B, 1 + L, E]`, `dpositions: [1 + L, E]` f32
///
/// # Panics
/// If a length or a type does not fit.
pub fn backward_positions(
    client: &Client,
    dout: &Array,
    shape: Shape,
    dpositions: &Array,
    accumulate: bool,
) {
    check_gradient(dout, None, shape);
    check_positions(dpositions, shape);
    reduce::sum_rows(client, dout, dpositions, accumulate);
}

fn check_visible(visible: &Array, Shape { batch, kept, width, .. }: Shape) {
    assert_eq!(visible.len, batch * (1 + kept) * width, "decoder_assembly: visible");
}

fn check_mask_token(mask_token: &Array, shape: Shape) {
    let expected = (shape.width, Dtype::F32);
    assert_eq!((mask_token.len, mask_token.dtype), expected, "decoder_assembly: mask_token");
}

fn check_positions(positions: &Array, Shape { patches, width, .. }: Shape) {
    let expected = ((1 + patches) * width, Dtype::F32);
    assert_eq!((positions.len, positions.dtype), expected, "decoder_assembly: positions");
}

fn check_gradient(dout: &Array, ids_restore: Option<&Ids>, shape: Shape) {
    let Shape { batch, patches, width, .. } = shape;
    assert_eq!(dout.len, batch * (1 + patches) * width, "decoder_assembly: out");
    if let Some(ids) = ids_restore {
        assert_eq!(ids.len, batch * patches, "decoder_assembly: ids_restore");
    }
}

/// One unit writes one vector.
#[cube(launch_unchecked)]
fn forward_kernel<F: Float, N: Size>(
    visible: &[Vector<F, N>],
    mask_token: &[Vector<f32, N>],
    positions: &[Vector<f32, N>],
    ids_restore: &[u32],
    out: &mut [Vector<F, N>],
    vectors: u32,
    patches: u32,
    kept: u32,
    #[comptime] width: usize,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < vectors as usize {
        let column = i % width;
        let row = i / width;
        let token = row % (1 + patches as usize);
        let source = source_of(ids_restore, row, patches);
        let mut value = positions[token * width + column];
        if source <= kept {
            let image = row / (1 + patches as usize);
            let from = image * (1 + kept as usize) + source as usize;
            value += Vector::<f32, N>::cast_from(visible[from * width + column]);
        } else {
            value += mask_token[column];
        }
        out[i] = Vector::cast_from(value);
    }
}

/// The row among the visible ones that belongs at row `row` of the output; beyond K for a removed patch.
#[cube]
fn source_of(ids_restore: &[u32], row: usize, patches: u32) -> u32 {
    let patches = patches as usize;
    let image = row / (1 + patches);
    let token = row % (1 + patches);
    let mut source = 0u32;
    if token > 0 {
        source = 1 + ids_restore[image * patches + token - 1];
    }
    source
}

/// One unit copies one vector, if its patch is visible.
#[cube(launch_unchecked)]
fn backward_visible_kernel<F: Float, N: Size>(
    dout: &[Vector<F, N>],
    ids_restore: &[u32],
    dvisible: &mut [Vector<F, N>],
    vectors: u32,
    patches: u32,
    kept: u32,
    #[comptime] width: usize,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < vectors as usize {
        let row = i / width;
        let source = source_of(ids_restore, row, patches);
        if source <= kept {
            let image = row / (1 + patches as usize);
            let to = image * (1 + kept as usize) + source as usize;
            dvisible[to * width + i % width] = dout[i];
        }
    }
}

/// One cube sums its columns over the removed patches of one part of all patches.
#[cube(launch_unchecked)]
fn backward_mask_token_kernel<F: Float>(
    dout: &[F],
    ids_restore: &[u32],
    partial: &mut [f32],
    rows: u32,
    width: u32,
    parts: u32,
    per_part: u32,
    patches: u32,
    kept: u32,
    #[define(F)] _dtype: ElemType,
) {
    let tiles = width.div_ceil(COLUMNS);
    let part = CUBE_POS as u32 / tiles;
    let column = CUBE_POS as u32 % tiles * COLUMNS + UNIT_POS_X;
    let last = u32::min((part + 1) * per_part, rows);
    let mut sum = 0.0f32;
    if column < width {
        let mut row = part * per_part + UNIT_POS_Y;
        while row < last {
            if ids_restore[row as usize] >= kept {
                // Every image up to this one has a class token in front.
                let from = row + row / patches + 1;
                sum += f32::cast_from(dout[from as usize * width as usize + column as usize]);
            }
            row += LANES;
        }
    }
    let total = lane_sum(sum);
    if UNIT_POS_Y == 0 && column < width && part < parts {
        partial[part as usize * width as usize + column as usize] = total;
    }
}
