//! Euclidean norm, summed in f64, and the search for values that are not numbers.
//!
//! Oracle: `vitmae_testing::reference::norm`.

use rayon::prelude::*;

use crate::parallel::CHUNK;
use crate::simd::multiversion;

/// `Σ x²` in f64: chunks of fixed length in eight lanes each, added in order.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    // Collected in order, so the sum does not depend on which thread did what.
    let partial: Vec<f64> = x.par_chunks(CHUNK).map(squares).collect();
    partial.iter().sum()
}

/// `√Σ x²`; NaN if a value is, infinite if one is.
pub fn norm(x: &[f32]) -> f64 {
    sum_of_squares(x).sqrt()
}

/// The factor of gradients whose norm is `value`: `min(1, longest / (value + 1e-6))`, or 1 without a
/// `longest`; 0 if `value` is not finite or if `scale`, the factor so far, was 0, so that one bad value
/// stops every update after it.
///
/// Source: `torch.nn.utils.clip_grad_norm_`.
pub fn clip_scale(value: f32, longest: Option<f32>, scale: f32) -> f32 {
    if scale == 0.0 || !value.is_finite() {
        return 0.0;
    }
    longest.map_or(1.0, |longest| (longest / (value + 1e-6)).min(1.0))
}

/// Index of the first value that is NaN or infinite.
pub fn first_non_finite(x: &[f32]) -> Option<usize> {
    x.iter().position(|x| !x.is_finite())
}

multiversion! {
    fn squares(x: &[f32]) -> f64 {
        let mut lanes = [0.0f64; 8];
        let (rows, rest) = x.as_chunks::<8>();
        for row in rows {
            for (lane, x) in lanes.iter_mut().zip(row) {
                let x = f64::from(*x);
                *lane += x * x;
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane += f64::from(*x) * f64::from(*x);
        }
        lanes.iter().sum()
    }
}
