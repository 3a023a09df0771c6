//! Central differences in f64 against an analytic gradient.
//!
//!   g[i] ≈ (f(x + h·e_i) − f(x − h·e_i)) / 2h
//!
//! The step is that of PyTorch's `gradcheck` (1e-6). Its tolerances (1e-5 and 1e-3) allow for
//! objectives of any size; the references here are small and smooth, so [`TOLERANCE`] is tighter.

use crate::close::{Report, Tolerance, compare};

/// The step `h` of the central difference.
pub const STEP: f64 = 1e-6;

/// What a correct gradient of a small smooth function meets at [`STEP`]: truncation is about
/// `h²·f‴`, rounding about `1e-16·|f|/h`.
pub const TOLERANCE: Tolerance = Tolerance::new(1e-7, 1e-6);

/// The gradient of `f` at `x` by central differences.
pub fn numeric_gradient(f: impl FnMut(&[f64]) -> f64, x: &[f64]) -> Vec<f64> {
    let all: Vec<usize> = (0..x.len()).collect();
    numeric_gradient_at(f, x, &all)
}

/// Some elements of the gradient of `f` at `x`, for arrays too long to move every element.
pub fn numeric_gradient_at(
    mut f: impl FnMut(&[f64]) -> f64,
    x: &[f64],
    indices: &[usize],
) -> Vec<f64> {
    let mut moved = x.to_vec();
    let mut gradient = Vec::with_capacity(indices.len());
    for &i in indices {
        moved[i] = x[i] + STEP;
        let (above, up) = (f(&moved), moved[i]);
        moved[i] = x[i] - STEP;
        let (below, down) = (f(&moved), moved[i]);
        moved[i] = x[i];
        // The step that was really taken, after rounding.
        gradient.push((above - below) / (up - down));
    }
    gradient
}

/// Compares an analytic gradient with central differences of `f` at `x`.
pub fn check_gradient(
    name: &str,
    f: impl FnMut(&[f64]) -> f64,
    x: &[f64],
    analytic: &[f64],
    tolerance: Tolerance,
) -> Report {
    compare(name, analytic, &numeric_gradient(f, x), tolerance)
}

/// Ends the test unless `analytic` is the gradient of `f` at `x` within [`TOLERANCE`].
///
/// # Panics
/// If it is not.
#[track_caller]
pub fn assert_gradient(name: &str, f: impl FnMut(&[f64]) -> f64, x: &[f64], analytic: &[f64]) {
    check_gradient(name, f, x, analytic, TOLERANCE).assert();
}

/// The inner product, which turns an output into the scalar that a gradient needs.
///
/// # Panics
/// If the lengths differ.
#[track_caller]
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "inner product of different lengths");
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// f(x) = x₀²·x₁ + sin(x₂), with its gradient.
    fn f(x: &[f64]) -> f64 {
        x[0] * x[0] * x[1] + x[2].sin()
    }

    const X: [f64; 3] = [0.7, -1.3, 0.4];

    fn gradient() -> Vec<f64> {
        vec![2.0 * X[0] * X[1], X[0] * X[0], X[2].cos()]
    }

    #[test]
    fn the_right_gradient_passes() {
        assert_gradient("f", f, &X, &gradient());
    }

    #[test]
    fn wrong_gradients_fail() {
        let right = gradient();
        let wrong = [
            vec![-right[0], right[1], right[2]],
            vec![right[1], right[0], right[2]],
            vec![right[0], right[1], right[2] * 1.00001],
            vec![right[0], right[1], 0.0],
            vec![right[0], right[1], f64::NAN],
            vec![right[0], right[1]],
        ];
        for analytic in wrong {
            assert!(!check_gradient("f", f, &X, &analytic, TOLERANCE).passed(), "{analytic:?}");
        }
    }

    #[test]
    fn chosen_elements_are_those_of_the_whole() {
        let whole = numeric_gradient(f, &X);
        assert_eq!(numeric_gradient_at(f, &X, &[2, 0]), [whole[2], whole[0]]);
    }

    #[test]
    fn a_function_that_returns_nan_fails() {
        let report = check_gradient("f", |_| f64::NAN, &[1.0], &[0.0], TOLERANCE);
        assert!(!report.passed());
    }
}
