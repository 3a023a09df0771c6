//! The decoder's input: visible tokens back at their places, the mask token everywhere else.

use vitmae_cpu::decoder_assembly::{self as cpu, Shape};
#[cfg(feature = "gpu")]
use vitmae_kernels::decoder_assembly as gpu;

use crate::tensor::into_slot;
#[cfg(feature = "gpu")]
use crate::tensor::slot_array;
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
    Tensor::expect_together(OP, &[visible, mask_token, positions])?;
    ids_restore.expect_beside(OP, visible)?;
    #[cfg(feature = "gpu")]
    if let Some(client) = visible.device().client() {
        let out = Tensor::empty(visible.device(), &[batch, 1 + shape.patches, width])?;
        let (token, positions) = (mask_token.array(), positions.array());
        let (ids, shape) = (ids_restore.ids(), of_kernels(shape));
        gpu::forward(client, visible.array(), token, positions, ids, shape, out.array());
        return Ok(out);
    }
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
    #[cfg(feature = "gpu")]
    if let Some(client) = dout.device().client() {
        let dvisible = Tensor::empty(dout.device(), &[shape.batch, 1 + kept, shape.width])?;
        let (ids, shape) = (ids_restore.ids(), of_kernels(shape));
        gpu::backward_visible(client, dout.array(), ids, shape, dvisible.array());
        return Ok(dvisible);
    }
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
    #[cfg(feature = "gpu")]
    if let Some(client) = dout.device().client() {
        let (token, add) = slot_array(slot, dout.device(), &[1, 1, shape.width])?;
        let (ids, shape) = (ids_restore.ids(), of_kernels(shape));
        gpu::backward_mask_token(client, dout.array(), ids, shape, &token, add);
        return Ok(());
    }
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
    #[cfg(feature = "gpu")]
    if let Some(client) = dout.device().client() {
        let (positions, add) = slot_array(slot, dout.device(), &[1, tokens, width])?;
        gpu::backward_positions(client, dout.array(), of_kernels(shape), &positions, add);
        return Ok(());
    }
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
    ids_restore.expect_beside(op, dout)?;
    Ok(shape)
}

#[cfg(feature = "gpu")]
fn of_kernels(Shape { batch, patches, kept, width }: Shape) -> gpu::Shape {
    gpu::Shape { batch, patches, kept, width }
}
