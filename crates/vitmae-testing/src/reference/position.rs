//! The fixed sine and cosine table of positions.
//!
//! With q = D/4 and ω_k = 10000^(−k/q), patch (row i, column j) of a grid h × w has at index 1 + i·w + j
//!
//!   [ sin(j·ω) | cos(j·ω) | sin(i·ω) | cos(i·ω) ]
//!
//! **Column first**: published weights rely on this order. Row 0, for the class token, is 0.
//!
//! Source: `get_2d_sincos_pos_embed` of transformers 4.57.6.

/// The table `[1 + h·w, D]`; D is a multiple of 4.
pub fn table(width: usize, grid: (usize, usize)) -> Vec<f64> {
    assert_eq!(width % 4, 0, "width");
    let quarter = width / 4;
    let omega = |k: usize| 10000f64.powf(-(k as f64) / quarter as f64);
    let mut table = vec![0.0; width];
    for i in 0..grid.0 {
        for j in 0..grid.1 {
            for place in [j as f64, i as f64] {
                table.extend((0..quarter).map(|k| (place * omega(k)).sin()));
                table.extend((0..quarter).map(|k| (place * omega(k)).cos()));
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::{Tolerance, assert_close};

    /// Sums and entries of the tables that transformers 4.57.6 makes.
    #[test]
    fn tables_equal_transformers() {
        let cases = [
            (
                768,
                14,
                [69594.493847, 84118.415679],
                [0.84147096, 0.81525064, 0.54030228, 0.57910824],
            ),
            (
                512,
                14,
                [46340.333119, 56094.488642],
                [0.84147096, 0.80196178, 0.54030228, 0.59737533],
            ),
            (
                1280,
                16,
                [149578.405773, 183831.016600],
                [0.84147096, 0.82580489, 0.54030228, 0.56395590],
            ),
        ];
        for (width, side, sums, entries) in cases {
            let t = table(width, (side, side));
            assert_eq!(t.len(), (1 + side * side) * width);
            let found = [t.iter().sum::<f64>(), t.iter().map(|v| v.abs()).sum()];
            assert_close("sums", &found, &sums, Tolerance::new(1e-3, 0.0));
            let row = &t[2 * width..3 * width];
            let found = [row[0], row[1], row[width / 4], row[width / 4 + 1]];
            assert_close("row 2", &found, &entries, Tolerance::new(1e-7, 0.0));
            let below = t[(1 + side) * width + width / 2];
            assert_close("second row", &[below], &[0.84147096], Tolerance::new(1e-7, 0.0));
            assert!(t[..width].iter().all(|&v| v == 0.0));
        }
    }

    #[test]
    fn a_rectangle_keeps_rows_and_columns_apart() {
        let t = table(4, (2, 3));
        let (s, c) = (2f64.sin(), 2f64.cos());
        assert_eq!(t[(1 + 2) * 4..][..4], [s, c, 0.0, 1.0]); // row 0, column 2
        assert_eq!(t[(1 + 3) * 4..][..4], [0.0, 1.0, 1f64.sin(), 1f64.cos()]); // row 1, column 0
    }
}
