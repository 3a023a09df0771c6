//! Bicubic resampling of a table of positions to another grid, and its adjoint.
//!
//! Output place o of `to` samples input place s = (o + ½)·from/to − ½ with four taps at ⌊s⌋ − 1 … ⌊s⌋ + 2,
//! weighted by Keys' cubic kernel of the distance d:
//!
//!   d ≤ 1:  (a + 2)·d³ − (a + 3)·d² + 1          1 < d < 2:  a·d³ − 5a·d² + 8a·d − 4a
//!
//! Source: `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)` and
//! `tf.image.resize(method="bicubic")`; R. Keys, 1981. Oracle: `vitmae_testing::reference::interpolation`.

use rayon::prelude::*;

/// Whose bicubic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// a = −0.75; taps outside read the border.
    Torch,
    /// a = −0.5; the fraction of `s` is rounded to 1/1024; taps outside are dropped and the rest
    /// renormalised.
    Tf,
}

/// A tap: input place and weight.
type Tap = (usize, f32);

/// # Shapes
/// `table: [h₀·w₀, D]` on grid `from`, `out: [h·w, D]` on grid `to`
///
/// # Panics
/// If a length does not fit.
pub fn forward(
    table: &[f32],
    from: (usize, usize),
    to: (usize, usize),
    width: usize,
    kernel: Kernel,
    out: &mut [f32],
) {
    assert_eq!(table.len(), from.0 * from.1 * width, "interpolation: table");
    assert_eq!(out.len(), to.0 * to.1 * width, "interpolation: out");
    let (rows, columns) = (taps(from.0, to.0, kernel), taps(from.1, to.1, kernel));
    out.par_chunks_mut(width.max(1)).enumerate().for_each(|(place, out)| {
        out.fill(0.0);
        for &(y, row_weight) in &rows[place / to.1] {
            for &(x, column_weight) in &columns[place % to.1] {
                let weight = row_weight * column_weight;
                let source = &table[(y * from.1 + x) * width..][..width];
                out.iter_mut().zip(source).for_each(|(out, value)| *out += weight * value);
            }
        }
    });
}

/// The adjoint; `accumulate` adds it to what is there.
///
/// # Shapes
/// `dout: [h·w, D]`, `dtable: [h₀·w₀, D]`
///
/// # Panics
/// If a length does not fit.
pub fn backward(
    dout: &[f32],
    from: (usize, usize),
    to: (usize, usize),
    width: usize,
    kernel: Kernel,
    dtable: &mut [f32],
    accumulate: bool,
) {
    assert_eq!(dout.len(), to.0 * to.1 * width, "interpolation: dout");
    assert_eq!(dtable.len(), from.0 * from.1 * width, "interpolation: dtable");
    let (rows, columns) = (taps(from.0, to.0, kernel), taps(from.1, to.1, kernel));
    if !accumulate {
        dtable.fill(0.0);
    }
    // Tables are small and several places write one row, so this runs on the calling thread.
    for (place, dout) in dout.chunks_exact(width.max(1)).enumerate() {
        for &(y, row_weight) in &rows[place / to.1] {
            for &(x, column_weight) in &columns[place % to.1] {
                let weight = row_weight * column_weight;
                let target = &mut dtable[(y * from.1 + x) * width..][..width];
                target.iter_mut().zip(dout).for_each(|(sum, value)| *sum += weight * value);
            }
        }
    }
}

/// The four taps of every output place on one axis.
fn taps(from: usize, to: usize, kernel: Kernel) -> Vec<[Tap; 4]> {
    (0..to).map(|place| taps_of(place, from, to, kernel)).collect()
}

fn taps_of(place: usize, from: usize, to: usize, kernel: Kernel) -> [Tap; 4] {
    let s = (place as f64 + 0.5) * from as f64 / to as f64 - 0.5;
    let floor = s.floor();
    let fraction = match kernel {
        Kernel::Torch => s - floor,
        Kernel::Tf => ((s - floor) * 1024.0).round_ties_even() / 1024.0,
    };
    let a = match kernel {
        Kernel::Torch => -0.75,
        Kernel::Tf => -0.5,
    };
    let tap = |i: i64| (floor as i64 + i, cubic((fraction - i as f64).abs(), a));
    let taps = [-1, 0, 1, 2].map(tap);
    let last = from as i64 - 1;
    let inside = |at: i64| (0..=last).contains(&at);
    let total: f64 = taps.iter().filter(|(at, _)| inside(*at)).map(|(_, weight)| weight).sum();
    taps.map(|(at, weight)| {
        let weight = match kernel {
            Kernel::Torch => weight,
            Kernel::Tf if inside(at) => weight / total,
            Kernel::Tf => 0.0,
        };
        (at.clamp(0, last) as usize, weight as f32)
    })
}

/// Keys' kernel at distance `d`.
fn cubic(d: f64, a: f64) -> f64 {
    if d <= 1.0 {
        ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    } else if d < 2.0 {
        ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    } else {
        0.0
    }
}
