//! Sums and means over rows.
//!
//! Oracle: `vitmae_testing::reference::reduce`.

use rayon::prelude::*;

use crate::parallel::{self, CHUNK, SharedMut, rows_per_task};
use crate::scratch;
use crate::simd::multiversion;
use crate::values::Values;

/// Most partial sums of a column sum, so that their own sum stays short.
const PARTS: usize = 64;

/// Column sums: `out[d] = Σ_n x[n, d]`; `accumulate` adds them to what is there.
///
/// Two fixed stages: rows are split at places that depend on the shape alone, each part is summed from
/// its first row to its last, then the parts are added in order.
///
/// # Shapes
/// `x: [N, D]`, `out: [D]`
///
/// # Panics
/// If `x` is not a whole number of rows.
pub fn sum_rows<'x>(x: impl Into<Values<'x>>, out: &mut [f32], accumulate: bool) {
    let x = x.into();
    let width = out.len();
    if width == 0 {
        return;
    }
    assert!(x.len().is_multiple_of(width), "reduce: x is not rows of {width}");
    let rows = x.len() / width;
    let per_part = rows_per_task(width).max(rows.div_ceil(PARTS));
    let parts = rows.div_ceil(per_part);
    let mut partial = scratch::take(parts * width);
    let shared = SharedMut::new(&mut partial);
    let together = x.rows_together(per_part, width);
    parallel::for_each(parts, |part| {
        // SAFETY: each task owns its row of partial sums.
        let sums = unsafe { shared.slice(part * width, width) };
        sums.fill(0.0);
        let last = ((part + 1) * per_part).min(rows);
        let mut buffer = scratch::take(x.buffer_len(together * width));
        for first in (part * per_part..last).step_by(together) {
            let end = last.min(first + together);
            add_rows(x.widened(first * width..end * width, &mut buffer), sums);
        }
    });
    if !accumulate {
        out.fill(0.0);
    }
    add_rows(&partial, out);
}

multiversion! {
    /// Adds every row of `x` to `sums`.
    pub(crate) fn add_rows(x: &[f32], sums: &mut [f32]) {
        for row in x.chunks_exact(sums.len()) {
            for (sum, x) in sums.iter_mut().zip(row) {
                *sum += x;
            }
        }
    }
}

/// `out = a + b`.
///
/// # Panics
/// If the lengths differ.
pub fn add(a: &[f32], b: &[f32], out: &mut [f32]) {
    assert!(a.len() == b.len() && a.len() == out.len(), "reduce: add");
    let inputs = a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK));
    out.par_chunks_mut(CHUNK).zip(inputs).for_each(|(out, (a, b))| {
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = a + b;
        }
    });
}

/// `out[b] = mean of x[b, first..]`.
///
/// # Shapes
/// `x: [B, N, D]`, `out: [B, D]`
///
/// # Panics
/// If a length does not fit or no token is left.
pub fn mean_tokens(x: &[f32], tokens: usize, width: usize, first: usize, out: &mut [f32]) {
    check_tokens(x.len(), out.len(), tokens, width, first);
    let factor = 1.0 / (tokens - first) as f32;
    out.par_chunks_mut(width).zip(x.par_chunks(tokens * width)).for_each(|(out, x)| {
        out.fill(0.0);
        add_rows(&x[first * width..], out);
        out.iter_mut().for_each(|out| *out *= factor);
    });
}

/// Backward of [`mean_tokens`]: `dx[b, n] = dout[b] / (N − first)` from `first` on, 0 before.
///
/// # Shapes
/// `dout: [B, D]`, `dx: [B, N, D]`
///
/// # Panics
/// As [`mean_tokens`].
pub fn mean_tokens_backward(
    dout: &[f32],
    tokens: usize,
    width: usize,
    first: usize,
    dx: &mut [f32],
) {
    check_tokens(dx.len(), dout.len(), tokens, width, first);
    let factor = 1.0 / (tokens - first) as f32;
    dx.par_chunks_mut(tokens * width).zip(dout.par_chunks(width)).for_each(|(dx, dout)| {
        for (token, dx) in dx.chunks_exact_mut(width).enumerate() {
            let factor = if token < first { 0.0 } else { factor };
            dx.iter_mut().zip(dout).for_each(|(dx, dout)| *dx = dout * factor);
        }
    });
}

fn check_tokens(x: usize, out: usize, tokens: usize, width: usize, first: usize) {
    assert!(first < tokens && width > 0, "reduce: no token from {first} on");
    assert!(out.is_multiple_of(width) && x == out * tokens, "reduce: mean of {tokens} tokens");
}
