//! Multi-head self-attention over packed rows q|k|v, with the matrix of probabilities in full.
//!
//!   s_ij = q_i·k_j / √head_dim      lse_i = ln Σ_j exp(s_ij)      p_ij = exp(s_ij − lse_i)
//!   out_i = Σ_j p_ij · keep_ij · v_j
//!
//! `keep` is the dropout mask as a scale: 0 for a dropped probability, 1/(1 − rate) for a kept one.
//!
//! Source: `eager_attention_forward` of transformers 4.57.6, `modeling_vit_mae.py`.

/// Sizes of an attention; the width D is `heads · head_dim`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// B.
    pub batch: usize,
    /// N.
    pub tokens: usize,
    /// A.
    pub heads: usize,
    /// Width of one head.
    pub head_dim: usize,
}

impl Shape {
    /// D = `heads · head_dim`.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Index into `qkv: [B, N, 3D]`; `part` is 0 for q, 1 for k, 2 for v.
    fn packed(&self, b: usize, n: usize, part: usize, head: usize, d: usize) -> usize {
        let width = self.width();
        (b * self.tokens + n) * 3 * width + part * width + head * self.head_dim + d
    }

    /// Index into `out: [B, N, D]`.
    fn output(&self, b: usize, n: usize, head: usize, d: usize) -> usize {
        (b * self.tokens + n) * self.width() + head * self.head_dim + d
    }

    /// Start of row `i` of the probabilities `[B, A, N, N]`; divided by N, index into `lse: [B, A, N]`.
    fn row(&self, b: usize, head: usize, i: usize) -> usize {
        ((b * self.heads + head) * self.tokens + i) * self.tokens
    }

    /// Number of probabilities, B·A·N·N.
    pub fn pairs(&self) -> usize {
        self.batch * self.heads * self.tokens * self.tokens
    }
}

/// Result of [`forward`].
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// `[B, N, D]`.
    pub out: Vec<f64>,
    /// `[B, A, N]`, natural logarithm of the sum of exponentials of the scaled scores.
    pub lse: Vec<f64>,
    /// `[B, A, N, N]`, before dropout; each row sums to 1.
    pub probabilities: Vec<f64>,
}

/// Attention of every token to every token.
///
/// # Shapes
/// `qkv: [B, N, 3D]`, `keep: [B, A, N, N]` → see [`Forward`]
pub fn forward(qkv: &[f64], keep: Option<&[f64]>, shape: Shape) -> Forward {
    let Shape { batch, tokens, heads, head_dim } = shape;
    assert_eq!(qkv.len(), batch * tokens * 3 * shape.width(), "qkv");
    let scale = 1.0 / (head_dim as f64).sqrt();
    let mut out = vec![0.0; batch * tokens * shape.width()];
    let mut lse = vec![0.0; batch * heads * tokens];
    let mut probabilities = vec![0.0; shape.pairs()];
    for b in 0..batch {
        for head in 0..heads {
            for i in 0..tokens {
                let scores: Vec<f64> = (0..tokens)
                    .map(|j| {
                        let product = |d| {
                            qkv[shape.packed(b, i, 0, head, d)]
                                * qkv[shape.packed(b, j, 1, head, d)]
                        };
                        (0..head_dim).map(product).sum::<f64>() * scale
                    })
                    .collect();
                // The largest score is taken out so that no exponential overflows.
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
                let row = shape.row(b, head, i);
                lse[row / tokens] = largest + total.ln();
                for j in 0..tokens {
                    let p = (scores[j] - largest).exp() / total;
                    probabilities[row + j] = p;
                    let kept = p * keep.map_or(1.0, |keep| keep[row + j]);
                    for d in 0..head_dim {
                        out[shape.output(b, i, head, d)] +=
                            kept * qkv[shape.packed(b, j, 2, head, d)];
                    }
                }
            }
        }
    }
    Forward { out, lse, probabilities }
}

/// `dqkv: [B, N, 3D]` for `dout: [B, N, D]`.
///
///   dv_j = Σ_i p_ij·keep_ij·dout_i        dp_ij = keep_ij · (dout_i·v_j)
///   ds_ij = p_ij · (dp_ij − Σ_m p_im·dp_im)
///   dq_i = Σ_j ds_ij·k_j / √head_dim      dk_j = Σ_i ds_ij·q_i / √head_dim
pub fn backward(dout: &[f64], qkv: &[f64], keep: Option<&[f64]>, shape: Shape) -> Vec<f64> {
    let Shape { batch, tokens, heads, head_dim } = shape;
    assert_eq!(dout.len(), batch * tokens * shape.width(), "dout");
    let scale = 1.0 / (head_dim as f64).sqrt();
    let probabilities = forward(qkv, keep, shape).probabilities;
    let mut dqkv = vec![0.0; qkv.len()];
    for b in 0..batch {
        for head in 0..heads {
            for i in 0..tokens {
                let row = shape.row(b, head, i);
                let kept = |j: usize| keep.map_or(1.0, |keep| keep[row + j]);
                let dp: Vec<f64> = (0..tokens)
                    .map(|j| {
                        let product = |d| {
                            dout[shape.output(b, i, head, d)] * qkv[shape.packed(b, j, 2, head, d)]
                        };
                        kept(j) * (0..head_dim).map(product).sum::<f64>()
                    })
                    .collect();
                let mean: f64 = (0..tokens).map(|m| probabilities[row + m] * dp[m]).sum();
                for j in 0..tokens {
                    let p = probabilities[row + j];
                    let ds = p * (dp[j] - mean) * scale;
                    for d in 0..head_dim {
                        let (q, k) =
                            (shape.packed(b, i, 0, head, d), shape.packed(b, j, 1, head, d));
                        dqkv[q] += ds * qkv[k];
                        dqkv[k] += ds * qkv[q];
                        dqkv[shape.packed(b, j, 2, head, d)] +=
                            p * kept(j) * dout[shape.output(b, i, head, d)];
                    }
                }
            }
        }
    }
    dqkv
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::{Tolerance, assert_close};
    use crate::draws::Draws;
    use crate::gradient_check::{assert_gradient, dot};

    #[test]
    fn two_tokens_by_hand() {
        // One head of width 1: q = (1, 2), k = (3, 0), v = (5, 7).
        let shape = Shape { batch: 1, tokens: 2, heads: 1, head_dim: 1 };
        let found = forward(&[1.0, 3.0, 5.0, 2.0, 0.0, 7.0], None, shape);
        let (e3, e6) = (3f64.exp(), 6f64.exp());
        let expected = [(e3 * 5.0 + 7.0) / (e3 + 1.0), (e6 * 5.0 + 7.0) / (e6 + 1.0)];
        assert_close("out", &found.out, &expected, Tolerance::new(1e-14, 0.0));
        let lse = [(e3 + 1.0).ln(), (e6 + 1.0).ln()];
        assert_close("lse", &found.lse, &lse, Tolerance::new(1e-14, 0.0));
    }

    #[test]
    fn heads_are_slices_of_the_width() {
        // Two heads give what each gives alone.
        let mut draws = Draws::new(2);
        let both = Shape { batch: 2, tokens: 3, heads: 2, head_dim: 4 };
        let one = Shape { heads: 1, ..both };
        let qkv = draws.vec(2 * 3 * 3 * 8);
        let out = forward(&qkv, None, both).out;
        for head in 0..2 {
            let part = |row: &[f64], part: usize| row[part * 8 + head * 4..][..4].to_vec();
            let alone: Vec<f64> = qkv
                .chunks(24)
                .flat_map(|row| [part(row, 0), part(row, 1), part(row, 2)].concat())
                .collect();
            let expected = forward(&alone, None, one).out;
            let found: Vec<f64> = out.chunks(8).flat_map(|row| part(row, 0)).collect();
            assert_close("head", &found, &expected, Tolerance::EXACT);
        }
    }

    #[test]
    fn large_scores_do_not_overflow() {
        let shape = Shape { batch: 1, tokens: 3, heads: 1, head_dim: 2 };
        let qkv: Vec<f64> = Draws::new(3).vec(18).iter().map(|v| v * 1e3).collect();
        let found = forward(&qkv, None, shape);
        assert!(found.out.iter().chain(&found.lse).all(|v| v.is_finite()));
    }

    #[test]
    fn backward_is_the_gradient_of_forward() {
        let mut draws = Draws::new(4);
        for round in 0..24 {
            let shape = Shape {
                batch: draws.integer(1..=2),
                tokens: draws.integer(1..=5),
                heads: draws.integer(1..=3),
                head_dim: draws.integer(1..=4),
            };
            let qkv = draws.vec(shape.batch * shape.tokens * 3 * shape.width());
            let dout = draws.vec(qkv.len() / 3);
            let keep: Option<Vec<f64>> = (round % 2 == 1).then(|| {
                let scale = |u: f64| if u < 0.3 { 0.0 } else { 1.0 / 0.7 };
                (0..shape.pairs()).map(|_| scale(draws.uniform())).collect()
            });
            let keep = keep.as_deref();
            let objective = |qkv: &[f64]| dot(&forward(qkv, keep, shape).out, &dout);
            assert_gradient("dqkv", objective, &qkv, &backward(&dout, &qkv, keep, shape));
        }
    }
}
