//! Euclidean norm.

use crate::{Tensor, TensorError};

/// `√Σ x²` over all tensors taken together, as for all gradients of a model; NaN or infinite if a value is.
/// Waits for the operations that the values come from.
///
/// # Errors
/// [`TensorError::Devices`] if the tensors are not on one device, [`TensorError::DeviceFailed`] if it fails.
pub fn global_norm(tensors: &[&Tensor]) -> Result<f64, TensorError> {
    Tensor::expect_together("global_norm", tensors)?;
    #[cfg(feature = "gpu")]
    if let Some((device, client)) =
        tensors.first().and_then(|first| Some((first.device(), first.device().client()?)))
    {
        let arrays: Vec<_> = tensors.iter().map(|x| x.array()).collect();
        let sum = Tensor::empty(device, &[])?;
        vitmae_kernels::norm::sum_of_squares_of_all(client, &arrays, sum.array());
        return Ok(f64::from(sum.item()?).sqrt());
    }
    let squares = tensors.iter().map(|x| vitmae_cpu::norm::sum_of_squares(x.as_slice()));
    Ok(squares.sum::<f64>().sqrt())
}
