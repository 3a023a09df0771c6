//! Layer normalisation over the last axis.
//!
//!   mean = Σx / D      rstd = 1 / √(Σ(x − mean)² / D + eps)      (biased variance)
//!   y    = (x − mean) · rstd · weight + bias
//!
//! Source: `torch.nn.functional.layer_norm`; arXiv:1607.06450.

/// Result of [`forward`].
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// `[N, D]`.
    pub y: Vec<f64>,
    /// `[N]`.
    pub mean: Vec<f64>,
    /// `[N]`.
    pub rstd: Vec<f64>,
}

/// Gradients of [`forward`].
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// `[N, D]`.
    pub dx: Vec<f64>,
    /// `[D]`.
    pub dweight: Vec<f64>,
    /// `[D]`.
    pub dbias: Vec<f64>,
}

/// Normalises each row of `x: [N, D]`; D is the length of `weight`.
pub fn forward(x: &[f64], weight: &[f64], bias: &[f64], eps: f64) -> Forward {
    let d = weight.len();
    assert_eq!(bias.len(), d, "bias");
    assert_eq!(x.len() % d, 0, "x");
    let (mut y, mut means, mut rstds) = (Vec::new(), Vec::new(), Vec::new());
    for row in x.chunks(d) {
        let mean = row.iter().sum::<f64>() / d as f64;
        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / d as f64;
        let rstd = 1.0 / (variance + eps).sqrt();
        for i in 0..d {
            y.push((row[i] - mean) * rstd * weight[i] + bias[i]);
        }
        means.push(mean);
        rstds.push(rstd);
    }
    Forward { y, mean: means, rstd: rstds }
}

/// Gradients for `dy: [N, D]`.
///
///   x̂ = (x − mean)·rstd     g = dy ⊙ weight     dx = rstd·(g − mean(g) − x̂·mean(g ⊙ x̂))
///   dweight = Σ_rows dy ⊙ x̂                      dbias = Σ_rows dy
pub fn backward(dy: &[f64], x: &[f64], weight: &[f64], eps: f64) -> Gradients {
    let d = weight.len();
    assert_eq!(dy.len(), x.len(), "dy");
    let saved = forward(x, weight, &vec![0.0; d], eps);
    let mut dx = vec![0.0; x.len()];
    let (mut dweight, mut dbias) = (vec![0.0; d], vec![0.0; d]);
    for n in 0..x.len() / d {
        let normalised = |i: usize| (x[n * d + i] - saved.mean[n]) * saved.rstd[n];
        let g = |i: usize| dy[n * d + i] * weight[i];
        let mean_g = (0..d).map(g).sum::<f64>() / d as f64;
        let mean_gx = (0..d).map(|i| g(i) * normalised(i)).sum::<f64>() / d as f64;
        for i in 0..d {
            dx[n * d + i] = saved.rstd[n] * (g(i) - mean_g - normalised(i) * mean_gx);
            dweight[i] += dy[n * d + i] * normalised(i);
            dbias[i] += dy[n * d + i];
        }
    }
    Gradients { dx, dweight, dbias }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::{Tolerance, assert_close};
    use crate::draws::Draws;
    use crate::gradient_check::{assert_gradient, dot};

    #[test]
    fn one_row_by_hand() {
        // mean 2.5, biased variance 1.25, eps 0.31 → rstd 1 / √1.56.
        let found =
            forward(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 1.0, 1.0], &[0.0, 0.0, 5.0, 0.0], 0.31);
        let r = 1.0 / 1.56f64.sqrt();
        let expected = [-1.5 * r, -0.5 * r * 2.0, 0.5 * r + 5.0, 1.5 * r];
        assert_close("y", &found.y, &expected, Tolerance::new(1e-15, 1e-15));
        assert_close("mean", &found.mean, &[2.5], Tolerance::EXACT);
        assert_close("rstd", &found.rstd, &[r], Tolerance::new(1e-15, 0.0));
    }

    #[test]
    fn backward_is_the_gradient_of_forward() {
        let mut draws = Draws::new(5);
        for _ in 0..24 {
            let (n, d) = (draws.integer(1..=4), draws.integer(2..=7));
            let (x, dy) = (draws.vec(n * d), draws.vec(n * d));
            let (weight, bias) = (draws.vec(d), draws.vec(d));
            let eps = 1e-3;
            let objective = |x: &[f64], w: &[f64], b: &[f64]| dot(&forward(x, w, b, eps).y, &dy);
            let g = backward(&dy, &x, &weight, eps);
            assert_gradient("dx", |x| objective(x, &weight, &bias), &x, &g.dx);
            assert_gradient("dweight", |w| objective(&x, w, &bias), &weight, &g.dweight);
            assert_gradient("dbias", |b| objective(&x, &weight, b), &bias, &g.dbias);
        }
    }
}
