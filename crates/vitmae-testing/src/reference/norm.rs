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

/// `min(1, longest / (value + 1e-6))`, or 1 without a `longest`; 0 if `value` is not finite or `scale` was 0.
///
/// Source: `torch.nn.utils.clip_grad_norm_`.
pub fn clip_scale(value: f64, longest: Option<f64>, scale: f64) -> f64 {
    match longest {
        _ if scale == 0.0 || !value.is_finite() => 0.0,
        Some(longest) => (longest / (value + 1e-6)).min(1.0),
        None => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_by_hand() {
        assert_eq!(sum_of_squares(&[3.0, -4.0]), 25.0);
        assert_eq!(global_norm(&[&[2.0, 3.0], &[-6.0]]), 7.0);
        assert_eq!(clip_scale(0.5, Some(1.0), 1.0), 1.0);
        assert!((clip_scale(4.0, Some(1.0), 0.5) - 0.25).abs() < 1e-6);
        assert_eq!(clip_scale(f64::NAN, None, 1.0), 0.0);
        assert_eq!(clip_scale(1.0, None, 0.0), 0.0);
        assert_eq!(first_non_finite(&[1.0, f64::INFINITY, f64::NAN]), Some(1));
        assert_eq!(first_non_finite(&[1.0, f64::MAX]), None);
    }
}
