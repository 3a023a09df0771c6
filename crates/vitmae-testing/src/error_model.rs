//! How far an f32 kernel may lie from the f64 reference; stated for people in `docs/numerics.md`.
//!
//!   |actual − expected| ≤ FACTOR · √terms · u · (rms(expected) + |expected|)          u = 2⁻²⁴
//!
//! `terms` is the length of the longest chain of roundings behind one value: k for a sum of k products.
//! Rounding errors of a chain are as good as independent, so they grow with √terms, in any order of
//! summation; `rms(expected)` is the size that such a sum has when its terms do not cancel.

use crate::close::Tolerance;

/// Unit roundoff of f32.
pub const U: f64 = 1.0 / (1u64 << 24) as f64;

/// Standard deviations allowed; the largest of a million errors lies near five.
pub const FACTOR: f64 = 8.0;

/// The tolerance of a kernel whose values are sums of `terms` terms each.
pub fn tolerance(terms: usize, expected: &[f64]) -> Tolerance {
    let squares: f64 = expected.iter().map(|v| v * v).sum();
    tolerance_at(terms, (squares / expected.len().max(1) as f64).sqrt())
}

/// The same for values of size `scale`, where the expected values cancel and do not show it.
pub fn tolerance_at(terms: usize, scale: f64) -> Tolerance {
    let rel = FACTOR * (terms.max(1) as f64).sqrt() * U;
    Tolerance::new(rel * scale, rel)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::compare;
    use crate::draws::Draws;

    /// Sums of `k` products in f32 and in f64; no product is larger than 1.
    fn sums(k: usize) -> (Vec<f32>, Vec<f64>) {
        let mut draws = Draws::new(40);
        let (mut actual, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..200 {
            let (a, b) = (draws.vec_f32(k), draws.vec_f32(k));
            actual.push(a.iter().zip(&b).map(|(a, b)| a * b).sum());
            expected.push(a.iter().zip(&b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum());
        }
        (actual, expected)
    }

    #[test]
    fn plain_f32_sums_pass_at_every_length() {
        for k in [1, 2, 31, 257, 4096] {
            let (actual, expected) = sums(k);
            compare("sum", &actual, &expected, tolerance(k, &expected)).assert();
        }
    }

    #[test]
    fn a_lost_term_fails_at_every_length() {
        for k in [1, 2, 31, 257, 4096] {
            let (mut actual, expected) = sums(k);
            actual[7] += 0.01; // a hundredth of the largest possible term
            assert!(!compare("sum", &actual, &expected, tolerance(k, &expected)).passed(), "{k}");
        }
    }

    #[test]
    fn bf16_sums_fail() {
        // Eight bits of precision are not taken for f32.
        let (actual, expected) = sums(257);
        let rounded: Vec<f32> =
            actual.iter().map(|v| f32::from_bits(v.to_bits() & 0xffff_0000)).collect();
        assert!(!compare("sum", &rounded, &expected, tolerance(257, &expected)).passed());
    }
}
