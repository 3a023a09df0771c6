//! Dropout as a product with a given scale, and drop-path, its per-image form.
//!
//!   keep = 0 if u < rate else 1/(1 − rate)          y = x ⊙ keep          dx = dy ⊙ keep
//!
//! The mask is an argument, so that there is nothing random here.
//!
//! Source: `torch.nn.functional.dropout`.

/// The scale of each uniform draw in [0, 1), for a rate in [0, 1).
pub fn keep_scale(uniform: &[f64], rate: f64) -> Vec<f64> {
    assert!((0.0..1.0).contains(&rate), "rate {rate}");
    uniform.iter().map(|&u| if u < rate { 0.0 } else { 1.0 / (1.0 - rate) }).collect()
}

/// `x ⊙ keep`; its own backward, with `dy` for `x`.
pub fn forward(x: &[f64], keep: &[f64]) -> Vec<f64> {
    assert_eq!(x.len(), keep.len(), "keep");
    x.iter().zip(keep).map(|(x, keep)| x * keep).collect()
}

/// `x: [B, …]` with one scale an image, `keep: [B]`.
pub fn forward_per_image(x: &[f64], keep: &[f64]) -> Vec<f64> {
    let size = x.len() / keep.len();
    x.iter().enumerate().map(|(i, x)| x * keep[i / size]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::Draws;
    use crate::gradient_check::{assert_gradient, dot};

    #[test]
    fn kept_values_are_enlarged_and_dropped_ones_are_zero() {
        assert_eq!(keep_scale(&[0.0, 0.19, 0.2, 0.9], 0.2), [0.0, 0.0, 1.25, 1.25]);
        assert_eq!(keep_scale(&[0.0, 0.9], 0.0), [1.0, 1.0]);
        assert_eq!(forward_per_image(&[1.0, 2.0, 3.0, 4.0], &[0.0, 2.0]), [0.0, 0.0, 6.0, 8.0]);
    }

    #[test]
    fn the_mean_is_kept() {
        let mut draws = Draws::new(16);
        let uniform: Vec<f64> = (0..100_000).map(|_| draws.uniform()).collect();
        let mean = keep_scale(&uniform, 0.3).iter().sum::<f64>() / 1e5;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
    }

    #[test]
    fn backward_is_the_gradient_of_forward() {
        let mut draws = Draws::new(17);
        for _ in 0..20 {
            let count = draws.integer(1..=12);
            let (x, dy) = (draws.vec(count), draws.vec(count));
            let uniform: Vec<f64> = (0..count).map(|_| draws.uniform()).collect();
            let keep = keep_scale(&uniform, 0.4);
            assert_gradient("dx", |x| dot(&forward(x, &keep), &dy), &x, &forward(&dy, &keep));
        }
    }
}
