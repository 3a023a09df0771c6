//! Euclidean norm, and the factor of an update that follows from it.

use crate::{Tensor, TensorError};

/// `√Σ x²` over all tensors taken together, as for all gradients of a model, one value, `[]`; NaN or infinite
/// if a value is.
///
/// # Errors
/// [`TensorError::Devices`] if the tensors are not on `device`.
pub fn global_norm(device: &crate::Device, tensors: &[&Tensor]) -> Result<Tensor, TensorError> {
    let mut norm = Tensor::empty(device, &[])?;
    let mut all = vec![&norm];
    all.extend(tensors);
    Tensor::expect_together("global_norm", &all)?;
    #[cfg(feature = "gpu")]
    if let Some(client) = device.client() {
        let arrays: Vec<_> = tensors.iter().map(|x| x.array()).collect();
        vitmae_kernels::norm::global_norm(client, &arrays, norm.array());
        return Ok(norm);
    }
    let squares = tensors.iter().map(|x| vitmae_cpu::norm::sum_of_squares(x.as_slice()));
    norm.make_mut()[0] = squares.sum::<f64>().sqrt() as f32;
    Ok(norm)
}

/// The factor of an update, in place: `min(1, longest / (value + 1e-6))` for gradients of norm `value`, 1
/// without a `longest`; 0 if `value` is not finite or if the factor was 0, so that one bad value stops every
/// update after it, without a look at it from here.
///
/// # Shapes
/// `value, scale: []`
///
/// # Errors
/// [`TensorError::Shape`] if one is not a single value, [`TensorError::Devices`] if they are not together.
///
/// Source: `torch.nn.utils.clip_grad_norm_`.
pub fn clip_scale(
    value: &Tensor,
    longest: Option<f64>,
    scale: &mut Tensor,
) -> Result<(), TensorError> {
    value.expect("clip_scale", "value", &[])?;
    scale.expect("clip_scale", "scale", &[])?;
    Tensor::expect_together("clip_scale", &[value, scale])?;
    let longest = longest.map(|longest| longest as f32);
    #[cfg(feature = "gpu")]
    if let Some(client) = value.device().client() {
        vitmae_kernels::norm::clip_scale(client, value.array(), longest, scale.array_mut()?);
        return Ok(());
    }
    let next = vitmae_cpu::norm::clip_scale(value.as_slice()[0], longest, scale.as_slice()[0]);
    scale.make_mut()[0] = next;
    Ok(())
}
