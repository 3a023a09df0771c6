//! The decoder's input: visible tokens back at their places, the mask token everywhere else.

use vitmae_cpu::decoder_assembly::{self as cpu, Shape};

use crate::tensor::into_slot;
use crate::{Indices, Tensor, TensorError};

/// `out[b, 0] = visible[b, 0] + positions[0]`, and with `r = ids_restore[b, l]`:
/// `out[b, 1 + l] = (visible[b, 1 + r] if r < K else mask_token) + positions[1 + l]`.
///
/// # Shapes
/// `visible: [B, 1 + K, E]`, `mask_token: [1, 1, E]`, `positions: [1, 1 + L, E]`,
/// `ids_restore: [B, L]` → `[B, 1 + L, E]`
///
/// # Errors
/// [`TensorError::Shape`] or [`TensorError::Index`] if an argument does not fit.
///
/// Source: `ViTMAEDecoder.forward` of transformers 4.57.6.
pub fn decoder_assembly(
    visible: &Tensor,
    mask_token: &Tensor,
    ids_restore: &Indices,
    positions: &Tensor,
) -> Result<Tensor, TensorError> {
    const OP: &str = "decoder_assembly";
    let [batch, tokens, width] = visible.dims(OP, "visible")?;
    let shape = shape_of(OP, ids_restore, tokens.saturating_sub(1), width, batch)?;
    mask_token.expect(OP, "mask_token", &[1, 1, width])?;
    positions.expect(OP, "positions", &[1, 1 + shape.patches, width])?;
    Tensor::written(visible.device(), &[batch, 1 + shape.patches, width], |out| {
        let (token, positions) = (mask_token.as_slice(), positions.as_slice());
        cpu::forward(visible.as_slice(), token, positions, ids_restore.as_slice(), shape, out);
    })
}

/// `dvisible: [B, 1 + K, E]` for `dout: [B, 1 + L, E]`.
///
/// # Errors
/// [`TensorError::Shape`] if a shape does not fit.
pub fn decoder_assembly_backward_visible(
    dout: &Tensor,
    ids_restore: &Indices,
    kept: usize,
) -> Result<Tensor, TensorError> {
    let shape = shape_of_gradient("decoder_assembly_backward_visible", dout, ids_restore, kept)?;
    Tensor::written(dout.device(), &[shape.batch, 1 + kept, shape.width], |dvisible| {
        cpu::backward_visible(dout.as_slice(), ids_restore.as_slice(), shape, dvisible);
    })
}

/// Adds the mask token's gradient `[1, 1, E]` to its slot.
///
/// # Errors
/// [`TensorError::Shape`] if a shape does not fit.
pub fn decoder_assembly_backward_mask_token(
    dout: &Tensor,
    ids_restore: &Indices,
    kept: usize,
    slot: &mut Option<Tensor>,
) -> Result<(), TensorError> {
    let shape = shape_of_gradient("decoder_assembly_backward_mask_token", dout, ids_restore, kept)?;
    into_slot(slot, dout.device(), &[1, 1, shape.width], |token, add| {
        cpu::backward_mask_token(dout.as_slice(), ids_restore.as_slice(), shape, token, add);
    })
}

/// Adds the gradient of the positions `[1, 1 + L, E]` to their slot.
///
/// # Errors
/// [`TensorError::Shape`] if a shape does not fit.
pub fn decoder_assembly_backward_positions(
    dout: &Tensor,
    slot: &mut Option<Tensor>,
) -> Result<(), TensorError> {
    let [batch, tokens, width] = dout.dims("decoder_assembly_backward_positions", "dout")?;
    let shape = Shape { batch, patches: tokens.saturating_sub(1), kept: 0, width };
    into_slot(slot, dout.device(), &[1, tokens, width], |positions, add| {
        cpu::backward_positions(dout.as_slice(), shape, positions, add);
    })
}

fn shape_of(
    op: &'static str,
    ids_restore: &Indices,
    kept: usize,
    width: usize,
    batch: usize,
) -> Result<Shape, TensorError> {
    let tensor = "ids_restore";
    let &[found, patches] = ids_restore.shape() else {
        let actual = ids_restore.shape().to_vec();
        return Err(TensorError::Rank { op, tensor, actual, expected: 2 });
    };
    if found != batch || kept > patches {
        let (actual, expected) = (ids_restore.shape().to_vec(), vec![batch, patches.max(kept)]);
        return Err(TensorError::Shape { op, tensor, actual, expected });
    }
    ids_restore.expect_below(op, tensor, patches)?;
    Ok(Shape { batch, patches, kept, width })
}

fn shape_of_gradient(
    op: &'static str,
    dout: &Tensor,
    ids_restore: &Indices,
    kept: usize,
) -> Result<Shape, TensorError> {
    let [batch, _, width] = dout.dims(op, "dout")?;
    let shape = shape_of(op, ids_restore, kept, width, batch)?;
    dout.expect(op, "dout", &[batch, 1 + shape.patches, width])?;
    Ok(shape)
}
