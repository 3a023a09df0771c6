//! L-BFGS: quasi-Newton minimisation of a smooth convex function.
//!
//! Two-loop recursion over the last ten steps with a backtracking (Armijo) line search.
//! Source: Nocedal and Wright, "Numerical Optimization", algorithms 7.4 and 3.1.

use std::collections::VecDeque;

/// Steps remembered.
const MEMORY: usize = 10;
/// Gradient, relative to the first, that ends the search.
const TOLERANCE: f64 = 1e-7;

/// A remembered step: s = x' − x, y = g' − g, and 1 / ⟨s, y⟩.
struct Pair {
    s: Vec<f64>,
    y: Vec<f64>,
    rho: f64,
}

/// Minimises `objective`, which returns the value and overwrites the gradient, from `x`.
pub(super) fn minimise(
    mut x: Vec<f64>,
    iterations: usize,
    objective: impl Fn(&[f64], &mut [f64]) -> f64,
) -> Vec<f64> {
    let mut gradient = vec![0.0; x.len()];
    let mut value = objective(&x, &mut gradient);
    let first = dot(&gradient, &gradient).sqrt();
    let mut memory: VecDeque<Pair> = VecDeque::new();
    for _ in 0..iterations {
        if dot(&gradient, &gradient).sqrt() <= TOLERANCE * first.max(1.0) {
            break;
        }
        let direction = direction(&gradient, &memory);
        let slope = dot(&direction, &gradient);
        // Without curvature the length is unknown: the first trial moves by at most 1.
        let mut length = if memory.is_empty() { 1.0 / first.max(1.0) } else { 1.0 };
        let mut next_gradient = vec![0.0; x.len()];
        let (next, next_value) = loop {
            let next: Vec<f64> = x.iter().zip(&direction).map(|(x, d)| x + length * d).collect();
            let next_value = objective(&next, &mut next_gradient);
            if next_value <= value + 1e-4 * length * slope {
                break (next, next_value);
            }
            length *= 0.5;
            if length < 1e-12 {
                return x; // no descent left within the precision of f64
            }
        };
        let s: Vec<f64> = next.iter().zip(&x).map(|(a, b)| a - b).collect();
        let y: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        let curvature = dot(&s, &y);
        if curvature > 1e-14 {
            memory.push_back(Pair { s, y, rho: 1.0 / curvature });
            if memory.len() > MEMORY {
                memory.pop_front();
            }
        }
        (x, value, gradient) = (next, next_value, next_gradient);
    }
    x
}

/// −H·gradient, where H approximates the inverse Hessian.
fn direction(gradient: &[f64], memory: &VecDeque<Pair>) -> Vec<f64> {
    let mut q = gradient.to_vec();
    let mut alphas = Vec::with_capacity(memory.len());
    for pair in memory.iter().rev() {
        let alpha = pair.rho * dot(&pair.s, &q);
        add(&mut q, -alpha, &pair.y);
        alphas.push(alpha);
    }
    if let Some(last) = memory.back() {
        let scale = 1.0 / (last.rho * dot(&last.y, &last.y));
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for (pair, alpha) in memory.iter().zip(alphas.into_iter().rev()) {
        let beta = pair.rho * dot(&pair.y, &q);
        add(&mut q, alpha - beta, &pair.s);
    }
    q.iter_mut().for_each(|q| *q = -*q);
    q
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], factor: f64, from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_valley_is_followed_to_its_bottom() {
        // Rosenbrock's function: not convex, so harder than what it is used for.
        let best = minimise(vec![-1.2, 1.0], 500, |x, g| {
            let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
            g[0] = -2.0 * a - 400.0 * x[0] * b;
            g[1] = 200.0 * b;
            a * a + 100.0 * b * b
        });
        assert!((best[0] - 1.0).abs() < 1e-5 && (best[1] - 1.0).abs() < 1e-5, "{best:?}");
    }
}
