//! The fixed sine and cosine table of positions, and how it follows another grid.
//!
//! With q = D/4 and ω_k = 10000^(−k/q), patch (row i, column j) of a grid h × w has at 1 + i·w + j
//!
//!   [ sin(j·ω) | cos(j·ω) | sin(i·ω) | cos(i·ω) ]
//!
//! and row 0, the class token's, is 0.
//!
//! Trap: **the column comes first**. The original's comment calls it a naming slip; published weights
//! rely on it, so a table with rows first has the right shape and the wrong numbers.
//!
//! Source: `get_2d_sincos_pos_embed` of transformers 4.57.6.

use vitmae_tensor::ops::{self, BicubicKernel};
use vitmae_tensor::{Indices, Tensor, TensorError};

use crate::Interpolation;

/// The table `[1 + h·w, D]`, row-major, computed in f64 and rounded once.
///
/// `width` D is a multiple of 4; `grid` is (h, w) in patches and may be a rectangle.
pub fn table(width: usize, (rows, columns): (usize, usize)) -> Vec<f32> {
    let quarter = width / 4;
    let omega: Vec<f64> =
        (0..quarter).map(|k| 10000f64.powf(-(k as f64) / quarter as f64)).collect();
    let mut table = vec![0.0; width];
    table.reserve(rows * columns * width);
    for row in 0..rows {
        for column in 0..columns {
            for place in [column, row] {
                let angles = || omega.iter().map(|omega| place as f64 * omega);
                table.extend(angles().map(|angle| angle.sin() as f32));
                table.extend(angles().map(|angle| angle.cos() as f32));
            }
        }
    }
    table
}

/// The grids between which a table's rows are resampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resampling {
    from: (usize, usize),
    to: (usize, usize),
    kernel: BicubicKernel,
}

impl Resampling {
    /// From the model's grid to the image's.
    pub(crate) fn new(
        from: (usize, usize),
        to: (usize, usize),
        way: Interpolation,
        kernel: BicubicKernel,
    ) -> Self {
        let flat = |(rows, columns): (usize, usize)| (1, rows * columns);
        match way {
            Interpolation::Grid2d => Self { from, to, kernel },
            Interpolation::Hf1d => Self { from: flat(from), to: flat(to), kernel },
        }
    }

    /// A whole table `[1, 1 + L₀, D]` as `[1, 1 + L, D]`: the class row stays, the rest is resampled.
    pub(crate) fn apply(&self, table: &Tensor) -> Result<Tensor, TensorError> {
        if self.from == self.to {
            return Ok(table.clone());
        }
        self.around(table, |rows| ops::interpolation(rows, self.from, self.to, self.kernel))
    }

    /// The gradient of the table from that of [`apply`](Self::apply)'s result.
    pub(crate) fn backward(&self, dout: &Tensor) -> Result<Tensor, TensorError> {
        if self.from == self.to {
            return Ok(dout.clone());
        }
        self.around(dout, |rows| ops::interpolation_backward(rows, self.from, self.to, self.kernel))
    }

    /// `change` of the rows `[L, D]` behind the class row, which is put in front again; all on the table's device.
    fn around(
        &self,
        table: &Tensor, // [1, 1 + L, D]
        change: impl Fn(&Tensor) -> Result<Tensor, TensorError>,
    ) -> Result<Tensor, TensorError> {
        let device = table.device();
        let (count, width) = match *table.shape() {
            [_, count, width] if count > 0 => (count - 1, width),
            _ => return Ok(table.clone()), // of no size: nothing to resample
        };
        let ids = |rows: std::ops::Range<usize>| {
            let ids: Vec<u32> = rows.map(|row| row as u32).collect();
            Indices::from_slice(device, &[1, ids.len()], &ids)
        };
        let class = ops::gather(table, &ids(0..1)?)?;
        let rows = ops::gather(table, &ids(1..1 + count)?)?.reshape(&[count, width])?;
        let rows = change(&rows)?;
        let count = rows.shape()[0];
        let rows = rows.reshape(&[1, count, width])?;
        // The adjoint of choosing rows puts them in their places among zeros.
        let class = ops::gather_backward(&class, &ids(0..1)?, 1 + count)?;
        ops::add(&class, &ops::gather_backward(&rows, &ids(1..1 + count)?, 1 + count)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_tables_are_met() {
        // (D, grid, sum, sum of absolute values, [2][0..2], [2][D/4..], [1 + g][D/2])
        let cases = [
            (768, 14, 69594.493847, 84118.415679, [0.84147096, 0.81525064, 0.54030228, 0.57910824]),
            (512, 14, 46340.333119, 56094.488642, [0.84147096, 0.80196178, 0.54030228, 0.59737533]),
            (1280, 16, 149578.405773, 183831.0166, [0.84147096, 0.82580489, 0.54030228, 0.5639559]),
        ];
        for (width, side, sum, absolute, [s0, s1, c0, c1]) in cases {
            let table = table(width, (side, side));
            assert_eq!(table.len(), (1 + side * side) * width);
            let total: f64 = table.iter().map(|&x| f64::from(x)).sum();
            let size: f64 = table.iter().map(|&x| f64::from(x.abs())).sum();
            assert!((total - sum).abs() < 1e-2 && (size - absolute).abs() < 1e-2, "{total} {size}");
            let at = |row: usize, column: usize| f64::from(table[row * width + column]);
            let found = [at(2, 0), at(2, 1), at(2, width / 4), at(2, width / 4 + 1)];
            for (found, expected) in found.iter().zip([s0, s1, c0, c1]) {
                assert!((found - expected).abs() < 1e-7, "{found} {expected}");
            }
            assert!((at(1 + side, width / 2) - 0.84147096).abs() < 1e-7);
            assert!(table[..width].iter().all(|&x| x == 0.0));
        }
    }

    #[test]
    fn a_rectangle_has_the_rows_of_its_square() {
        let (square, tall) = (table(8, (4, 4)), table(8, (6, 4)));
        assert_eq!(tall[..square.len()], square);
    }
}
