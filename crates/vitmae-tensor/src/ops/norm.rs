//! Euclidean norm.

use crate::{Tensor, TensorError};

/// `√Σ x²`, summed in f64; NaN or infinite if a value is.
///
/// # Errors
/// None today; a device may fail.
pub fn norm(x: &Tensor) -> Result<f32, TensorError> {
    Ok(vitmae_cpu::norm::norm(x.as_slice()) as f32)
}
