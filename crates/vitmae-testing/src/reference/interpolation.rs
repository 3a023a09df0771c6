//! Bicubic resampling of a table of positions to another grid, and its adjoint.
//!
//! Output place o of `to` samples input place s = (o + ½)·from/to − ½ with four taps at ⌊s⌋ − 1 … ⌊s⌋ + 2,
//! weighted by Keys' cubic kernel of the distance d:
//!
//!   d ≤ 1:  (a + 2)·d³ − (a + 3)·d² + 1          1 < d < 2:  a·d³ − 5a·d² + 8a·d − 4a
//!
//! Source: `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)` and
//! `tf.image.resize(method="bicubic")`; R. Keys, 1981.

/// Whose bicubic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// a = −0.75; taps outside read the border.
    Torch,
    /// a = −0.5; the fraction of `s` is rounded to 1/1024; taps outside are dropped and the rest
    /// renormalised.
    Tf,
}

/// How a table of positions follows a new grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In two dimensions: HF's encoder, and the right choice for a decoder.
    Grid2d,
    /// Along the flattened sequence: HF's decoder.
    Hf1d,
}

/// `table: [h₀·w₀, D]` on grid `from` → `[h·w, D]` on grid `to`.
pub fn forward(
    table: &[f64],
    from: (usize, usize),
    to: (usize, usize),
    width: usize,
    kernel: Kernel,
) -> Vec<f64> {
    assert_eq!(table.len(), from.0 * from.1 * width, "table");
    let mut out = vec![0.0; to.0 * to.1 * width];
    for_each_tap(from, to, kernel, |source, target, weight| {
        for d in 0..width {
            out[target * width + d] += weight * table[source * width + d];
        }
    });
    out
}

/// `dtable: [h₀·w₀, D]` for `dout: [h·w, D]`.
pub fn backward(
    dout: &[f64],
    from: (usize, usize),
    to: (usize, usize),
    width: usize,
    kernel: Kernel,
) -> Vec<f64> {
    assert_eq!(dout.len(), to.0 * to.1 * width, "dout");
    let mut dtable = vec![0.0; from.0 * from.1 * width];
    for_each_tap(from, to, kernel, |source, target, weight| {
        for d in 0..width {
            dtable[source * width + d] += weight * dout[target * width + d];
        }
    });
    dtable
}

/// A whole table `[1 + L₀, D]` to `[1 + L, D]`: the class row stays, the rest is resampled.
pub fn positions(
    table: &[f64],
    from: (usize, usize),
    to: (usize, usize),
    width: usize,
    kernel: Kernel,
    mode: Mode,
) -> Vec<f64> {
    let (from, to) = match mode {
        Mode::Grid2d => (from, to),
        Mode::Hf1d => ((1, from.0 * from.1), (1, to.0 * to.1)),
    };
    let mut out = table[..width].to_vec();
    out.extend(forward(&table[width..], from, to, width, kernel));
    out
}

/// Calls `visit(source place, target place, weight)` for every tap in two dimensions.
fn for_each_tap(
    from: (usize, usize),
    to: (usize, usize),
    kernel: Kernel,
    mut visit: impl FnMut(usize, usize, f64),
) {
    for row in 0..to.0 {
        for column in 0..to.1 {
            for (y, row_weight) in taps(from.0, to.0, row, kernel) {
                for (x, column_weight) in taps(from.1, to.1, column, kernel) {
                    visit(y * from.1 + x, row * to.1 + column, row_weight * column_weight);
                }
            }
        }
    }
}

/// The four taps of place `o` on one axis: input place and weight.
fn taps(from: usize, to: usize, o: usize, kernel: Kernel) -> [(usize, f64); 4] {
    let s = (o as f64 + 0.5) * from as f64 / to as f64 - 0.5;
    let (floor, mut fraction) = (s.floor(), s - s.floor());
    let a = match kernel {
        Kernel::Torch => -0.75,
        Kernel::Tf => -0.5,
    };
    if kernel == Kernel::Tf {
        fraction = (fraction * 1024.0).round_ties_even() / 1024.0;
    }
    let mut taps = [-1.0, 0.0, 1.0, 2.0].map(|offset| {
        let place = floor + offset;
        let clamped = place.clamp(0.0, from as f64 - 1.0);
        let outside = kernel == Kernel::Tf && place != clamped;
        (clamped as usize, if outside { 0.0 } else { cubic((offset - fraction).abs(), a) })
    });
    if kernel == Kernel::Tf {
        let sum: f64 = taps.iter().map(|(_, weight)| weight).sum();
        taps.iter_mut().for_each(|(_, weight)| *weight /= sum);
    }
    taps
}

fn cubic(d: f64, a: f64) -> f64 {
    if d <= 1.0 {
        (a + 2.0) * d.powi(3) - (a + 3.0) * d.powi(2) + 1.0
    } else if d < 2.0 {
        a * d.powi(3) - 5.0 * a * d.powi(2) + 8.0 * a * d - 4.0 * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::{Tolerance, assert_close};
    use crate::draws::Draws;
    use crate::gradient_check::{assert_gradient, dot};

    #[test]
    fn enlarging_equals_pytorch_and_tensorflow() {
        let ramp: Vec<f64> = (0..16).map(|v| f64::from(v).powf(1.5)).collect();
        let cases = [
            (Kernel::Torch, [-0.7648, -0.4468, 0.3891, 1.3763, 3.0765, 4.2341]),
            (Kernel::Tf, [-0.5835, -0.2251, 0.5597, 1.7175, 3.3502, 4.4679]),
        ];
        for (kernel, expected) in cases {
            let found = forward(&ramp, (4, 4), (6, 6), 1, kernel);
            assert_close("first row", &found[..6], &expected, Tolerance::new(6e-5, 0.0));
        }
    }

    #[test]
    fn the_same_grid_is_the_identity() {
        let mut draws = Draws::new(19);
        let table = draws.vec((1 + 3 * 5) * 4);
        for kernel in [Kernel::Torch, Kernel::Tf] {
            for mode in [Mode::Grid2d, Mode::Hf1d] {
                assert_eq!(positions(&table, (3, 5), (3, 5), 4, kernel, mode), table);
            }
        }
    }

    #[test]
    fn a_constant_stays_constant() {
        for kernel in [Kernel::Torch, Kernel::Tf] {
            for (from, to) in [((1, 1), (3, 4)), ((4, 4), (7, 5)), ((5, 3), (2, 2))] {
                let found = forward(&vec![2.5; from.0 * from.1], from, to, 1, kernel);
                let expected = vec![2.5; to.0 * to.1];
                assert_close("constant", &found, &expected, Tolerance::new(1e-13, 0.0));
            }
        }
    }

    #[test]
    fn backward_is_the_gradient_of_forward() {
        let mut draws = Draws::new(20);
        for round in 0..24 {
            let mut side = || draws.integer(1..=5);
            let (from, to) = ((side(), side()), (side(), side()));
            let kernel = [Kernel::Torch, Kernel::Tf][round % 2];
            let (table, dout) = (draws.vec(from.0 * from.1 * 2), draws.vec(to.0 * to.1 * 2));
            let objective = |t: &[f64]| dot(&forward(t, from, to, 2, kernel), &dout);
            let dtable = backward(&dout, from, to, 2, kernel);
            assert_gradient("dtable", objective, &table, &dtable);
        }
    }
}
