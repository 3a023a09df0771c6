//! The encoder's input: kept patch tokens with their positions, behind the class token.
//!
//!   out[b, 0]     = cls + positions[0]
//!   out[b, 1 + k] = tokens[b, k] + positions[1 + ids_keep[b, k]]
//!
//! Only kept patches are embedded; the result is that of embedding all and dropping the removed ones.
//!
//! Source: `ViTMAEEmbeddings.forward` of transformers 4.57.6.
//! Oracle: `vitmae_testing::reference::encoder_assembly`.

use rayon::prelude::*;

use crate::parallel::{self, SharedMut};

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

/// # Shapes
/// `tokens: [B, K, D]`, `cls: [D]`, `positions: [1 + L, D]`, `ids_keep: [B, K]` below L,
/// `out: [B, 1 + K, D]`
///
/// # Panics
/// If a length or an index does not fit.
pub fn forward(
    tokens: &[f32],
    cls: &[f32],
    positions: &[f32],
    ids_keep: &[u32],
    shape: Shape,
    out: &mut [f32],
) {
    let Shape { batch, patches, kept, width } = shape;
    assert_eq!(tokens.len(), batch * kept * width, "encoder_assembly: tokens");
    assert_eq!(cls.len(), width, "encoder_assembly: cls");
    assert_eq!(positions.len(), (1 + patches) * width, "encoder_assembly: positions");
    assert_eq!(ids_keep.len(), batch * kept, "encoder_assembly: ids_keep");
    assert_eq!(out.len(), batch * (1 + kept) * width, "encoder_assembly: out");
    out.par_chunks_mut(((1 + kept) * width).max(1)).enumerate().for_each(|(image, out)| {
        let (first, rest) = out.split_at_mut(width);
        add(cls, &positions[..width], first);
        let ids = &ids_keep[image * kept..][..kept];
        let tokens = tokens[image * kept * width..][..kept * width].chunks_exact(width.max(1));
        for ((out, token), &id) in rest.chunks_exact_mut(width.max(1)).zip(tokens).zip(ids) {
            add(token, &positions[(1 + id as usize) * width..][..width], out);
        }
    });
}

/// `dtokens[b, k] = dout[b, 1 + k]`.
///
/// # Shapes
/// `dout: [B, 1 + K, D]`, `dtokens: [B, K, D]`
///
/// # Panics
/// If a length does not fit.
pub fn backward_tokens(dout: &[f32], shape: Shape, dtokens: &mut [f32]) {
    let Shape { batch, kept, width, .. } = shape;
    assert_eq!(dout.len(), batch * (1 + kept) * width, "encoder_assembly: dout");
    assert_eq!(dtokens.len(), batch * kept * width, "encoder_assembly: dtokens");
    let images = dout.par_chunks(((1 + kept) * width).max(1));
    dtokens
        .par_chunks_mut((kept * width).max(1))
        .zip(images)
        .for_each(|(dtokens, dout)| dtokens.copy_from_slice(&dout[width..]));
}

/// `dcls = Σ_b dout[b, 0]`; `accumulate` adds it to what is there.
///
/// # Shapes
/// `dout: [B, 1 + K, D]`, `dcls: [D]`
///
/// # Panics
/// If a length does not fit.
pub fn backward_cls(dout: &[f32], shape: Shape, dcls: &mut [f32], accumulate: bool) {
    let Shape { batch, kept, width, .. } = shape;
    assert_eq!(dout.len(), batch * (1 + kept) * width, "encoder_assembly: dout");
    assert_eq!(dcls.len(), width, "encoder_assembly: dcls");
    if !accumulate {
        dcls.fill(0.0);
    }
    for image in dout.chunks_exact(((1 + kept) * width).max(1)) {
        dcls.iter_mut().zip(image).for_each(|(sum, x)| *sum += x);
    }
}

/// `dpositions[0] = Σ_b dout[b, 0]`, `dpositions[1 + l]` the sum over the images that keep l.
///
/// # Shapes
/// `dout: [B, 1 + K, D]`, `ids_keep: [B, K]` below L, `dpositions: [1 + L, D]`
///
/// # Panics
/// If a length or an index does not fit.
pub fn backward_positions(
    dout: &[f32],
    ids_keep: &[u32],
    shape: Shape,
    dpositions: &mut [f32],
    accumulate: bool,
) {
    let Shape { batch, patches, kept, width } = shape;
    assert_eq!(dout.len(), batch * (1 + kept) * width, "encoder_assembly: dout");
    assert_eq!(ids_keep.len(), batch * kept, "encoder_assembly: ids_keep");
    assert_eq!(dpositions.len(), (1 + patches) * width, "encoder_assembly: dpositions");
    assert!(ids_keep.iter().all(|&id| (id as usize) < patches), "encoder_assembly: an index");
    if !accumulate {
        dpositions.fill(0.0);
    }
    // Tasks own columns, so that each sum runs over the images in order.
    let out = SharedMut::new(dpositions);
    let columns = width.div_ceil(16);
    parallel::for_each(columns, |task| {
        let first = task * 16;
        let count = 16.min(width - first);
        for image in 0..batch {
            let ids = &ids_keep[image * kept..][..kept];
            let rows = std::iter::once(0).chain(ids.iter().map(|&id| 1 + id as usize));
            for (token, row) in rows.enumerate() {
                let from = (image * (1 + kept) + token) * width + first;
                // SAFETY: this task alone owns these columns, and `row` is at most L.
                let sum = unsafe { out.slice(row * width + first, count) };
                sum.iter_mut().zip(&dout[from..from + count]).for_each(|(sum, x)| *sum += x);
            }
        }
    });
}

fn add(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = a + b;
    }
}
