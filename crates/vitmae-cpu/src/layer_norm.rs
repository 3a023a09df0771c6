//! Layer normalisation over the last axis, forward and backward.
//!
//!   mean = Σx / D      rstd = 1 / √(Σ(x − mean)² / D + eps)      (biased variance)
//!   y    = (x − mean) · rstd · weight + bias
//!
//! Source: `torch.nn.functional.layer_norm`; arXiv:1607.06450.
//! Oracle: `vitmae_testing::reference::layer_norm`.

use crate::parallel::{self, SharedMut, rows_per_task};
use crate::scratch;
use crate::simd::{self, LANES, fma, multiversion};
use crate::values::{SharedValues, Values, ValuesMut};

/// Chunks of rows with sums of their own in the backward pass, at most.
const CHUNKS: usize = 64;
/// Columns a task adds up over the chunks.
const COLUMNS: usize = 256;

/// Normalises each row of `x`; `mean` and `rstd` are kept for [`backward`].
///
/// # Shapes
/// `x: [N, D]`, `weight, bias: [D]` → `y: [N, D]`, `mean, rstd: [N]`
///
/// # Panics
/// If a length does not fit the others.
pub fn forward<'y>(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    y: impl Into<ValuesMut<'y>>,
    mean: &mut [f32],
    rstd: &mut [f32],
) {
    let y = y.into();
    let (n, d) = (mean.len(), weight.len());
    assert_eq!(x.len(), n * d, "layer_norm: x");
    assert_eq!(bias.len(), d, "layer_norm: bias");
    assert_eq!(y.len(), n * d, "layer_norm: y");
    assert_eq!(rstd.len(), n, "layer_norm: rstd");
    if n * d == 0 {
        return;
    }
    let chunk = rows_per_task(d);
    let (y, mean, rstd) = (SharedValues::new(y), SharedMut::new(mean), SharedMut::new(rstd));
    // Rows that go through a buffer in f32 stay in the first-level cache.
    let together = y.rows_together(chunk, d);
    parallel::for_each(n.div_ceil(chunk), |task| {
        let mut buffer = scratch::take(y.buffer_len(together * d));
        let last = n.min((task + 1) * chunk);
        for first in (task * chunk..last).step_by(together) {
            let rows = together.min(last - first);
            let x = &x[first * d..][..rows * d];
            // SAFETY: tasks own disjoint rows.
            unsafe {
                let (mean, rstd) = (mean.slice(first, rows), rstd.slice(first, rows));
                let fill = |y: &mut [f32]| forward_rows(x, weight, bias, eps, y, mean, rstd);
                y.write(first * d, rows * d, &mut buffer, fill);
            }
        }
    });
}

/// The gradient of [`forward`]; `residual` is the gradient that went around the norm.
///
///   x̂ = (x − mean)·rstd     g = dy ⊙ weight     dx = residual + rstd·(g − mean(g) − x̂·mean(g ⊙ x̂))
///   dweight = Σ_rows dy ⊙ x̂                      dbias = Σ_rows dy
///
/// `accumulate` adds to `dweight` and `dbias`; `dx` is overwritten.
///
/// # Shapes
/// `dy, x, residual: [N, D]`, `weight: [D]`, `mean, rstd: [N]` → `dx: [N, D]`, `dweight, dbias: [D]`
///
/// # Panics
/// If a length does not fit the others.
#[allow(clippy::too_many_arguments, reason = "kernels take plain slices")]
pub fn backward<'y>(
    dy: impl Into<Values<'y>>,
    x: &[f32],
    weight: &[f32],
    mean: &[f32],
    rstd: &[f32],
    residual: Option<&[f32]>,
    dx: &mut [f32],
    dweight: &mut [f32],
    dbias: &mut [f32],
    accumulate: bool,
) {
    let dy = dy.into();
    let (n, d) = (mean.len(), weight.len());
    assert_eq!(x.len(), n * d, "layer_norm: x");
    assert_eq!(dy.len(), n * d, "layer_norm: dy");
    assert_eq!(rstd.len(), n, "layer_norm: rstd");
    assert!(residual.is_none_or(|r| r.len() == n * d), "layer_norm: residual");
    assert_eq!(dx.len(), n * d, "layer_norm: dx");
    assert_eq!((dweight.len(), dbias.len()), (d, d), "layer_norm: dweight, dbias");
    if d == 0 {
        return;
    }
    // Each chunk of rows adds up its own dweight and dbias, so that the data are read once.
    let chunk = rows_per_task(d).max(n.div_ceil(CHUNKS));
    let chunks = n.div_ceil(chunk);
    let (stride, together) = (d.next_multiple_of(LANES), dy.rows_together(chunk, d));
    let mut partial = scratch::take(chunks * 2 * stride);
    let (sums, dx) = (SharedMut::new(&mut partial), SharedMut::new(dx));
    parallel::for_each(chunks, |task| {
        // SAFETY: tasks own disjoint sums.
        let sums = unsafe { sums.slice(task * 2 * stride, 2 * stride) };
        sums.fill(0.0);
        let (dweight, dbias) = sums.split_at_mut(stride);
        let (dweight, dbias) = (&mut dweight[..d], &mut dbias[..d]);
        let mut buffer = scratch::take(dy.buffer_len(together * d));
        let last = n.min((task + 1) * chunk);
        for first in (task * chunk..last).step_by(together) {
            let rows = together.min(last - first);
            let range = first * d..(first + rows) * d;
            // SAFETY: tasks own disjoint rows.
            let dx = unsafe { dx.slice(range.start, range.len()) };
            let (mean, rstd) = (&mean[first..], &rstd[first..]);
            let residual = residual.map(|r| &r[range.clone()]);
            let (dy, x) = (dy.widened(range.clone(), &mut buffer), &x[range]);
            backward_rows(dy, x, weight, mean, rstd, residual, dx, dweight, dbias);
        }
    });
    let out = [SharedMut::new(dweight), SharedMut::new(dbias)];
    parallel::for_each(d.div_ceil(COLUMNS), |task| {
        let (first, cols) = (task * COLUMNS, COLUMNS.min(d - task * COLUMNS));
        for (which, out) in out.iter().enumerate() {
            // SAFETY: tasks own disjoint columns.
            let out = unsafe { out.slice(first, cols) };
            add_chunks(&partial, which * stride + first, 2 * stride, chunks, out, accumulate);
        }
    });
}

/// `out = Σ_chunks partial[start + chunk · stride ..]`, on top of what is there if `accumulate`.
fn add_chunks(
    partial: &[f32],
    start: usize,
    stride: usize,
    chunks: usize,
    out: &mut [f32],
    accumulate: bool,
) {
    let mut sum = [0.0f32; COLUMNS];
    let sum = &mut sum[..out.len()];
    for chunk in 0..chunks {
        let part = &partial[start + chunk * stride..];
        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    for (out, sum) in out.iter_mut().zip(sum) {
        *out = if accumulate { *out + *sum } else { *sum };
    }
}

multiversion! {
    fn forward_rows(
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        eps: f32,
        y: &mut [f32],
        mean: &mut [f32],
        rstd: &mut [f32],
    ) {
        let d = weight.len();
        for (row, (x, y)) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).enumerate() {
            let centre = lane_sums(x, |x, sum| sum + x) / d as f32;
            let square = |x: f32, sum: f32| fma::<FMA>(x - centre, x - centre, sum);
            let variance = lane_sums(x, square) / d as f32;
            let scale = 1.0 / (variance + eps).sqrt();
            for ((y, x), (weight, bias)) in y.iter_mut().zip(x).zip(weight.iter().zip(bias)) {
                *y = fma::<FMA>((x - centre) * scale, *weight, *bias);
            }
            mean[row] = centre;
            rstd[row] = scale;
        }
    }
}

/// Runs `add(value, sum)` over a row, with several sums side by side.
#[inline(always)]
fn lane_sums(x: &[f32], add: impl Fn(f32, f32) -> f32) -> f32 {
    const PARTS: usize = 4 * LANES;
    let mut sums = [0.0f32; PARTS];
    let (parts, rest) = x.as_chunks::<PARTS>();
    for x in parts {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum = add(*x, *sum);
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum = add(*x, *sum);
    }
    let (lanes, _) = sums.as_chunks::<LANES>();
    simd::sum_lanes(std::array::from_fn(|i| {
        (lanes[0][i] + lanes[1][i]) + (lanes[2][i] + lanes[3][i])
    }))
}

multiversion! {
    fn backward_rows(
        dy: &[f32],
        x: &[f32],
        weight: &[f32],
        mean: &[f32],
        rstd: &[f32],
        residual: Option<&[f32]>,
        dx: &mut [f32],
        dweight: &mut [f32],
        dbias: &mut [f32],
    ) {
        let d = weight.len();
        for (row, dx) in dx.chunks_exact_mut(d).enumerate() {
            let (x, dy) = (&x[row * d..][..d], &dy[row * d..][..d]);
            let (mean, rstd) = (mean[row], rstd[row]);
            let mut sums = Sums { mean, rstd, g: [0.0; LANES], gx: [0.0; LANES] };
            let (dw, dw_rest) = dweight.as_chunks_mut::<LANES>();
            let (db, db_rest) = dbias.as_chunks_mut::<LANES>();
            let (w, w_rest) = weight.as_chunks::<LANES>();
            let (x_lanes, x_rest) = x.as_chunks::<LANES>();
            let (dy_lanes, dy_rest) = dy.as_chunks::<LANES>();
            let columns = dw.iter_mut().zip(db).zip(w).zip(dy_lanes.iter().zip(x_lanes));
            for (((dw, db), w), (dy, x)) in columns {
                sums.add::<FMA>(dy, x, w, dw, db);
            }
            sums.add::<FMA>(dy_rest, x_rest, w_rest, dw_rest, db_rest);

            let mean_g = simd::sum_lanes(sums.g) / d as f32;
            let mean_gx = simd::sum_lanes(sums.gx) / d as f32;
            for ((dx, w), (x, dy)) in dx.iter_mut().zip(weight).zip(x.iter().zip(dy)) {
                let normalised = (x - mean) * rstd;
                let g = fma::<FMA>(*dy, *w, -mean_g);
                *dx = rstd * fma::<FMA>(-normalised, mean_gx, g);
            }
            if let Some(residual) = residual {
                dx.iter_mut().zip(&residual[row * d..][..d]).for_each(|(dx, r)| *dx += r);
            }
        }
    }
}

/// The sums that the gradient of one row needs: Σg and Σg·x̂ in lanes.
struct Sums {
    mean: f32,
    rstd: f32,
    g: [f32; LANES],
    gx: [f32; LANES],
}

impl Sums {
    /// Takes in at most `LANES` columns and adds their dweight and dbias.
    #[inline(always)]
    fn add<const FMA: bool>(
        &mut self,
        dy: &[f32],
        x: &[f32],
        weight: &[f32],
        dweight: &mut [f32],
        dbias: &mut [f32],
    ) {
        let sums = self.g.iter_mut().zip(&mut self.gx);
        let columns = dy.iter().zip(x).zip(weight).zip(dweight.iter_mut().zip(dbias));
        for ((sum_g, sum_gx), (((dy, x), weight), (dweight, dbias))) in sums.zip(columns) {
            let normalised = (x - self.mean) * self.rstd;
            let g = dy * weight;
            *sum_g += g;
            *sum_gx = fma::<FMA>(g, normalised, *sum_gx);
            *dweight = fma::<FMA>(*dy, normalised, *dweight);
            *dbias += dy;
        }
    }
}
