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
