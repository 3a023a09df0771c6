//! The encoder's input: kept patch tokens with their positions, behind the class token.

use vitmae_cpu::encoder_assembly::{self as cpu, Shape};
#[cfg(feature = "gpu")]
use vitmae_kernels::encoder_assembly as gpu;

use crate::tensor::into_slot;
#[cfg(feature = "gpu")]
use crate::tensor::slot_array;
use crate::{Indices, Tensor, TensorError};

/// `out[b, 0] = cls + positions[0]`,
/// `out[b, 1 + k] = tokens[b, k] + positions[1 + ids_keep[b, k]]`.
///
/// # Shapes
/// `tokens: [B, K, D]`, `cls: [1, 1, D]`, `positions: [1, 1 + L, D]`, `ids_keep: [B, K]` below L →
/// `[B, 1 + K, D]`
///
/// # Errors
/// [`TensorError::Shape`] or [`TensorError::Index`] if an argument does not fit.
///
/// Source: `ViTMAEEmbeddings.forward` of transformers 4.57.6, where removed patches are embedded too and
/// then dropped.
pub fn encoder_assembly(
    tokens: &Tensor,
    cls: &Tensor,
    positions: &Tensor,
    ids_keep: &Indices,
) -> Result<Tensor, TensorError> {
    const OP: &str = "encoder_assembly";
    let [batch, kept, width] = tokens.dims(OP, "tokens")?;
    cls.expect(OP, "cls", &[1, 1, width])?;
    let [_, places, _] = positions.dims(OP, "positions")?;
    let patches = places.saturating_sub(1);
    positions.expect(OP, "positions", &[1, 1 + patches, width])?;
    expect_ids(OP, ids_keep, batch, kept, patches)?;
    Tensor::expect_together(OP, &[tokens, cls, positions])?;
    ids_keep.expect_beside(OP, tokens)?;
    let shape = Shape { batch, patches, kept, width };
    #[cfg(feature = "gpu")]
    if let Some(client) = tokens.device().client() {
        let out = Tensor::empty(tokens.device(), &[batch, 1 + kept, width])?;
        let (cls, positions) = (cls.array(), positions.array());
        let (ids, shape) = (ids_keep.ids(), of_kernels(shape));
        gpu::forward(client, tokens.array(), cls, positions, ids, shape, out.array());
        return Ok(out);
    }
    Tensor::written(tokens.device(), &[batch, 1 + kept, width], |out| {
        let (cls, positions) = (cls.as_slice(), positions.as_slice());
        cpu::forward(tokens.as_slice(), cls, positions, ids_keep.as_slice(), shape, out);
    })
}

/// `dtokens: [B, K, D]` for `dout: [B, 1 + K, D]`.
///
/// # Errors
/// [`TensorError::Rank`] if `dout` has another number of sides.
pub fn encoder_assembly_backward_tokens(dout: &Tensor) -> Result<Tensor, TensorError> {
    let shape = shape_of("encoder_assembly_backward_tokens", dout, 0)?;
    #[cfg(feature = "gpu")]
    if let Some(client) = dout.device().client() {
        let dtokens = Tensor::empty(dout.device(), &[shape.batch, shape.kept, shape.width])?;
        gpu::backward_tokens(client, dout.array(), of_kernels(shape), dtokens.array());
        return Ok(dtokens);
    }
    Tensor::written(dout.device(), &[shape.batch, shape.kept, shape.width], |dtokens| {
        cpu::backward_tokens(dout.as_slice(), shape, dtokens);
    })
}

/// Adds the class token's gradient `[1, 1, D]` to its slot.
///
/// # Errors
/// [`TensorError::Rank`] if `dout` has another number of sides.
pub fn encoder_assembly_backward_cls(
    dout: &Tensor,
    slot: &mut Option<Tensor>,
) -> Result<(), TensorError> {
    let shape = shape_of("encoder_assembly_backward_cls", dout, 0)?;
    #[cfg(feature = "gpu")]
    if let Some(client) = dout.device().client() {
        let (dcls, add) = slot_array(slot, dout.device(), &[1, 1, shape.width])?;
        gpu::backward_cls(client, dout.array(), of_kernels(shape), &dcls, add);
        return Ok(());
    }
    into_slot(slot, dout.device(), &[1, 1, shape.width], |dcls, add| {
        cpu::backward_cls(dout.as_slice(), shape, dcls, add);
    })
}

/// Adds the gradient of the positions `[1, 1 + L, D]` to their slot.
///
/// # Errors
/// [`TensorError::Shape`] or [`TensorError::Index`] if an argument does not fit.
pub fn encoder_assembly_backward_positions(
    dout: &Tensor,
    ids_keep: &Indices,
    patches: usize,
    slot: &mut Option<Tensor>,
) -> Result<(), TensorError> {
    const OP: &str = "encoder_assembly_backward_positions";
    let shape = shape_of(OP, dout, patches)?;
    expect_ids(OP, ids_keep, shape.batch, shape.kept, patches)?;
    ids_keep.expect_beside(OP, dout)?;
    #[cfg(feature = "gpu")]
    if let Some(client) = dout.device().client() {
        let (positions, add) = slot_array(slot, dout.device(), &[1, 1 + patches, shape.width])?;
        let (ids, shape) = (ids_keep.ids(), of_kernels(shape));
        gpu::backward_positions(client, dout.array(), ids, shape, &positions, add);
        return Ok(());
    }
    into_slot(slot, dout.device(), &[1, 1 + patches, shape.width], |positions, add| {
        cpu::backward_positions(dout.as_slice(), ids_keep.as_slice(), shape, positions, add);
    })
}

fn shape_of(op: &'static str, dout: &Tensor, patches: usize) -> Result<Shape, TensorError> {
    let [batch, tokens, width] = dout.dims(op, "dout")?;
    let kept = tokens.saturating_sub(1);
    Ok(Shape { batch, patches: patches.max(kept), kept, width })
}

fn expect_ids(
    op: &'static str,
    ids_keep: &Indices,
    batch: usize,
    kept: usize,
    patches: usize,
) -> Result<(), TensorError> {
    if ids_keep.shape() != [batch, kept] {
        let (actual, expected) = (ids_keep.shape().to_vec(), vec![batch, kept]);
        return Err(TensorError::Shape { op, tensor: "ids_keep", actual, expected });
    }
    ids_keep.expect_below(op, "ids_keep", patches)
}

#[cfg(feature = "gpu")]
fn of_kernels(Shape { batch, patches, kept, width }: Shape) -> gpu::Shape {
    gpu::Shape { batch, patches, kept, width }
}
