//! Rows of tokens chosen by index, and the scatter that is its adjoint.
//!
//!   y[b, k] = x[b, ids[b, k]]          dx[b, ids[b, k]] += dy[b, k]

/// `x: [B, L, D]`, `ids: [B, K]` → `[B, K, D]`.
pub fn forward(x: &[f64], ids: &[u32], batch: usize, width: usize) -> Vec<f64> {
    let (rows, kept) = (x.len() / (batch * width), ids.len() / batch);
    let mut y = Vec::with_capacity(ids.len() * width);
    for b in 0..batch {
        for &id in &ids[b * kept..][..kept] {
            assert!((id as usize) < rows, "index {id} of {rows} rows");
            y.extend_from_slice(&x[(b * rows + id as usize) * width..][..width]);
        }
    }
    y
}

/// `dy: [B, K, D]`, `ids: [B, K]` → `dx: [B, L, D]`; rows that were not chosen get 0.
pub fn backward(dy: &[f64], ids: &[u32], rows: usize, batch: usize, width: usize) -> Vec<f64> {
    assert_eq!(dy.len(), ids.len() * width, "dy");
    let kept = ids.len() / batch;
    let mut dx = vec![0.0; batch * rows * width];
    for b in 0..batch {
        for k in 0..kept {
            let id = ids[b * kept + k] as usize;
            for d in 0..width {
                dx[(b * rows + id) * width + d] += dy[(b * kept + k) * width + d];
            }
        }
    }
    dx
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::Draws;
    use crate::gradient_check::{assert_gradient, dot};

    #[test]
    fn rows_come_in_the_order_of_the_indices() {
        let x: Vec<f64> = (0..12).map(f64::from).collect(); // [2, 3, 2]
        let y = forward(&x, &[2, 0, 1, 1], 2, 2);
        assert_eq!(y, [4., 5., 0., 1., 8., 9., 8., 9.]);
    }

    #[test]
    fn backward_is_the_gradient_of_forward() {
        let mut draws = Draws::new(10);
        for _ in 0..20 {
            let (batch, rows) = (draws.integer(1..=3), draws.integer(1..=5));
            let (kept, width) = (draws.integer(1..=5), draws.integer(1..=3));
            // Indices may repeat: the gradients of a repeated row add up.
            let ids: Vec<u32> =
                (0..batch * kept).map(|_| draws.integer(0..=rows - 1) as u32).collect();
            let (x, dy) = (draws.vec(batch * rows * width), draws.vec(batch * kept * width));
            let objective = |x: &[f64]| dot(&forward(x, &ids, batch, width), &dy);
            assert_gradient("dx", objective, &x, &backward(&dy, &ids, rows, batch, width));
        }
    }
}
