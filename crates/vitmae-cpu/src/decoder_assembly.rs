//! The decoder's input: visible tokens back at their places, the mask token everywhere else.
//!
//!   r = ids_restore[b, l]
//!   out[b, 0]     = visible[b, 0] + positions[0]
//!   out[b, 1 + l] = (visible[b, 1 + r] if r < K else mask_token) + positions[1 + l]
//!
//! Source: `ViTMAEDecoder.forward` of transformers 4.57.6.
//! Oracle: `vitmae_testing::reference::decoder_assembly`.

use rayon::prelude::*;

use crate::parallel::{self, SharedMut};
use crate::scratch;

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

/// # Shapes
/// `visible: [B, 1 + K, E]`, `mask_token: [E]`, `positions: [1 + L, E]`, `ids_restore: [B, L]`,
/// `out: [B, 1 + L, E]`
///
/// # Panics
/// If a length does not fit.
pub fn forward(
    visible: &[f32],
    mask_token: &[f32],
    positions: &[f32],
    ids_restore: &[u32],
    shape: Shape,
    out: &mut [f32],
) {
    let Shape { batch, patches, kept, width } = shape;
    assert_eq!(visible.len(), batch * (1 + kept) * width, "decoder_assembly: visible");
    assert_eq!(mask_token.len(), width, "decoder_assembly: mask_token");
    assert_eq!(positions.len(), (1 + patches) * width, "decoder_assembly: positions");
    assert_eq!(ids_restore.len(), batch * patches, "decoder_assembly: ids_restore");
    assert_eq!(out.len(), batch * (1 + patches) * width, "decoder_assembly: out");
    out.par_chunks_mut(((1 + patches) * width).max(1)).enumerate().for_each(|(image, out)| {
        let visible = &visible[image * (1 + kept) * width..][..(1 + kept) * width];
        let ids = &ids_restore[image * patches..][..patches];
        let rows = std::iter::once(0).chain(ids.iter().map(|&r| 1 + r as usize));
        let places = out.chunks_exact_mut(width).zip(positions.chunks_exact(width));
        for (row, (out, position)) in rows.zip(places) {
            let token = if row <= kept { &visible[row * width..][..width] } else { mask_token };
            for ((out, token), position) in out.iter_mut().zip(token).zip(position) {
                *out = token + position;
            }
        }
    });
}

/// `dvisible[b, 0] = dout[b, 0]`, `dvisible[b, 1 + r] = dout[b, 1 + l]` where `r = ids_restore[b, l]`
/// is below K.
///
/// # Shapes
/// `dout: [B, 1 + L, E]`, `ids_restore: [B, L]`, a permutation of `0..L` in each image,
/// `dvisible: [B, 1 + K, E]`
///
/// # Panics
/// If a length does not fit.
pub fn backward_visible(dout: &[f32], ids_restore: &[u32], shape: Shape, dvisible: &mut [f32]) {
    let Shape { batch, patches, kept, width } = shape;
    check_gradient(dout, ids_restore, shape);
    assert_eq!(dvisible.len(), batch * (1 + kept) * width, "decoder_assembly: dvisible");
    dvisible.par_chunks_mut(((1 + kept) * width).max(1)).enumerate().for_each(
        |(image, dvisible)| {
            let dout = &dout[image * (1 + patches) * width..][..(1 + patches) * width];
            let ids = &ids_restore[image * patches..][..patches];
            dvisible[..width].copy_from_slice(&dout[..width]);
            for (patch, &r) in ids.iter().enumerate().filter(|(_, r)| (**r as usize) < kept) {
                let from = &dout[(1 + patch) * width..][..width];
                dvisible[(1 + r as usize) * width..][..width].copy_from_slice(from);
            }
        },
    );
}

/// The sum of `dout` over every removed patch; `accumulate` adds it to what is there.
///
/// # Shapes
/// `dout: [B, 1 + L, E]`, `ids_restore: [B, L]`, `dmask_token: [E]`
///
/// # Panics
/// If a length does not fit.
pub fn backward_mask_token(
    dout: &[f32],
    ids_restore: &[u32],
    shape: Shape,
    dmask_token: &mut [f32],
    accumulate: bool,
) {
    let Shape { batch, patches, kept, width } = shape;
    check_gradient(dout, ids_restore, shape);
    assert_eq!(dmask_token.len(), width, "decoder_assembly: dmask_token");
    // One partial sum an image, then the images in order.
    let mut partial = scratch::take(batch * width);
    partial.par_chunks_mut(width.max(1)).enumerate().for_each(|(image, sum)| {
        sum.fill(0.0);
        let ids = &ids_restore[image * patches..][..patches];
        for (patch, _) in ids.iter().enumerate().filter(|(_, r)| (**r as usize) >= kept) {
            let row = &dout[(image * (1 + patches) + 1 + patch) * width..][..width];
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
    });
    if !accumulate {
        dmask_token.fill(0.0);
    }
    for image in partial.chunks_exact(width.max(1)) {
        dmask_token.iter_mut().zip(image).for_each(|(sum, x)| *sum += x);
    }
}

/// `dpositions = Σ_b dout[b]`; `accumulate` adds it to what is there.
///
/// # Shapes
/// `dout: [B, 1 + L, E]`, `dpositions: [1 + L, E]`
///
/// # Panics
/// If a length does not fit.
pub fn backward_positions(dout: &[f32], shape: Shape, dpositions: &mut [f32], accumulate: bool) {
    let Shape { batch, patches, width, .. } = shape;
    let image = (1 + patches) * width;
    assert_eq!(dout.len(), batch * image, "decoder_assembly: dout");
    assert_eq!(dpositions.len(), image, "decoder_assembly: dpositions");
    let out = SharedMut::new(dpositions);
    parallel::for_each(1 + patches, |row| {
        // SAFETY: each task owns its row.
        let sum = unsafe { out.slice(row * width, width) };
        if !accumulate {
            sum.fill(0.0);
        }
        for b in 0..batch {
            let row = &dout[b * image + row * width..][..width];
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
    });
}

fn check_gradient(dout: &[f32], ids_restore: &[u32], shape: Shape) {
    let Shape { batch, patches, width, .. } = shape;
    assert_eq!(dout.len(), batch * (1 + patches) * width, "decoder_assembly: dout");
    assert_eq!(ids_restore.len(), batch * patches, "decoder_assembly: ids_restore");
}
