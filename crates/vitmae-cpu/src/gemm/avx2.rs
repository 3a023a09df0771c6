//! The micro-kernel for AVX2 with FMA, 6 rows by 16 columns, and the transposition that packs for it.

use super::kernel::{Corner, Lines, Rows, by_rows};
use std::arch::x86_64::*;

const NR: usize = 16;
/// Steps of k between two branches: short products stay within what the branch predictor remembers.
const UNROLL: usize = 4;

/// See [`super::kernel::Tile::kernel`] for its contract.
pub(super) unsafe fn kernel(k: usize, a: Rows, b: *const f32, c: Corner, accumulate: bool) {
    // SAFETY: the contract of `Tile::kernel`.
    unsafe { by_rows!(rows, k, a, b, c, accumulate, 1 2 3 4 5 6) }
}

/// 12 accumulators of 8, two loads of `B` and a broadcast of `A`: 15 of 16 registers.
///
/// `PACKED`: the rows of `A` are neighbours.
#[target_feature(enable = "avx2,fma")]
unsafe fn rows<const ROWS: usize, const PACKED: bool>(
    k: usize,
    a: Rows,
    b: *const f32,
    c: Corner,
    accumulate: bool,
) {
    for i in 0..ROWS {
        let c = c.data.wrapping_add(i * c.stride);
        _mm_prefetch::<_MM_HINT_T0>(c.cast());
        _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(NR - 1).cast());
    }
    let row = if PACKED { 1 } else { a.row };
    let step = if PACKED { a.k } else { 1 };
    let mut acc = [[_mm256_setzero_ps(); 2]; ROWS];
    let (mut a_k, mut b_k) = (a.data, b);
    for _ in 0..k / UNROLL {
        for p in 0..UNROLL {
            // SAFETY: the contract of `Tile::kernel`.
            unsafe { outer_product(a_k, row, b_k.add(p * NR), &mut acc) };
            a_k = a_k.wrapping_add(step);
        }
        b_k = b_k.wrapping_add(UNROLL * NR);
    }
    for _ in 0..k % UNROLL {
        // SAFETY: as above.
        unsafe { outer_product(a_k, row, b_k, &mut acc) };
        a_k = a_k.wrapping_add(step);
        b_k = b_k.wrapping_add(NR);
    }
    if c.cols == NR {
        for (i, acc) in acc.iter().enumerate() {
            // SAFETY: row i of the corner has sixteen writable values.
            unsafe { store(c.data.add(i * c.stride), acc, accumulate) };
        }
    } else {
        for (i, acc) in acc.iter().enumerate() {
            // SAFETY: row i of the corner.
            unsafe { store_narrow(c.data.add(i * c.stride), c.cols, acc, accumulate) };
        }
    }
}

/// Adds a column of `A` times a row of `B`.
///
/// # Safety
/// `a` points to a value every `row` floats for each accumulator, `b` to sixteen.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn outer_product<const ROWS: usize>(
    a: *const f32,
    row: usize,
    b: *const f32,
    acc: &mut [[__m256; 2]; ROWS],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let b = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))];
        for (i, acc) in acc.iter_mut().enumerate() {
            let a = _mm256_broadcast_ss(&*a.add(i * row));
            acc[0] = _mm256_fmadd_ps(a, b[0], acc[0]);
            acc[1] = _mm256_fmadd_ps(a, b[1], acc[1]);
        }
    }
}

/// Writes or adds a full row of a tile.
///
/// # Safety
/// `c` points to sixteen writable values.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn store(c: *mut f32, acc: &[__m256; 2], accumulate: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        let [mut v0, mut v1] = *acc;
        if accumulate {
            v0 = _mm256_add_ps(_mm256_loadu_ps(c), v0);
            v1 = _mm256_add_ps(_mm256_loadu_ps(c.add(8)), v1);
        }
        _mm256_storeu_ps(c, v0);
        _mm256_storeu_ps(c.add(8), v1);
    }
}

/// Writes or adds a row of a tile with fewer than sixteen columns, through a buffer.
///
/// # Safety
/// `c` points to `cols` writable values.
#[target_feature(enable = "avx2,fma")]
unsafe fn store_narrow(c: *mut f32, cols: usize, acc: &[__m256; 2], accumulate: bool) {
    let mut row = [0.0f32; NR];
    // SAFETY: the buffer holds sixteen values, C at least `cols`.
    let c = unsafe {
        store(row.as_mut_ptr(), acc, false);
        std::slice::from_raw_parts_mut(c, cols)
    };
    for (c, v) in c.iter_mut().zip(row) {
        *c = if accumulate { *c + v } else { v };
    }
}

/// See [`super::kernel::Tile::transpose`] for its contract.
pub(super) unsafe fn transpose(lines: Lines, k: usize, panel: *mut f32, pitch: usize) {
    // SAFETY: the contract of `Tile::transpose`.
    unsafe { transpose_blocks(lines, k, panel, pitch) }
}

/// Transposes blocks of 8 × 8 in registers.
///
/// A block with fewer than eight lines writes zeros over the next rows of the panel. Those are written
/// later: blocks run from the last lines to the first, and from small k to large. The last rows of the
/// panel go one value at a time.
#[target_feature(enable = "avx2")]
unsafe fn transpose_blocks(lines: Lines, k: usize, panel: *mut f32, pitch: usize) {
    let blocks = lines.count.div_ceil(8);
    // The last row that the vectors write ends inside the panel, with what it writes too much.
    let vectors = (k + 1).saturating_sub((blocks * 8).div_ceil(pitch)) / 8;
    for p in (0..vectors).map(|p| p * 8) {
        for first in (0..blocks).rev().map(|block| block * 8) {
            let count = (lines.count - first).min(8);
            // SAFETY: lines hold k values each; each store of eight ends inside the panel, see above.
            unsafe {
                let mut rows = [_mm256_setzero_ps(); 8];
                for (i, row) in rows.iter_mut().enumerate() {
                    if i < count {
                        *row = _mm256_loadu_ps(lines.data.add((first + i) * lines.stride + p));
                    }
                }
                for (q, row) in transpose8(rows).into_iter().enumerate() {
                    _mm256_storeu_ps(panel.add((p + q) * pitch + first), row);
                }
            }
        }
    }
    for p in vectors * 8..k {
        for i in 0..lines.count {
            // SAFETY: line i holds k values, row p of the panel at least `count`.
            unsafe { *panel.add(p * pitch + i) = *lines.data.add(i * lines.stride + p) };
        }
    }
}

/// The transpose of an 8 × 8 block.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose8(r: [__m256; 8]) -> [__m256; 8] {
    let low = |i: usize| _mm256_unpacklo_ps(r[i], r[i + 1]);
    let high = |i: usize| _mm256_unpackhi_ps(r[i], r[i + 1]);
    let pairs = [[low(0), low(2), low(4), low(6)], [high(0), high(2), high(4), high(6)]];
    let quads = |[a, b, c, d]: [__m256; 4]| {
        [
            [_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0x44>(c, d)],
            [_mm256_shuffle_ps::<0xee>(a, b), _mm256_shuffle_ps::<0xee>(c, d)],
        ]
    };
    let [[q0, q1], [q2, q3]] = pairs.map(quads);
    let halves = [q0, q1, q2, q3];
    let lower = halves.map(|[a, b]| _mm256_permute2f128_ps::<0x20>(a, b));
    let upper = halves.map(|[a, b]| _mm256_permute2f128_ps::<0x31>(a, b));
    let [a, b, c, d] = lower;
    let [e, f, g, h] = upper;
    [a, b, c, d, e, f, g, h]
}
