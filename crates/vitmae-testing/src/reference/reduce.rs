//! Sums of rows and of arrays.

/// `x: [N, D]` → `[D]`, the sum of all rows: the gradient of a bias.
pub fn sum_columns(x: &[f64], width: usize) -> Vec<f64> {
    assert_eq!(x.len() % width, 0, "x");
    let mut sums = vec![0.0; width];
    for row in x.chunks(width) {
        for d in 0..width {
            sums[d] += row[d];
        }
    }
    sums
}

/// `a + b`, element by element.
pub fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    assert_eq!(a.len(), b.len(), "b");
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// `x: [N, D]` plus `row: [D]` on every row: the adjoint of [`sum_columns`] when `x` is 0.
pub fn add_row(x: &[f64], row: &[f64]) -> Vec<f64> {
    assert_eq!(x.len() % row.len(), 0, "x");
    x.iter().enumerate().map(|(i, v)| v + row[i % row.len()]).collect()
}

/// `x: [B, N, D]` → `[B, D]`, the mean over tokens `first..N`.
pub fn mean_tokens(x: &[f64], tokens: usize, width: usize, first: usize) -> Vec<f64> {
    assert!(first < tokens, "no token to average");
    x.chunks(tokens * width)
        .flat_map(|image| sum_columns(&image[first * width..], width))
        .map(|sum| sum / (tokens - first) as f64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::Draws;
    use crate::gradient_check::{assert_gradient, dot};

    #[test]
    fn sums_by_hand() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(sum_columns(&x, 2), [9.0, 12.0]);
        assert_eq!(sum_columns(&x, 3), [5.0, 7.0, 9.0]);
        assert_eq!(add(&x[..2], &x[2..4]), [4.0, 6.0]);
        assert_eq!(add_row(&x, &[10.0, 20.0]), [11.0, 22.0, 13.0, 24.0, 15.0, 26.0]);
        assert_eq!(mean_tokens(&x, 3, 2, 1), [4.0, 5.0]);
    }

    #[test]
    fn a_broadcast_row_is_the_adjoint_of_the_sum() {
        let mut draws = Draws::new(15);
        for _ in 0..20 {
            let (rows, width) = (draws.integer(1..=6), draws.integer(1..=5));
            let (x, dy) = (draws.vec(rows * width), draws.vec(width));
            let dx = add_row(&vec![0.0; rows * width], &dy);
            assert_gradient("dx", |x| dot(&sum_columns(x, width), &dy), &x, &dx);
        }
    }
}
