//! What happens to rows of scores between the products, in vectors of [`LANES`].
//!
//! Exponentials are powers of two: e^(scale·s − m) = 2^(log₂e·(scale·s − m)).
//! Rows stand `stride` apart, a multiple of `LANES`; what lies behind their N scores is padding.

use crate::simd::{self, LANES, fma, multiversion};
use std::f32::consts::{LN_2, LOG2_E};

multiversion! {
    /// Turns scores into e^(scale·(s − max)); `inverse` is 1 / their sum.
    ///
    /// The padding becomes 2⁻¹²⁶, which is lost beside the largest term of a sum, 1.
    pub(super) fn softmax(
        scores: &mut [f32],
        stride: usize,
        tokens: usize,
        scale: f32,
        inverse: &mut [f32],
        lse: &mut [f32],
    ) {
        let binary = scale * LOG2_E;
        for ((row, inverse), lse) in scores.chunks_exact_mut(stride).zip(inverse).zip(lse) {
            row[tokens..].fill(f32::NEG_INFINITY);
            let mut largest = [f32::NEG_INFINITY; LANES];
            for values in row.as_chunks::<LANES>().0 {
                for (largest, value) in largest.iter_mut().zip(values) {
                    *largest = if *value > *largest { *value } else { *largest };
                }
            }
            let largest = binary * simd::max_lanes(largest);

            let mut sum = [0.0f32; LANES];
            for values in row.as_chunks_mut::<LANES>().0 {
                for (value, sum) in values.iter_mut().zip(&mut sum) {
                    *value = simd::exp2::<FMA>(fma::<FMA>(*value, binary, -largest));
                    *sum += *value;
                }
            }
            let sum = simd::sum_lanes(sum);
            *inverse = 1.0 / sum;
            *lse = fma::<FMA>(largest, LN_2, sum.ln());
        }
    }
}

multiversion! {
    /// Turns scores into probabilities e^(scale·s − lse).
    pub(super) fn probabilities(scores: &mut [f32], stride: usize, scale: f32, lse: &[f32]) {
        let binary = scale * LOG2_E;
        for (row, lse) in scores.chunks_exact_mut(stride).zip(lse) {
            let lse = lse * LOG2_E;
            for value in row.iter_mut() {
                *value = simd::exp2::<FMA>(fma::<FMA>(*value, binary, -lse));
            }
        }
    }
}

multiversion! {
    /// Turns scores into probabilities p, and the gradients of kept probabilities dp into gradients of
    /// the products q·k: scale · p · (dp − delta).
    pub(super) fn gradients(
        scores: &mut [f32],
        gradients: &mut [f32],
        stride: usize,
        scale: f32,
        lse: &[f32],
        delta: &[f32],
    ) {
        let binary = scale * LOG2_E;
        let rows = scores.chunks_exact_mut(stride).zip(gradients.chunks_exact_mut(stride));
        for ((scores, gradients), (lse, delta)) in rows.zip(lse.iter().zip(delta)) {
            let lse = lse * LOG2_E;
            for (score, gradient) in scores.iter_mut().zip(gradients) {
                let p = simd::exp2::<FMA>(fma::<FMA>(*score, binary, -lse));
                *score = p;
                *gradient = (p * scale) * (*gradient - delta);
            }
        }
    }
}

multiversion! {
    /// Σ a·b.
    pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
        let (mut sum, mut rest) = ([0.0f32; LANES], 0.0);
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        for (a, b) in a.iter().zip(b) {
            for (sum, (a, b)) in sum.iter_mut().zip(a.iter().zip(b)) {
                *sum = fma::<FMA>(*a, *b, *sum);
            }
        }
        for (a, b) in a_rest.iter().zip(b_rest) {
            rest = fma::<FMA>(*a, *b, rest);
        }
        simd::sum_lanes(sum) + rest
    }
}
