//! Bicubic resampling of a table of positions to another grid, and its adjoint.
//!
//! Output place o of `to` samples input place s = (o + ½)·from/to − ½ with four taps at ⌊s⌋ − 1 … ⌊s⌋ + 2,
//! weighted by Keys' cubic kernel of the distance d:
//!
//!   d ≤ 1:  (a + 2)·d³ − (a + 3)·d² + 1          1 < d < 2:  a·d³ − 5a·d² + 8a·d − 4a
//!
//! Weights are computed on the host, in f64. Forward and adjoint are one kernel, a weighted sum of rows:
//! the host lists, for every place on an axis, which places of the other side it takes and how much of each.
//!
//! Source: `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)` and
//! `tf.image.resize(method="bicubic")`; R. Keys, 1981. Oracle: `vitmae_testing::reference::interpolation`;
//! CPU twin: `vitmae_cpu::interpolation`.

use cubecl::prelude::*;

use crate::{Array, Client, Dtype, Ids, launch};

/// Whose bicubic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// a = −0.75; taps outside read the border.
    Torch,
    /// a = −0.5; the fraction of `s` is rounded to 1/1024; taps outside are dropped and the rest
    /// renormalised.
    Tf,
}

/// A tap: place on the other side and weight.
type Tap = (usize, f32);

/// # Shapes
/// `table: [h₀·w₀, D]` on grid `from`, `out: [h·w, D]` on grid `to`, f32
///
/// # Panics
/// If a length or a type does not fit.
pub fn forward(
    client: &Client,
    table: &Array,
    from: (usize, usize),
    to: (usize, usize),
    width: usize,
    kernel: Kernel,
    out: &Array,
) {
    check(table, from, out, to, width);
    let (rows, columns) = (taps(from.0, to.0, kernel), taps(from.1, to.1, kernel));
    resample(client, table, from.1, &rows, &columns, width, out, false);
}

/// The adjoint; `accumulate` adds it to what is there.
///
/// # Shapes
/// `dout: [h·w, D]`, `dtable: [h₀·w₀, D]`, f32
///
/// # Panics
/// If a length or a type does not fit.
#[allow(clippy::too_many_arguments, reason = "the arguments of the CPU twin")]
pub fn backward(
    client: &Client,
    dout: &Array,
    from: (usize, usize),
    to: (usize, usize),
    width: usize,
    kernel: Kernel,
    dtable: &Array,
    accumulate: bool,
) {
    check(dtable, from, dout, to, width);
    let rows = transposed(&taps(from.0, to.0, kernel), from.0);
    let columns = transposed(&taps(from.1, to.1, kernel), from.1);
    resample(client, dout, to.1, &rows, &columns, width, dtable, accumulate);
}

fn check(table: &Array, from: (usize, usize), out: &Array, to: (usize, usize), width: usize) {
    let table = (table.len, table.dtype);
    assert_eq!(table, (from.0 * from.1 * width, Dtype::F32), "interpolation: table");
    assert_eq!((out.len, out.dtype), (to.0 * to.1 * width, Dtype::F32), "interpolation: out");
}

/// The four taps of every output place on one axis.
fn taps(from: usize, to: usize, kernel: Kernel) -> Vec<Vec<Tap>> {
    (0..to).map(|place| taps_of(place, from, to, kernel).to_vec()).collect()
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

/// For every input place the output places that it is a tap of.
fn transposed(taps: &[Vec<Tap>], from: usize) -> Vec<Vec<Tap>> {
    let mut lists = vec![Vec::new(); from];
    for (place, taps) in taps.iter().enumerate() {
        taps.iter().for_each(|&(at, weight)| lists[at].push((place, weight)));
    }
    lists
}

/// Lists of taps one behind the other: `starts[i]..starts[i + 1]` are those of place i. Rows come first,
/// then columns.
struct Lists {
    starts: Ids,
    places: Ids,
    weights: Array,
}

impl Lists {
    fn new(client: &Client, rows: &[Vec<Tap>], columns: &[Vec<Tap>]) -> Self {
        let all = || rows.iter().chain(columns);
        let mut starts = vec![0u32];
        let mut end = 0;
        for list in all() {
            end += list.len() as u32;
            starts.push(end);
        }
        let places: Vec<u32> = all().flatten().map(|&(place, _)| place as u32).collect();
        let weights: Vec<f32> = all().flatten().map(|&(_, weight)| weight).collect();
        Self {
            starts: Ids::from_slice(client, &starts),
            places: Ids::from_slice(client, &places),
            weights: Array::from_f32(client, &weights),
        }
    }
}

/// `out[y, x] = Σ over taps of y and x of weight · weight · source[place, place]`; a row of `source` has
/// `source_columns` places.
#[allow(clippy::too_many_arguments, reason = "both grids, both lists and both arrays")]
fn resample(
    client: &Client,
    source: &Array,
    source_columns: usize,
    rows: &[Vec<Tap>],
    columns: &[Vec<Tap>],
    width: usize,
    out: &Array,
    accumulate: bool,
) {
    if out.len == 0 {
        return;
    }
    let lists = Lists::new(client, rows, columns);
    let vector = launch::vector_size(width);
    let (count, dim) = launch::elements(client, out.len / vector);
    // SAFETY: guarded by the number of vectors in `out`; taps lie inside `source` by construction.
    unsafe {
        resample_kernel::launch_unchecked(
            client,
            count,
            dim,
            vector,
            source.arg(),
            lists.starts.arg(),
            lists.places.arg(),
            lists.weights.arg(),
            out.arg(),
            (out.len / vector) as u32,
            source_columns as u32,
            rows.len() as u32,
            columns.len() as u32,
            (width / vector) as u32,
            accumulate,
        );
    }
}

/// One unit owns one vector of the output.
#[cube(launch_unchecked)]
fn resample_kernel<N: Size>(
    source: &[Vector<f32, N>],
    starts: &[u32],
    places: &[u32],
    weights: &[f32],
    out: &mut [Vector<f32, N>],
    vectors: u32,
    source_columns: u32,
    rows: u32,
    columns: u32,
    width: u32,
    #[comptime] accumulate: bool,
) {
    let i = ABSOLUTE_POS;
    if i < vectors as usize {
        let width = width as usize;
        let place = i / width;
        let y = place / columns as usize;
        let x = rows as usize + place % columns as usize;
        let mut sum = Vector::<f32, N>::new(0.0f32);
        if comptime!(accumulate) {
            sum = out[i];
        }
        let lane = i % width;
        let (first, end) = (starts[x], starts[x + 1]);
        for row in starts[y]..starts[y + 1] {
            let row_weight = weights[row as usize];
            let line = places[row as usize] * source_columns;
            for column in first..end {
                let weight = row_weight * weights[column as usize];
                let at = line + places[column as usize];
                sum += Vector::new(weight) * source[at as usize * width + lane];
            }
        }
        out[i] = sum;
    }
}
