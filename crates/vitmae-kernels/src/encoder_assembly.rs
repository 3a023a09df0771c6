//! The encoder's input: kept patch tokens with their positions, behind the class token.
//!
//!   out[b, 0]     = cls + positions[0]
//!   out[b, 1 + k] = tokens[b, k] + positions[1 + ids_keep[b, k]]
//!
//! Source: `ViTMAEEmbeddings.forward` of transformers 4.57.6.
//! Oracle: `vitmae_testing::reference::encoder_assembly`; CPU twin: `vitmae_cpu::encoder_assembly`.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use crate::gather::Choices;
use crate::{Array, Client, Dtype, Ids, launch, reduce};

/// Sizes of an assembly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// B
    pub batch: usize,
    /// L
    pub patches: usize,
    /// K
    pub kept: usize,
    /// D
    pub width: usize,
}

/// The encoder's input; a token whose id is not below L gets no position.
///
/// # Shapes
/// `tokens: [B, K, D]`, `cls: [D]` and `positions: [1 + L, D]` f32, `ids_keep: [B, K]` below L,
/// `out: [B, 1 + K, D]`
///
/// # Panics
/// If a length or a type does not fit.
pub fn forward(
    client: &Client,
    tokens: &Array,
    cls: &Array,
    positions: &Array,
    ids_keep: &Ids,
    shape: Shape,
    out: &Array,
) {
    let Shape { batch, patches, kept, width } = shape;
    assert_eq!(tokens.len, batch * kept * width, "encoder_assembly: tokens");
    assert_eq!((cls.len, cls.dtype), (width, Dtype::F32), "encoder_assembly: cls");
    check_positions(positions, shape);
    assert_eq!(ids_keep.len, batch * kept, "encoder_assembly: ids_keep");
    check_gradient(out, shape);
    assert_eq!(tokens.dtype, out.dtype, "encoder_assembly: types");
    if out.len == 0 {
        return;
    }
    let vector = launch::vector_size(width);
    let (count, dim) = launch::elements(client, out.len / vector);
    // SAFETY: guarded by the number of vectors in `out`, and ids by L.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            count,
            dim,
            vector,
            tokens.arg(),
            cls.arg(),
            positions.arg(),
            ids_keep.arg(),
            out.arg(),
            (out.len / vector) as u32,
            patches as u32,
            kept as u32,
            width / vector,
            out.dtype.elem(),
        );
    }
}

/// `dtokens[b, k] = dout[b, 1 + k]`.
///
/// # Shapes
/// `dout: [B, 1 + K, D]`, `dtokens: [B, K, D]`
///
/// # Panics
/// If a length does not fit or types differ.
pub fn backward_tokens(client: &Client, dout: &Array, shape: Shape, dtokens: &Array) {
    let Shape { batch, kept, width, .. } = shape;
    check_gradient(dout, shape);
    assert_eq!(dtokens.len, batch * kept * width, "encoder_assembly: dtokens");
    assert_eq!(dout.dtype, dtokens.dtype, "encoder_assembly: types");
    if dtokens.len == 0 {
        return;
    }
    let vector = launch::vector_size(width);
    let (count, dim) = launch::elements(client, dtokens.len / vector);
    // SAFETY: guarded by the number of vectors in `dtokens`.
    unsafe {
        backward_tokens_kernel::launch_unchecked(
            client,
            count,
            dim,
            vector,
            dout.arg(),
            dtokens.arg(),
            (dtokens.len / vector) as u32,
            (kept * width / vector) as u32,
            width / vector,
            dout.dtype.elem(),
        );
    }
}

/// `dcls = Σ_b dout[b, 0]`; `accumulate` adds it to what is there.
///
/// # Shapes
/// `dout: [B, 1 + K, D]`, `dcls: [D]` f32
///
/// # Panics
/// If a length or a type does not fit.
pub fn backward_cls(client: &Client, dout: &Array, shape: Shape, dcls: &Array, accumulate: bool) {
    let Shape { batch, kept, width, .. } = shape;
    check_gradient(dout, shape);
    assert_eq!((dcls.len, dcls.dtype), (width, Dtype::F32), "encoder_assembly: dcls");
    reduce::sum_strided_rows(client, dout, batch, (1 + kept) * width, dcls, accumulate);
}

/// `dpositions[0] = Σ_b dout[b, 0]`, `dpositions[1 + l]` the sum over the images that keep l;
/// `accumulate` adds it to what is there.
///
/// # Shapes
/// `dout: [B, 1 + K, D]`, `ids_keep: [B, K]` below L, `dpositions: [1 + L, D]` f32
///
/// # Panics
/// If a length or a type does not fit.
pub fn backward_positions(
    client: &Client,
    dout: &Array,
    ids_keep: &Ids,
    shape: Shape,
    dpositions: &Array,
    accumulate: bool,
) {
    let Shape { batch, patches, kept, width } = shape;
    check_gradient(dout, shape);
    assert_eq!(ids_keep.len, batch * kept, "encoder_assembly: ids_keep");
    check_positions(dpositions, shape);
    if dpositions.len == 0 {
        return;
    }
    let chosen = Choices::of(client, ids_keep, batch, patches, kept);
    let vector = launch::vector_size(width);
    let (count, dim) = launch::elements(client, dpositions.len / vector);
    // SAFETY: guarded by the number of vectors in `dpositions`, and links by K.
    unsafe {
        backward_positions_kernel::launch_unchecked(
            client,
            count,
            dim,
            vector,
            dout.arg(),
            chosen.first.arg(),
            chosen.next.arg(),
            dpositions.arg(),
            (dpositions.len / vector) as u32,
            batch as u32,
            patches as u32,
            kept as u32,
            width / vector,
            accumulate,
            dout.dtype.elem(),
        );
    }
}

fn check_positions(positions: &Array, Shape { patches, width, .. }: Shape) {
    let expected = ((1 + patches) * width, Dtype::F32);
    assert_eq!((positions.len, positions.dtype), expected, "encoder_assembly: positions");
}

fn check_gradient(dout: &Array, Shape { batch, kept, width, .. }: Shape) {
    assert_eq!(dout.len, batch * (1 + kept) * width, "encoder_assembly: out");
}

/// One unit writes one vector.
#[cube(launch_unchecked)]
fn forward_kernel<F: Float, N: Size>(
    tokens: &[Vector<F, N>],
    cls: &[Vector<f32, N>],
    positions: &[Vector<f32, N>],
    ids_keep: &[u32],
    out: &mut [Vector<F, N>],
    vectors: u32,
    patches: u32,
    kept: u32,
    #[comptime] width: usize,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < vectors as usize {
        let row = i / width;
        let column = i % width;
        let image = row / (1 + kept as usize);
        let token = row % (1 + kept as usize);
        if token == 0 {
            out[i] = Vector::cast_from(cls[column] + positions[column]);
        } else {
            let choice = image * kept as usize + token - 1;
            let mut value = Vector::<f32, N>::cast_from(tokens[choice * width + column]);
            let id = ids_keep[choice];
            if id < patches {
                value += positions[(1 + id as usize) * width + column];
            }
            out[i] = Vector::cast_from(value);
        }
    }
}

/// One unit copies one vector; `per_image` of them belong to an image.
#[cube(launch_unchecked)]
fn backward_tokens_kernel<F: Float, N: Size>(
    dout: &[Vector<F, N>],
    dtokens: &mut [Vector<F, N>],
    vectors: u32,
    per_image: u32,
    #[comptime] width: usize,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < vectors as usize {
        // Every image up to this one has a class token in front.
        dtokens[i] = dout[i + (i / per_image as usize + 1) * width];
    }
}

/// One unit owns one vector of the table and goes through the images in order.
#[cube(launch_unchecked)]
fn backward_positions_kernel<F: Float, N: Size>(
    dout: &[Vector<F, N>],
    first: &[u32],
    next: &[u32],
    dpositions: &mut [Vector<f32, N>],
    vectors: u32,
    batch: u32,
    patches: u32,
    kept: u32,
    #[comptime] width: usize,
    #[comptime] accumulate: bool,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < vectors as usize {
        let row = i / width;
        let column = i % width;
        let kept_rows = kept as usize;
        let mut sum = Vector::<f32, N>::new(0.0f32);
        if comptime!(accumulate) {
            sum = dpositions[i];
        }
        for image in 0..batch as usize {
            let start = image * (1 + kept_rows);
            if row == 0 {
                sum += Vector::<f32, N>::cast_from(dout[start * width + column]);
            } else {
                let mut k = first[image * patches as usize + row - 1];
                while k < kept {
                    let token = start + 1 + k as usize;
                    sum += Vector::<f32, N>::cast_from(dout[token * width + column]);
                    k = next[image * kept_rows + k as usize];
                }
            }
        }
        dpositions[i] = sum;
    }
}
