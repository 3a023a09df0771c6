//! Global norm of gradients, and the factor that clips it.

/// `Σ x²`.
pub fn sum_of_squares(x: &[f64]) -> f64 {
    x.iter().map(|v| v * v).sum()
}

/// The 2-norm of all arrays taken together.
pub fn global_norm(arrays: &[&[f64]]) -> f64 {
    arrays.iter().map(|x| sum_of_squares(x)).sum::<f64>().sqrt()
}

/// Index of the first NaN or infinity.
pub fn first_non_finite(x: &[f64]) -> Option<usize> {
    x.iter().position(|v| !v.is_finite())
}

/// `min(1, max_norm / (norm + 1e-6))`.
///
/// Source: `torch.nn.utils.clip_grad_norm_`.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    (max_norm / (norm + 1e-6)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_by_hand() {
        assert_eq!(sum_of_squares(&[3.0, -4.0]), 25.0);
        assert_eq!(global_norm(&[&[2.0, 3.0], &[-6.0]]), 7.0);
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert!((clip_factor(4.0, 1.0) - 0.25).abs() < 1e-6);
        assert_eq!(first_non_finite(&[1.0, f64::INFINITY, f64::NAN]), Some(1));
        assert_eq!(first_non_finite(&[1.0, f64::MAX]), None);
    }
}
